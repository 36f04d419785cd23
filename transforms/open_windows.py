"""The stateful stage under `SummarizeWindows` on a stream: one state for all windows of a category.

Beam's own windows would do, but cost 8 milliseconds each: a runner keeps triggers, holds and timers of every window,
and begins a bundle for each one's result. Here a batch adds one partial count to one bag, whatever number of windows it
lies in, and all windows that the watermark passes at once are told at once.

The watermark cannot be asked for; a timer tells that it has passed a moment. So each window has a timer at its end,
which does no more than set the one that tells: by the time that fires, all windows that end with it have fired theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import msgspec
import numpy as np
from apache_beam.coders import BytesCoder
from apache_beam.metrics import Metrics
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Duration, Timestamp

from transforms.histograms import Ints
from transforms.watermark_hold import can_hold, set_timer_with_hold
from transforms.window_summary import (
    COUNT,
    START,
    Pane,
    Windows,
    add_counts,
    read_counts,
    window_summaries,
)
from transforms.windowing import in_window

#: Entries that the bag has at most, and bytes beyond twice its live ones, before it is rewritten.
MOST_ENTRIES, SLACK_BYTES = 64, 65_536
_EARLIEST = -(2**63)


class OpenWindow(msgspec.Struct, array_like=True):
    """How far a window has been told. Fields may be added at the end, never moved."""

    start: int
    firing: int = 0  # the number of its next summary
    closed: bool = False  # whether its on-time summary was given
    changed: bool = False  # whether it has rows that no summary has told of


class Marks(msgspec.Struct, array_like=True):
    """How far a category's windows have come. Fields may be added at the end, never moved."""

    schema_version: int = 1
    frontier: int = _EARLIEST  # what the watermark is known to have passed, microseconds
    hold: int | None = None  # where the watermark is held
    forget: int | None = None  # when closed windows are looked through
    early: bool = False  # whether a report of the open ones is due
    rewrite_at: int = SLACK_BYTES  # bytes of entries before they become one
    windows: list[OpenWindow] = msgspec.field(default_factory=list)


class Entry(msgspec.Struct, array_like=True):
    """What one call changed. Fields may be added at the end, never moved."""

    marks: Marks
    counts: bytes


class WindowLog:
    """The windows of one category, for as long as a call lasts; `save` writes what has changed.

    Each call appends one entry to a bag: the marks as they are now, and the partial count taken in. Once there are
    many, the counts that are still asked for become one entry.

    Args:
        bag: of entries.

    Raises:
        ValueError: another release wrote the state, in another form.
    """

    def __init__(self, bag: Any) -> None:
        self._bag = bag
        self._entries: list[bytes] = list(bag.read())
        self.marks = _decode(self._entries[-1]).marks if self._entries else Marks()
        self._fresh = b""

    def add(self, counts: Ints) -> None:
        """Take in counts of windows that are among the marks'."""
        self._fresh += counts.tobytes()

    def counts_of(self, starts: list[int]) -> Ints:
        """All counts of windows that start then, added up."""
        counts = read_counts([*(_decode(entry).counts for entry in self._entries), self._fresh])
        return add_counts(counts[np.isin(counts[:, START], starts)])

    def save(self) -> None:
        """Write what has changed, as one more entry wherever that will do."""
        entry = msgspec.msgpack.encode(Entry(self.marks, self._fresh))
        if len(self._entries) == MOST_ENTRIES or sum(map(len, self._entries)) + len(entry) > self.marks.rewrite_at:
            live = self.counts_of([window.start for window in self.marks.windows]).tobytes()
            self.marks.rewrite_at = 2 * len(live) + SLACK_BYTES
            self._bag.clear()
            entry = msgspec.msgpack.encode(Entry(self.marks, live))
        self._bag.add(entry)


def _decode(written: bytes) -> Entry:
    entry = msgspec.msgpack.decode(written, type=Entry)
    if entry.marks.schema_version != Marks().schema_version:
        raise ValueError(
            f"windows in state of version {entry.marks.schema_version} cannot be read by version "
            f"{Marks().schema_version}: restore with the release that wrote it"
        )
    return entry


@dataclass(frozen=True)
class TellWindows:
    """When windows are told of; `tell_windows` makes the DoFn. See `SummarizeWindows` for what the arguments are."""

    windows: Windows
    allowed_lateness: int
    early: int | None
    by: str | None
    now: Callable[[], Timestamp]

    def take(self, category: str, partial: bytes, log: WindowLog, times: Any, early: Any) -> Iterator[Any]:
        """Add a partial count; what comes late to a window that was told of is told at once."""
        now, counts = log.marks, read_counts([partial])
        fits = counts[:, START] + self._kept > now.frontier
        if not fits.all():
            Metrics.counter("summaries", "rows_too_late").inc(int(counts[~fits, COUNT].sum()))
            counts = counts[fits]
        known = {window.start: window for window in now.windows}
        late = []
        for start in np.unique(counts[:, START]).tolist():
            window = known.get(start)
            if window is None:
                window = OpenWindow(start, closed=self._last(start) <= now.frontier)
                now.windows.append(window)
                if not window.closed:
                    times.set(_at(self._last(start)), dynamic_timer_tag=f"end:{start}")
            window.changed = True
            if window.closed:
                late.append(window)
        log.add(counts)
        if self.early and not now.early and any(window.changed and not window.closed for window in now.windows):
            now.early = True
            early.set(self.now() + Duration(micros=self.early))
        self._hold(now, times, lower=True)
        self._forget_later(now, times)
        yield from self._tell(category, late, "late", log)
        log.save()

    def passed(self, at: Timestamp, category: str, log: WindowLog, times: Any) -> Iterator[Any]:
        """Tell of the windows that the watermark has passed, and let go of those that take no more rows."""
        now = log.marks
        now.frontier = max(now.frontier, int(at.micros))
        due = [window for window in now.windows if not window.closed and self._last(window.start) <= now.frontier]
        yield from self._tell(category, due, "on_time", log)
        for window in due:
            window.closed = True
        now.windows = [each for each in now.windows if not each.closed or each.start + self._kept > now.frontier]
        if now.forget is not None and now.forget <= now.frontier:
            now.forget = None
        self._forget_later(now, times)
        if due and can_hold(times):
            times.set(at, dynamic_timer_tag="left")
        log.save()

    def report(self, category: str, log: WindowLog) -> Iterator[Any]:
        """Tell of the open windows that have new rows."""
        log.marks.early = False
        changed = [window for window in log.marks.windows if window.changed and not window.closed]
        yield from self._tell(category, changed, "early", log)
        log.save()

    def let_go(self, log: WindowLog, times: Any) -> None:
        """Hold the watermark no longer than at the oldest open window; what was told has left by now."""
        self._hold(log.marks, times, lower=False)
        log.save()

    @property
    def _kept(self) -> int:
        """How long after its start a window takes rows."""
        return self.windows.size - 1000 + self.allowed_lateness

    def _last(self, start: int) -> int:
        """A window's last moment, as Beam has it: in whole milliseconds."""
        return start + self.windows.size - 1000

    def _tell(self, category: str, windows: list[OpenWindow], pane: Pane, log: WindowLog) -> Iterator[Any]:
        if not windows:
            return
        told = {window.start: window for window in windows}
        for summary in window_summaries(category, log.counts_of(list(told)), self.windows, self.by):
            window = told[summary.window_start]
            summary = msgspec.structs.replace(summary, pane=pane, firing=window.firing)
            yield in_window(summary, window.start, self.windows.size, _at(self._last(window.start)))
            window.firing += 1
            window.changed = False

    def _hold(self, now: Marks, times: Any, *, lower: bool) -> None:
        """Hold the watermark of what follows at the oldest open window.

        The windows' timers do not do: Flink lets go of a timer's hold when it fires, and may let the watermark pass
        while what is told is still on its way. So a timer that never fires holds it until a later bundle has `let_go`.
        """
        if not can_hold(times):
            return
        oldest = min((self._last(window.start) for window in now.windows if not window.closed), default=None)
        higher = oldest is None or (now.hold is not None and oldest > now.hold)
        if oldest == now.hold or (lower and higher):
            return
        now.hold = oldest
        if oldest is None:
            times.clear(dynamic_timer_tag="hold")
        else:
            set_timer_with_hold(times, GlobalWindow().max_timestamp(), _at(oldest), "hold")

    def _forget_later(self, now: Marks, times: Any) -> None:
        """See that closed windows are let go of, should nothing else come: once for all there are."""
        if now.forget is None and now.windows:
            now.forget = max(window.start for window in now.windows) + self._kept
            times.set(_at(now.forget), dynamic_timer_tag="forget")


def _at(micros: int) -> Timestamp:
    return Timestamp(micros=min(micros, int(GlobalWindow().max_timestamp().micros)))


_ENTRIES = BagStateSpec("entries", BytesCoder())
# Beam's in-memory runner mixes up timers of one name in different steps, so these have names of their own.
_TIMES = TimerSpec("summarize:times", TimeDomain.WATERMARK)
_EARLY = TimerSpec("summarize:early", TimeDomain.REAL_TIME)


class SummarizeOpenWindows(beam.DoFn):
    """(category, partial count) to `WindowSummary`, each in its window.

    Args:
        how: when windows are told of.
    """

    def __init__(self, how: TellWindows) -> None:
        self.how = how

    def start_bundle(self) -> None:
        self.told: set[str] = set()

    def process(
        self,
        element: tuple[str, bytes],
        entries: Any = beam.DoFn.StateParam(_ENTRIES),
        times: Any = beam.DoFn.TimerParam(_TIMES),
        early: Any = beam.DoFn.TimerParam(_EARLY),
    ) -> Iterator[Any]:
        return self.how.take(*element, WindowLog(entries), times, early)

    @on_timer(_TIMES)
    def fired(
        self,
        category: Any = beam.DoFn.KeyParam,
        at: Any = beam.DoFn.TimestampParam,
        tag: Any = beam.DoFn.DynamicTimerTagParam,
        entries: Any = beam.DoFn.StateParam(_ENTRIES),
        times: Any = beam.DoFn.TimerParam(_TIMES),
    ) -> Iterator[Any] | None:
        if tag.startswith("end:") and can_hold(times):
            times.set(at, dynamic_timer_tag="passed")
        elif tag.startswith(("end:", "passed", "forget")):
            self.told.add(category)
            return self.how.passed(at, category, WindowLog(entries), times)
        elif tag == "left" and category in self.told:  # in this bundle, so what was told has not left
            times.set(at, dynamic_timer_tag="left")
        elif tag == "left":
            self.how.let_go(WindowLog(entries), times)
        return None

    @on_timer(_EARLY)
    def report(
        self, category: Any = beam.DoFn.KeyParam, entries: Any = beam.DoFn.StateParam(_ENTRIES)
    ) -> Iterator[Any]:
        return self.how.report(category, WindowLog(entries))
