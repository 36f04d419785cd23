"""Alerts to the alert function on a server that really runs it, with its table, its topic and a Slack."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from io_connectors.delivery import Message, UndeliveredError
from io_connectors.lambda_function import LambdaSink
from io_connectors.retry import Backoff
from io_connectors.sinks import record_sink
from io_connectors.sns import SnsSink
from io_connectors.sqs import SqsSink
from runners.local import Aws, DynamoDb
from runners.local.records import read_record
from tests.integration.alert_servers import (
    DeployedFunction,
    Slack,
    alert_items,
    create_queue,
    create_topic,
    deploy,
    drain,
    queue_arn,
    slack_webhook,
)
from tests.integration.faults import Answer, HttpFaultProxy
from tests.integration.sink_conformance import ImpossibleError, MessageSinkConformance, messages, send_all
from transforms.alerts import Alert
from transforms.errors import UserError

QUICK = Backoff(first=0.05, most=0.5, give_up_after=40)
CARD = "4111111111111111"


@pytest.fixture(autouse=True)
def credentials(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def slack() -> Iterator[Slack]:
    with slack_webhook() as found:
        yield found


@pytest.fixture(scope="module")
def function(aws: Aws, dynamodb: DynamoDb, slack: Slack, tmp_path_factory: pytest.TempPathFactory) -> DeployedFunction:
    """The function, with a topic and a Slack."""
    secret = aws.client("secretsmanager").create_secret(Name="slack", SecretString=slack.url)["ARN"]
    return deploy(aws, dynamodb, tmp_path_factory.mktemp("zip"), "alerts-lambda", secret=secret)


@pytest.fixture
def quiet(aws: Aws, function: DeployedFunction, slack: Slack) -> DeployedFunction:
    """The function, with nothing left of earlier tests on its topic and in its Slack."""
    drain(aws, function.seen)
    slack.texts.clear()
    return function


class Subject:
    """The function behind a proxy; every test has ids of its own, which its table keeps apart from others'."""

    knows_ids = True

    def __init__(self, aws: Aws, function: DeployedFunction, proxy: HttpFaultProxy) -> None:
        self.aws, self.function, self.proxy = aws, function, proxy
        self.sink = LambdaSink(function.name, backoff=QUICK, endpoint=proxy.url)
        self.found: list[tuple[str, bytes]] = []

    def received(self) -> list[tuple[str, bytes]]:
        for message in drain(self.aws, self.function.seen):
            self.found.append((message["MessageAttributes"]["id"]["StringValue"], message["Body"].encode()))
        return self.found

    def throttle(self, times: int) -> None:
        headers = {"x-amzn-ErrorType": "TooManyRequestsException"}
        self.proxy.answer(times, 429, {"Type": "User", "message": "Rate Exceeded."}, headers, to="/invocations")

    def fail_partly(self, times: int) -> None:
        self.proxy.change_answers(times, failing_half, to="/invocations")

    def lose_answers(self, times: int) -> None:
        self.proxy.lose_answers(times, to="/invocations")

    def restart(self) -> None:
        raise ImpossibleError("a server that is killed forgets its functions")

    def poisoned(self) -> list[Message]:
        return [*messages(5), Message("poison", b'{"alert_id":""}'), *messages(9)[5:]]


def failing_half(path: str, headers: Mapping[str, str], body: bytes, answer: Answer) -> Answer:
    """The function's answer, with every other alert named as failed, to be sent again."""
    failed = [{"alert_id": alert["alert_id"], "error": "busy"} for alert in json.loads(body)["alerts"][::2]]
    return answer[0], answer[1], json.dumps({"failed": failed}).encode()


class TestLambdaConformance(MessageSinkConformance):
    """The alert function passes what every sink of messages must."""

    @pytest.fixture
    def subject(self, aws: Aws, dynamodb: DynamoDb, quiet: DeployedFunction) -> Iterator[Subject]:
        table = dynamodb.client()
        for name in alert_items(dynamodb, quiet.table):
            table.delete_item(TableName=quiet.table, Key={"alert_id": {"S": name}})
        with HttpFaultProxy("127.0.0.1", aws.port) as proxy:
            yield Subject(aws, quiet, proxy)


def test_kills_duplicates_and_replays_lose_and_repeat_no_alert(aws: Aws, dynamodb: DynamoDb, tmp_path: Path) -> None:
    """Workers send overlapping alerts while the functions' processes are killed, and then all is sent again.

    Only an invocation killed between telling and writing that down tells again, the ten alerts of a call at most. A
    FIFO topic drops even these: each alert is told exactly once.
    """
    functions = [deploy(aws, dynamodb, tmp_path, name, fifo=name == "chaos-fifo") for name in ("chaos-fifo", "chaos")]
    sent = messages(150, "k")
    patient = replace(QUICK, give_up_after=90)
    sinks = [LambdaSink(each.name, batch=10, concurrency=1, backoff=patient) for each in functions]
    for each in functions:
        aws.client("lambda").update_function_configuration(FunctionName=each.name, Timeout=6)
    over = threading.Event()
    killed = killing_functions(aws, over)
    parts = [sent[at : at + 100] for at in (0, 25, 50)]
    failures = in_threads([partial(send_all, sink, part) for sink in sinks for part in parts])
    over.set()
    kills = killed()
    assert failures == []
    assert kills >= 3
    assert in_threads([partial(send_all, sink, sent) for sink in sinks]) == []
    for function, most_repeated in zip(functions, (0, 10 * kills), strict=True):
        seen = Counter(message["MessageAttributes"]["id"]["StringValue"] for message in drain(aws, function.seen))
        assert seen.keys() == {message.id for message in sent}
        assert seen.total() - len(seen) <= most_repeated
        items = alert_items(dynamodb, function.table)
        assert {name: item["status"]["S"] for name, item in items.items()} == dict.fromkeys(seen, "done")


def test_workers_that_send_the_same_alerts_at_once_repeat_none(aws: Aws, quiet: DeployedFunction) -> None:
    """On a standard topic too, which drops nothing: an alert belongs to one invocation at a time."""
    sent = messages(60, "w")
    sink = LambdaSink(quiet.name, batch=20, backoff=QUICK)
    assert (
        in_threads([partial(send_all, sink, order) for order in (sent, sent, sent[::-1], sent[20:] + sent[:20])]) == []
    )
    seen = [message["MessageAttributes"]["id"]["StringValue"] for message in drain(aws, quiet.seen)]
    assert sorted(seen) == [message.id for message in sent]


def in_threads(work: list[Callable[[], None]]) -> list[BaseException]:
    """What went wrong."""
    failures: list[BaseException] = []

    def run(each: Callable[[], None]) -> None:
        try:
            each()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(each,)) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    return failures


def killing_functions(aws: Aws, over: threading.Event) -> Callable[[], int]:
    """Kill processes of the server's functions now and then until it is `over`; what is returned tells how many."""
    record = read_record(aws.directory)
    assert record is not None
    kills: list[int] = []
    choose = random.Random(7)  # noqa: S311 - chance, not secrecy

    def kill() -> None:
        while not over.wait(choose.uniform(0.1, 0.4)) and len(kills) < 8:
            argv = [shutil.which("ps") or "ps", "-A", "-o", "pid=,ppid="]
            found = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
            children = [int(pid) for pid, parent in map(str.split, found.splitlines()) if int(parent) == record.pid]
            if children:
                kills.append(choose.choice(children))
                os.kill(kills[-1], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()

    def killed() -> int:
        thread.join()
        return len(kills)

    return killed


def test_slack_out_of_order_repeats_no_message_on_the_topic(aws: Aws, quiet: DeployedFunction, slack: Slack) -> None:
    """The channel that worked is not used again; Slack gets the alerts when it answers, all in one message."""
    slack.answers = [(500, {}), (503, {}), (429, {"Retry-After": "1"})]
    send_all(LambdaSink(quiet.name, backoff=QUICK), messages(8, "s"))
    assert slack.answers == []
    assert len(slack.texts) == 1
    assert slack.texts[0].startswith("8 fraud alerts")
    assert len(drain(aws, quiet.seen)) == 8


def test_an_event_that_fails_ends_at_the_functions_own_destination(aws: Aws, quiet: DeployedFunction) -> None:
    """The good alert of the call is told once though the call is repeated; the call itself is kept for people."""
    queue = create_queue(aws, "alerts-on-failure")
    aws.client("lambda").put_function_event_invoke_config(
        FunctionName=quiet.name,
        MaximumRetryAttempts=1,
        DestinationConfig={"OnFailure": {"Destination": queue_arn(aws, queue)}},
    )
    good = messages(1, "e")
    send_all(LambdaSink(quiet.name, invocation="Event", backoff=QUICK), [*good, Message("poison", b'{"alert_id":7}')])
    kept = wait_for(lambda: drain(aws, queue))
    payload = json.loads(kept[0]["Body"])["requestPayload"]
    assert [alert["alert_id"] for alert in payload["alerts"]] == [good[0].id, 7]
    assert [message["Body"].encode() for message in drain(aws, quiet.seen)] == [good[0].body]


def wait_for(found: Callable[[], Any], seconds: float = 20.0) -> Any:
    """What `found` returns once it is something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = found()
        if result:
            return result
        time.sleep(0.1)
    raise AssertionError("it never came")


def test_events_are_told_once_each(aws: Aws, quiet: DeployedFunction) -> None:
    """An event that is sent twice has one effect."""
    sent = messages(120, "v")
    sink = LambdaSink(quiet.name, invocation="Event", backoff=QUICK)
    send_all(sink, sent)
    send_all(sink, sent[:60])
    seen: list[str] = []

    def all_seen() -> bool:
        seen.extend(message["MessageAttributes"]["id"]["StringValue"] for message in drain(aws, quiet.seen))
        return len(seen) >= len(sent)

    wait_for(all_seen)
    time.sleep(0.5)
    all_seen()
    assert Counter(seen) == Counter(message.id for message in sent)


def test_a_queue_may_call_the_function(aws: Aws, quiet: DeployedFunction) -> None:
    """Alerts that come through `sqs://` are told once; of the messages of one call only the bad one stays."""
    left = create_queue(aws, "triggering-left")
    redrive = json.dumps({"deadLetterTargetArn": queue_arn(aws, left), "maxReceiveCount": "2"})
    # Far above what one call takes, or good messages come again while they are handled and are moved as well.
    queue = create_queue(aws, "triggering", VisibilityTimeout="8", RedrivePolicy=redrive)
    mapping = aws.client("lambda").create_event_source_mapping(
        EventSourceArn=queue_arn(aws, queue),
        FunctionName=quiet.name,
        BatchSize=10,
        FunctionResponseTypes=["ReportBatchItemFailures"],
    )
    sent = messages(12, "q")
    send_all(SqsSink(queue, backoff=QUICK), [*sent[:4], Message("poison", b'{"alert_id":""}'), *sent[4:], sent[0]])
    (poison,) = wait_for(lambda: drain(aws, left), seconds=60.0)
    aws.client("lambda").delete_event_source_mapping(UUID=mapping["UUID"])
    assert poison["Body"] == '{"alert_id":""}'
    assert sorted(message["Body"].encode() for message in drain(aws, quiet.seen)) == [each.body for each in sent]


def test_a_topic_may_call_the_function(aws: Aws, quiet: DeployedFunction) -> None:
    """Alerts that come through `sns://` are told once, though the topic is sent some twice."""
    topic, _ = create_topic(aws, "triggering")
    found = aws.client("lambda").get_function_configuration(FunctionName=quiet.name)
    aws.client("sns").subscribe(TopicArn=topic, Protocol="lambda", Endpoint=found["FunctionArn"])
    sent = messages(4, "n")
    send_all(SnsSink(topic, backoff=QUICK), [*sent, *sent[:2]])
    seen: list[bytes] = []

    def all_seen() -> bool:
        seen.extend(message["Body"].encode() for message in drain(aws, quiet.seen))
        return len(seen) >= 4

    wait_for(all_seen)
    time.sleep(0.5)
    all_seen()
    assert sorted(seen) == [each.body for each in sent]


def test_card_numbers_and_secrets_stay_inside(aws: Aws, quiet: DeployedFunction, slack: Slack) -> None:
    """Neither the log, nor the topic, nor Slack shows a card number; the log shows no webhook and no customer."""
    alert = {"alert_id": "m1", "customer_id": CARD, "terminal_id": "terminal-9", "decision": "review"}
    broken = {"alert_id": "m2", "customer_id": CARD, "terminal_id": "terminal-9"}
    slack.answers = [(500, {})]
    answer = aws.client("lambda").invoke(
        FunctionName=quiet.name,
        LogType="Tail",
        Payload=json.dumps({"invocation": "RequestResponse", "alerts": [alert, broken]}),
    )
    assert json.loads(answer["Payload"].read())["failed"][0]["error"] == "Slack: HTTP status 500"
    log = base64.b64decode(answer["LogResult"]).decode()
    assert '"level": "ERROR"' in log
    send_all(LambdaSink(quiet.name, backoff=QUICK), [Message("m1", json.dumps(alert).encode())])
    (told,) = slack.texts
    assert "************1111 at terminal terminal-9" in told
    assert CARD not in told + log + json.dumps([message["Body"] for message in drain(aws, quiet.seen)])
    for word in ("secretword", "terminal-9", "1111"):
        assert word not in log


def test_a_function_that_is_not_there_is_a_users_error(aws: Aws) -> None:
    """It is named before any alert is sent."""
    with pytest.raises(UserError, match="there is no function no-such in us-east-1"):
        LambdaSink("no-such").open(lambda error: None)


def test_an_outage_is_given_up_and_told_alert_by_alert(aws: Aws) -> None:
    """Nobody at the endpoint: every alert is named with its cause."""
    sink = LambdaSink("any", backoff=replace(QUICK, give_up_after=0.2), endpoint="http://127.0.0.1:1")
    writer = sink.open(lambda error: None)
    with pytest.raises(UndeliveredError) as caught:
        writer.write(messages(3))
    writer.close()
    assert [(each.at, each.reason) for each in caught.value.refused] == [
        (at, "EndpointConnectionError") for at in range(3)
    ]


def test_alerts_of_a_pipeline_reach_people_and_what_cannot_is_a_dead_letter(aws: Aws, quiet: DeployedFunction) -> None:
    """`--alert lambda://` end to end; an outage of the function holds nothing up."""
    alerts = [
        Alert(
            alert_id=f"p{n}",
            transaction_id=f"t{n}",
            event_time="2026-01-01T00:00:00+00:00",
            customer_id="c",
            terminal_id=None,
            amount_minor=n,
            score=0.5,
            decision="review",
            reasons=["amount: large"],
            model_id="m",
            feature_set="f",
            late=False,
        )
        for n in range(20)
    ]
    with beam.Pipeline(FnApiRunner()) as pipeline:
        created = pipeline | beam.Create(alerts)
        good = created | "Good" >> record_sink(f"lambda://{quiet.name}?invocation=RequestResponse", "--alert")
        down = created | "Down" >> record_sink("lambda://x?endpoint=http://127.0.0.1:1&give_up_after=0.1", "--alert")
        assert_that(good.dead_letters, equal_to([]), "none")
        told = down.dead_letters | beam.Map(lambda letter: (letter.stage, letter.transaction_id, letter.reason))
        expected = [("alert", alert.transaction_id, "EndpointConnectionError") for alert in alerts]
        assert_that(told, equal_to(expected), "all")
    seen = {message["Body"].encode() for message in drain(aws, quiet.seen)}
    assert seen == {alert.to_json() for alert in alerts}
