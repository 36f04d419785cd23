"""Decisions counted in windows of event time: for a report, for monitoring, for a table of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection
from apache_beam.transforms.core import Windowing
from apache_beam.transforms.trigger import AccumulationMode, AfterCount, AfterProcessingTime, AfterWatermark
from apache_beam.transforms.window import FixedWindows, GlobalWindows, IntervalWindow, SlidingWindows
from apache_beam.utils.timestamp import Duration, Timestamp
from apache_beam.utils.windowed_value import PaneInfoTiming, WindowedValue

from transforms.batch import TransactionBatch
from transforms.durations import DAY, HOUR, SECOND
from transforms.errors import UserError
from transforms.window_summary import Pane, Windows, WindowSummary, window_partials, window_summaries

__all__ = ["SummarizeWindows", "WindowSummary"]

_PANES: dict[int, Pane] = {PaneInfoTiming.EARLY: "early", PaneInfoTiming.LATE: "late"}


class SummarizeWindows(beam.PTransform[PCollection[TransactionBatch], PCollection[WindowSummary]]):
    """Count decisions, amounts, alerts and score quantiles in windows of event time.

    On a stream a window is summarised when the watermark passes its end, before that every `early_us`
    of processing time if asked to, and again for each late row that comes within the allowed lateness;
    each summary counts everything so far. Rows later than that are in no summary, as Beam's windows
    have it; their decisions are not touched. Input that is bounded is summarised once, whole, at its end:
    the watermark of such input tells early from late no better, and each window costs far less.

    The summaries are in the windows they tell of.

    Args:
        window_us: a window's length in microseconds.
        every_us: a sliding window's period in microseconds; None for fixed windows.
        allowed_lateness_us: how long a closed window still takes late rows.
        early_us: how often an open window reports, in whole seconds; None for only when it closes.
        by: a column to part each window by, such as `merchant_category`; rows without a value count together.

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

    def expand(self, pcoll: PCollection[TransactionBatch]) -> PCollection[WindowSummary]:
        summaries: PCollection[WindowSummary]
        if pcoll.is_bounded:
            count = beam.ParDo(_CountByDay(self.windows, self.by)).with_output_types(_Partial)
            grouped = (
                pcoll
                | "CountByDay" >> count
                | "UntilTheEnd" >> beam.WindowInto(GlobalWindows())
                | "GroupDays" >> beam.GroupByKey()
            )
            summaries = grouped | "SummarizeDays" >> _IntoWindows(
                _SummarizeDay(self.windows, self.by), WindowSummary, self.windowing()
            )
            return summaries
        counted = pcoll | "CountByWindow" >> _IntoWindows(
            _CountByWindow(self.windows, self.by), _Partial, self.windowing()
        )
        summarize = beam.ParDo(_SummarizeWindow(self.windows, self.by)).with_output_types(WindowSummary)
        summaries = counted | "GroupWindows" >> beam.GroupByKey() | "Summarize" >> summarize
        return summaries

    def windowing(self) -> Windowing:
        """The windows and when they fire, as Beam has them."""
        size, every = Duration(micros=self.windows.size), Duration(micros=self.windows.every)
        early = AfterProcessingTime(self.early_us // SECOND) if self.early_us else None
        return Windowing(
            FixedWindows(size) if size == every else SlidingWindows(size, every),
            triggerfn=AfterWatermark(early=early, late=AfterCount(1)),
            accumulation_mode=AccumulationMode.ACCUMULATING,
            allowed_lateness=self.allowed_lateness_us / SECOND,
        )


#: (category, number of a span of time) and a partial count. The span is part of the key, because on
#: some runners all windows of a key share one worker, or cost more the more of them there are.
_Partial = tuple[tuple[str, int], bytes]


class _IntoWindows(beam.ParDo):
    """A ParDo whose function puts its outputs into windows itself.

    `beam.WindowInto` would give a partial count of a sliding window every window around its timestamp,
    also those it was not counted for.
    """

    def __init__(self, fn: beam.DoFn, output_type: Any, windowing: Windowing) -> None:
        beam.ParDo.__init__(self, fn)
        beam.ParDo.with_output_types(self, output_type)
        self.windowing = windowing

    def get_windowing(self, inputs: Any) -> Windowing:
        return self.windowing


class _Counting(beam.DoFn):
    def __init__(self, windows: Windows, by: str | None) -> None:
        self.windows = windows
        self.by = by

    def in_window(self, value: Any, start: int, timestamp: Timestamp) -> Any:
        """The element `value` in the window from `start`, as Beam takes it from a function's `process`."""
        window = IntervalWindow(Timestamp(micros=start), Timestamp(micros=start + self.windows.size))
        return WindowedValue(value, timestamp, (window,))


class _CountByWindow(_Counting):
    def process(self, element: TransactionBatch) -> Iterator[_Partial]:
        for key, earliest, partial in window_partials(element, self.windows, self.by, self.windows.every):
            # The time of a counted row: not before the batch's own, so that nothing turns late here.
            timestamp = Timestamp(micros=earliest - earliest % 1000)
            yield self.in_window((key, partial), key[1] * self.windows.every, timestamp)


class _SummarizeWindow(_Counting):
    def process(
        self, element: tuple[tuple[str, int], Iterable[bytes]], pane: Any = beam.DoFn.PaneInfoParam
    ) -> Iterator[WindowSummary]:
        (category, _), partials = element
        timing, firing = _PANES.get(pane.timing, "on_time"), max(pane.index, 0)
        yield from window_summaries(category, partials, self.windows, self.by, timing, firing)


class _CountByDay(_Counting):
    def process(self, element: TransactionBatch) -> Iterator[_Partial]:
        for key, _, partial in window_partials(element, self.windows, self.by, DAY):
            yield key, partial


class _SummarizeDay(_Counting):
    def process(self, element: tuple[tuple[str, int], Iterable[bytes]]) -> Iterator[WindowSummary]:
        (category, _), partials = element
        for summary in window_summaries(category, partials, self.windows, self.by):
            yield self.in_window(summary, summary.window_start, Timestamp(micros=summary.window_end - 1000))
