"""The stateful stage that deduplication and every entity's features share.

A shard's past lives twice. Beam's state is the truth: a log of what was taken in, appended to by the batch
and rewritten when most of it has expired (`shard_log.py`). In memory there is the same as an engine ready to
compute. The log carries a version, a hash chained over everything written; an engine of another version (a
retried bundle, a shard that moved here, a restored savepoint) is thrown away and built again from the log.

Under `event_time` ordering rows wait in state until the watermark has passed them and are then taken in
`in_event_order`; under `arrival` ordering they are taken at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Literal, NamedTuple, Protocol, cast

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.coders import BytesCoder
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import GlobalWindow, TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from transforms.batch import TransactionBatch, TransactionBatchCoder, concat_batches, earliest
from transforms.dead_letters import DeadLetter, Stage, dead_letters_of_rows
from transforms.durations import format_duration
from transforms.ordering import in_event_order, is_labels, order_time
from transforms.shard_log import Marks, ShardLog
from transforms.watermark_hold import can_hold, set_timer_with_hold

Ordering = Literal["event_time", "arrival"]
DEAD_LETTERS = "dead_letters"
END = GlobalWindow().max_timestamp().micros


@dataclass(frozen=True)
class Taken:
    """What an engine made of a batch.

    Attributes:
        rows: the batch to pass on, or None when nothing of it is.
        dead_letters: rows it refused.
        log: matrices int64[k, n] that bring another engine to the same state by `restore`.
        unknown_labels: labels whose transaction the engine does not hold; counted as `labels.unknown`.
    """

    rows: TransactionBatch | None = None
    dead_letters: list[DeadLetter] = field(default_factory=list)
    log: list[np.ndarray[Any, Any]] = field(default_factory=list)
    unknown_labels: int = 0


class Engine(Protocol):
    """The past of one shard: a plain object that knows nothing of Beam."""

    def take(self, transactions: TransactionBatch | None, labels: TransactionBatch | None) -> Taken:
        """Take rows in their order, and labels of earlier ones in the order of their arrival."""

    def snapshot(self, now: int) -> np.ndarray[Any, Any]:
        """All that can still matter at the event time `now`, as one log matrix."""

    def restore(self, log: Iterable[np.ndarray[Any, Any]]) -> None:
        """Come to the state that wrote this log."""


class Timers(NamedTuple):
    """A shard's timers.

    Attributes:
        flush: when the waiting rows are taken.
        hold: holds the watermark of a stream meanwhile.
        passed: when it may let go.
    """

    flush: Any
    hold: Any
    passed: Any


@dataclass(frozen=True)
class TakeInOrder:
    """How a stage takes the batches of its shards, as `ShardBy` gives them; `take_in_order` makes the transform.

    Attributes:
        stage: the stage its dead letters name.
        name: of its state and timer; stable for the life of a stream's state, and unlike any other's.
        make_engine: makes an empty engine; must be picklable, as a class or a partial is.
        ordering: `event_time` or `arrival`.
        allowed_lateness: under `event_time`, how far behind the flushed rows a late one may lie before
            it becomes a dead letter, in microseconds.
        batch_rows: the most rows an emitted batch has.
        bounded: whether the input ends; rows then wait for its end, the one moment at which every runner
            agrees that nothing is missing.
        remade: columns that the engine makes, and that rows which wait since an earlier release may have already.
    """

    stage: Stage
    name: str
    make_engine: Callable[[], Engine]
    ordering: Ordering
    allowed_lateness: int
    batch_rows: int
    bounded: bool
    remade: tuple[str, ...] = ()

    def take_at_once(self, shard: int, batch: TransactionBatch, log: ShardLog) -> Iterator[Any]:
        """Take a batch as it comes."""
        yield from self._take_either(shard, batch, log)
        log.save()

    def take_later(
        self, shard: int, batch: TransactionBatch, pending: Any, log: ShardLog, timers: Timers
    ) -> Iterator[Any]:
        """Let a batch wait for the watermark; what is late is taken at once, or refused."""
        now = log.marks
        waits, late, too_late = _split_by_lateness(batch, now.frontier, self.allowed_lateness)
        if waits is not None:
            pending.add(waits)
            self._wait_for(waits, now, timers)
        if late is not None:
            yield from self._take_either(shard, late, log)
        if too_late is not None:
            yield from self._refuse(too_late, now.frontier)
        log.save()

    def flush(self, shard: int, at: Timestamp, pending: Any, log: ShardLog, timers: Timers) -> Any:
        """Take every waiting row the watermark has passed; set the timer for the rest."""
        now = log.marks
        waiting = list(pending.read())
        if not waiting:
            return
        pending.clear()
        newest = max(int(order_time(batch).max()) for batch in waiting)
        # A timer that was set anew while it fired comes twice, the second time perhaps when a later one is set.
        fired = min(now.fire, int(at.micros))
        now.frontier, now.fire = max(now.frontier, min(fired, newest + 1)), 0
        ready: dict[bool, TransactionBatch | None] = {False: None, True: None}
        for labels in ready:
            mine = [batch.without_columns(self.remade) for batch in waiting if is_labels(batch) == labels]
            if mine:
                ready[labels], rest = _split(in_event_order(concat_batches(mine)), now.frontier)
                if rest is not None:
                    pending.add(rest)
                    self._wait_for(rest, now, timers)
        if now.held:
            timers.passed.set(at)
        yield from self._take(shard, ready[False], ready[True], log)
        log.save()

    def let_go(self, log: ShardLog, timers: Timers) -> None:
        """Hold the watermark no longer than at the oldest row that still waits; what was flushed has left by now."""
        now = log.marks
        if now.fire and now.oldest > now.hold:
            now.hold = now.oldest
            set_timer_with_hold(timers.hold, GlobalWindow().max_timestamp(), Timestamp(micros=now.hold))
        elif not now.fire and now.held:
            now.held = False
            timers.hold.clear()
        log.save()

    def _wait_for(self, batch: TransactionBatch, now: Marks, timers: Timers) -> None:
        """See that the flush timer is set, and that the watermark is held at the oldest waiting row.

        It fires once the watermark has passed all that waited when it was set; what comes in between waits
        for the next time. So a flush covers whatever has gathered, much or little, and none starves. Where a
        timer cannot hold the watermark back it fires for the oldest row alone: slow, but as exact.

        Input that ends needs no hold but the flush timer's own. On a stream that does not do: Flink lets go of a
        timer's hold when it fires, and may let the watermark pass while what the timer gave is still on its way. So
        another timer, which never fires, holds the watermark until a later bundle has `let_go`.
        """
        time = order_time(batch)
        oldest = int(time.min()) // 1000 * 1000
        now.oldest = min(now.oldest, oldest) if now.fire else oldest
        if not can_hold(timers.flush):
            if not now.fire or oldest < now.hold:
                now.hold, now.fire = oldest, END if self.bounded else oldest + 1000
                timers.flush.set(Timestamp(micros=now.fire))
        elif self.bounded:
            if not now.fire or oldest < now.hold:
                now.hold, now.fire = oldest, END
                set_timer_with_hold(timers.flush, Timestamp(micros=END), Timestamp(micros=oldest))
        else:
            if not now.fire:
                now.fire = int(time.max()) // 1000 * 1000 + 1000
                timers.flush.set(Timestamp(micros=now.fire))
            if not now.held or oldest < now.hold:
                now.hold, now.held = oldest, True
                set_timer_with_hold(timers.hold, GlobalWindow().max_timestamp(), Timestamp(micros=oldest))

    def _take(
        self,
        shard: int,
        transactions: TransactionBatch | None,
        labels: TransactionBatch | None,
        log: ShardLog,
    ) -> Iterator[Any]:
        """Run the engine and keep its log; emit what it passes on, each batch at its earliest row."""
        engine, now = self._engine(shard, log), log.marks
        taken = engine.take(transactions, labels)
        if taken.unknown_labels:
            Metrics.counter("labels", "unknown").inc(taken.unknown_labels)
        for matrix in taken.log:
            log.append(matrix)
        if transactions is not None:
            now.newest = max(now.newest, _present(transactions))
        if now.log_rows > now.rewrite_at:
            engine = self._rewrite(engine, log)
        _ENGINES.put((self.name, shard), now.version, engine)
        if taken.rows is not None:
            for piece in taken.rows.pieces(self.batch_rows):
                yield TimestampedValue(piece, earliest(piece))
        for letter in taken.dead_letters:
            yield TaggedOutput(DEAD_LETTERS, letter)

    def _take_either(self, shard: int, batch: TransactionBatch, log: ShardLog) -> Iterator[Any]:
        if is_labels(batch):
            return self._take(shard, None, batch, log)
        return self._take(shard, batch, None, log)

    def _engine(self, shard: int, log: ShardLog) -> Engine:
        engine = _ENGINES.take((self.name, shard), log.marks.version)
        if engine is None:
            engine = self.make_engine()
            if log.marks.version:
                engine.restore(log.rows())
        return engine

    def _rewrite(self, engine: Engine, log: ShardLog) -> Engine:
        """Replace the log by what can still matter, and the engine by one that holds no more."""
        live = engine.snapshot(log.marks.newest)
        log.replace(live)
        fresh = self.make_engine()
        fresh.restore([live])
        return fresh

    def _refuse(self, batch: TransactionBatch, frontier: int) -> Iterator[Any]:
        error = (
            f"arrived after every transaction up to {Timestamp(micros=frontier).to_rfc3339()} had been decided and is "
            f"more than {format_duration(self.allowed_lateness)} older (pipeline.allowed_lateness)"
        )
        for letter in dead_letters_of_rows(batch, self.stage, "too_late", error):
            yield TaggedOutput(DEAD_LETTERS, letter)


def take_in_order(how: TakeInOrder) -> beam.PTransform[Any, Any]:
    """A transform of (shard, batch) with the outputs `batches` and `dead_letters`."""
    take = _taking_at_once(how) if how.ordering == "arrival" else _taking_later(how)
    typed = beam.ParDo(take).with_output_types(TransactionBatch, dead_letters=DeadLetter)
    outputs: beam.PTransform[Any, Any] = typed.with_outputs(DEAD_LETTERS, main="batches")
    return outputs


def _taking_at_once(how: TakeInOrder) -> beam.DoFn:
    """No timers, which cost every bundle messages whether they are set or not, and no rows that wait."""
    log_spec = BagStateSpec("log", BytesCoder())
    recent_spec = BagStateSpec("recent", BytesCoder())

    class Take(beam.DoFn):
        def process(
            self,
            element: tuple[int, TransactionBatch],
            log: Any = beam.DoFn.StateParam(log_spec),
            recent: Any = beam.DoFn.StateParam(recent_spec),
        ) -> Iterator[Any]:
            return how.take_at_once(*element, ShardLog(recent, log))

    return cast(beam.DoFn, Take())  # type: ignore[no-untyped-call]  # Beam's DoFn has no typed constructor


def _taking_later(how: TakeInOrder) -> beam.DoFn:
    """Rows wait in state for the flush timer."""
    pending_spec = BagStateSpec("pending", TransactionBatchCoder())
    log_spec = BagStateSpec("log", BytesCoder())
    recent_spec = BagStateSpec("recent", BytesCoder())
    # Beam's in-memory runner mixes up timers of one name in different steps, so each has its own.
    flush_spec = TimerSpec(f"flush:{how.name}", TimeDomain.WATERMARK)
    hold_spec = TimerSpec(f"hold:{how.name}", TimeDomain.WATERMARK)
    passed_spec = TimerSpec(f"passed:{how.name}", TimeDomain.WATERMARK)

    class Take(beam.DoFn):
        def start_bundle(self) -> None:
            self.flushed: set[int] = set()

        def process(
            self,
            element: tuple[int, TransactionBatch],
            pending: Any = beam.DoFn.StateParam(pending_spec),
            log: Any = beam.DoFn.StateParam(log_spec),
            recent: Any = beam.DoFn.StateParam(recent_spec),
            flush: Any = beam.DoFn.TimerParam(flush_spec),
            hold: Any = beam.DoFn.TimerParam(hold_spec),
            passed: Any = beam.DoFn.TimerParam(passed_spec),
        ) -> Iterator[Any]:
            return how.take_later(*element, pending, ShardLog(recent, log), Timers(flush, hold, passed))

        @on_timer(flush_spec)
        def flush(
            self,
            shard: Any = beam.DoFn.KeyParam,
            at: Any = beam.DoFn.TimestampParam,
            pending: Any = beam.DoFn.StateParam(pending_spec),
            log: Any = beam.DoFn.StateParam(log_spec),
            recent: Any = beam.DoFn.StateParam(recent_spec),
            flush: Any = beam.DoFn.TimerParam(flush_spec),
            hold: Any = beam.DoFn.TimerParam(hold_spec),
            passed: Any = beam.DoFn.TimerParam(passed_spec),
        ) -> Iterator[Any]:
            self.flushed.add(shard)
            timers = Timers(flush, hold, passed)
            return cast(Iterator[Any], how.flush(shard, at, pending, ShardLog(recent, log), timers))

        @on_timer(passed_spec)
        def passed(
            self,
            shard: Any = beam.DoFn.KeyParam,
            at: Any = beam.DoFn.TimestampParam,
            log: Any = beam.DoFn.StateParam(log_spec),
            recent: Any = beam.DoFn.StateParam(recent_spec),
            hold: Any = beam.DoFn.TimerParam(hold_spec),
            passed: Any = beam.DoFn.TimerParam(passed_spec),
        ) -> None:
            if shard in self.flushed:  # in this bundle, so its rows have not left
                passed.set(at)
            else:
                how.let_go(ShardLog(recent, log), Timers(None, hold, passed))

        @on_timer(hold_spec)
        def hold(self) -> None:
            """It holds; when it fires all is over."""

    return cast(beam.DoFn, Take())  # type: ignore[no-untyped-call]  # Beam's DoFn has no typed constructor


def _split_by_lateness(
    batch: TransactionBatch, frontier: int, allowed: int
) -> tuple[TransactionBatch | None, TransactionBatch | None, TransactionBatch | None]:
    """The rows that may wait, the late ones marked as such, and the ones too late to decide on.

    A label is never late: it counts from its arrival on, whenever that is seen.
    """
    time = order_time(batch)
    if bool(time.min() >= frontier):
        return batch, None, None
    late_rows = time < frontier
    too_late_rows = np.zeros_like(late_rows) if is_labels(batch) else time < frontier - allowed
    late = _where(batch, late_rows & ~too_late_rows)
    if late is not None and not is_labels(batch):
        late = late.with_columns({"late": pa.array(np.ones(len(late), dtype=np.bool_))})
    return _where(batch, ~late_rows), late, _where(batch, too_late_rows)


def _split(batch: TransactionBatch, frontier: int) -> tuple[TransactionBatch | None, TransactionBatch | None]:
    """The rows before `frontier`, and the others."""
    ready = order_time(batch) < frontier
    return _where(batch, ready), _where(batch, ~ready)


def _where(batch: TransactionBatch, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> TransactionBatch | None:
    if mask.all():
        return batch
    return batch.take(np.flatnonzero(mask)) if mask.any() else None


def _present(batch: TransactionBatch) -> int:
    """The newest event time that is no later than the row's reading: a wrong clock ages nobody's history."""
    return int(np.minimum(batch.numpy("event_time"), batch.numpy("ingest_time")).max())


class _Engines:
    """The engines of this process, each with the version of the state it equals.

    An engine is taken out to be used and put back when the log has been written: what fails half-way
    is not put back, and two threads never hold the same one.
    """

    MOST = 1024

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[tuple[str, int], tuple[bytes, Engine]] = OrderedDict()

    def take(self, key: tuple[str, int], version: bytes) -> Engine | None:
        with self._lock:
            kept = self._kept.pop(key, None)
        return kept[1] if kept and kept[0] == version else None

    def put(self, key: tuple[str, int], version: bytes, engine: Engine) -> None:
        with self._lock:
            self._kept[key] = (version, engine)
            if len(self._kept) > self.MOST:
                self._kept.popitem(last=False)


_ENGINES = _Engines()
