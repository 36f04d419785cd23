"""What every remote sink shares: batches or messages go out in calls that may be repeated, and nothing is lost.

A sink is a frozen value made from its URL; `open` connects it, once in each worker. The calls are at-least-once:
a bundle that fails is run again, and all of its rows are written again. That the effect is there exactly once is
each writer's own doing: a condition, a merge, a ledger, a name that depends on the content.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import apache_beam as beam
import msgspec
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.pvalue import PCollection, TaggedOutput
from apache_beam.transforms.window import GlobalWindow, GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from transforms.batch import TransactionBatch, concat_batches
from transforms.dead_letters import DeadLetter, Stage, dead_letters_of_rows, safe_payload
from transforms.gather import GatherBatches
from transforms.struct_coder import StructCoder

OnRetry = Callable[[Exception], None]


class Message(msgspec.Struct, frozen=True, gc=False):
    """One record on its way to a sink that takes records one by one: an alert, a decision, a dead letter.

    Attributes:
        id: the same whenever the same thing is sent again; receivers tell a repetition by it.
        body: a JSON object.
        transaction_id: of the transaction it is about, where there is one.
        attributes: what a receiver may filter or route by without opening the body.

    There is one for every decision, so it is made in C and the garbage collector need not look at it.
    """

    id: str
    body: bytes
    transaction_id: str | None = None
    attributes: tuple[tuple[str, str], ...] = ()


class Refused(NamedTuple):
    """One row or message that a sink will never take, however often it is sent.

    Attributes:
        at: its place among what was given to the writer.
        reason: a short code to group by.
        error: a sentence that says why.
    """

    at: int
    reason: str
    error: str


class UndeliveredError(Exception):
    """A sink of messages gave up on some of them for now; the others are delivered.

    Attributes:
        refused: all that is not delivered, each with its cause.
    """

    def __init__(self, refused: Sequence[Refused]) -> None:
        super().__init__(f"{len(refused)} messages could not be delivered; the first: {refused[0].error}")
        self.refused = refused


class BatchWriter(Protocol):
    """An open connection to a sink that takes whole batches."""

    def write(self, batch: TransactionBatch) -> Sequence[Refused]:
        """Make every row's effect durable, once; those that never can be are returned.

        Raises:
            Exception: the sink is out of reach and trying again has not helped; nothing may be lost by writing
                the same rows again.
        """

    def close(self) -> None:
        """Let go of the connection; called once."""


class BatchSink(Protocol):
    """Where batches go: a picklable value without a secret in it."""

    def open(self, on_retry: OnRetry) -> BatchWriter:
        """Connect; `on_retry` is told of each error that is followed by another attempt."""


class MessageWriter(Protocol):
    """An open connection to a sink that takes messages; see `BatchWriter`."""

    def write(self, messages: Sequence[Message]) -> Sequence[Refused]:
        """Deliver every message; those that never can be are returned.

        Raises:
            UndeliveredError: the sink is out of reach and trying again has not helped.
            Exception: the sink is not there, or does not let us in.
        """

    def close(self) -> None:
        """Let go of the connection; called once."""


class MessageSink(Protocol):
    """Where messages go; see `BatchSink`."""

    def open(self, on_retry: OnRetry) -> MessageWriter:
        """Connect; `on_retry` is told of each error that is followed by another attempt."""


class Written(msgspec.Struct, frozen=True):
    """Records of one source of which a sink now holds what became of them.

    Attributes:
        source: as `RawBatch.source`.
        ranges: their positions as (first, behind the last) pairs, ascending, apart from each other.
    """

    source: str
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Delivered:
    """What writing gives.

    Attributes:
        written: what is durable now.
        dead_letters: rows or messages the sink refused for good.
    """

    written: PCollection[Written]
    dead_letters: PCollection[DeadLetter]


class WriteBatches(beam.PTransform[PCollection[TransactionBatch], Delivered]):
    """Write batches to a remote sink: PCollection of `TransactionBatch` to `Delivered`.

    The rows of a bundle are gathered into calls of about `most_rows`; all are durable when the bundle ends.
    A sink that is out of reach for long fails the bundle, which the runner then runs again: the source waits.

    Args:
        sink: where to.
        name: of the sink in metrics (`sink.<name>`): rows written, calls retried, rows failed, milliseconds of a call.
        most_rows: a call is made once so many rows are waiting.
        gather_us: on a stream, how long rows wait for a call of `most_rows`, in microseconds; None: each bundle is
            written at once. Bounded input comes in large bundles as it is.
    """

    def __init__(self, sink: BatchSink, name: str, most_rows: int = 50_000, gather_us: int | None = None) -> None:
        super().__init__()
        self.sink = sink
        self.name = name
        self.most_rows = most_rows
        self.gather_us = gather_us

    def expand(self, pcoll: PCollection[TransactionBatch]) -> Delivered:
        if self.gather_us is not None and not pcoll.is_bounded:
            pcoll = pcoll | "Gather" >> GatherBatches(self.most_rows, self.gather_us)
        return deliver(pcoll, _WriteBatches(self.sink, self.name, self.most_rows))


class SendMessages(beam.PTransform[PCollection[Any], Delivered]):
    """Send elements to a sink that takes messages: PCollection of anything to `Delivered`.

    Args:
        sink: where to.
        name: as for `WriteBatches`.
        to_messages: the messages of one element (an alert's one, a batch's many); a pure function.
        stage: what the dead letters of refused messages say. Of stage `alert` they are also what the sink gave up
            on for now, where messages of other stages fail their bundle, which is then run again.
        most_messages: a call is made once so many messages are waiting.
    """

    def __init__(
        self,
        sink: MessageSink,
        name: str,
        to_messages: Callable[[Any], Sequence[Message]],
        stage: Stage = "write",
        most_messages: int = 10_000,
    ) -> None:
        super().__init__()
        self.sink = sink
        self.name = name
        self.to_messages = to_messages
        self.stage = stage
        self.most_messages = most_messages

    def expand(self, pcoll: PCollection[Any]) -> Delivered:
        return deliver(pcoll, _SendMessages(self.sink, self.name, self.to_messages, self.stage, self.most_messages))


def written_of(batch: TransactionBatch) -> list[Written]:
    """Where the rows of a batch were read: one `Written` a source.

    Example:
        >>> from transforms.batch import from_rows
        >>> row = {"event_time": 0, "amount_minor": 1, "source": "topic-0"}
        >>> written_of(from_rows({"transaction_id": str(p), "position": p, **row} for p in (7, 3, 4, 5)))
        [Written(source='topic-0', ranges=((3, 6), (7, 8)))]
    """
    column = batch.rows.column("source")
    sources = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    places, positions = np.asarray(sources.indices), batch.numpy("position")
    names = sources.dictionary.to_pylist()
    return [Written(names[at], _ranges(np.unique(positions[places == at]))) for at in np.unique(places).tolist()]


def written_as(element: Any) -> list[Written]:
    """What is told once `element` is durable: of a batch and of a dead letter where they were read, else nothing."""
    if isinstance(element, TransactionBatch):
        return written_of(element)
    if isinstance(element, DeadLetter):
        return [Written(element.source, ((element.position, element.position + 1),))]
    return []


def _ranges(positions: np.ndarray[Any, Any]) -> tuple[tuple[int, int], ...]:
    """Ascending positions, each once, as ranges."""
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    firsts, lasts = positions[np.append(0, breaks)], positions[np.append(breaks - 1, len(positions) - 1)]
    return tuple(zip(firsts.tolist(), (lasts + 1).tolist(), strict=True))


def deliver(pcoll: PCollection[Any], fn: beam.DoFn) -> Delivered:
    """Wire a function that gives `Written`, and dead letters under their tag, both at the end of a bundle."""
    outputs = (
        pcoll
        | "AnyWindow" >> beam.WindowInto(GlobalWindows())  # a call is of a bundle, not of a window
        | "Write"
        >> beam.ParDo(fn)
        .with_output_types(Written, dead_letters=DeadLetter)
        .with_outputs("dead_letters", main="written")
    )
    return Delivered(outputs.written, outputs.dead_letters)


def at_the_end(value: Any) -> Any:
    """An output of `finish_bundle`, which must say its window."""
    window = GlobalWindow()
    if isinstance(value, TaggedOutput):
        return TaggedOutput(value.tag, at_the_end(value.value))
    return WindowedValue(value, window.max_timestamp(), (window,))


class _Deliver(beam.DoFn):
    """Gathers what a bundle brings and hands it to an open writer."""

    def __init__(self, sink: Any, name: str, most: int) -> None:
        self.sink = sink
        self.most = most
        namespace = f"sink.{name}"
        self.written = Metrics.counter(namespace, "written")
        self.retried = Metrics.counter(namespace, "retried")
        self.failed = Metrics.counter(namespace, "failed")
        self.latency = Metrics.distribution(namespace, "milliseconds")
        self.writer: Any = None

    def start_bundle(self) -> None:
        self.waiting: list[Any] = []
        self.count = 0

    def finish_bundle(self) -> Iterator[Any]:
        yield from map(at_the_end, self.flush())

    def teardown(self) -> None:
        writer, self.writer = self.writer, None
        if writer is not None:
            writer.close()

    def flush(self) -> Iterator[Any]:
        """Write what is waiting; what comes of it."""
        if not self.waiting:
            return
        items, self.waiting, self.count = self.waiting, [], 0
        yield from self.deliver(items)

    def deliver(self, items: list[Any]) -> Iterator[Any]:
        """Write these."""
        raise NotImplementedError

    def call(self, items: Any) -> Sequence[Refused]:
        """One call of the writer, counted and timed."""
        if self.writer is None:
            self.writer = self.sink.open(lambda _: self.retried.inc())
        started = time.monotonic()
        refused: Sequence[Refused] = self.writer.write(items)
        self.latency.update(int((time.monotonic() - started) * 1000))
        self.written.inc(len(items) - len(refused))
        self.failed.inc(len(refused))
        return refused


class _WriteBatches(_Deliver):
    def process(self, element: TransactionBatch) -> Iterator[Any]:
        self.waiting.append(element)
        self.count += len(element)
        if self.count >= self.most:
            yield from self.flush()

    def deliver(self, items: list[TransactionBatch]) -> Iterator[Any]:
        batch = concat_batches(items)
        held = np.ones(len(batch), dtype=np.bool_)
        for refused in self.call(batch):
            held[refused.at] = False
            row = batch.take(np.array([refused.at]))
            for letter in dead_letters_of_rows(row, "write", refused.reason, refused.error):
                yield TaggedOutput("dead_letters", letter)
        if held.any():
            yield from written_of(batch if held.all() else batch.take(np.flatnonzero(held)))


class _SendMessages(_Deliver):
    def __init__(
        self, sink: MessageSink, name: str, to_messages: Callable[[Any], Sequence[Message]], stage: Stage, most: int
    ) -> None:
        super().__init__(sink, name, most)
        self.to_messages = to_messages
        self.stage: Stage = stage

    def start_bundle(self) -> None:
        super().start_bundle()
        self.sources: list[Written] = []

    def process(self, element: Any) -> Iterator[Any]:
        messages = self.to_messages(element)
        self.waiting += messages
        self.count += len(messages)
        self.sources += written_as(element)
        if self.count >= self.most:
            yield from self.flush()

    def call(self, items: list[Message]) -> Sequence[Refused]:
        """As of every sink, but alerts that cannot be delivered now are let go of: decisions must not wait for them."""
        try:
            return super().call(items)
        except UndeliveredError as error:
            if self.stage != "alert":
                raise
            self.written.inc(len(items) - len(error.refused))
            self.failed.inc(len(error.refused))
            return error.refused

    def deliver(self, items: list[Message]) -> Iterator[Any]:
        sources, self.sources = self.sources, []
        for refused in self.call(items):
            message = items[refused.at]
            letter = DeadLetter(
                stage=self.stage,
                reason=refused.reason,
                error=refused.error,
                payload=safe_payload(message.body),
                source=message.id,
                position=0,
                transaction_id=message.transaction_id,
            )
            yield TaggedOutput("dead_letters", letter)
        yield from sources


beam.coders.registry.register_coder(Written, StructCoder)
