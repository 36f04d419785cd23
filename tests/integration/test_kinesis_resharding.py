"""Streams that are split and merged while they are written and read, and calls that fail, on real servers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from botocore.eventstream import EventStream, EventStreamMessage, MessagePrelude

from io_connectors.kinesis.connect import READERS
from io_connectors.sources import open_source
from runners.local import Kinesis, KinesisLocal
from tests.integration.faults import HttpFaultProxy
from tests.integration.kinesis_streams import KinesisSubject, read_batches, read_in_order, subject_on
from tests.integration.source_conformance import SCHEMA, events, read
from tests.kinesis_stream import aggregate
from transforms.parse import parse

KEYS = 40


@pytest.fixture(autouse=True)
def credentials(kinesis: Kinesis, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, kinesis.environment[name])
    yield
    READERS.close()


class Producer(threading.Thread):
    """Puts numbered records of some keys, round by round, until it is told to stop.

    Attributes:
        rounds: how many records of each key are in the stream.
    """

    def __init__(self, subject: KinesisSubject) -> None:
        super().__init__()
        self.subject = subject
        self.rounds = 0
        self.failure: BaseException | None = None
        self._stop_asked = threading.Event()

    def run(self) -> None:
        client = self.subject.server.client()
        try:
            while not self._stop_asked.is_set():
                records = [{"PartitionKey": f"k{key}", "Data": b"%d/%d" % (key, self.rounds)} for key in range(KEYS)]
                assert client.put_records(StreamName=self.subject.stream, Records=records)["FailedRecordCount"] == 0
                self.rounds += 1
                time.sleep(0.03)
        except BaseException as error:
            self.failure = error
        finally:
            client.close()

    def stop(self) -> None:
        """Have all of it in the stream."""
        self._stop_asked.set()
        self.join()
        assert self.failure is None


def check_complete(found: Sequence[bytes], rounds: int) -> None:
    """Every key has all its records, once, in order."""
    order: dict[int, list[int]] = {key: [] for key in range(KEYS)}
    for payload in found:
        key, number = map(int, payload.split(b"/"))
        order[key].append(number)
    wrong = {key: numbers for key, numbers in order.items() if numbers != list(range(rounds))}
    assert not wrong, f"of {rounds} rounds: {wrong}"


class Resharder:
    """Splits and merges a stream, and waits till it is done."""

    def __init__(self, subject: KinesisSubject) -> None:
        self.client = subject.server.client()
        self.stream = subject.stream

    def open_shards(self) -> list[dict[str, Any]]:
        shards = self.client.list_shards(StreamName=self.stream)["Shards"]
        still = [shard for shard in shards if "EndingSequenceNumber" not in shard["SequenceNumberRange"]]
        return sorted(still, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))

    def split(self, at: int) -> None:
        shard = self.open_shards()[at]
        keys = shard["HashKeyRange"]
        middle = (int(keys["StartingHashKey"]) + int(keys["EndingHashKey"])) // 2
        self.client.split_shard(StreamName=self.stream, ShardToSplit=shard["ShardId"], NewStartingHashKey=str(middle))
        self.wait()

    def merge(self, at: int) -> None:
        left, right = self.open_shards()[at : at + 2]
        self.client.merge_shards(
            StreamName=self.stream, ShardToMerge=left["ShardId"], AdjacentShardToMerge=right["ShardId"]
        )
        self.wait()

    def wait(self) -> None:
        deadline = time.monotonic() + 20
        while self.status() != "ACTIVE":
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def status(self) -> str:
        summary = self.client.describe_stream_summary(StreamName=self.stream)
        return str(summary["StreamDescriptionSummary"]["StreamStatus"])


@pytest.mark.parametrize("server", ["kinesis", "kinesis_local"])
def test_a_stream_resharded_under_load_is_read_whole_and_in_order(server: str, request: pytest.FixtureRequest) -> None:
    """By who reads meanwhile, by who reads later, and by who is stopped and taken up again at every batch.

    Slices were cut before: a shard that spans two of them after the merges is read by both.
    """
    subject = subject_on(request.getfixturevalue(server), 2)
    producer, resharder = Producer(subject), Resharder(subject)
    found: list[bytes] = []
    reading = threading.Thread(target=lambda: found.extend(read(subject.url(max_duration="9s"))))
    producer.start()
    reading.start()
    time.sleep(1)
    for split, at in ((True, 0), (False, 1), (False, 0), (True, 0)):
        resharder.split(at) if split else resharder.merge(at)
        time.sleep(0.3)
    producer.stop()
    reading.join()
    resharder.client.close()
    assert producer.rounds > 20
    check_complete(found, producer.rounds)
    check_complete(read(subject.url(until="latest")), producer.rounds)
    if server == "kinesis_local":  # once is enough
        check_complete(subject.read_with_checkpoints(500), producer.rounds)


@pytest.fixture
def proxied(kinesis: Kinesis) -> Iterator[tuple[KinesisSubject, HttpFaultProxy]]:
    with HttpFaultProxy("127.0.0.1", kinesis.port) as proxy:
        yield replace(subject_on(kinesis), endpoint=proxy.url), proxy


FAULTS: dict[str, Callable[[HttpFaultProxy], None]] = {
    "expired": lambda proxy: proxy.answer(3, 400, {"__type": "ExpiredIteratorException"}, to="GetRecords"),
    "throttled": lambda proxy: proxy.answer(
        6, 400, {"__type": "ProvisionedThroughputExceededException", "message": "Rate exceeded"}, to="GetRecords"
    ),
    "iterators throttled": lambda proxy: proxy.answer(4, 400, {"__type": "LimitExceededException"}, to="GetShardIter"),
    "failing": lambda proxy: proxy.answer(4, 500, {"__type": "InternalFailure"}, to="GetRecords"),
    "cut": lambda proxy: proxy.lose_answers(5, to="GetRecords"),
    "listing failing": lambda proxy: proxy.answer(3, 503, b"<html>", to="ListShards"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_calls_that_fail_lose_and_repeat_nothing(proxied: tuple[KinesisSubject, HttpFaultProxy], fault: str) -> None:
    """Iterators that expired are got anew from the last record; what is throttled waits."""
    subject, proxy = proxied
    sent = events(600)
    subject.produce(sent)
    source = open_source(subject.url(until="latest"), SCHEMA, 100)
    FAULTS[fault](proxy)
    assert sorted(payload for raw in read_batches(source) for payload in raw.payloads or ()) == sorted(sent)
    assert proxy.faults_left == 0


def test_a_stream_without_a_right_to_read_it_fails(proxied: tuple[KinesisSubject, HttpFaultProxy]) -> None:
    """Loudly, and soon: it does not wait for a right to come."""
    subject, proxy = proxied
    source = open_source(subject.url(until="latest"), SCHEMA, 100)
    proxy.answer(100, 400, {"__type": "AccessDeniedException", "message": "not yours"}, to="GetRecords")
    pipeline = beam.Pipeline(FnApiRunner())
    _ = pipeline | source.read
    with pytest.raises(Exception, match="AccessDeniedException"):
        pipeline.run()


def test_aggregates_of_the_producer_library_are_taken_apart(kinesis: Kinesis) -> None:
    """On the way through the pipeline; a damaged one is a dead letter, and read equals good plus dead."""
    subject = subject_on(kinesis)
    sent = events(90)
    damaged = bytearray(aggregate([("k", sent[0])]))
    damaged[-1] ^= 1
    subject.put([(f"a{at}", aggregate([(f"k{n}", sent[n]) for n in range(at, at + 30)])) for at in (0, 30, 60)])
    subject.put([("b", bytes(damaged))])
    parsed = [parse(raw, SCHEMA) for raw in read_batches(open_source(subject.url(until="latest"), SCHEMA, 7))]
    ids = [name for batch, _ in parsed if batch for name in batch.rows.column("transaction_id").to_pylist()]
    assert sorted(ids) == sorted(f"t{n}" for n in range(90))
    (letter,) = (letter for _, dead in parsed for letter in dead)
    assert letter.reason == "aggregate_corrupt"
    assert letter.source.startswith(f"{subject.stream}/shardId-")


def test_rows_of_a_source_that_ends_are_put_in_order_and_none_is_late(kinesis: Kinesis) -> None:
    """Though its readers leave off and are taken up again many times, and one may be far behind another."""
    subject = subject_on(kinesis)
    sent = events(3_000)
    subject.put([(f"key-{at}", sent[at * 1_601 % 3_000]) for at in range(3_000)])
    batches = read_in_order(open_source(subject.url(until="latest"), SCHEMA, 100))
    assert sorted(name for b in batches for name in b.rows.column("transaction_id").to_pylist()) == sorted(
        f"t{n}" for n in range(3_000)
    )
    assert not any(late for b in batches for late in b.rows.column("late").to_pylist())


def test_keys_headers_and_arrival_times_travel_with_the_batch(kinesis: Kinesis) -> None:
    """As Kinesis has them."""
    subject = subject_on(kinesis, 1)
    before = time.time_ns() // 1000
    subject.put([("card-1", b"{}"), ("card-2", b"[]")])
    (batch,) = read_batches(open_source(subject.url(until="latest"), SCHEMA, 10))
    assert batch.headers is not None
    assert batch.timestamps is not None
    client = subject.server.client()
    where = {"ShardId": "shardId-000000000000", "ShardIteratorType": "TRIM_HORIZON"}
    iterator = client.get_shard_iterator(StreamName=subject.stream, **where)["ShardIterator"]
    records = client.get_records(ShardIterator=iterator)["Records"]
    client.close()
    assert batch.keys == [b"card-1", b"card-2"]
    assert [dict(headers)["sequence_number"].decode() for headers in batch.headers] == [
        record["SequenceNumber"] for record in records
    ]
    assert batch.timestamps.tolist() == [
        round(record["ApproximateArrivalTimestamp"].timestamp() * 1e3) * 1000 for record in records
    ]
    assert before - 5_000_000 < batch.timestamps[0] < before + 60_000_000


@pytest.fixture
def subscribing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Supplies the first event of a subscription, which AWS sends and kinesis-local leaves out."""

    def initial_response(stream: EventStream) -> EventStreamMessage:
        return EventStreamMessage(MessagePrelude(16, 0, 0), {":event-type": "initial-response"}, b"{}", 0)

    monkeypatch.setattr(EventStream, "get_initial_response", initial_response)


def test_a_consumer_is_sent_what_comes(kinesis_local: KinesisLocal, subscribing: None) -> None:
    """Enhanced fan-out, named in the URL: what was there, and what comes while it is read."""
    subject = subject_on(kinesis_local, 2)
    client = kinesis_local.client()
    arn = client.describe_stream_summary(StreamName=subject.stream)["StreamDescriptionSummary"]["StreamARN"]
    client.register_stream_consumer(StreamARN=arn, ConsumerName="fraud")
    deadline = time.monotonic() + 10
    status = "CREATING"
    while status != "ACTIVE":
        assert time.monotonic() < deadline
        time.sleep(0.1)
        query = {"StreamARN": arn, "ConsumerName": "fraud"}
        status = client.describe_stream_consumer(**query)["ConsumerDescription"]["ConsumerStatus"]
    client.close()
    sent = events(400)
    subject.produce(sent[:300])
    found: list[bytes] = []
    url = subject.url(consumer="fraud", max_duration="6s")
    reading = threading.Thread(target=lambda: found.extend(read(url)))
    reading.start()
    time.sleep(2)
    subject.produce(sent[300:])
    reading.join()
    assert sorted(found) == sorted(sent)


def test_prism_streams_what_comes_while_the_stream_is_resharded(kinesis: Kinesis, prism: Path, tmp_path: Path) -> None:
    """A source without an end gives what comes when it comes, on a runner that streams."""
    subject = subject_on(kinesis, 2)
    out = tmp_path / "out.jsonl"
    program = f"""
import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from io_connectors.json_lines import WriteJsonLines
from io_connectors.sources import open_source
from transforms.schema import load_schema
options = PipelineOptions(["--runner=PrismRunner", "--prism_location={prism}", "--environment_type=LOOPBACK"])
pipeline = beam.Pipeline(options=options)
read = open_source({subject.url()!r}, load_schema("transaction-events"), 1000).read
_ = (pipeline | read | beam.FlatMap(lambda raw: raw.payloads) | beam.Reshuffle()
     | WriteJsonLines({str(out)!r}, lambda line: line))
pipeline.run().wait_until_finish()
"""
    log = (tmp_path / "log").open("wb")
    running = subprocess.Popen([sys.executable, "-c", program], stdout=log, stderr=log)
    resharder = Resharder(subject)
    try:
        for first in (0, 100, 200):
            subject.produce(events(100, first))
            deadline = time.monotonic() + 60
            while not out.exists() or len(out.read_bytes().splitlines()) < first + 100:
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()[-3000:]
                assert running.poll() is None, (tmp_path / "log").read_text()[-3000:]
                time.sleep(0.1)
            resharder.split(0) if first == 0 else resharder.merge(0)
        time.sleep(1)
        ids = [json.loads(line)["transaction_id"] for line in out.read_bytes().splitlines()]
        assert sorted(ids) == sorted(f"t{n}" for n in range(300))
    finally:
        running.terminate()
        running.wait()
        log.close()
        resharder.client.close()
