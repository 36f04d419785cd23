from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from itertools import count
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError

from io_connectors.delivery import Message
from io_connectors.retry import Backoff
from io_connectors.s3.message_sink import S3MessageSink, s3_message_sink
from io_connectors.s3.parquet_sink import S3ParquetSink, s3_parquet_sink
from io_connectors.sinks import DECISION_SINKS, RECORD_SINKS
from io_connectors.urls import parse_url
from runners.local import S3
from tests.integration.faults import HttpFaultProxy
from tests.integration.sink_conformance import (
    BatchSinkConformance,
    ImpossibleError,
    MessageSinkConformance,
    decided,
    messages,
    send_all,
    told,
    write_all,
)
from transforms.batch import TransactionBatch, concat_batches
from transforms.errors import UserError

BUCKETS = (f"sinks-{n}" for n in count())
SOON = Backoff(first=0.02, most=0.5, give_up_after=60.0)
SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


def parquet_sink(url: str, endpoint: str) -> S3ParquetSink:
    return replace(s3_parquet_sink(parse_url(f"{url}endpoint={endpoint}", DECISION_SINKS)), backoff=SOON)


def lines_sink(url: str, endpoint: str) -> S3MessageSink:
    return replace(s3_message_sink(parse_url(f"{url}?endpoint={endpoint}", RECORD_SINKS)), backoff=SOON)


@pytest.fixture(autouse=True)
def _credentials(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        if not name.startswith("AWS_ENDPOINT"):
            monkeypatch.setenv(name, value)


@pytest.fixture
def proxy(s3: S3) -> Iterator[HttpFaultProxy]:
    host, port = s3.address.split(":")
    with HttpFaultProxy(host, int(port)) as running:
        yield running


@pytest.fixture
def bucket(s3: S3) -> str:
    name = next(BUCKETS)
    s3.create_bucket(name)
    return name


def objects(server: S3, bucket: str, prefix: str = "") -> dict[str, bytes]:
    """Every object of a bucket under a prefix."""
    asking = server.client()
    pages = asking.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [each["Key"] for page in pages for each in page.get("Contents", ())]
    found = {key: asking.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}
    asking.close()
    return found


def rows_of(server: S3, bucket: str, prefix: str = "") -> list[tuple[str, int, float, str]]:
    """Id, amount, score and decision of every row under a prefix."""
    tables = [pq.read_table(BytesIO(content)) for content in objects(server, bucket, prefix).values()]
    names = ("transaction_id", "amount_minor", "score", "decision")
    return [row for table in tables for row in zip(*(table.column(name).to_pylist() for name in names), strict=True)]


class _Faults:
    """What versitygw behind a proxy can be made to suffer."""

    def __init__(self, server: S3, proxy: HttpFaultProxy, bucket: str) -> None:
        self.server = server
        self.proxy = proxy
        self.bucket = bucket

    def throttle(self, times: int) -> None:
        self.proxy.answer(times, 503, SLOW_DOWN, {"Content-Type": "application/xml"})

    def lose_answers(self, times: int) -> None:
        self.proxy.lose_answers(times)

    def restart(self) -> None:
        self.server.kill()
        self.server.start()


class ParquetSubject(_Faults):
    """A prefix that decisions go to."""

    knows_rows = False

    @property
    def sink(self) -> S3ParquetSink:
        return parquet_sink(f"s3://{self.bucket}/decisions?rows_per_file=100&", self.proxy.url)

    def held(self) -> list[tuple[str, int, float, str]]:
        return rows_of(self.server, self.bucket)

    def fail_partly(self, times: int) -> None:
        self.proxy.answer(
            times, 503, SLOW_DOWN, {"Content-Type": "application/xml"}, to="part-20260101T010000"
        )  # the second object

    def poisoned(self) -> TransactionBatch:
        raise ImpossibleError("an object takes every row")


class LinesSubject(_Faults):
    """A prefix that messages go to."""

    knows_ids = False

    @property
    def sink(self) -> S3MessageSink:
        return lines_sink(f"s3://{self.bucket}/alerts", self.proxy.url)

    def received(self) -> list[tuple[str, bytes]]:
        lines = [line for content in objects(self.server, self.bucket).values() for line in content.splitlines()]
        return [(msgspec.json.decode(line)["alert_id"], line) for line in lines]

    def fail_partly(self, times: int) -> None:
        raise ImpossibleError("an object is there or not")

    def poisoned(self) -> list[Message]:
        raise ImpossibleError("an object takes every message")


class TestDecisions(BatchSinkConformance):
    """The bucket passes what every sink of decisions must."""

    @pytest.fixture
    def subject(self, s3: S3, proxy: HttpFaultProxy, bucket: str) -> ParquetSubject:
        return ParquetSubject(s3, proxy, bucket)


class TestMessages(MessageSinkConformance):
    """The bucket passes what every sink of messages must."""

    @pytest.fixture
    def subject(self, s3: S3, proxy: HttpFaultProxy, bucket: str) -> LinesSubject:
        return LinesSubject(s3, proxy, bucket)


def test_decisions_lie_in_folders_of_their_days(s3: S3, bucket: str) -> None:
    """Under names that partitions are recognised by; a whole prefix reads as one table with the day as a column."""
    write_all(parquet_sink(f"s3://{bucket}/a/b?", s3.endpoint), [decided(0, 3_000)])
    found = objects(s3, bucket)
    assert sorted(key.rpartition("/")[0] for key in found) == ["a/b/event_date=2026-01-01", "a/b/event_date=2026-01-02"]
    assert all(re.fullmatch(r".*/part-2026010[12]T000000-[0-9a-f]{16}\.parquet", key) for key in found)
    for key, content in found.items():
        times = pq.read_table(BytesIO(content)).column("event_time").to_pylist()
        assert {f"{time:%Y-%m-%d}" for time in times} == {key.split("event_date=")[1][:10]}
    assert {row[0]: row[1:] for row in rows_of(s3, bucket)} == told(decided(0, 3_000))


def test_what_is_flagged_is_there_twice(s3: S3, bucket: str) -> None:
    """Once among all decisions, once in a bucket of its own, in the same layout."""
    other = next(BUCKETS)
    s3.create_bucket(other)
    batch = decided(0, 500)
    write_all(parquet_sink(f"s3://{bucket}/all?flagged=s3://{other}/review&", s3.endpoint), [batch])
    assert len(rows_of(s3, bucket)) == 500
    assert sorted(row[0] for row in rows_of(s3, other)) == sorted(f"t{n}" for n in range(0, 500, 10))
    assert all(key.startswith("review/event_date=2026-01-01/part-20260101T") for key in objects(s3, other))


def test_no_flagged_rows_make_no_object(s3: S3, bucket: str) -> None:
    """An empty file is none."""
    batch = decided(1, 5)
    write_all(parquet_sink(f"s3://{bucket}/all?flagged=review&", s3.endpoint), [batch])
    assert objects(s3, bucket, "review") == {}


def test_the_order_of_rows_does_not_change_an_object(s3: S3, bucket: str) -> None:
    """A bundle that is run again may bring its batches in another order."""
    sink = parquet_sink(f"s3://{bucket}/a?", s3.endpoint)
    write_all(sink, [decided(0, 200)])
    before = {key: hashlib.sha256(content).hexdigest() for key, content in objects(s3, bucket).items()}
    write_all(sink, [concat_batches([decided(100, 100), decided(0, 100)])])
    assert {key: hashlib.sha256(content).hexdigest() for key, content in objects(s3, bucket).items()} == before


def test_other_decisions_on_the_same_rows_are_other_objects(s3: S3, bucket: str) -> None:
    """What a run with other thresholds writes is not taken for what is there already."""
    sink = parquet_sink(f"s3://{bucket}/a?", s3.endpoint)
    batch = decided(0, 20)
    write_all(sink, [batch, batch.with_columns({"decision": pa.array(["decline"] * 20)})])
    assert len(objects(s3, bucket)) == 2


def test_an_object_that_is_there_is_not_put_again(s3: S3, bucket: str) -> None:
    """Where versions are kept or puts are told to somebody, a repeated write makes neither a version nor a message."""
    sink = parquet_sink(f"s3://{bucket}/a?", s3.endpoint)
    write_all(sink, [decided(0, 20)])
    asking = s3.client()
    (key,) = objects(s3, bucket)
    asking.put_object(Bucket=bucket, Key=key, Body=b"what somebody put there")
    write_all(sink, [decided(0, 20)])
    assert objects(s3, bucket)[key] == b"what somebody put there"
    asking.close()


def test_large_batches_become_files_of_bounded_groups(s3: S3, bucket: str) -> None:
    """Files end at `rows_per_file`, and a group of rows is never larger than what a writer may hold."""
    batch = decided(0, 1_000)
    shortly = (batch.numpy("event_time")[0] + np.arange(1_000)).astype("datetime64[us]")
    batch = batch.with_columns({"event_time": pa.array(shortly, pa.timestamp("us", tz="UTC"))})
    write_all(parquet_sink(f"s3://{bucket}/a?rows_per_file=300&", s3.endpoint), [batch])
    counts = [pq.read_metadata(BytesIO(content)).num_rows for content in objects(s3, bucket).values()]
    assert sorted(counts) == [100, 300, 300, 300]


def test_a_bucket_that_is_not_there_fails_the_write(s3: S3) -> None:
    """With a message that names it."""
    for sink in (parquet_sink("s3://nowhere/a?", s3.endpoint), lines_sink("s3://nowhere/a", s3.endpoint)):
        writer: Any = sink.open(lambda error: None)
        with pytest.raises(UserError, match="there is no bucket nowhere"):
            writer.write(decided(0, 5) if isinstance(sink, S3ParquetSink) else messages(5))
        writer.close()


def test_a_key_of_nobodys_is_refused(s3: S3, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no attempt mends fails at once."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    writer = parquet_sink(f"s3://{bucket}/a?", s3.endpoint).open(lambda error: None)
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        writer.write(decided(0, 5))
    writer.close()


def test_the_key_of_encryption_is_asked_for(bucket: str, proxy: HttpFaultProxy) -> None:
    """Each object names it, and asks for bucket keys, which make it cheap."""
    seen: list[dict[str, str]] = []

    def look(path: str, headers: Any, body: bytes, answer: Any) -> Any:
        seen.append({name.lower(): value for name, value in headers.items()})
        return answer

    proxy.change_answers(1, look)
    write_all(parquet_sink(f"s3://{bucket}/a?kms_key=alias/fraud&", proxy.url), [decided(0, 5)])
    assert seen[0]["x-amz-server-side-encryption"] == "aws:kms"
    assert seen[0]["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/fraud"
    assert seen[0]["x-amz-server-side-encryption-bucket-key-enabled"] == "true"


def test_retries_are_counted(bucket: str, proxy: HttpFaultProxy) -> None:
    """Each attempt that is followed by another is told, once."""
    proxy.answer(3, 503, SLOW_DOWN, {"Content-Type": "application/xml"})
    told_of: list[Exception] = []
    writer = parquet_sink(f"s3://{bucket}/a?", proxy.url).open(told_of.append)
    assert writer.write(decided(0, 20)) == []
    writer.close()
    assert len(told_of) == 3


def test_messages_together_are_one_object(s3: S3, bucket: str) -> None:
    """Named after their ids, a line each, in their order; an id twice is one line."""
    sent = messages(20)
    sink = lines_sink(f"s3://{bucket}/alerts", s3.endpoint)
    send_all(sink, [*sent, sent[3]])
    send_all(sink, sent)
    send_all(sink, [])
    ((key, content),) = objects(s3, bucket).items()
    assert key.startswith("alerts/messages-")
    assert content.splitlines() == [message.body for message in sent]
