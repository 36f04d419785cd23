"""Kinesis as a sink of decisions and of messages, against kinesalite, which has Kinesis' limits, behind a proxy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest

from io_connectors.delivery import Message, UndeliveredError
from io_connectors.kinesis.settings import Stream
from io_connectors.kinesis.write import RECORD_BYTES, KinesisDecisionSink, KinesisSink, kinesis_sink
from io_connectors.retry import Backoff
from io_connectors.sinks import decision_sink, message_sink
from io_connectors.urls import ConnectorUrl
from pipelines.produce import main as produce
from runners.local import Kinesis
from tests.integration.faults import Answer, HttpFaultProxy
from tests.integration.sink_conformance import (
    BatchSinkConformance,
    MessageSinkConformance,
    decided,
    messages,
    send_all,
)
from transforms.batch import TransactionBatch, concat_batches
from transforms.errors import UserError

QUICK = Backoff(first=0.02, most=0.2, give_up_after=30)
CALL = "PutRecords"
THROTTLED = {"__type": "ProvisionedThroughputExceededException", "message": "Rate exceeded for shard"}


@pytest.fixture(autouse=True)
def credentials(kinesis: Kinesis, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, kinesis.environment[name])


class RefusingProxy(HttpFaultProxy):
    """A proxy that can also keep a part of the records of a call from the server, and say that they were throttled.

    Attributes:
        refuse: of each of the next calls the places of the records to refuse, as a slice.
        calls: the partition keys of every call.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.refuse: list[slice] = []
        self.calls: list[list[str]] = []

    def _forward(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if CALL not in str(headers):
            return super()._forward(method, path, headers, body)
        call = json.loads(body)
        records = call["Records"]
        with self._lock:
            self.calls.append([record["PartitionKey"] for record in records])
            refused = set(range(len(records))[self.refuse.pop(0)]) if self.refuse else set()
        if not refused:
            return super()._forward(method, path, headers, body)
        call["Records"] = [record for at, record in enumerate(records) if at not in refused]
        answers: list[Any] = []
        status, answered = 200, {"Content-Type": "application/x-amz-json-1.1"}
        if call["Records"]:
            status, answered, content = super()._forward(method, path, headers, json.dumps(call).encode())
            answers = json.loads(content)["Records"]
        failed = {"ErrorCode": THROTTLED["__type"], "ErrorMessage": THROTTLED["message"]}
        told = [failed if at in refused else answers.pop(0) for at in range(len(records))]
        return status, answered, json.dumps({"FailedRecordCount": len(refused), "Records": told}).encode()


@pytest.fixture
def proxy(kinesis: Kinesis) -> Iterator[RefusingProxy]:
    with RefusingProxy("127.0.0.1", kinesis.port) as running:
        yield running


def records_of(kinesis: Kinesis, stream: str) -> list[tuple[str, bytes]]:
    """Every record's partition key and data, a shard after the other."""
    client = kinesis.client()
    found = []
    for shard in client.list_shards(StreamName=stream)["Shards"]:
        where = {"StreamName": stream, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        iterator = client.get_shard_iterator(**where)["ShardIterator"]
        while (page := client.get_records(ShardIterator=iterator))["Records"]:
            found += [(record["PartitionKey"], record["Data"]) for record in page["Records"]]
            iterator = page["NextShardIterator"]
    client.close()
    return found


@dataclass
class _Stream:
    """A stream of its own."""

    kinesis: Kinesis
    proxy: RefusingProxy
    name: str

    knows_rows = True  # a reader knows a repetition by its key
    knows_ids = False

    @property
    def messages(self) -> KinesisSink:
        return KinesisSink(Stream(self.name, None, "us-east-1", self.proxy.url), backoff=QUICK)

    def throttle(self, times: int) -> None:
        self.proxy.answer(times, 400, THROTTLED, to=CALL)

    def fail_partly(self, times: int) -> None:
        self.proxy.refuse += [slice(0, None, 2)] * times

    def lose_answers(self, times: int) -> None:
        self.proxy.lose_answers(times, to=CALL)

    def restart(self) -> None:
        self.kinesis.kill()
        self.kinesis.start()


class DecisionSubject(_Stream):
    """Decisions as records."""

    @property
    def sink(self) -> KinesisDecisionSink:
        return KinesisDecisionSink(self.messages)

    def held(self) -> list[tuple[str, int, float, str]]:
        rows = {}
        for key, data in records_of(self.kinesis, self.name):
            row = json.loads(data)
            assert key == row["transaction_id"]
            rows[key] = (key, row["amount_minor"], row["score"], row["decision"])
        return list(rows.values())

    def poisoned(self) -> TransactionBatch:
        like = decided(1_000, 1).rows
        row = {**like.to_pylist()[0], "transaction_id": "poison", "model_id": "m" * RECORD_BYTES}
        poison = TransactionBatch(pa.RecordBatch.from_pylist([row], like.schema))
        return concat_batches([decided(0, 20), poison, decided(20, 20)])


class MessageSubject(_Stream):
    """Messages as they are."""

    @property
    def sink(self) -> KinesisSink:
        return self.messages

    def received(self) -> list[tuple[str, bytes]]:
        return records_of(self.kinesis, self.name)

    def poisoned(self) -> list[Message]:
        return [*messages(3), Message("poison", b'"%s"' % (b"p" * RECORD_BYTES)), *messages(3, "b")]


def a_stream(kinesis: Kinesis, shards: int = 2) -> str:
    name = f"sink-{uuid4().hex}"
    kinesis.create_stream(name, shards)
    return name


class TestDecisions(BatchSinkConformance):
    """What every sink of decisions must stand."""

    @pytest.fixture
    def subject(self, kinesis: Kinesis, proxy: RefusingProxy) -> DecisionSubject:
        return DecisionSubject(kinesis, proxy, a_stream(kinesis))


class TestMessages(MessageSinkConformance):
    """What every sink of messages must stand."""

    @pytest.fixture
    def subject(self, kinesis: Kinesis, proxy: RefusingProxy) -> MessageSubject:
        return MessageSubject(kinesis, proxy, a_stream(kinesis))


def test_a_key_stays_in_order_though_records_of_it_are_refused(kinesis: Kinesis, proxy: RefusingProxy) -> None:
    """No call has two records of a key, so the next of a key waits for the one before it."""
    subject = MessageSubject(kinesis, proxy, a_stream(kinesis, 1))
    proxy.refuse = [slice(0, None, 3), slice(1, None, 2), slice(0, None, 1), slice(0, 5)]
    sent = [Message(f"customer-{at % 40}", b'{"n":%d}' % at) for at in range(600)]
    send_all(subject.sink, sent)
    assert all(len(set(keys)) == len(keys) for keys in proxy.calls)
    order: dict[str, list[int]] = {}
    for key, data in subject.received():
        order.setdefault(key, []).append(json.loads(data)["n"])
    assert order == {f"customer-{key}": list(range(key, 600, 40)) for key in range(40)}


def test_calls_keep_to_the_limits_of_kinesis(kinesis: Kinesis, proxy: RefusingProxy) -> None:
    """At most 500 records and 5 MB a call, which the server refuses otherwise; ids that are no keys have digests."""
    subject = MessageSubject(kinesis, proxy, a_stream(kinesis))
    small = messages(1_200)
    large = [Message(f"large-{at}", b'"%s"' % (b"x" * 900_000)) for at in range(12)]
    odd = [Message("", b'{"no":"id"}'), Message("x" * 300, b'{"long":"id"}')]
    send_all(subject.sink, [*small, *large, *odd])
    assert max(len(keys) for keys in proxy.calls) <= 500
    assert sorted(data for _, data in subject.received()) == sorted(m.body for m in [*small, *large, *odd])


def test_a_stream_that_is_throttled_for_long_is_given_up(kinesis: Kinesis, proxy: RefusingProxy) -> None:
    """Messages that were not delivered are named, also those that waited for others of their id."""
    stream = Stream(a_stream(kinesis), None, "us-east-1", proxy.url)
    proxy.refuse = [slice(0, None)] * 1_000
    writer = KinesisSink(stream, backoff=Backoff(first=0.01, most=0.02, give_up_after=0.2)).open(lambda error: None)
    with pytest.raises(UndeliveredError) as caught:
        writer.write([Message("a", b"1"), Message("b", b"2"), Message("a", b"3")])
    writer.close()
    assert [refused.at for refused in caught.value.refused] == [0, 1, 2]
    assert all("Rate exceeded" in refused.error for refused in caught.value.refused)


def test_a_url_names_both_kinds_of_sink(kinesis: Kinesis) -> None:
    """`--sink`, `--alert`, `--dead_letters` and the produce command know the scheme."""
    url = f"kinesis://{a_stream(kinesis)}?region=us-east-1&endpoint={kinesis.endpoint}"
    assert isinstance(message_sink(f"{url}&concurrency=2", "--sink"), KinesisSink)
    assert decision_sink(url)


def test_what_is_produced_arrives_in_the_order_of_each_customer(kinesis: Kinesis) -> None:
    """The command of demonstrations and load: customers are partition keys, and event times ascend."""
    stream = a_stream(kinesis)
    url = f"kinesis://{stream}?region=us-east-1&endpoint={kinesis.endpoint}"
    source = "simulator:?customers=100&terminals=200&days=10&seed=1"
    assert produce(["--source", source, "--sink", url, "--times", "recorded", "--count", "900", "--quiet"]) == 0
    times: dict[str, list[str]] = {}
    for key, data in records_of(kinesis, stream):
        event = json.loads(data)
        assert event["user_id"] == key
        times.setdefault(key, []).append(event["timestamp"])
    assert sum(map(len, times.values())) == 900
    assert len(times) > 30
    assert all(found == sorted(found) for found in times.values())


def test_a_stream_that_is_not_there_is_refused_with_a_hint(kinesis: Kinesis) -> None:
    """When the sink is opened; nothing has been read by then."""
    with pytest.raises(UserError, match=r"no such stream in us-east-1; .*did you mean transaction-events\?"):
        kinesis_sink(ConnectorUrl("kinesis", "transaction-event", {"endpoint": kinesis.endpoint}))
