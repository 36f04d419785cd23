"""All windows of a category in one state: when they are told of, what is held meanwhile, and what state stays."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any, cast

import msgspec
import pyarrow as pa
import pytest
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp
from apache_beam.utils.windowed_value import WindowedValue
from hypothesis import given
from hypothesis import strategies as st

from tests.bag import Bag
from transforms import open_windows
from transforms.batch import from_rows
from transforms.durations import SECOND
from transforms.open_windows import MOST_ENTRIES, SLACK_BYTES, TellWindows, WindowLog, tell_open_windows
from transforms.summarize import Summaries
from transforms.window_counts import Windows
from transforms.window_summary import WindowSummary, window_partials

MINUTE = 60 * SECOND
END = GlobalWindow().max_timestamp().micros


class Timers:
    """A family of timers that can hold the watermark: tag to (when it fires, where it holds), in microseconds."""

    _timer_coder_impl = None

    def __init__(self) -> None:
        self.pending: dict[str, tuple[int, int]] = {}

    def set(self, at: Timestamp, dynamic_timer_tag: str = "") -> None:
        self.pending[dynamic_timer_tag] = (at.micros, at.micros)

    def clear(self, dynamic_timer_tag: str = "") -> None:
        self.pending.pop(dynamic_timer_tag, None)


class Stream:
    """One category of a stream: its state, its timers, and every summary that came out.

    As on Flink, timers that the watermark has passed fire in one bundle, in their order, and let go of their hold as
    they do; what they set fires in the next.
    """

    def __init__(self, windows: Windows, lateness: int, early: int | None = None, late: int | None = None) -> None:
        how = TellWindows(Summaries(), lateness, early, late, now=lambda: Timestamp(0))
        self.windows, self.fn = windows, cast(Any, tell_open_windows(how, "test"))
        self.key = ("", "", windows.size, windows.every)
        self.bag, self.times, self.early = Bag(), Timers(), Timers()
        self.watermark = -(2**62)
        self.told: list[WindowSummary] = []
        self.bundles = 0
        self.begin()

    def begin(self) -> None:
        self.bundles += 1
        self.fn.start_bundle()

    def take(self, *seconds: float) -> None:
        self.begin()
        for _, _, partial in window_partials(decided(*seconds), self.windows, None):
            self.keep(self.fn.process((self.key, partial), self.bag, self.times, self.early))

    def advance(self, second: float) -> None:
        self.watermark = int(second * SECOND)
        while due := sorted((at, tag) for tag, (at, _) in self.times.pending.items() if at <= self.watermark):
            self.begin()
            for _, tag in due:
                del self.times.pending[tag]
            for at, tag in due:
                self.keep(self.fn.fired(self.key, Timestamp(micros=at), tag, self.bag, self.times) or ())

    def report(self) -> None:
        self.begin()
        self.early.clear()
        self.keep(self.fn.report(self.key, self.bag))

    def keep(self, summaries: Any) -> None:
        for each in summaries:
            assert isinstance(each, WindowedValue)
            summary: WindowSummary = each.value
            if summary.pane != "late":
                assert self.held <= each.timestamp.micros == summary.window_end - 1000
            self.told.append(summary)

    @property
    def held(self) -> int:
        """How far the watermark of what follows can have come."""
        return min([self.watermark, *(hold for _, hold in self.times.pending.values())])

    @property
    def marks(self) -> open_windows.Marks:
        return WindowLog(self.bag).marks

    @property
    def facts(self) -> list[tuple[float, int, str, int]]:
        return [(each.window_start / SECOND, each.transactions, each.pane, each.firing) for each in self.told]


def decided(*seconds: float) -> Any:
    """A decided batch with a row at each of these seconds."""
    blank = {"amount_minor": 100, "score": 0.01, "decision": "approve"}
    rows = [
        {"transaction_id": f"t{place}", "event_time": int(second * SECOND), **blank}
        for place, second in enumerate(seconds)
    ]
    return from_rows(rows, {"score": pa.float64(), "decision": pa.string()})


@pytest.fixture(autouse=True)
def holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timers of this test take a hold, as a runner's do."""

    def set_both(timers: Timers, fire: Timestamp, hold: Timestamp, tag: str) -> None:
        timers.pending[tag] = (fire.micros, hold.micros)

    monkeypatch.setattr(open_windows, "set_timer_with_hold", set_both)


def test_windows_passed_at_once_are_told_in_one_bundle() -> None:
    """A backlog's watermark passes many windows in a step: one bundle for their timers, one for all results."""
    stream = Stream(Windows(MINUTE, MINUTE), lateness=MINUTE)
    stream.take(*(60 * minute for minute in range(50)))
    before = stream.bundles
    stream.advance(49 * 60)
    assert stream.facts == [(60 * minute, 1, "on_time", 0) for minute in range(49)]
    assert stream.bundles - before <= 4  # ends, results, hold, and what is let go of


def test_the_watermark_is_held_until_what_was_told_has_left() -> None:
    """A window's timer lets go of its hold when it fires; what follows must not see time pass before the summary."""
    stream = Stream(Windows(MINUTE, MINUTE), lateness=0)
    stream.take(5, 65)
    fire, hold = stream.times.pending["hold"]
    assert (fire, hold) == (END, MINUTE - 1000)
    stream.fn.start_bundle()
    first = Timestamp(micros=MINUTE - 1000)
    stream.keep(stream.fn.fired(stream.key, first, "passed", stream.bag, stream.times))
    assert len(stream.told) == 1
    stream.fn.fired(stream.key, first, "left", stream.bag, stream.times)  # in the same bundle: nothing has left
    assert stream.times.pending["hold"][1] == MINUTE - 1000
    stream.fn.start_bundle()
    stream.fn.fired(stream.key, first, "left", stream.bag, stream.times)
    assert stream.times.pending["hold"][1] == 2 * MINUTE - 1000
    stream.advance(121)
    assert "hold" not in stream.times.pending


def test_an_open_window_reports_once_a_while_and_only_news() -> None:
    """One timer of the clock for all open windows, set by the first row after a report."""
    stream = Stream(Windows(MINUTE, MINUTE), lateness=MINUTE, early=30 * SECOND)
    stream.take(5, 65)
    stream.take(6)
    assert stream.early.pending == {"": (30 * SECOND, 30 * SECOND)}
    stream.report()
    stream.take(66)
    stream.report()
    stream.report()
    stream.advance(120)
    assert stream.facts == [
        (0, 2, "early", 0),
        (60, 1, "early", 0),
        (60, 2, "early", 1),
        (0, 2, "on_time", 1),
        (60, 2, "on_time", 2),
    ]


def test_a_window_that_is_late_when_first_seen_is_told_as_late() -> None:
    """Nobody waits for it any more, and its summary says so."""
    stream = Stream(Windows(MINUTE, MINUTE), lateness=5 * MINUTE)
    stream.take(125)
    stream.advance(200)
    stream.take(5)
    stream.take(6)
    assert stream.facts == [(120, 1, "on_time", 0), (0, 1, "late", 0), (0, 2, "late", 1)]


def test_late_rows_gather_for_a_while_of_the_clock() -> None:
    """What tells much of a window does so once for many late rows; open windows have nothing to do with it."""
    stream = Stream(Windows(MINUTE, MINUTE), lateness=5 * MINUTE, late=30 * SECOND)
    stream.take(5, 200)
    assert not stream.early.pending
    stream.advance(100)
    stream.take(6, 201)
    stream.take(7)
    assert stream.early.pending == {"": (30 * SECOND, 30 * SECOND)}
    stream.report()
    stream.report()
    assert stream.facts == [(0, 1, "on_time", 0), (0, 3, "late", 1)]


def test_late_rows_that_still_gather_are_told_of_before_their_window_is_let_go() -> None:
    """However the watermark jumps: none is lost for want of a clock's tick."""
    stream = Stream(Windows(MINUTE, MINUTE), lateness=5 * MINUTE, late=30 * SECOND)
    stream.take(5)
    stream.advance(100)
    stream.take(6)
    stream.advance(10_000)
    assert stream.facts == [(0, 1, "on_time", 0), (0, 2, "late", 1)]
    assert stream.marks.windows == []


def test_state_is_let_go_of_when_nothing_else_comes() -> None:
    """A quiet stream's windows go with their lateness; marks stay, so that what comes too late is still known."""
    stream = Stream(Windows(MINUTE, MINUTE), lateness=MINUTE)
    stream.take(5, 65)
    stream.advance(400)
    assert stream.marks.windows == []
    stream.take(7)
    assert [each.window_start for each in stream.told] == [0, MINUTE]
    assert not stream.times.pending


@pytest.mark.parametrize("small", [True, False])
def test_state_stays_small_however_many_batches_come(small: bool) -> None:
    """Entries become one when there are many, or large ones, and say the same."""
    stream = Stream(Windows(MINUTE, MINUTE), lateness=0)
    batches, seconds = (500, [1.0, 2.0]) if small else (60, [float(n * 60) for n in range(200)])
    most = 0
    for _ in range(batches):
        stream.take(*seconds)
        assert len(stream.bag.content) <= MOST_ENTRIES
        most = max(most, sum(map(len, stream.bag.content)))
    assert most < 3 * SLACK_BYTES
    stream.advance(10**6)
    assert {each.transactions for each in stream.told} == {2 * batches if small else batches}


STEPS = st.lists(
    st.lists(st.integers(0, 600), min_size=1, max_size=6) | st.integers(0, 900) | st.none(), min_size=1, max_size=25
)
#: How often open windows report, and for how long late rows gather.
MODES = st.sampled_from([(SECOND, None), (None, SECOND), (SECOND, SECOND)])
WINDOWS = st.sampled_from([Windows(MINUTE, MINUTE), Windows(MINUTE, 30 * SECOND), Windows(2 * MINUTE, 50 * SECOND)])


@given(STEPS, WINDOWS, st.sampled_from([0, 45 * SECOND, 300 * SECOND]), st.sampled_from([2, MOST_ENTRIES]), MODES)
def test_windows_are_told_as_a_plain_count_has_it(
    steps: list[list[int] | int | None],
    windows: Windows,
    lateness: int,
    entries: int,
    mode: tuple[int | None, int | None],
) -> None:
    """Whatever the order of batches, watermarks and reports: each window's last summary has all rows that were in time.

    Its on-time summary comes when the watermark has passed it and not before, firings count up without a gap, and
    in the end nothing of it is kept. Rows later than is allowed may be counted, for the stage may not know it yet.
    """
    stream = Stream(windows, lateness, *mode)
    in_time: Counter[int] = Counter()
    perhaps: Counter[int] = Counter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(open_windows, "MOST_ENTRIES", entries)
        for step in [*steps, 10_000]:
            if step is None:
                stream.report()
            elif isinstance(step, int):
                stream.advance(max(step, stream.watermark / SECOND))
            else:
                _count(step, windows, stream.watermark - lateness, in_time, perhaps)
                stream.take(*step)
            ends = {each.window_end for each in stream.told if each.pane == "on_time"}
            assert all(end - 1000 <= stream.watermark for end in ends)
    firings: dict[int, list[int]] = defaultdict(list)
    last: dict[int, int] = {}
    panes: dict[int, list[str]] = defaultdict(list)
    for summary in stream.told:
        firings[summary.window_start].append(summary.firing)
        panes[summary.window_start].append(summary.pane)
        last[summary.window_start] = summary.transactions
    for start, count in in_time.items():
        assert count <= last[start] <= count + perhaps[start]
    assert set(last) <= set(in_time) | set(perhaps)
    for start, numbers in firings.items():
        assert numbers == list(range(len(numbers)))
        order = ["early", "on_time", "late"]
        assert panes[start] == sorted(panes[start], key=order.index)
        assert panes[start].count("on_time") <= 1
    assert stream.marks.windows == []
    assert not stream.times.pending


def _count(step: list[int], windows: Windows, passed: int, in_time: Counter[int], perhaps: Counter[int]) -> None:
    """Count rows by window; apart those of windows that take none any more, which the stage may not know yet."""
    for second in step:
        start = second * SECOND // windows.every * windows.every
        while start > second * SECOND - windows.size:
            (in_time if start + windows.size - 1000 > passed else perhaps)[start] += 1
            start -= windows.every


def test_state_of_another_version_is_refused() -> None:
    """With its version and what can be done."""
    bag = Bag()
    bag.add(msgspec.msgpack.encode(open_windows.Entry(open_windows.Marks(schema_version=3), b"")))
    with pytest.raises(ValueError, match="version 3 cannot be read by version 2: restore with the release that wrote"):
        WindowLog(bag)
