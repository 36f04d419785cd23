"""The alert function's own logic: what it is called with, what it sends where, what it answers and what it logs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

import lambda_handler as function
from alert_channels import TopicChannel, WebhookSecret, masked
from alert_events import Alert, AlertsFailedError, Problem, Received, Results, UnknownEventError, alerts_in, answer_to
from alert_ledger import Claim
from alert_settings import SettingsError, settings_from

CARD = "4111111111111111"
LATER = Problem("down", retryable=True)


@dataclass
class Ledger:
    """A table in memory: alert to the channels that have had it, with those it is done with."""

    channels: dict[str, set[str]] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)
    released: list[str] = field(default_factory=list)

    def claim(self, alert_id: str) -> Claim:
        if alert_id in self.done:
            return Claim(done=True)
        if alert_id in self.held:
            return Claim(problem=Problem("held", retryable=True))
        return Claim(mine=True, channels=frozenset(self.channels.get(alert_id, ())))

    def record(self, alert_id: str, channel: str, last: bool) -> Problem | None:
        self.channels.setdefault(alert_id, set()).add(channel)
        if last:
            self.done.add(alert_id)
        return None

    def release(self, alert_id: str) -> None:
        self.released.append(alert_id)


@dataclass
class Line:
    """A channel that keeps what it sends, and fails on the alerts it is told to."""

    name: str
    most: int = 2
    broken: set[str] = field(default_factory=set)
    sent: list[str] = field(default_factory=list)

    def send(self, alerts: Sequence[Alert]) -> dict[str, Problem]:
        assert len(alerts) <= self.most
        names = [alert["alert_id"] for alert in alerts]
        self.sent += [name for name in names if name not in self.broken]
        return {name: LATER for name in names if name in self.broken}


def brought(*names: str) -> list[Received]:
    return [Received({"alert_id": name}) for name in names]


def deliver(names: Sequence[str], ledger: Ledger, *channels: Line, seconds_left: float = 60.0) -> Results:
    stand_in: Any = ledger
    return function.deliver(brought(*names), stand_in, channels, lambda: seconds_left)


def test_every_channel_gets_every_alert_once() -> None:
    """An alert is done when all channels have had it; one that comes twice in a call, or again, is a duplicate."""
    ledger, sns, slack = Ledger(), Line("sns"), Line("slack", most=20)
    first = deliver(["a", "b", "c", "a"], ledger, sns, slack)
    assert (first.delivered, first.duplicates, first.failed) == (3, 1, [])
    again = deliver(["b", "d"], ledger, sns, slack)
    assert (again.delivered, again.duplicates) == (1, 1)
    assert sns.sent == slack.sent == ["a", "b", "c", "d"]
    assert ledger.done == {"a", "b", "c", "d"}


def test_a_channel_that_worked_is_not_used_again_because_another_failed() -> None:
    """The alert is let go of for the next invocation, which sends it only where it has not been."""
    ledger, sns, slack = Ledger(), Line("sns"), Line("slack", broken={"b"})
    results = deliver(["a", "b"], ledger, sns, slack)
    assert (results.delivered, [(each.alert_id, problem) for each, problem in results.failed]) == (1, [("b", LATER)])
    assert ledger.released == ["b"]
    slack.broken.clear()
    assert deliver(["a", "b"], ledger, sns, slack).delivered == 1
    assert (sns.sent, slack.sent) == (["a", "b"], ["a", "b"])


def test_an_alert_that_another_invocation_holds_is_left_to_it() -> None:
    """It is reported as failed, to be asked for again: that invocation may have died."""
    sns = Line("sns")
    results = deliver(["a", "b"], Ledger(held={"a"}), sns)
    assert sns.sent == ["b"]
    assert [(each.alert_id, problem.retryable) for each, problem in results.failed] == [("a", True)]


def test_nothing_is_begun_when_time_is_up() -> None:
    """What was claimed is let go of, so that the next invocation need not wait for the lease."""
    ledger, sns = Ledger(), Line("sns")
    results = deliver(["a"], ledger, sns, seconds_left=1.0)
    assert (sns.sent, ledger.released, len(results.failed)) == ([], ["a"], 1)


def test_an_alert_that_went_everywhere_is_done_though_a_channel_was_taken_away() -> None:
    """Its item does not stay open for a channel that no longer is."""
    ledger = Ledger(channels={"a": {"sns"}})
    assert deliver(["a"], ledger, Line("sns")).delivered == 1
    assert ledger.done == {"a"}


BODY = json.dumps({"alert_id": "a1"})
ENVELOPE = json.dumps({"Type": "Notification", "Message": BODY})


@pytest.mark.parametrize(
    ("event", "caller"),
    [
        ({"alerts": [{"alert_id": "a1"}], "invocation": "RequestResponse", "version": 1}, "request"),
        ({"alerts": [{"alert_id": "a1"}], "invocation": "Event", "version": 1}, "event"),
        ({"alerts": [{"alert_id": "a1"}]}, "event"),
        ({"Records": [{"eventSource": "aws:sqs", "messageId": "", "body": BODY}]}, "sqs"),
        ({"Records": [{"eventSource": "aws:sqs", "messageId": "", "body": ENVELOPE}]}, "sqs"),
        ({"Records": [{"EventSource": "aws:sns", "Sns": {"Message": BODY}}]}, "event"),
        ({"Records": [{"EventSource": "aws:sns", "Sns": {"Message": f'{{"alerts": [{BODY}]}}'}}]}, "event"),
    ],
)
def test_alerts_are_found_in_whatever_calls(event: dict[str, Any], caller: str) -> None:
    """A direct call, a queue, a topic, and a topic behind a queue all bring the same alert."""
    assert alerts_in(event) == (caller, [Received({"alert_id": "a1"})])


@pytest.mark.parametrize("event", [None, {}, [], "x", {"alerts": {}}, {"Records": [{"eventSource": "aws:s3"}]}])
def test_a_call_without_alerts_is_refused(event: Any) -> None:
    """An event that is not understood must fail: Lambda keeps what fails."""
    with pytest.raises(UnknownEventError):
        alerts_in(event)


def test_a_call_of_a_later_version_is_refused() -> None:
    """It may mean something else."""
    with pytest.raises(UnknownEventError, match="version 2"):
        alerts_in({"version": 2, "alerts": []})


@pytest.mark.parametrize("alert", [7, None, {}, {"alert_id": 7}, {"alert_id": ""}, {"alert_id": "\ud800"}])
def test_what_is_no_alert_is_a_failure_of_its_own(alert: Any) -> None:
    """Its neighbour is an alert all the same, and trying again is pointless."""
    _, (bad, good) = alerts_in({"alerts": [alert, {"alert_id": "a1"}]})
    assert bad.problem is not None
    assert not bad.problem.retryable
    assert good.alert_id == "a1"


def test_a_queue_is_told_which_messages_to_keep() -> None:
    """A message one of whose alerts failed comes again, once named, and the others do not."""
    _, received = alerts_in(
        {
            "Records": [
                {"eventSource": "aws:sqs", "messageId": "m1", "body": BODY},
                {"eventSource": "aws:sqs", "messageId": "m2", "body": f'{{"alerts": [{BODY}, {BODY}]}}'},
                {"eventSource": "aws:sqs", "messageId": "m3", "body": "no JSON"},
            ]
        }
    )
    failed = [(received[1], LATER), (received[2], LATER), (received[3], received[3].problem or LATER)]
    assert answer_to("sqs", Results(1, 0, failed)) == {
        "batchItemFailures": [{"itemIdentifier": "m2"}, {"itemIdentifier": "m3"}]
    }


def test_the_pipeline_is_answered_and_an_asynchronous_call_fails() -> None:
    """Who waits is told which alerts failed and whether to try again; nobody reads the answer to an event."""
    results = Results(2, 1, [(Received({"alert_id": "a"}), LATER)])
    assert answer_to("request", results) == {
        "delivered": 2,
        "duplicates": 1,
        "failed": [{"alert_id": "a", "error": "down", "retryable": True}],
    }
    with pytest.raises(AlertsFailedError, match="1 alerts were not delivered; the first: down"):
        answer_to("event", results)
    assert answer_to("event", Results(2, 1, []))["delivered"] == 2


TOPIC = "arn:aws:sns:eu-west-1:123456789012:fraud"


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "ALERT_TABLE is not set"),
        ({"ALERT_TABLE": "t" * 300}, "ALERT_TABLE must be the name or ARN"),
        ({"ALERT_TABLE": "alerts"}, "nowhere to go: set ALERT_TOPIC_ARN, SLACK_SECRET_ARN or both"),
        ({"ALERT_TABLE": "alerts", "ALERT_TOPIC_ARN": "fraud"}, "ALERT_TOPIC_ARN must be the ARN of an SNS topic"),
        ({"ALERT_TABLE": "alerts", "ALERT_TOPIC_ARN": TOPIC, "RETENTION_DAYS": "0"}, "from 1 to 3650; found '0'"),
        ({"ALERT_TABLE": "alerts", "ALERT_TOPIC_ARN": TOPIC, "MINOR_DIGITS": "two"}, "from 0 to 4; found 'two'"),
    ],
)
def test_settings_that_make_no_sense_are_named(environment: dict[str, str], message: str) -> None:
    """The error says which variable, and what it should hold."""
    with pytest.raises(SettingsError, match=message):
        settings_from(environment)


def test_a_webhook_in_the_wrong_variable_is_not_repeated() -> None:
    """An error goes to the log, where a secret has no place."""
    url = "https://hooks.slack.com/services/T0/B0/secretword"
    with pytest.raises(SettingsError) as caught:
        settings_from({"ALERT_TABLE": "alerts", "SLACK_SECRET_ARN": url})
    assert "secretword" not in str(caught.value)


class Topic:
    """An SNS that keeps what it is sent."""

    def __init__(self, failed: Sequence[dict[str, Any]] = (), most: int = 262_144) -> None:
        self.failed, self.most = failed, most
        self.calls: list[list[dict[str, Any]]] = []

    def publish_batch(self, TopicArn: str, PublishBatchRequestEntries: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: N803 - boto3's names
        self.calls.append(PublishBatchRequestEntries)
        if sum(len(entry["Message"]) for entry in PublishBatchRequestEntries) > self.most:
            raise ClientError({"Error": {"Code": "BatchRequestTooLong"}}, "PublishBatch")
        return {"Failed": self.failed}


def test_a_topic_gets_json_for_programs_and_words_for_people() -> None:
    """Card numbers are masked in all of it, and a filter can use the decision."""
    topic = Topic()
    alert = {"alert_id": "a1", "decision": "decline", "customer_id": CARD, "amount_minor": 5123, "reasons": [CARD]}
    assert TopicChannel(topic, TOPIC, 2).send([alert]) == {}
    (entry,) = topic.calls[0]
    words = json.loads(entry["Message"])
    assert json.loads(words["default"]) == {**alert, "customer_id": "************1111", "reasons": ["************1111"]}
    assert words["email"].startswith("decline: 51.23\nof customer ************1111")
    assert entry["Subject"] == "Fraud alert: decline"
    assert entry["MessageAttributes"]["decision"]["StringValue"] == "decline"
    assert CARD not in json.dumps(entry)
    assert "MessageGroupId" not in entry


def test_a_fifo_topic_can_tell_a_repetition() -> None:
    """The deduplication id depends on the alert's id alone; a customer's alerts stay in order."""
    topic = Topic()
    channel = TopicChannel(topic, f"{TOPIC}.fifo", 2)
    channel.send([{"alert_id": "a1", "customer_id": "c"}, {"alert_id": "a2", "customer_id": "c"}])
    channel.send([{"alert_id": "a1", "customer_id": "c", "suppressed": 3}])
    (first, second), (again,) = topic.calls
    assert first["MessageDeduplicationId"] == again["MessageDeduplicationId"] != second["MessageDeduplicationId"]
    assert first["MessageGroupId"] == second["MessageGroupId"]


def test_alerts_too_large_to_go_together_go_alone() -> None:
    """And one that is too large by itself fails for good, alone."""
    topic = Topic(most=2000)
    alerts = [{"alert_id": name, "note": "x" * size} for name, size in (("a", 1500), ("b", 900), ("c", 5000))]
    assert TopicChannel(topic, TOPIC, 2).send(alerts) == {"c": Problem("SNS: BatchRequestTooLong", retryable=False)}
    assert [len(call) for call in topic.calls] == [3, 1, 1, 1]


def test_a_part_of_a_batch_that_failed_is_told_by_its_alert() -> None:
    """Throttling may pass, whoever SNS says is to blame; a malformed message stays one."""
    failed = [
        {"Id": "1", "Code": "Throttled", "SenderFault": True},
        {"Id": "2", "Code": "InvalidParameter", "SenderFault": True},
    ]
    problems = TopicChannel(Topic(failed), TOPIC, 2).send([{"alert_id": name} for name in "abc"])
    assert {name: problem.retryable for name, problem in problems.items()} == {"b": True, "c": False}


def test_text_that_is_no_unicode_spoils_no_batch() -> None:
    """Half a surrogate pair, which JSON can carry, is replaced."""
    topic = Topic()
    assert TopicChannel(topic, TOPIC, 2).send([{"alert_id": "a", "customer_id": "\ud800"}]) == {}
    assert json.loads(json.loads(topic.calls[0][0]["Message"].encode())["default"])["customer_id"] == "?"


def test_masks_leave_the_id_and_numbers_alone() -> None:
    """Receivers know an alert by its id, even where it looks like a card number."""
    alert = {"alert_id": CARD, "amount_minor": int(CARD), "nested": {"note": [f"card {CARD}"]}}
    assert masked(alert) == {**alert, "nested": {"note": ["card ************1111"]}}


class Secrets:
    """A Secrets Manager with one secret."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    def get_secret_value(self, SecretId: str) -> dict[str, str]:  # noqa: N803 - boto3's name
        return {"SecretString": self.texts.pop(0)}


HOOK = "https://hooks.slack.com/services/T0/B0/secretword"


def test_a_secret_is_read_once_in_a_while() -> None:
    """It is kept for five minutes, read again after that, and at once when Slack refused it."""
    clock = SimpleNamespace(now=0.0)
    secret = WebhookSecret(Secrets(HOOK, f"{HOOK}2", f"{HOOK}3"), "arn", lambda: clock.now)
    assert [secret.url(), secret.url()] == [HOOK, HOOK]
    clock.now = 301.0
    assert secret.url() == f"{HOOK}2"
    secret.forget()
    assert secret.url() == f"{HOOK}3"


@pytest.mark.parametrize(
    "text", ["http://hooks.slack.com/x", "file:///etc/passwd", f"{HOOK} x", "{", "[]", "", '{"a":1}']
)
def test_a_secret_that_is_no_webhook_is_not_used_and_not_shown(text: str) -> None:
    """A URL of another kind is never opened."""
    found = WebhookSecret(Secrets(text), "arn").url()
    assert found == Problem("the secret of the Slack webhook holds no https:// URL", retryable=True)


def test_a_secret_may_be_json() -> None:
    """As the console of Secrets Manager makes it."""
    secret = WebhookSecret(Secrets(json.dumps({"webhook_url": HOOK})), "arn")
    assert secret.url() == HOOK
    assert "secretword" not in repr(secret)


def test_the_log_is_one_line_of_json_without_anything_of_the_alerts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts, ids and causes are there; customers, amounts and card numbers are not."""
    monkeypatch.setattr(function, "_clients", lambda: None)
    monkeypatch.setattr(function, "ledger_of", lambda clients, seconds: Ledger())
    monkeypatch.setattr(function, "channels_of", lambda clients, seconds: [Line("sns", broken={"a2"})])
    context = SimpleNamespace(aws_request_id="r1", get_remaining_time_in_millis=lambda: 30_000)
    alerts = [{"alert_id": name, "customer_id": CARD, "transaction_id": "secret-tx"} for name in ("a1", "a2")]
    answer = function.lambda_handler({"invocation": "RequestResponse", "alerts": alerts}, context)
    assert answer["delivered"] == 1
    (line,) = capsys.readouterr().out.splitlines()
    logged = json.loads(line)
    assert (logged["level"], logged["request_id"], logged["delivered"]) == ("ERROR", "r1", 1)
    assert [each["alert_id"] for each in logged["failed"]] == ["a2"]
    assert CARD not in line
    assert "secret-tx" not in line
