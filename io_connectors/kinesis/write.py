"""Messages and decisions to a stream: `kinesis://stream`.

A record's partition key is its message's id: the transaction's for a decision, the alert's own for an alert, the
customer's for a transaction that is produced. Calls are repeated whenever it is not known that they worked, so a record
may come twice; whoever reads must tell that by the id in the record. Records of one partition key arrive in the order
in which they were sent: Kinesis may refuse any record of a call and take the others, so no call has two of one key, and
the next of a key waits until the one before it has been taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from botocore.config import Config

from io_connectors.aws import client
from io_connectors.aws_messages import fault_of_aws, reason_of_aws
from io_connectors.decision_json import decision_messages
from io_connectors.delivery import BatchWriter, Message, MessageWriter, OnRetry, Refused, UndeliveredError
from io_connectors.kinesis.check import check_stream
from io_connectors.kinesis.settings import Stream, stream_of
from io_connectors.message_calls import PATIENCE, Calls, Failure, MessageCalls
from io_connectors.retry import Backoff
from io_connectors.urls import ConnectorUrl
from transforms.batch import TransactionBatch
from transforms.hashing import text_digest

#: Of a call: so many records, and bytes of data and partition keys together.
MOST_RECORDS, MOST_BYTES = 500, 5 << 20
#: Bytes of a record, data and partition key together.
RECORD_BYTES = 1 << 20
#: Characters of a partition key.
KEY_LENGTH = 256
#: A stream that is out of reach for so many seconds fails the bundle of decisions, which is then run again.
DECISION_PATIENCE = 300.0

_CONTENT = frozenset(("InvalidArgumentException", "ValidationException"))


@dataclass(frozen=True)
class KinesisSink:
    """Where messages go: a `MessageSink`.

    Attributes:
        stream: which.
        concurrency: calls a worker has under way at once.
        backoff: when to try again, and when to give up.
    """

    stream: Stream
    concurrency: int = 4
    backoff: Backoff = field(default_factory=lambda: Backoff(give_up_after=PATIENCE))

    def open(self, on_retry: OnRetry) -> MessageWriter:
        """Connect."""
        config = Config(max_pool_connections=self.concurrency)
        kinesis = client("kinesis", self.stream.region, self.stream.endpoint, config)
        calls = Calls(
            lambda messages: put_records(kinesis, self.stream, messages),
            lambda error: fault_of_aws(error, _CONTENT),
            reason_of_aws,
            size_of,
            MOST_RECORDS,
            MOST_BYTES,
            self.concurrency,
        )
        return _KinesisWriter(MessageCalls(calls, on_retry, self.backoff, kinesis.close))


@dataclass(frozen=True)
class KinesisDecisionSink:
    """Where decisions go, a JSON object each: a `BatchSink`.

    Attributes:
        messages: where their messages go.
        columns: of the messages; see `decision_messages`.
    """

    messages: KinesisSink
    columns: tuple[str, ...] | None = None

    def open(self, on_retry: OnRetry) -> BatchWriter:
        """Connect."""
        return _DecisionWriter(self.messages.open(on_retry), self.columns)


class _KinesisWriter:
    """A `MessageWriter` that keeps messages of one id in order."""

    def __init__(self, calls: MessageCalls) -> None:
        self._calls = calls

    def write(self, messages: Sequence[Message]) -> Sequence[Refused]:
        refused = [
            Refused(at, "too_large", _too_large(m)) for at, m in enumerate(messages) if size_of(m) > RECORD_BYTES
        ]
        large = {each.at for each in refused}
        rounds = in_rounds([key_of(message) for message in messages])
        for number, places in enumerate(rounds):
            kept = [at for at in places if at not in large]
            try:
                found = self._calls.write([messages[at] for at in kept])
            except UndeliveredError as error:
                failed = [each._replace(at=kept[each.at]) for each in error.refused]
                waiting = [at for later in rounds[number + 1 :] for at in later if at not in large]
                held = [Refused(at, failed[0].reason, f"not sent after: {failed[0].error}") for at in waiting]
                raise UndeliveredError(sorted([*refused, *failed, *held])) from error
            refused += [each._replace(at=kept[each.at]) for each in found]
        return sorted(refused)

    def close(self) -> None:
        self._calls.close()


class _DecisionWriter:
    """A `BatchWriter` that sends a message for each row."""

    def __init__(self, writer: MessageWriter, columns: tuple[str, ...] | None) -> None:
        self._writer, self._columns = writer, columns

    def write(self, batch: TransactionBatch) -> Sequence[Refused]:
        return self._writer.write(decision_messages(batch, self._columns))

    def close(self) -> None:
        self._writer.close()


def kinesis_sink(url: ConnectorUrl) -> KinesisSink:
    """The sink of messages of `kinesis://STREAM?concurrency=&give_up_after=&region=&endpoint=`.

    `concurrency` is how many calls a worker has under way at once (4), `give_up_after` how many seconds messages that
    cannot be delivered are tried again (60; decisions: 300).

    Raises:
        UserError: something in the URL is wrong, or there is no such stream.
    """
    return _checked(url, PATIENCE)


def kinesis_decision_sink(url: ConnectorUrl) -> KinesisDecisionSink:
    """The sink of decisions that a URL names; it raises as `kinesis_sink`."""
    return KinesisDecisionSink(_checked(url, DECISION_PATIENCE), url.names("columns"))


def in_rounds(keys: Sequence[str]) -> list[list[int]]:
    """The places of keys in rounds, none of which has a key twice; a key's places are in order.

    Example:
        >>> in_rounds(["a", "b", "a", "c", "a"])
        [[0, 1, 3], [2], [4]]
    """
    rounds: list[list[int]] = []
    seen: dict[str, int] = {}
    for at, key in enumerate(keys):
        number = seen.get(key, 0)
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(at)
        seen[key] = number + 1
    return rounds


def put_records(kinesis: Any, stream: Stream, messages: Sequence[Message]) -> list[Failure]:
    """One call; the messages that Kinesis did not take, all of which it may take later.

    Args:
        kinesis: a client of boto3.
        stream: which.
        messages: at most `MOST_RECORDS`.
    """
    records = [{"PartitionKey": key_of(message), "Data": message.body} for message in messages]
    answer = kinesis.put_records(**stream.target, Records=records)
    if not answer["FailedRecordCount"]:
        return []
    return [
        Failure(at, each["ErrorCode"], each.get("ErrorMessage", each["ErrorCode"]), transient=True)
        for at, each in enumerate(answer["Records"])
        if each.get("ErrorCode")
    ]


def key_of(message: Message) -> str:
    """A message's partition key: its id, or a digest where that is none that Kinesis takes."""
    if 0 < len(message.id) <= KEY_LENGTH:
        return message.id
    return text_digest(message.id.encode() or message.body)


def size_of(message: Message) -> int:
    """Bytes of a message in a call."""
    return len(message.body) + len(key_of(message).encode())


def _too_large(message: Message) -> str:
    return f"{size_of(message):,} bytes as a record; {RECORD_BYTES:,} is the most that a stream takes"


def _checked(url: ConnectorUrl, patience: float) -> KinesisSink:
    stream = stream_of(url)
    backoff = Backoff(give_up_after=url.number("give_up_after", default=patience))
    sink = KinesisSink(stream, url.integer("concurrency", default=4, least=1), backoff)
    check_stream(stream)
    return sink
