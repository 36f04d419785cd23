from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError

from io_connectors.delivery import Refused
from io_connectors.dynamodb.calls import Outcome, Row
from io_connectors.dynamodb.writer import ItemWriter
from io_connectors.retry import Backoff
from io_connectors.sinks import DECISION_SINKS, decision_sink
from io_connectors.urls import parse_url
from transforms.batch import TransactionBatch, from_rows
from transforms.errors import UserError

THROTTLED = ClientError({"Error": {"Code": "ThrottlingException"}}, "BatchExecuteStatement")
DENIED = ClientError({"Error": {"Code": "AccessDeniedException"}}, "BatchExecuteStatement")


class Client:
    """Does nothing: the calls of these tests are functions of their own."""

    def close(self) -> None: ...


def batch(*ids: str) -> TransactionBatch:
    return from_rows({"transaction_id": name, "event_time": 0, "amount_minor": at} for at, name in enumerate(ids))


def write(
    call: Callable[[Any, str, Sequence[Row]], Outcome],
    rows: TransactionBatch,
    keep_first: bool = True,
    give_up_after: float = 300.0,
    on_retry: Callable[[Exception], None] = lambda error: None,
) -> Sequence[Refused]:
    seconds = iter(range(1_000_000))
    backoff = Backoff(give_up_after=give_up_after, sleep=lambda _: None, clock=lambda: float(next(seconds)))
    writer = ItemWriter(Client(), "decisions", call, keep_first, None, 4, backoff, on_retry)
    try:
        return writer.write(rows)
    finally:
        writer.close()


def test_only_what_failed_is_written_again() -> None:
    """A call that leaves rows undone is followed by one with these alone."""
    calls: list[list[str]] = []

    def call(client: Any, table: str, rows: Sequence[Row]) -> Outcome:
        calls.append([row.item["transaction_id"]["S"] for row in rows])
        return Outcome(
            [row for row in rows if row.at % 2 and len(calls) == 1], [], THROTTLED if len(calls) == 1 else None
        )

    assert write(call, batch("a", "b", "c", "d")) == []
    assert calls == [["a", "b", "c", "d"], ["b", "d"]]


def test_a_call_that_failed_for_the_moment_is_made_again_and_counted_by_the_caller() -> None:
    """Metrics count on the thread that writes, so that is where each repetition is told."""
    failures = iter([THROTTLED, ConnectionError("no such client error")])
    told: list[tuple[str, str]] = []

    def call(client: Any, table: str, rows: Sequence[Row]) -> Outcome:
        for error in failures:
            raise error
        return Outcome([], [])

    def on_retry(error: Exception) -> None:
        told.append((type(error).__name__, threading.current_thread().name))

    with pytest.raises(ConnectionError):  # not one of botocore's: a mistake, which nothing mends
        write(call, batch("a"), on_retry=on_retry)
    assert told == [("ClientError", threading.current_thread().name)]


def test_a_call_that_keeps_failing_fails_the_write() -> None:
    """Then the bundle is run again: nothing is given up."""
    with pytest.raises(ClientError, match="ThrottlingException"):
        write(lambda client, table, rows: Outcome(list(rows), [], THROTTLED), batch("a", "b"), give_up_after=10.0)


def test_what_no_attempt_mends_fails_at_once() -> None:
    """Missing permissions are not waited for."""
    calls = []

    def call(client: Any, table: str, rows: Sequence[Row]) -> Outcome:
        calls.append(rows)
        raise DENIED

    with pytest.raises(ClientError, match="AccessDenied"):
        write(call, batch("a"))
    assert len(calls) == 1


@pytest.mark.parametrize(("keep_first", "expected"), [(True, [0, 2]), (False, [2, 3])])
def test_of_rows_with_one_id_one_goes_out(keep_first: bool, expected: list[int]) -> None:
    """The first where the first write stands, the last where the last does: no call takes an id twice."""
    sent: list[int] = []

    def call(client: Any, table: str, rows: Sequence[Row]) -> Outcome:
        sent.extend(row.at for row in rows)
        return Outcome([], [])

    assert write(call, batch("a", "a", "b", "a"), keep_first) == []
    assert sorted(sent) == expected


def test_what_is_refused_is_told_by_its_place_in_the_batch() -> None:
    """Whether it was found here or by the server, in a call of 25 or a later one."""

    def call(client: Any, table: str, rows: Sequence[Row]) -> Outcome:
        return Outcome([], [Refused(row.at, "item_invalid", "never") for row in rows if row.at in (3, 60)])

    refused = write(call, batch(*(f"t{n}" if n != 40 else "" for n in range(70))))
    assert sorted((each.at, each.reason) for each in refused) == [
        (3, "item_invalid"),
        (40, "key_empty"),
        (60, "item_invalid"),
    ]


def test_calls_have_at_most_25_rows_and_few_are_made_ahead() -> None:
    """All rows go out, and memory holds a bounded number of them as items."""
    sizes: list[int] = []
    lock = threading.Lock()
    at_once, most = 0, 0

    def call(client: Any, table: str, rows: Sequence[Row]) -> Outcome:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
            sizes.append(len(rows))
        with lock:
            at_once -= 1
        return Outcome([], [])

    write(call, batch(*(f"t{n}" for n in range(1_010))))
    assert sorted(sizes) == [10] + [25] * 40
    assert most <= 4


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("dynamodb:", "needs a table"),
        ("dynamodb://no", "is no name of a table"),
        ("dynamodb://a/b?region=eu-west-1", "is no name of a table"),
        ("dynamodb://decisions?existing=overwrite&region=x-1", "existing must be keep or replace"),
        ("dynamodb://decisions?create=yes&region=x-1", "create must be true or false"),
        ("dynamodb://decisions?ttl=10&region=x-1", "ttl.*is not a duration"),
        ("dynamodb://decisions?ttl=10ms&region=x-1", "ttl must be at least 1s"),
        ("dynamodb://decisions?capacity=5&region=x-1", "capacity must be ondemand, or"),
        ("dynamodb://decisions?concurrency=0&region=x-1", "concurrency must be a whole number of at least 1"),
        ("dynamodb://decisions?tll=10d", "did you mean ttl"),
        ("dynamodb://decisions", "no AWS region"),
    ],
)
def test_a_url_that_cannot_be_is_refused_before_anything_is_read(
    url: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mistakes that need no server to be found are found without one."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(UserError, match=why):
        decision_sink(url)


def test_a_sink_travels_to_workers() -> None:
    """It is a value: what is unpickled is equal, whether or not it has been opened."""
    from io_connectors.dynamodb.sink import dynamodb_sink

    sink = dynamodb_sink(parse_url("dynamodb://decisions?region=eu-west-1&ttl=1d&create=true", DECISION_SINKS))
    assert pickle.loads(pickle.dumps(sink)).table == sink.table  # noqa: S301 - what was pickled a line before
