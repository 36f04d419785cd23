from __future__ import annotations

import pickle

import pytest
from botocore.exceptions import ClientError

from io_connectors.delivery import Message, UndeliveredError
from io_connectors.retry import Backoff
from io_connectors.s3.message_sink import LinesWriter
from io_connectors.s3.objects import Location, Putter, parse_location
from io_connectors.s3.parquet_sink import days, s3_parquet_sink
from io_connectors.sinks import DECISION_SINKS, decision_sink
from io_connectors.urls import parse_url
from transforms.batch import from_rows
from transforms.durations import DAY
from transforms.errors import UserError


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("fraud", Location("fraud")),
        ("fraud/", Location("fraud")),
        ("fraud/a/b/", Location("fraud", "a/b")),
        ("fraud.eu-1/a b/ü", Location("fraud.eu-1", "a b/ü")),
    ],
)
def test_a_location_is_a_bucket_and_a_prefix(path: str, expected: Location) -> None:
    """A slash at the end says nothing, and a bucket alone is all of it."""
    assert parse_location(path) == expected


def test_keys_lie_under_the_prefix() -> None:
    """And never begin with a slash, which would be a folder without a name."""
    assert Location("fraud", "a").key("b") == "a/b"
    assert Location("fraud").key("b") == "b"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("s3:", "needs bucket/prefix"),
        ("s3:///decisions", "is no name of a bucket"),
        ("s3://Fraud/decisions", "is no name of a bucket"),
        ("s3://fraud/decisions?flagged=decisions", "neither is within the other"),
        ("s3://fraud/decisions?flagged=decisions/flagged", "neither is within the other"),
        ("s3://fraud/a/b?flagged=s3://fraud/a", "neither is within the other"),
        ("s3://fraud?flagged=flagged", "neither is within the other"),
        ("s3://fraud/decisions?flagged=s3://X/a", "is no name of a bucket"),
        ("s3://fraud/decisions?rows_per_file=0", "rows_per_file must be a whole number of at least 1"),
        ("s3://fraud/decisions?kms=k", "did you mean kms_key"),
        ("s3://fraud/decisions?endpoint=localhost:9000", "endpoint must be a URL such as http://127.0.0.1:9000"),
    ],
)
def test_a_url_that_cannot_be_is_refused_before_anything_is_read(
    url: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two prefixes that hold each other would show whoever reads the outer one some rows twice."""
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    with pytest.raises(UserError, match=why):
        decision_sink(url)


@pytest.mark.parametrize("flagged", ["decisions-flagged", "s3://fraud/decisions-flagged"])
def test_the_second_prefix_may_be_of_the_same_bucket(flagged: str) -> None:
    """A name that begins like another's is not within it."""
    url = parse_url(f"s3://fraud/decisions?region=x-1&flagged={flagged}", DECISION_SINKS)
    assert s3_parquet_sink(url).flagged == Location("fraud", "decisions-flagged")


def test_rows_go_to_their_day_whatever_their_order() -> None:
    """Days of event time in UTC; within one, rows have one order, so that their object has one name."""
    rows = [
        {"transaction_id": name, "event_time": time, "amount_minor": 1}
        for name, time in (("b", 5), ("z", DAY - 1), ("c", DAY), ("a", 5), ("y", -1), ("x", 400 * DAY))
    ]
    expected = [("1969-12-31", ["y"]), ("1970-01-01", ["a", "b", "z"]), ("1970-01-02", ["c"]), ("1971-02-05", ["x"])]
    for given in (rows, rows[::-1]):
        found = [(day, part.rows.column("transaction_id").to_pylist()) for day, part in days(from_rows(given))]
        assert found == expected


def test_a_sink_travels_to_workers() -> None:
    """It is a value: what is unpickled is equal."""
    sink = s3_parquet_sink(parse_url("s3://fraud/decisions?region=eu-west-1&flagged=f", DECISION_SINKS))
    again = pickle.loads(pickle.dumps(sink))  # noqa: S301 - what was pickled a line before
    assert (again.decisions, again.flagged, again.url) == (sink.decisions, sink.flagged, sink.url)


class Throttled:
    """A client that is always asked too much."""

    def put_object(self, **_: object) -> None:
        raise ClientError({"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "PutObject")


def test_alerts_that_s3_does_not_take_in_time_are_given_back() -> None:
    """Each with its cause: they become dead letters, and decisions go on."""
    now = iter(range(1_000))
    backoff = Backoff(give_up_after=5, sleep=lambda _: None, clock=lambda: float(next(now)))
    writer = LinesWriter(Location("fraud"), Putter(Throttled(), None, backoff, lambda _: None))
    with pytest.raises(UndeliveredError) as given_up:
        writer.write([Message("a", b"{}"), Message("b", b"{}")])
    assert [(refused.at, refused.reason) for refused in given_up.value.refused] == [
        (0, "s3_unavailable"),
        (1, "s3_unavailable"),
    ]
