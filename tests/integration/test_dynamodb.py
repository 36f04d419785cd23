from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from boto3.dynamodb.types import TypeDeserializer
from botocore.exceptions import ClientError

from benchmarks import dynamodb_sink as dynamodb_sink_benchmark
from benchmarks.traffic import decisions
from io_connectors.delivery import Refused
from io_connectors.dynamodb.calls import Row, insert, put_each
from io_connectors.dynamodb.items import item_bytes, items_of
from io_connectors.dynamodb.sink import DynamoDbSink, dynamodb_sink
from io_connectors.dynamodb.table import Table, make_ready
from io_connectors.retry import Backoff
from io_connectors.sinks import DECISION_SINKS
from io_connectors.urls import parse_url
from runners.local import DynamoDb
from tests.integration.faults import Answer, HttpFaultProxy
from tests.integration.sink_conformance import BatchSinkConformance, decided, told, write_all
from transforms.batch import TransactionBatch, concat_batches, from_rows
from transforms.errors import UserError

NAMES = (f"decisions-{n}" for n in count())
SOON = Backoff(first=0.02, most=0.5, give_up_after=60.0)
THROTTLED = {"__type": "com.amazonaws.dynamodb.v20120810#ThrottlingException", "message": "slow down"}
TOO_MUCH = {"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException", "message": "too much"}


def sink_of(url: str, endpoint: str) -> DynamoDbSink:
    return replace(dynamodb_sink(parse_url(f"{url}&endpoint={endpoint}", DECISION_SINKS)), backoff=SOON)


def scan(server: DynamoDb, table: str) -> list[dict[str, Any]]:
    """Every item of a table."""
    asking = server.client()
    decode = TypeDeserializer().deserialize
    pages = asking.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    items = [{name: decode(value) for name, value in item.items()} for page in pages for item in page["Items"]]
    asking.close()
    return items


@pytest.fixture(autouse=True)
def _credentials(dynamodb: DynamoDb, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in dynamodb.environment.items():
        if not name.startswith("AWS_ENDPOINT"):
            monkeypatch.setenv(name, value)


@pytest.fixture
def proxy(dynamodb: DynamoDb) -> Iterator[HttpFaultProxy]:
    host, port = dynamodb.address.split(":")
    with HttpFaultProxy(host, int(port)) as running:
        yield running


class DynamoSubject:
    """A table that the sink makes, behind a proxy."""

    knows_rows = True

    def __init__(self, server: DynamoDb, proxy: HttpFaultProxy, existing: str) -> None:
        self.server = server
        self.proxy = proxy
        self.call = "BatchExecuteStatement" if existing == "keep" else "BatchWriteItem"
        self.table = next(NAMES)
        self.sink = sink_of(f"dynamodb://{self.table}?create=true&existing={existing}", proxy.url)

    def held(self) -> list[tuple[str, int, float, str]]:
        return [
            (item["transaction_id"], int(item["amount_minor"]), float(item["score"]), item["decision"])
            for item in scan(self.server, self.table)
        ]

    def throttle(self, times: int) -> None:
        self.proxy.answer(times, 400, THROTTLED, to=self.call)
        self.proxy.answer(1, 400, TOO_MUCH, to=self.call)
        self.proxy.answer(1, 500, {"__type": "InternalServerError", "message": "sorry"}, to=self.call)

    def fail_partly(self, times: int) -> None:
        self.proxy.change_answers(times, self._undo_a_part, to=self.call)

    def _undo_a_part(self, path: str, headers: Mapping[str, str], body: bytes, answer: Answer) -> Answer:
        """Take every third item out again, and say that it was not written."""
        asked, answered = json.loads(body), json.loads(answer[2])
        if self.call == "BatchExecuteStatement":
            codes = ("ThrottlingError", "ProvisionedThroughputExceeded", "InternalServerError", "TransactionConflict")
            for at in range(0, len(asked["Statements"]), 3):
                self._delete(asked["Statements"][at]["Parameters"][0])
                answered["Responses"][at] = {"Error": {"Code": codes[at % 4], "Message": "not now"}}
        else:
            left = asked["RequestItems"][self.table][::3]
            for each in left:
                self._delete(each["PutRequest"]["Item"]["transaction_id"])
            answered["UnprocessedItems"] = {self.table: left}
        return 200, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(answered).encode()

    def _delete(self, key: Any) -> None:
        asking = self.server.client()
        asking.delete_item(TableName=self.table, Key={"transaction_id": key})
        asking.close()

    def lose_answers(self, times: int) -> None:
        self.proxy.lose_answers(times, to=self.call)

    def restart(self) -> None:
        self.server.kill()
        self.server.start()

    def poisoned(self) -> TransactionBatch:
        batch = decided(0, 60)
        poison = decided(1_000, 1).rows
        row = {**poison.to_pylist()[0], "transaction_id": "poison", "reasons": ["x" * 420_000]}
        return concat_batches(
            [batch.slice(0, 7), TransactionBatch(pa.RecordBatch.from_pylist([row], poison.schema)), batch.slice(7)]
        )


@pytest.fixture(params=["keep", "replace"])
def subject(dynamodb: DynamoDb, proxy: HttpFaultProxy, request: pytest.FixtureRequest) -> DynamoSubject:
    return DynamoSubject(dynamodb, proxy, request.param)


class TestConformance(BatchSinkConformance):
    """DynamoDB passes what every sink must, whether rows that are there stay or are written over."""


@pytest.fixture
def asking(dynamodb: DynamoDb) -> Iterator[Any]:
    """A client beside the sink."""
    made = dynamodb.client(parameter_validation=False)
    yield made
    made.close()


def test_values_come_back_exactly(dynamodb: DynamoDb) -> None:
    """Integers above 2^53, floats to the last bit, lists, text of any kind, and nothing for what is missing."""
    extra = {"score": pa.float64(), "big": pa.int64(), "reasons": pa.list_(pa.string()), "city": pa.string()}
    row = {
        "transaction_id": "t'1\"ü",
        "event_time": 1_767_225_600_123_456,
        "amount_minor": -5716,
        "score": 0.1 + 0.2,
        "big": 2**63 - 1,
        "reasons": ["it's: 'quoted'", ""],
        "city": "",
        "source": "topic-0",
    }
    table = next(NAMES)
    write_all(sink_of(f"dynamodb://{table}?create=true&ttl=3650d", dynamodb.endpoint), [from_rows([row], extra)])
    (item,) = scan(dynamodb, table)
    assert item == {
        "transaction_id": "t'1\"ü",
        "event_time": "2026-01-01T00:00:00.123456+00:00",
        "amount_minor": -5716,
        "late": False,
        "score": Decimal("0.30000000000000004"),
        "big": 2**63 - 1,
        "reasons": ["it's: 'quoted'", ""],
        "city": "",
        "expires_at": 1_767_225_600 + 3_650 * 86_400,
    }


def rescored(batch: TransactionBatch, score: float) -> TransactionBatch:
    return batch.with_columns({"score": pa.array(np.full(len(batch), score))})


def test_the_first_write_of_a_transaction_stands(dynamodb: DynamoDb) -> None:
    """Whatever a later write says, beside rows that are new."""
    table = next(NAMES)
    first, later = decided(0, 30), rescored(decided(20, 30), 0.5)
    write_all(sink_of(f"dynamodb://{table}?create=true", dynamodb.endpoint), [first, later])
    scores = {item["transaction_id"]: float(item["score"]) for item in scan(dynamodb, table)}
    assert scores == {name: row[1] for name, row in {**told(later), **told(first)}.items()}


def test_the_last_write_of_a_transaction_stands_when_asked(dynamodb: DynamoDb) -> None:
    """In a later batch, and in one batch."""
    table = next(NAMES)
    first, later = decided(0, 30), concat_batches([decided(0, 30), rescored(decided(10, 15), 0.5)])
    write_all(sink_of(f"dynamodb://{table}?create=true&existing=replace", dynamodb.endpoint), [first, later])
    scores = {item["transaction_id"]: float(item["score"]) for item in scan(dynamodb, table)}
    assert scores == {name: row[1] for name, row in {**told(first), **told(rescored(decided(10, 15), 0.5))}.items()}


@pytest.mark.parametrize("existing", ["keep", "replace"])
def test_each_row_that_cannot_be_is_refused_alone(dynamodb: DynamoDb, existing: str) -> None:
    """Too large, out of the range of numbers, not a number, without a key: with reasons, and the others are written."""
    table = next(NAMES)
    rows = decided(0, 40).rows
    columns = {name: rows.column(name).to_pylist() for name in ("transaction_id", "score", "customer_id")}
    columns["customer_id"][3] = "x" * 420_000
    columns["customer_id"][4] = "x" * 17_000_000
    columns["score"][30] = 1e-200
    columns["score"][31] = float("nan")
    columns["transaction_id"][32] = ""
    types = {"transaction_id": pa.string(), "customer_id": pa.string(), "score": pa.float64()}
    batch = TransactionBatch(rows).with_columns({name: pa.array(columns[name], types[name]) for name in columns})
    writer = sink_of(f"dynamodb://{table}?create=true&existing={existing}", dynamodb.endpoint).open(lambda error: None)
    refused: list[Refused] = sorted(writer.write(batch))
    writer.close()
    assert [(each.at, each.reason) for each in refused] == [
        (3, "item_too_large"),
        (4, "item_too_large"),
        (30, "item_invalid"),
        (31, "number_not_finite"),
        (32, "key_empty"),
    ]
    assert "Number underflow" in refused[2].error
    held = {item["transaction_id"] for item in scan(dynamodb, table)}
    assert held == {name for at, name in enumerate(columns["transaction_id"]) if at not in (3, 4, 30, 31, 32)}


def test_rows_with_more_columns_than_a_statement_names_are_written_one_by_one(dynamodb: DynamoDb) -> None:
    """A statement has at most 8,192 characters; a wide table is written all the same, and first writes stand."""
    table = next(NAMES)
    wide = {f"customer_amount_mean_of_the_last_{n}_days": pa.array(np.arange(30.0)) for n in range(250)}
    sink = sink_of(f"dynamodb://{table}?create=true", dynamodb.endpoint)
    write_all(sink, [decided(0, 30).with_columns(wide), rescored(decided(0, 30), 0.5).with_columns(wide)])
    items = scan(dynamodb, table)
    assert {item["transaction_id"]: float(item["score"]) for item in items} == {
        name: row[1] for name, row in told(decided(0, 30)).items()
    }
    assert len(items[0]) > 250


def test_retries_are_counted(dynamodb: DynamoDb, proxy: HttpFaultProxy) -> None:
    """Each attempt that is followed by another is told, once."""
    table = next(NAMES)
    sink = sink_of(f"dynamodb://{table}?create=true", proxy.url)
    told_of: list[Exception] = []
    writer = sink.open(lambda error: None)
    writer.on_retry = told_of.append
    proxy.answer(3, 400, THROTTLED, to="BatchExecuteStatement")
    assert writer.write(decided(0, 100)) == []
    writer.close()
    assert len(told_of) == 3


def test_a_table_is_made_as_the_url_says(dynamodb: DynamoDb, asking: Any) -> None:
    """Billed by request unless units are given, with the key that is needed, and expiry where items expire."""
    ondemand, provisioned = next(NAMES), next(NAMES)
    sink_of(f"dynamodb://{ondemand}?create=true&ttl=90d", dynamodb.endpoint).open(lambda error: None).close()
    sink_of(f"dynamodb://{provisioned}?create=true&capacity=5:70", dynamodb.endpoint).open(lambda error: None).close()
    made = asking.describe_table(TableName=ondemand)["Table"]
    assert made["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert made["KeySchema"] == [{"AttributeName": "transaction_id", "KeyType": "HASH"}]
    expiry = asking.describe_time_to_live(TableName=ondemand)["TimeToLiveDescription"]
    assert expiry == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}
    assert asking.describe_table(TableName=provisioned)["Table"]["ProvisionedThroughput"]["WriteCapacityUnits"] == 70


def test_many_workers_may_make_the_table_at_once(dynamodb: DynamoDb) -> None:
    """One makes it, the others wait for it, and all write."""
    table = next(NAMES)  # whose items expire in years: the server removes those whose time has come
    sink = sink_of(f"dynamodb://{table}?create=true&ttl=3650d", dynamodb.endpoint)
    failures: list[BaseException] = []

    def write(first: int) -> None:
        try:
            write_all(sink, [decided(first, 20)])
        except BaseException as error:
            failures.append(error)

    workers = [threading.Thread(target=write, args=(n * 20,)) for n in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []
    assert len(scan(dynamodb, table)) == 120


def test_a_table_that_is_still_being_made_is_waited_for(dynamodb: DynamoDb, proxy: HttpFaultProxy) -> None:
    """Also where DynamoDB does not know of it yet."""
    table = next(NAMES)
    sink_of(f"dynamodb://{table}?create=true", dynamodb.endpoint).open(lambda error: None).close()

    def creating(path: str, headers: Mapping[str, str], body: bytes, answer: Answer) -> Answer:
        content = answer[2].replace(b"ACTIVE", b"CREATING")
        return answer[0], {"Content-Type": "application/x-amz-json-1.0"}, content

    unknown = {"__type": "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException", "message": "unknown"}
    proxy.answer(1, 400, unknown, to="DescribeTable")  # so it is made: it is in use
    proxy.answer(1, 400, unknown, to="DescribeTable")
    proxy.change_answers(2, creating, to="DescribeTable")
    write_all(sink_of(f"dynamodb://{table}?create=true", proxy.url), [decided(0, 5)])
    assert proxy.faults_left == 0


def test_backups_are_asked_for_when_they_can_be(dynamodb: DynamoDb, proxy: HttpFaultProxy) -> None:
    """A new table has none for a moment; a server that knows none is no obstacle."""
    table = next(NAMES)
    unavailable = {
        "__type": "com.amazonaws.dynamodb.v20120810#ContinuousBackupsUnavailableException",
        "message": "wait",
    }
    proxy.answer(2, 400, unavailable, to="UpdateContinuousBackups")
    proxy.answer(
        1, 200, {"ContinuousBackupsDescription": {"ContinuousBackupsStatus": "ENABLED"}}, to="ContinuousBackups"
    )
    sink_of(f"dynamodb://{table}?create=true", proxy.url).open(lambda error: None).close()
    assert proxy.faults_left == 0


@pytest.mark.parametrize(
    ("made", "parameters", "why"),
    [
        (None, "", "there is no table {table}; add create=true to the URL, or run: aws dynamodb create-table"),
        ("id (S)", "", r"the key of table {table} is id \(S\); it must be transaction_id"),
        ("transaction_id (N)", "&create=true", r"is transaction_id \(N\); it must be"),
        ("transaction_id (S), event_time (S)", "", r"is transaction_id \(S\), event_time \(S\); it must be"),
        (
            "transaction_id (S)",
            "&ttl=1d",
            "lets nothing expire; add create=true to the URL, or run: aws dynamodb update",
        ),
    ],
)
def test_a_table_that_will_not_do_is_refused_with_what_to_do(
    dynamodb: DynamoDb, asking: Any, made: str | None, parameters: str, why: str
) -> None:
    """Before a row is written."""
    table = next(NAMES)
    if made:
        names = [each.split()[0] for each in made.split(", ")]
        types = [each.split()[1].strip("()") for each in made.split(", ")]
        asking.create_table(
            TableName=table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": kind} for name, kind in zip(names, types, strict=True)
            ],
            KeySchema=[
                {"AttributeName": name, "KeyType": kind} for name, kind in zip(names, ("HASH", "RANGE"), strict=False)
            ],
        )
    with pytest.raises(UserError, match=why.format(table=table)):
        sink_of(f"dynamodb://{table}?existing=keep{parameters}", dynamodb.endpoint).open(lambda error: None)


def test_items_that_expire_by_something_else_are_no_mistake_to_guess_at(dynamodb: DynamoDb, asking: Any) -> None:
    """A table whose items expire by another attribute is refused."""
    table = next(NAMES)
    make_ready(asking, Table(table, create=True), SOON, lambda error: None)
    asking.update_time_to_live(TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "forget_at"})
    with pytest.raises(UserError, match="expire by forget_at, not by expires_at"):
        sink_of(f"dynamodb://{table}?ttl=1d", dynamodb.endpoint).open(lambda error: None)


def test_a_table_that_is_gone_fails_the_write(dynamodb: DynamoDb, asking: Any) -> None:
    """It is nobody's row that is at fault: nothing becomes a dead letter."""
    table = next(NAMES)
    writer = sink_of(f"dynamodb://{table}?create=true", dynamodb.endpoint).open(lambda error: None)
    asking.delete_table(TableName=table)
    with pytest.raises(ClientError, match="ResourceNotFound"):
        writer.write(decided(0, 10))
    writer.close()


def test_an_insert_stays_conditional_one_by_one(dynamodb: DynamoDb, asking: Any) -> None:
    """Both ways of keeping what is there agree on it, and on what they answer."""
    table = next(NAMES)
    make_ready(asking, Table(table, create=True), SOON, lambda error: None)
    rows = [Row(at, item) for at, item in enumerate(items_of(decided(0, 10)))]
    others = [Row(at, item) for at, item in enumerate(items_of(rescored(decided(0, 10), 0.5)))]
    assert insert(asking, table, rows[:5]) == put_each(asking, table, rows[5:], keep=True) == ([], [], None)
    assert insert(asking, table, others) == put_each(asking, table, others, keep=True) == ([], [], None)
    assert all(item["score"] != Decimal("0.5") for item in scan(dynamodb, table))


def test_the_benchmark_writes_in_every_way(dynamodb: DynamoDb) -> None:
    """Each way of writing is measured with each number of calls in flight, on items that cost one write unit."""
    speeds = dynamodb_sink_benchmark.measure(dynamodb, rows=60, in_flight=(1, 3))
    assert {(speed.way, speed.in_flight) for speed in speeds} == {
        (way, calls) for way in dynamodb_sink_benchmark.WAYS for calls in (1, 3)
    }
    assert all(speed.per_second > 0 and speed.cpu_microseconds > 0 for speed in speeds)
    assert dynamodb_sink_benchmark.results_text(speeds).count("\n") == 7
    assert 500 < item_bytes(next(items_of(decisions(0, 10)))) < 1_024
