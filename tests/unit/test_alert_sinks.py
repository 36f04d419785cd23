"""What URLs of lambda, SNS and SQS sinks mean, and what is refused before anything is read."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from io_connectors.aws_messages import fifo_ids
from io_connectors.delivery import Message, SendMessages
from io_connectors.lambda_function import MOST_BYTES, FunctionFailedError, LambdaSink, failures_in, payload_of
from io_connectors.sinks import record_sink
from io_connectors.sns import SnsSink
from io_connectors.sqs import SqsSink
from transforms.errors import UserError

TOPIC = "arn:aws:sns:eu-west-1:123456789012:fraud"


@pytest.fixture(autouse=True)
def no_region(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")


def sink_of(url: str, setting: str = "--alert") -> Any:
    transform = record_sink(url, setting)
    assert isinstance(transform, SendMessages)
    return pickle.loads(pickle.dumps(transform.sink))  # noqa: S301 - as a runner ships it


def test_a_function_by_its_name() -> None:
    """Every parameter arrives."""
    sink = sink_of(
        "lambda://fraud?qualifier=live&invocation=Event&batch=7&concurrency=2&give_up_after=5&region=eu-west-1"
    )
    assert isinstance(sink, LambdaSink)
    assert (sink.function, sink.qualifier, sink.invocation) == ("fraud", "live", "Event")
    assert (sink.batch, sink.concurrency, sink.backoff.give_up_after, sink.region) == (7, 2, 5.0, "eu-west-1")


def test_workers_do_not_wait_alike() -> None:
    """A sink that was shipped to two workers draws its waits from two generators."""
    shipped = pickle.dumps(sink_of("sqs://alerts?region=eu-west-1"))
    first, second = (pickle.loads(shipped).backoff for _ in range(2))  # noqa: S301 - as a runner ships it
    assert [first.uniform(0, 1) for _ in range(3)] != [second.uniform(0, 1) for _ in range(3)]


def test_a_functions_arn_names_its_region() -> None:
    """Nothing else has to."""
    assert sink_of("lambda:arn:aws:lambda:eu-central-1:123456789012:function:fraud:live").region == "eu-central-1"


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("lambda://a b?region=eu-west-1", "is no function's name or ARN"),
        (
            "lambda://fraud?region=eu-west-1&invocation=event",
            "must be Event or RequestResponse; found 'event'",
        ),
        ("lambda://fraud:1?region=eu-west-1&qualifier=2", "names two versions"),
        ("lambda://fraud?region=eu-west-1&batch=0", "batch must be a whole number of at least 1"),
        ("lambda://fraud?retries=3", "unknown parameter 'retries'"),
        ("lambda://fraud", "no AWS region"),
        ("sqs://alerts", "no AWS region"),
        ("sqs://alerts!?region=eu-west-1", "is no queue's name, URL or ARN"),
        ("sqs:https://sqs.eu-west-1.amazonaws.com/alerts", "is no queue's name, URL or ARN"),
        ("sqs://alerts?region=eu-west-1&concurrency=0", "concurrency must be a whole number of at least 1"),
        ("sns://fraud", "is no topic's ARN"),
        (f"sns:{TOPIC}?format=txt", "must be json or text; found 'txt'; did you mean text"),
        (f"sns:{TOPIC}?region=eu-west-1", "unknown parameter 'region'"),
    ],
)
def test_what_makes_no_sense_is_refused_when_the_url_is_opened(url: str, error: str) -> None:
    """The message says what, and what it should be."""
    with pytest.raises(UserError, match=error):
        record_sink(url, "--alert")


def test_a_function_takes_alerts_alone() -> None:
    """Dead letters need a place that keeps them."""
    with pytest.raises(UserError, match="--dead_letters: a function takes alerts alone"):
        record_sink("lambda://fraud?region=eu-west-1", "--dead_letters")


@pytest.mark.parametrize(
    ("url", "queue", "region", "endpoint"),
    [
        ("sqs://alerts?region=eu-west-1", "alerts", "eu-west-1", None),
        ("sqs://alerts.fifo?region=eu-west-1", "alerts.fifo", "eu-west-1", None),
        ("sqs:arn:aws:sqs:eu-west-3:123456789012:alerts", "alerts", "eu-west-3", None),
        (
            "sqs:https://sqs.eu-west-2.amazonaws.com/123456789012/alerts",
            "https://sqs.eu-west-2.amazonaws.com/123456789012/alerts",
            "eu-west-2",
            None,
        ),
        (
            "sqs://http://127.0.0.1:4566/000000000000/alerts?region=us-east-1",
            "http://127.0.0.1:4566/000000000000/alerts",
            "us-east-1",
            "http://127.0.0.1:4566",
        ),
    ],
)
def test_a_queue_by_its_name_its_arn_or_its_url(url: str, queue: str, region: str, endpoint: str | None) -> None:
    """What the queue's own name says need not be said again."""
    sink = sink_of(url, "--dead_letters")
    assert isinstance(sink, SqsSink)
    assert (sink.queue, sink.region, sink.endpoint) == (queue, region, endpoint)


def test_the_owner_of_a_queue_is_in_its_arn() -> None:
    """Another account's queue is looked up there."""
    assert sink_of("sqs:arn:aws:sqs:eu-west-3:123456789012:alerts").account == "123456789012"


def test_a_topic_by_its_arn() -> None:
    """Every parameter arrives; a FIFO topic is known by its name."""
    sink = sink_of(f"sns://{TOPIC}.fifo?format=text&minor_digits=0&concurrency=3&give_up_after=9")
    assert isinstance(sink, SnsSink)
    assert (sink.fifo, sink.text, sink.minor_digits, sink.concurrency, sink.backoff.give_up_after) == (
        True, True, 0, 3, 9.0
    )  # fmt: skip


SENT = [Message(name, b'{"alert_id":"%s"}' % name.encode()) for name in ("a1", "a2")]


def test_a_payload_is_one_json_object() -> None:
    """It says its version and how it is sent."""
    assert json.loads(payload_of(SENT, "RequestResponse")) == {
        "version": 1,
        "invocation": "RequestResponse",
        "alerts": [{"alert_id": "a1"}, {"alert_id": "a2"}],
    }


@pytest.mark.parametrize("answer", [b"null", b"", b'"ok"', b"{}", b'{"failed": []}', b'{"delivered": 2}'])
def test_an_answer_that_names_no_failure_means_that_all_is_done(answer: bytes) -> None:
    """Functions of one's own need not answer anything."""
    assert failures_in(answer, SENT) == []


@pytest.mark.parametrize(
    "answer", [b'{"failed": 2}', b'{"failed": [{}]}', b'{"failed": [{"alert_id": "b"}]}', b"{", b'{"failed": [null]}']
)
def test_an_answer_that_cannot_be_understood_is_a_failure(answer: bytes) -> None:
    """Nothing is taken for delivered on the word of something unclear."""
    with pytest.raises(FunctionFailedError):
        failures_in(answer, SENT)


def test_the_only_alert_of_a_call_is_known_whatever_it_is_called() -> None:
    """A function that cannot read an alert cannot name it."""
    (failure,) = failures_in(b'{"failed": [{"alert_id": null, "error": "odd", "retryable": false}]}', SENT[:1])
    assert (failure.at, failure.error, failure.transient) == (0, "odd", False)


def test_card_numbers_in_a_functions_words_are_masked() -> None:
    """They end up in a dead letter."""
    answer = b'{"failed": [{"alert_id": "a1", "error": "card 4111111111111111"}]}'
    assert failures_in(answer, SENT)[0].error == "card ************1111"


def test_fifo_ids_are_such_as_aws_takes() -> None:
    """Whatever an id or a customer is called: at most 128 printable characters; no card number shows."""
    ids = fifo_ids(Message("an id\n" * 50, '{"customer_id":"4111111111111111 é"}'.encode()))
    assert all(value.isalnum() and value.isascii() and len(value) <= 128 for value in ids.values())
    assert "1111" not in ids["MessageGroupId"]
    assert fifo_ids(Message("a1", b"{}"))["MessageDeduplicationId"] == "a1"


@pytest.mark.parametrize(("invocation", "limit"), [("Event", 1_000_000), ("RequestResponse", 6_000_000)])
def test_a_full_call_is_within_what_lambda_takes(invocation: str, limit: int) -> None:
    """Alerts, and what surrounds them, also where AWS means decimal megabytes."""
    full = Message("a", b"x" * (MOST_BYTES[invocation] - 1))
    assert len(payload_of([full], invocation)) <= limit
