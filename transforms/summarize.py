"""Decisions counted in windows of event time: for a report, for monitoring, for a table of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import apache_beam as beam
from apache_beam.pvalue import PCollection
from apache_beam.transforms.core import Windowing
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.timestamp import Timestamp

from transforms.batch import TransactionBatch
from transforms.durations import DAY, HOUR, SECOND
from transforms.errors import UserError
from transforms.histograms import Ints
from transforms.open_windows import Kind, OfAKind, TellWindows, tell_open_windows
from transforms.window_counts import COUNT, Windows, add_counts, read_counts
from transforms.window_summary import WindowSummary, window_partials, window_summaries
from transforms.windowing import IntoWindows, in_window, windowing

__all__ = ["SummarizeWindows", "WindowSummary"]


class SummarizeWindows(beam.PTransform[PCollection[TransactionBatch], PCollection[WindowSummary]]):
    """Count decisions, amounts, alerts and score quantiles in windows of event time.

    On a stream a window is summarised when the watermark passes its end, before that every `early_us`
    of processing time if asked to, and again for each late row that comes within the allowed lateness;
    each summary counts everything so far. Rows later than that are in no summary, and counted by the metric
    `summaries.rows_too_late`; their decisions are not touched. How far the watermark is, is known by the windows it has
    passed: a late row may be counted for longer than it must.

    Input that is bounded is summarised once, whole, at its end: the watermark of such input tells early from late
    no better.

    The summaries are in the windows they tell of.

    Args:
        window_us: a window's length in microseconds.
        every_us: a sliding window's period in microseconds; None for fixed windows.
        allowed_lateness_us: how long a closed window still takes late rows.
        early_us: how often an open window reports, in whole seconds; None for only when it closes.
        by: a column to part each window by, such as `merchant_category`; rows without a value count together.
            On a stream each value is remembered for good, with a hundred bytes: too many would be a burden.
        now: the clock by which open windows report.

    Raises:
        UserError: a length that windows cannot have.

    Example:
        >>> import apache_beam as beam
        >>> import pyarrow as pa
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> from apache_beam.testing.util import assert_that, equal_to
        >>> from transforms.batch import from_rows
        >>> rows = [{"transaction_id": str(n), "event_time": n * 20_000_000, "amount_minor": 500, "score": 0.1 * n,
        ...          "decision": "review" if n > 3 else "approve"} for n in range(6)]
        >>> with TestPipeline() as pipeline:
        ...     batches = pipeline | beam.Create([from_rows(rows, {"score": pa.float64(), "decision": pa.string()})])
        ...     summaries = batches | SummarizeWindows(60_000_000)
        ...     _ = assert_that(summaries | beam.Map(lambda window: (window.window_start, window.counts)),
        ...                     equal_to([(0, {"approve": 3}), (60_000_000, {"approve": 1, "review": 2})]))
    """

    def __init__(
        self,
        window_us: int = 60 * SECOND,
        every_us: int | None = None,
        allowed_lateness_us: int = HOUR,
        early_us: int | None = None,
        by: str | None = None,
        now: Callable[[], Timestamp] = Timestamp.now,
    ) -> None:
        super().__init__()
        self.windows = Windows(window_us, window_us if every_us is None else every_us)
        if allowed_lateness_us < 0:
            raise UserError(f"a window's allowed lateness must be 0 or more; found {allowed_lateness_us} us")
        if early_us is not None and (early_us <= 0 or early_us % SECOND):
            # Beam's processing-time trigger counts whole seconds.
            raise UserError(f"open windows can report every whole seconds, 1 or more; found {early_us} us")
        self.allowed_lateness_us = allowed_lateness_us
        self.early_us = early_us
        self.by = by
        self.now = now

    def expand(self, pcoll: PCollection[TransactionBatch]) -> PCollection[WindowSummary]:
        summaries: PCollection[WindowSummary]
        if pcoll.is_bounded:
            summaries = (
                pcoll
                | "CountByDay" >> beam.ParDo(_CountByDay(self.windows, self.by)).with_output_types(_Dated)
                | "UntilTheEnd" >> beam.WindowInto(GlobalWindows())
                | "GroupDays" >> beam.GroupByKey()
                | "SummarizeDays" >> IntoWindows(_SummarizeDay(self.windows, self.by), WindowSummary, self.windowing())
            )
            return summaries
        how = TellWindows(Summaries(), self.allowed_lateness_us, self.early_us, now=self.now)
        summaries = (
            pcoll
            | "Count" >> beam.ParDo(_Count(self.windows, self.by)).with_output_types(OfAKind)
            | "AnyWindow" >> beam.WindowInto(GlobalWindows())
            | "Tell" >> IntoWindows(tell_open_windows(how, "summarize"), WindowSummary, self.windowing())
        )
        return summaries

    def windowing(self) -> Windowing:
        """The windows of the summaries, and when what is grouped by them fires, as Beam has it."""
        return windowing(self.windows, self.allowed_lateness_us, self.early_us)


#: (category, number of a day) and a partial count. The day is part of the key, so that days are spread.
_Dated = tuple[tuple[str, int], bytes]


class Summaries:
    """Summaries as `TellWindows` tells them."""

    metrics = "summaries"

    def rows(self, counts: Ints) -> int:
        return int(counts[:, COUNT].sum())

    def tell(self, kind: Kind, counts: Ints) -> list[WindowSummary]:
        return window_summaries(kind.category, counts, kind.windows, kind.by or None)


class _Counting(beam.DoFn):
    def __init__(self, windows: Windows, by: str | None) -> None:
        self.windows = windows
        self.by = by


class _Count(_Counting):
    def process(self, element: TransactionBatch) -> Iterator[OfAKind]:
        for category, _, partial in window_partials(element, self.windows, self.by):
            yield (self.by or "", category, self.windows.size, self.windows.every), partial


class _CountByDay(_Counting):
    def process(self, element: TransactionBatch) -> Iterator[_Dated]:
        for category, day, partial in window_partials(element, self.windows, self.by, DAY):
            yield (category, day), partial


class _SummarizeDay(_Counting):
    def process(self, element: tuple[tuple[str, int], Iterable[bytes]]) -> Iterator[WindowSummary]:
        (category, _), partials = element
        for summary in window_summaries(category, add_counts(read_counts(partials)), self.windows, self.by):
            last = Timestamp(micros=summary.window_end - 1000)
            yield in_window(summary, summary.window_start, self.windows.size, last)
