"""What every remote sink must stand: the tests that each connector's own test module takes over by subclassing.

A subclass gives a fixture `subject`; a fault that its server can never make raises `ImpossibleError`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from msgspec.structs import astuple

from io_connectors.delivery import BatchSink, Message, MessageSink, SendMessages, WriteBatches
from transforms.batch import TransactionBatch, concat_batches, from_rows

EXTRA = {
    "customer_count_1d": pa.float64(),
    "score": pa.float64(),
    "model_id": pa.string(),
    "feature_set": pa.string(),
    "decision": pa.string(),
    "reasons": pa.list_(pa.string()),
}
MIDNIGHT = 1_767_225_600_000_000  # 2026-01-01
HOUR = 3_600_000_000


class ImpossibleError(Exception):
    """The server of a subject never does this."""


def decided(first: int, rows: int, prefix: str = "t") -> TransactionBatch:
    """`rows` decided transactions, numbered from `first`: every tenth is reviewed, with a reason."""
    return from_rows(
        (
            {
                "transaction_id": f"{prefix}{n}",
                "event_time": MIDNIGHT + n * HOUR // 100,
                "customer_id": f"c{n % 17}",
                "terminal_id": f"m{n % 5}",
                "amount_minor": 100 + n,
                "is_fraud": None if n % 3 else 0,
                "customer_count_1d": float(n % 7),
                "score": (n % 1000) / 1001,
                "model_id": "model",
                "feature_set": "features",
                "decision": "approve" if n % 10 else "review",
                "reasons": [] if n % 10 else ['amount: high, "quoted" \\ and ünusual'],
                "position": n,
            }
            for n in range(first, first + rows)
        ),
        EXTRA,
    )


def told(batch: TransactionBatch) -> dict[str, tuple[int, float, str]]:
    """What a sink must hold of a batch: by id, the amount in minor units, the score and the decision."""
    columns = [batch.rows.column(name).to_pylist() for name in ("transaction_id", "amount_minor", "score", "decision")]
    return {row[0]: row[1:] for row in zip(*columns, strict=True)}


class BatchSubject(Protocol):
    """A sink of batches on a real server, empty at first, with the faults it can be made to suffer."""

    sink: BatchSink
    #: Whether rows in other cuts (batches) than before are recognised; objects named after their content are not.
    knows_rows: bool

    def held(self) -> list[tuple[str, int, float, str]]:
        """Every row the sink holds now: id, amount in minor units, score, decision."""

    def throttle(self, times: int) -> None:
        """Have the next calls refused as too many."""

    def fail_partly(self, times: int) -> None:
        """Have a part of each of the next calls fail."""

    def lose_answers(self, times: int) -> None:
        """Have the next calls done, and their answers lost."""

    def restart(self) -> None:
        """Kill the server as with kill -9 and start it again on the same data; returns when it answers."""

    def poisoned(self) -> TransactionBatch:
        """Good rows around one, with id `poison`, that the sink can never take; `ImpossibleError` if it takes all."""


def write_all(sink: BatchSink, batches: Sequence[TransactionBatch]) -> None:
    """Write batches with one writer; none may be refused."""
    writer = sink.open(lambda error: None)
    try:
        for batch in batches:
            assert list(writer.write(batch)) == []
    finally:
        writer.close()


def allow(fault: Callable[[], None]) -> None:
    """Arrange a fault, or skip the test where the server never makes it."""
    try:
        fault()
    except ImpossibleError as error:
        pytest.skip(f"no such fault: {error}")


def check(subject: BatchSubject, batch: TransactionBatch) -> None:
    """The sink holds each row of `batch` once, as it is, and nothing else."""
    held = subject.held()
    counts = Counter(row[0] for row in held)
    assert [name for name, count in counts.items() if count > 1] == []
    assert {row[0]: tuple(row[1:]) for row in held} == told(batch)


class BatchSinkConformance:
    """Every sink of decisions passes these."""

    def test_rows_arrive_with_their_values(self, subject: BatchSubject) -> None:
        """Sets of ids are equal, and so are amounts, scores and decisions."""
        batch = decided(0, 1_000)
        write_all(subject.sink, list(batch.pieces(300)))
        check(subject, batch)

    def test_a_batch_written_again_changes_nothing(self, subject: BatchSubject) -> None:
        """A bundle that is run again, by the same worker or a new one, has no second effect."""
        batch = decided(0, 200)
        write_all(subject.sink, [batch, batch])
        write_all(subject.sink, [batch])
        check(subject, batch)

    def test_rows_written_again_in_other_cuts_change_nothing(self, subject: BatchSubject) -> None:
        """After recovery a runner may put the same rows into other bundles."""
        if not subject.knows_rows:
            pytest.skip("its objects are named after their content: rows in other cuts are told apart by their id")
        batch = decided(0, 300)
        write_all(subject.sink, list(batch.pieces(70)))
        write_all(subject.sink, list(batch.pieces(110)))
        check(subject, batch)

    def test_an_id_twice_in_a_batch_is_one_row(self, subject: BatchSubject) -> None:
        """The first of two stands."""
        if not subject.knows_rows:
            pytest.skip("it keeps rows as they are; the pipeline removes duplicates before")
        batch = decided(0, 60)
        write_all(subject.sink, [concat_batches([batch, batch.slice(10, 20)])])
        check(subject, batch)

    def test_throttling_delays_and_loses_nothing(self, subject: BatchSubject) -> None:
        """Calls that are refused as too many are made again."""
        allow(lambda: subject.throttle(3))
        batch = decided(0, 300)
        write_all(subject.sink, [batch])
        check(subject, batch)

    def test_the_part_that_failed_is_written_again(self, subject: BatchSubject) -> None:
        """A call that did half of its work is completed."""
        allow(lambda: subject.fail_partly(3))
        batch = decided(0, 300)
        write_all(subject.sink, [batch])
        check(subject, batch)

    def test_an_answer_lost_after_the_effect_repeats_no_effect(self, subject: BatchSubject) -> None:
        """A time-out does not say whether the work was done; doing it again must be harmless."""
        allow(lambda: subject.lose_answers(2))
        batch = decided(0, 300)
        write_all(subject.sink, [batch])
        check(subject, batch)

    def test_a_server_killed_in_the_middle_loses_nothing(self, subject: BatchSubject) -> None:
        """Writing goes on when the server is back, with all rows there once."""
        batch = decided(0, 4_000)
        failures: list[BaseException] = []

        def write() -> None:
            try:
                for piece in batch.pieces(200):
                    write_all(subject.sink, [piece])
            except BaseException as error:
                failures.append(error)

        writing = threading.Thread(target=write)
        writing.start()
        time.sleep(0.3)
        try:
            subject.restart()
        finally:
            writing.join(120)
        assert failures == [], failures
        check(subject, batch)

    def test_a_poison_row_does_not_block_its_batch(self, subject: BatchSubject) -> None:
        """It becomes a dead letter that says why; its neighbours are written."""
        try:
            batch = subject.poisoned()
        except ImpossibleError as error:
            pytest.skip(f"no such row: {error}")
        with beam.Pipeline(FnApiRunner()) as pipeline:
            delivered = pipeline | beam.Create([batch]) | WriteBatches(subject.sink, "conformance")
            assert_that(delivered.dead_letters | beam.Map(lambda letter: letter.transaction_id), equal_to(["poison"]))
        ids = np.asarray(batch.rows.column("transaction_id").to_pylist(), dtype=object)
        check(subject, batch.take(np.flatnonzero(ids != "poison")))


class MessageSubject(Protocol):
    """A sink of messages on a real server, empty at first; see `BatchSubject`."""

    sink: MessageSink
    #: Whether the sink itself tells a repeated message; otherwise its receivers do, by the id.
    knows_ids: bool

    def received(self) -> list[tuple[str, bytes]]:
        """Every message received so far: id and body."""

    def throttle(self, times: int) -> None: ...

    def fail_partly(self, times: int) -> None: ...

    def lose_answers(self, times: int) -> None: ...

    def restart(self) -> None: ...

    def poisoned(self) -> list[Message]:
        """Good messages around one, with id `poison`, that the sink can never take."""


def messages(count: int, prefix: str = "a") -> list[Message]:
    """Alerts as messages."""
    return [
        Message(
            f"{prefix}{n:06}",
            b'{"alert_id":"%s%06d","n":%d}' % (prefix.encode(), n, n),
            f"t{n}",
            (("decision", "review"),),
        )
        for n in range(count)
    ]


def send_all(sink: MessageSink, sent: Sequence[Message]) -> None:
    """Send messages with one writer; none may be refused."""
    writer = sink.open(lambda error: None)
    try:
        assert list(writer.write(sent)) == []
    finally:
        writer.close()


def check_messages(subject: MessageSubject, sent: Sequence[Message], repeated: bool = False) -> None:
    """All were received, none else, and each once unless the sink cannot tell and something was `repeated`."""
    received = subject.received()
    assert dict(received) == {message.id: message.body for message in sent}
    if subject.knows_ids or not repeated:
        assert len(received) == len(sent)


class MessageSinkConformance:
    """Every sink of alerts and dead letters passes these."""

    def test_messages_arrive_with_their_bodies(self, subject: MessageSubject) -> None:
        """Sets of ids are equal, and so are the bodies."""
        sent = messages(250)
        send_all(subject.sink, sent)
        check_messages(subject, sent)

    def test_messages_sent_again_are_known_by_their_id(self, subject: MessageSubject) -> None:
        """A bundle that is run again sends the same ids."""
        sent = messages(30)
        send_all(subject.sink, sent)
        send_all(subject.sink, sent)
        check_messages(subject, sent, repeated=True)

    def test_throttling_delays_and_loses_nothing(self, subject: MessageSubject) -> None:
        """Calls that are refused as too many are made again."""
        allow(lambda: subject.throttle(3))
        sent = messages(60)
        send_all(subject.sink, sent)
        check_messages(subject, sent)

    def test_the_part_that_failed_is_sent_again_alone(self, subject: MessageSubject) -> None:
        """What a call delivered is not delivered again because its neighbours failed."""
        allow(lambda: subject.fail_partly(3))
        sent = messages(60)
        send_all(subject.sink, sent)
        check_messages(subject, sent)

    def test_an_answer_lost_after_the_effect_loses_nothing(self, subject: MessageSubject) -> None:
        """What may have been delivered is sent again under the same id."""
        allow(lambda: subject.lose_answers(2))
        sent = messages(60)
        send_all(subject.sink, sent)
        check_messages(subject, sent, repeated=True)

    def test_a_poison_message_does_not_block_the_others(self, subject: MessageSubject) -> None:
        """It becomes a dead letter that says why; its neighbours are delivered."""
        try:
            sent = subject.poisoned()
        except ImpossibleError as error:
            pytest.skip(f"no such message: {error}")

        def same(message: Any) -> list[Message]:
            return [Message(*message)]

        with beam.Pipeline(FnApiRunner()) as pipeline:
            created = pipeline | beam.Create([astuple(message) for message in sent], reshuffle=False)
            delivered = created | SendMessages(subject.sink, "conformance", same, stage="alert")
            assert_that(delivered.dead_letters | beam.Map(lambda letter: letter.source), equal_to(["poison"]))
        check_messages(subject, [message for message in sent if message.id != "poison"])
