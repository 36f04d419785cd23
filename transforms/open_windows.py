"""The stateful stage under `SummarizeWindows` and `MonitorDrift` on a stream: one state for all windows of a kind.

Beam's own windows would do, but cost ten milliseconds each: a runner keeps triggers, holds and timers of every window,
and begins a bundle for each one's result. Here a batch adds one partial count to one bag, whatever number of windows it
lies in, and all windows that the watermark passes at once are told at once.

The watermark cannot be asked for; a timer tells that it has passed a moment. So each window has a timer at its end,
which does no more than set the one that tells: by the time that fires, all windows that end with it have fired theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

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
from transforms.window_counts import COLUMNS, START, Pane, Windows, add_counts, read_counts, write_counts
from transforms.windowing import in_window

#: Entries that the bag has at most, and bytes beyond twice its live ones, before it is rewritten.
MOST_ENTRIES, SLACK_BYTES = 64, 65_536
_EARLIEST = -(2**63)
_NO_COUNTS: Ints = np.empty((0, COLUMNS), dtype=np.int64)


class Kind(NamedTuple):
    """The windows that share a state, and its key: of one length and period, and of one category.

    Windows of other lengths than today's, which a savepoint may hold, have a state of their own and are told of as
    they were meant to be.

    Attributes:
        by: what parts windows, such as a column; empty where nothing does.
        category: its value; empty for none.
        size, every: a window's length and period, in microseconds.
    """

    by: str
    category: str
    size: int
    every: int

    @property
    def windows(self) -> Windows:
        """The windows."""
        return Windows(self.size, self.every)


#: What the stage takes: the fields of a `Kind`, its key, and a partial count as `write_counts` writes it.
OfAKind = tuple[tuple[str, str, int, int], bytes]


class OpenWindow(msgspec.Struct, array_like=True):
    """How far a window has been told. Fields may be added at the end, never moved."""

    start: int
    firing: int = 0  # the number of its next summary
    closed: bool = False  # whether its on-time summary was given
    changed: bool = False  # whether it has rows that no summary has told of


class Marks(msgspec.Struct, array_like=True):
    """How far the windows of a kind have come. Fields may be added at the end, never moved.

    Version 2 has its counts packed; what version 1 wrote is read as well.
    """

    schema_version: int = 2
    frontier: int = _EARLIEST  # what the watermark is known to have passed, microseconds
    hold: int | None = None  # where the watermark is held
    forget: int | None = None  # when closed windows are looked through
    early: bool = False  # whether a report of what has changed is due
    rewrite_at: int = SLACK_BYTES  # bytes of entries before they become one
    windows: list[OpenWindow] = msgspec.field(default_factory=list)


class Entry(msgspec.Struct, array_like=True):
    """What one call changed. Fields may be added at the end, never moved."""

    marks: Marks
    counts: bytes


class WindowLog:
    """The windows of one kind, for as long as a call lasts; `save` writes what has changed.

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
        self.marks.schema_version = Marks().schema_version
        self._fresh = _NO_COUNTS

    def add(self, counts: Ints) -> None:
        """Take in counts of windows that are among the marks'."""
        self._fresh = np.concatenate([self._fresh, counts])

    def counts_of(self, starts: list[int]) -> Ints:
        """All counts of windows that start then, added up."""
        counts = np.concatenate([*(_counts(_decode(entry)) for entry in self._entries), self._fresh])
        return add_counts(counts[np.isin(counts[:, START], starts)])

    def save(self) -> None:
        """Write what has changed, as one more entry wherever that will do."""
        entry = _encode(self.marks, self._fresh)
        if len(self._entries) == MOST_ENTRIES or sum(map(len, self._entries)) + len(entry) > self.marks.rewrite_at:
            live = self.counts_of([window.start for window in self.marks.windows])
            self.marks.rewrite_at = 2 * len(write_counts(live)) + SLACK_BYTES
            self._bag.clear()
            entry = _encode(self.marks, live)
        self._bag.add(entry)


def _encode(marks: Marks, counts: Ints) -> bytes:
    return msgspec.msgpack.encode(Entry(marks, write_counts(counts) if len(counts) else b""))


def _decode(written: bytes) -> Entry:
    entry = msgspec.msgpack.decode(written, type=Entry)
    if entry.marks.schema_version not in (1, Marks().schema_version):
        raise ValueError(
            f"windows in state of version {entry.marks.schema_version} cannot be read by version "
            f"{Marks().schema_version}: restore with the release that wrote it"
        )
    return entry


def _counts(entry: Entry) -> Ints:
    if not entry.counts:
        return _NO_COUNTS
    if entry.marks.schema_version == 1:
        return np.frombuffer(entry.counts, dtype=np.int64).reshape(-1, COLUMNS)
    return read_counts([entry.counts])


class Told(Protocol):
    """What is said of windows by their counts.

    Attributes:
        metrics: the namespace of the metrics.
    """

    metrics: str

    def rows(self, counts: Ints) -> int:
        """How many transactions these counts are of."""

    def tell(self, kind: Kind, counts: Ints) -> Sequence[Any]:
        """Of each window in the counts some structs with `window_start`, and with `pane` and `firing` to be set."""


@dataclass(frozen=True)
class TellWindows:
    """When windows are told of.

    Attributes:
        told: what is said of them.
        allowed_lateness: how long a closed window still takes rows, in microseconds.
        early: how often an open window reports, in microseconds of the clock; None for only when it closes.
        late: for how long late rows gather before they are told of, likewise; None for not at all.
        now: the clock.
    """

    told: Told
    allowed_lateness: int
    early: int | None = None
    late: int | None = None
    now: Callable[[], Timestamp] = Timestamp.now

    def take(self, kind: Kind, partial: bytes, log: WindowLog, times: Any, early: Any) -> Iterator[Any]:
        """Add a partial count; what comes late to a window that was told of is told at once, or gathers."""
        now, counts = log.marks, read_counts([partial])
        fits = counts[:, START] + self._kept(kind) > now.frontier
        if not fits.all():
            Metrics.counter(self.told.metrics, "rows_too_late").inc(self.told.rows(counts[~fits]))
            counts = counts[fits]
        if not len(counts):
            return
        known = {window.start: window for window in now.windows}
        touched = []
        for start in np.unique(counts[:, START]).tolist():
            window = known.get(start)
            if window is None:
                window = OpenWindow(start, closed=_last(kind, start) <= now.frontier)
                now.windows.append(window)
                if not window.closed:
                    times.set(_at(_last(kind, start)), dynamic_timer_tag=f"end:{start}")
            window.changed = True
            touched.append(window)
        log.add(counts)
        oldest = _oldest(kind, touched)
        if oldest is not None and (now.hold is None or oldest < now.hold):
            _hold(oldest, now, times)
        self._forget_later(kind, now, times)
        late = [window for window in touched if window.closed]
        due = (self.early if oldest is not None else None) or (self.late if late else None)
        if due and not now.early:
            now.early = True
            early.set(self.now() + Duration(micros=due))
        if not self.late:
            yield from self._tell(kind, late, "late", log)
        log.save()

    def passed(self, at: Timestamp, kind: Kind, log: WindowLog, times: Any) -> Iterator[Any]:
        """Tell of the windows that the watermark has passed, and let go of those that take no more rows."""
        now, kept = log.marks, self._kept(kind)
        now.frontier = max(now.frontier, int(at.micros))
        due = [window for window in now.windows if not window.closed and _last(kind, window.start) <= now.frontier]
        yield from self._tell(kind, due, "on_time", log)
        for window in due:
            window.closed = True
        gone = [window for window in now.windows if window.closed and window.start + kept <= now.frontier]
        yield from self._tell(kind, [window for window in gone if window.changed], "late", log)
        now.windows = [window for window in now.windows if not window.closed or window.start + kept > now.frontier]
        if now.forget is not None and now.forget <= now.frontier:
            now.forget = None
        self._forget_later(kind, now, times)
        if due and can_hold(times):
            times.set(at, dynamic_timer_tag="left")
        log.save()

    def report(self, kind: Kind, log: WindowLog) -> Iterator[Any]:
        """Tell of the windows that have new rows."""
        log.marks.early = False
        changed = [window for window in log.marks.windows if window.changed]
        if self.early:
            yield from self._tell(kind, [window for window in changed if not window.closed], "early", log)
        yield from self._tell(kind, [window for window in changed if window.closed], "late", log)
        log.save()

    def let_go(self, kind: Kind, log: WindowLog, times: Any) -> None:
        """Hold the watermark no longer than at the oldest open window; what was told has left by now."""
        _hold(_oldest(kind, log.marks.windows), log.marks, times)
        log.save()

    def _tell(self, kind: Kind, windows: list[OpenWindow], pane: Pane, log: WindowLog) -> Iterator[Any]:
        if not windows:
            return
        firings = {window.start: window.firing for window in windows}
        for record in self.told.tell(kind, log.counts_of(list(firings))):
            start = record.window_start
            record = msgspec.structs.replace(record, pane=pane, firing=firings[start])
            yield in_window(record, start, kind.size, _at(_last(kind, start)))
        for window in windows:
            window.firing += 1
            window.changed = False

    def _kept(self, kind: Kind) -> int:
        """How long after its start a window takes rows; in whole milliseconds, as timers are."""
        return _last(kind, 0) - -self.allowed_lateness // 1000 * 1000

    def _forget_later(self, kind: Kind, now: Marks, times: Any) -> None:
        """See that closed windows are let go of, should nothing else come: once for all there are."""
        if now.forget is None and now.windows:
            now.forget = max(window.start for window in now.windows) + self._kept(kind)
            times.set(_at(now.forget), dynamic_timer_tag="forget")


def _last(kind: Kind, start: int) -> int:
    """A window's last moment, as Beam has it: in whole milliseconds."""
    return start + kind.size - 1000


def _oldest(kind: Kind, windows: list[OpenWindow]) -> int | None:
    """The last moment of the first of these windows that is open."""
    return min((_last(kind, window.start) for window in windows if not window.closed), default=None)


def _hold(oldest: int | None, now: Marks, times: Any) -> None:
    """Hold the watermark of what follows at the last moment of the oldest open window, or not at all.

    The windows' timers do not do: Flink lets go of a timer's hold when it fires, and may let the watermark pass while
    what is told is still on its way. So a timer that never fires holds it until a later bundle has `let_go`.
    """
    if not can_hold(times) or oldest == now.hold:
        return
    now.hold = oldest
    if oldest is None:
        times.clear(dynamic_timer_tag="hold")
    else:
        set_timer_with_hold(times, GlobalWindow().max_timestamp(), _at(oldest), "hold")


def _at(micros: int) -> Timestamp:
    return Timestamp(micros=min(micros, int(GlobalWindow().max_timestamp().micros)))


_ENTRIES = BagStateSpec("entries", BytesCoder())


def tell_open_windows(how: TellWindows, name: str) -> beam.DoFn:
    """A function of (kind of windows, partial count) that tells of windows, each record in the window it tells of.

    Args:
        how: what, and when.
        name: of its timers: Beam's in-memory runner mixes up those of one name in different steps.
    """
    times_spec = TimerSpec(f"{name}:times", TimeDomain.WATERMARK)
    early_spec = TimerSpec(f"{name}:early", TimeDomain.REAL_TIME)

    class Tell(beam.DoFn):
        def start_bundle(self) -> None:
            self.told: set[Kind] = set()

        def process(
            self,
            element: OfAKind,
            entries: Any = beam.DoFn.StateParam(_ENTRIES),
            times: Any = beam.DoFn.TimerParam(times_spec),
            early: Any = beam.DoFn.TimerParam(early_spec),
        ) -> Iterator[Any]:
            kind, partial = element
            return how.take(Kind(*kind), partial, WindowLog(entries), times, early)

        @on_timer(times_spec)
        def fired(
            self,
            key: Any = beam.DoFn.KeyParam,
            at: Any = beam.DoFn.TimestampParam,
            tag: Any = beam.DoFn.DynamicTimerTagParam,
            entries: Any = beam.DoFn.StateParam(_ENTRIES),
            times: Any = beam.DoFn.TimerParam(times_spec),
        ) -> Iterator[Any] | None:
            kind = Kind(*key)
            if tag.startswith("end:") and can_hold(times):
                times.set(at, dynamic_timer_tag="passed")
            elif tag.startswith(("end:", "passed", "forget")):
                self.told.add(kind)
                return how.passed(at, kind, WindowLog(entries), times)
            elif tag == "left" and kind in self.told:  # in this bundle, so what was told has not left
                times.set(at, dynamic_timer_tag="left")
            elif tag == "left":
                how.let_go(kind, WindowLog(entries), times)
            return None

        @on_timer(early_spec)
        def report(self, key: Any = beam.DoFn.KeyParam, entries: Any = beam.DoFn.StateParam(_ENTRIES)) -> Iterator[Any]:
            return how.report(Kind(*key), WindowLog(entries))

    return cast(beam.DoFn, Tell())  # type: ignore[no-untyped-call]  # Beam's DoFn has no typed constructor
