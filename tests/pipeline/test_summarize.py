"""Windows of decisions: what is counted in them, and when a stream's windows are summarised."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam import typehints
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing import test_pipeline, test_stream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, SlidingWindows, TimestampedValue, WindowFn
from apache_beam.utils.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from transforms.batch import TransactionBatch, earliest, from_rows
from transforms.durations import DAY, HOUR, SECOND
from transforms.errors import UserError
from transforms.statistics import DECISIONS
from transforms.struct_coder import StructCoder
from transforms.summarize import SummarizeWindows
from transforms.window_counts import Windows, add_counts, read_counts
from transforms.window_summary import WindowSummary, window_partials, window_summaries

MINUTE = 60 * SECOND
DECIDED = {"merchant_category": pa.string(), "score": pa.float64(), "decision": pa.string()}


def decided(*rows: dict[str, Any]) -> TransactionBatch:
    """A decided batch; each row gives its time and what else matters to it."""
    blank = {"amount_minor": 100, "score": 0.01, "decision": "approve"}
    return from_rows([{"transaction_id": f"t{at}", **blank, **row} for at, row in enumerate(rows)], DECIDED)


def at(*seconds: float, **columns: Any) -> TransactionBatch:
    """A decided batch with rows at these seconds."""
    return decided(*({"event_time": int(second * SECOND), **columns} for second in seconds))


def told(summary: WindowSummary) -> tuple[float, dict[str, int], str, int]:
    """A summary's window start in seconds, its counts, and which summary of the window it is."""
    return summary.window_start / SECOND, summary.counts, summary.pane, summary.firing


def summaries_of(
    partials: Sequence[bytes], windows: Windows, category: str = "", by: str | None = None
) -> list[WindowSummary]:
    """The summaries of these partial counts."""
    return window_summaries(category, add_counts(read_counts(partials)), windows, by)


def stream() -> test_stream.TestStream:
    return test_stream.TestStream(coder=beam.coders.registry.get_coder(TransactionBatch))


def arriving(batch: TransactionBatch) -> list[TimestampedValue[TransactionBatch]]:
    return [TimestampedValue(batch, earliest(batch))]


def ended(events: test_stream.TestStream) -> test_stream.TestStream:
    """The stream's end, after all windows': this runner does not hold the watermark for what timers tell at the end."""
    events.advance_watermark_to(DAY // SECOND).advance_watermark_to_infinity()
    return events


#: What the clock shows when it is next looked at, in seconds.
clock: list[int] = []


def now() -> Timestamp:
    """The clock of a stream's script, whose hands nobody else can see."""
    return Timestamp(clock.pop(0))


def streaming() -> test_pipeline.TestPipeline:
    """A pipeline whose windows fire as the watermark moves, not all at the end."""
    return test_pipeline.TestPipeline(options=PipelineOptions([], streaming=True))


def check_stream(
    events: test_stream.TestStream, expected: Sequence[tuple[float, dict[str, int], str, int]], **settings: Any
) -> None:
    """Run these events through one-minute windows and compare every summary that comes out."""
    with streaming() as pipeline:
        summaries = pipeline | ended(events) | SummarizeWindows(MINUTE, **settings)
        assert_that(summaries | beam.Map(told), equal_to(list(expected)))


def test_a_window_is_summarised_when_the_watermark_passes_it() -> None:
    """Batches that reach into several windows come out as one on-time summary a window, with all of its rows."""
    events = stream().advance_watermark_to(0)
    events.add_elements(arriving(at(5, 59, 61))).add_elements(arriving(at(30, decision="review")))
    events.advance_watermark_to(60).add_elements(arriving(at(70)))
    check_stream(
        events,
        [(0, {"approve": 2, "review": 1}, "on_time", 0), (60, {"approve": 2}, "on_time", 0)],
    )


def test_an_open_window_reports_early_when_asked_to() -> None:
    """Early summaries come after the given processing time, and the on-time one counts their rows again."""
    clock.extend([0, 31, 62])
    events = stream().advance_watermark_to(6000).add_elements(arriving(at(6005)))
    events.advance_processing_time(31).add_elements(arriving(at(6006, 6007))).advance_processing_time(31)
    events.add_elements(arriving(at(6008)))
    check_stream(
        events,
        [
            (6000, {"approve": 1}, "early", 0),
            (6000, {"approve": 3}, "early", 1),
            (6000, {"approve": 4}, "on_time", 2),
        ],
        early_us=30 * SECOND,
        now=now,
    )
    assert not clock


def test_a_late_row_brings_a_summary_that_takes_the_place_of_the_last() -> None:
    """Within the allowed lateness a late batch fires its window again, with everything counted so far."""
    events = stream().advance_watermark_to(0).add_elements(arriving(at(5)))
    events.advance_watermark_to(100).add_elements(arriving(at(6, 101, decision="decline")))
    check_stream(
        events,
        [
            (0, {"approve": 1}, "on_time", 0),
            (0, {"approve": 1, "decline": 1}, "late", 1),
            (60, {"decline": 1}, "on_time", 0),
        ],
        allowed_lateness_us=2 * MINUTE,
    )


def test_a_row_beyond_the_allowed_lateness_is_in_no_summary() -> None:
    """A row too late for its window changes nothing, while rows of its batch for open windows still count."""
    events = stream().advance_watermark_to(0).add_elements(arriving(at(5)))
    events.advance_watermark_to(200).add_elements(arriving(at(6, 201)))
    check_stream(
        events,
        [(0, {"approve": 1}, "on_time", 0), (180, {"approve": 1}, "on_time", 0)],
        allowed_lateness_us=MINUTE,
    )


def test_sliding_windows_of_a_stream_each_count_their_rows() -> None:
    """A row counts in each window that covers it; a late one fires only the windows that are still taken."""
    events = stream().advance_watermark_to(0).add_elements(arriving(at(65, 95)))
    events.advance_watermark_to(121).add_elements(arriving(at(70)))
    check_stream(
        events,
        [
            (30, {"approve": 1}, "on_time", 0),
            (60, {"approve": 2}, "on_time", 0),
            (60, {"approve": 3}, "late", 1),
            (90, {"approve": 1}, "on_time", 0),
        ],
        every_us=30 * SECOND,
        allowed_lateness_us=5 * SECOND,
    )


def test_bounded_input_and_a_stream_in_order_give_the_same_summaries() -> None:
    """The way bounded input is counted and the way a stream is counted agree in every field, categories included."""
    rows = [
        {
            "event_time": n * 7 * SECOND,
            "merchant_category": (None, "food", "fuel")[n % 3],
            "score": n / 40,
            "decision": DECISIONS[n % 5 // 2],
            "amount_minor": n,
        }
        for n in range(40)
    ]
    batches = [decided(*rows[:17]), decided(*rows[17:30]), decided(*rows[30:])]
    whole = [summary for summary in _oracle(rows, Windows(MINUTE, MINUTE), "merchant_category")]
    summarize = SummarizeWindows(MINUTE, by="merchant_category")
    events = stream()
    for batch in batches:
        events.advance_watermark_to(earliest(batch)).add_elements(arriving(batch))
    with streaming() as pipeline:
        streamed = pipeline | ended(events) | summarize
        assert_that(streamed | beam.Map(_facts), equal_to(whole))
    with test_pipeline.TestPipeline() as pipeline:
        assert_that(pipeline | beam.Create(batches) | summarize | beam.Map(_facts), equal_to(whole))


def placed(
    summary: WindowSummary, window: Any = beam.DoFn.WindowParam, timestamp: Any = beam.DoFn.TimestampParam
) -> tuple[int, int, int, bool]:
    """The window that a summary tells of, the one it is in, and whether its timestamp is in it."""
    inside = bool(window.start <= timestamp < window.end)
    return summary.window_start, window.start.micros, window.end.micros, inside


@pytest.mark.parametrize("bounded", [True, False])
def test_summaries_are_in_the_windows_they_tell_of(bounded: bool) -> None:
    """What is done to the summaries by window, a join or a write, sees each in its own window and time."""
    batch = at(5, 125)
    source = beam.Create([batch]) if bounded else ended(stream().add_elements(arriving(batch)))
    with test_pipeline.TestPipeline() as pipeline:
        summaries = pipeline | source | SummarizeWindows(MINUTE)
        assert_that(
            summaries | beam.Map(placed),
            equal_to([(start, start, start + MINUTE, True) for start in (0, 2 * MINUTE)]),
        )


@pytest.mark.parametrize("bounded", [True, False])
def test_nothing_between_the_stages_is_pickled(bounded: bool) -> None:
    """Keys are text and numbers, partial counts are bytes, and summaries have their own coder."""
    pipeline = test_pipeline.TestPipeline()
    source = beam.Create([at(5)]) if bounded else stream().add_elements(arriving(at(5)))
    summaries = pipeline | source | SummarizeWindows(MINUTE)
    counted = summaries.producer.inputs[0]
    if bounded:
        assert counted.producer.inputs[0].element_type == typehints.KV[typehints.Tuple[str, int], bytes]
    else:
        assert counted.element_type == typehints.KV[typehints.Tuple[str, str, int, int], bytes]
    assert summaries.element_type == WindowSummary


def test_no_decisions_give_no_summaries() -> None:
    """An empty input, and a batch without rows, are not an error and make no windows."""
    with test_pipeline.TestPipeline() as pipeline:
        summaries = pipeline | beam.Create([at(5).slice(0, 0)]) | SummarizeWindows(MINUTE)
        assert_that(summaries, equal_to([]))


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "event_time": st.integers(-2 * HOUR, 2 * HOUR) | st.integers(-3 * DAY, 3 * DAY),
            "merchant_category": st.sampled_from([None, "", "food", "fuel"]),
            "score": st.floats(0, 1),
            "decision": st.sampled_from(DECISIONS),
            "amount_minor": st.integers(0, 10**12),
        }
    ),
    max_size=25,
)
WINDOWS = st.sampled_from([(MINUTE, MINUTE), (HOUR, 20 * 60 * SECOND), (50 * 60 * SECOND, 20 * 60 * SECOND)])


@given(ROWS, WINDOWS, st.sampled_from([None, "merchant_category"]), st.integers(0, 25), st.booleans())
def test_partial_counts_of_any_batches_give_what_counting_row_by_row_gives(
    rows: list[dict[str, Any]], windows: tuple[int, int], by: str | None, cut: int, daily: bool
) -> None:
    """Counts, amounts and rates equal those of a plain loop over the rows, however these are cut into batches.

    They do so whether windows travel alone or by the day.
    """
    of = Windows(*windows)
    grouped: dict[tuple[str, int], list[bytes]] = defaultdict(list)
    for part in (rows[:cut], rows[cut:]):
        for category, day, partial in window_partials(decided(*part), of, by, DAY if daily else None):
            grouped[category, day].append(partial)
    found = [_facts(s) for (category, _), parts in grouped.items() for s in summaries_of(parts, of, category, by)]
    assert sorted(found, key=str) == sorted(_oracle(rows, of, by), key=str)


@given(st.integers(-(10**15), 10**16), WINDOWS)
def test_windows_are_those_of_beam(time: int, windows: tuple[int, int]) -> None:
    """The windows a row is counted in are the ones Beam's own window functions assign it to."""
    size, every = windows
    fn: Any = FixedWindows(size / SECOND) if size == every else SlidingWindows(size / SECOND, every / SECOND)
    assigned = fn.assign(WindowFn.AssignContext(Timestamp(micros=time)))
    _, starts = Windows(size, every).of(np.array([time]))
    assert sorted(starts.tolist()) == sorted(window.start.micros for window in assigned)


@given(st.lists(st.floats(1e-6, 1 - 1e-6), min_size=1, max_size=200))
def test_quantiles_are_within_their_promise(scores: list[float]) -> None:
    """Each quantile is within 0.8 % of the score that has that share of the scores at or below it."""
    batch = decided(*({"event_time": 0, "score": score} for score in scores))
    ((_, _, partial),) = window_partials(batch, Windows(MINUTE, MINUTE), None)
    (summary,) = summaries_of([partial], Windows(MINUTE, MINUTE))
    exact = np.quantile(scores, (0.5, 0.9, 0.99), method="inverted_cdf")
    assert summary.score_quantiles["approve"] == pytest.approx(exact.tolist(), rel=0.0081)


def test_a_summary_reads_as_json_and_survives_its_coder() -> None:
    """The JSON line has every field under its own name; the coder gives back what it was given."""
    batch = at(5, 6, decision="review", amount_minor=250)
    ((_, _, partial),) = window_partials(batch, Windows(MINUTE, MINUTE), None)
    (summary,) = summaries_of([partial], Windows(MINUTE, MINUTE))
    line = json.loads(summary.to_json())
    assert line == {
        "window_start": 0,
        "window_end": MINUTE,
        "by": None,
        "category": None,
        "transactions": 2,
        "counts": {"review": 2},
        "amounts_minor": {"review": 500},
        "alert_rate": 1.0,
        "score_quantiles": {"review": list(summary.score_quantiles["review"])},
        "pane": "on_time",
        "firing": 0,
    }
    coder = StructCoder(WindowSummary)
    assert coder.decode(coder.encode(summary)) == summary


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ({"window_us": 0}, "length must be whole milliseconds"),
        ({"window_us": 1500}, "length must be whole milliseconds"),
        ({"window_us": MINUTE, "every_us": 2 * MINUTE}, r"period \(2m\) must be at most its length \(1m\)"),
        ({"allowed_lateness_us": -1}, "lateness must be 0 or more"),
        ({"early_us": 0}, "open windows can report every whole seconds"),
        ({"early_us": SECOND // 2}, "open windows can report every whole seconds"),
    ],
)
def test_windows_that_cannot_be_are_refused(lengths: dict[str, Any], message: str) -> None:
    """A wrong length is a user's mistake, said when the transform is made."""
    with pytest.raises(UserError, match=message):
        SummarizeWindows(**lengths)


def test_a_category_that_is_no_column_is_refused_with_the_columns_there_are() -> None:
    """Parting by a column that the decisions lack names the column and those there are."""
    with pytest.raises(UserError, match=r"summarised by 'shop': no such column; there are .*merchant_category"):
        list(window_partials(at(1), Windows(MINUTE, MINUTE), "shop"))


_Facts = tuple[Any, ...]


def _facts(summary: WindowSummary) -> _Facts:
    """Everything a summary says, but for exact quantiles: of these, which decisions have them."""
    return (
        summary.window_start,
        summary.window_end,
        summary.category,
        summary.transactions,
        sorted(summary.counts.items()),
        sorted(summary.amounts_minor.items()),
        round(summary.alert_rate, 9),
        sorted(summary.score_quantiles),
        summary.pane,
    )


def _oracle(rows: Sequence[dict[str, Any]], windows: Windows, by: str | None) -> list[_Facts]:
    """The same facts, counted row by row."""
    counts: dict[tuple[int, str | None], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    amounts: dict[tuple[int, str | None], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        category = (row[by] or None) if by else None
        start = row["event_time"] // windows.every * windows.every
        while start > row["event_time"] - windows.size:
            counts[start, category][row["decision"]] += 1
            amounts[start, category][row["decision"]] += row["amount_minor"]
            start -= windows.every
    return [
        (
            start,
            start + windows.size,
            category,
            sum(found.values()),
            sorted(found.items()),
            sorted(amounts[start, category].items()),
            round(1 - found.get("approve", 0) / sum(found.values()), 9),
            sorted(found),
            "on_time",
        )
        for (start, category), found in counts.items()
    ]
