"""Messages to queues and topics on a server that speaks SQS and SNS, with faults made by a proxy before it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode
from uuid import uuid4

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from io_connectors.delivery import Message
from io_connectors.retry import Backoff
from io_connectors.sinks import record_sink
from io_connectors.sns import SnsSink
from io_connectors.sqs import SqsSink
from runners.local import Aws
from tests.integration.alert_servers import create_queue, create_topic, drain
from tests.integration.faults import Answer, HttpFaultProxy
from tests.integration.sink_conformance import ImpossibleError, MessageSinkConformance, messages, send_all
from transforms.dead_letters import DeadLetter
from transforms.errors import UserError

QUICK = Backoff(first=0.02, most=0.2, give_up_after=20)


@pytest.fixture(autouse=True)
def credentials(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)


def a_name(fifo: bool) -> str:
    return f"t{uuid4().hex}" + (".fifo" if fifo else "")


class HalvingProxy(HttpFaultProxy):
    """A proxy that can also keep every other entry of a batch from the server, and say that it failed.

    Attributes:
        halve: how many of the next batches this is to happen to.
    """

    halve = 0

    def _forward(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        halved = None
        with self._lock:
            if self.halve and (halved := halved_json(body) or halved_query(body)):
                self.halve -= 1
        if not halved:
            return super()._forward(method, path, headers, body)
        rest, add_failures = halved
        status, answered, content = super()._forward(method, path, headers, rest)
        return status, answered, add_failures(content)


Halved = tuple[bytes, Callable[[bytes], bytes]]


def halved_json(body: bytes) -> Halved | None:
    """Of a `SendMessageBatch`: half of it, and how its answer tells of the other half."""
    if not body.startswith(b"{") or b'"Entries"' not in body:
        return None
    call = json.loads(body)
    failed = [
        {"Id": e["Id"], "Code": "InternalError", "Message": "try later", "SenderFault": False}
        for e in call["Entries"][::2]
    ]
    call["Entries"] = call["Entries"][1::2]
    return json.dumps(call).encode(), lambda answer: json.dumps({**json.loads(answer), "Failed": failed}).encode()


def halved_query(body: bytes) -> Halved | None:
    """Of a `PublishBatch`, likewise."""
    parameters = dict(parse_qsl(body.decode(), keep_blank_values=True))
    if parameters.get("Action") != "PublishBatch":
        return None
    entries: dict[int, dict[str, str]] = {}
    rest = {}
    for name, value in parameters.items():
        head, _, field = name.partition(".member.")
        if head == "PublishBatchRequestEntries":
            at, _, field = field.partition(".")
            entries.setdefault(int(at), {})[field] = value
        else:
            rest[name] = value
    kept = [entries[at] for at in sorted(entries)[1::2]]
    for place, entry in enumerate(kept, 1):
        rest |= {f"PublishBatchRequestEntries.member.{place}.{field}": value for field, value in entry.items()}
    error = "<Code>InternalError</Code><Message>try later</Message><SenderFault>false</SenderFault>"
    failed = "".join(f"<member><Id>{entries[at]['Id']}</Id>{error}</member>" for at in sorted(entries)[::2])
    return urlencode(rest).encode(), lambda answer: answer.replace(b"<Failed>", f"<Failed>{failed}".encode())


class Subject:
    """A queue behind a proxy, and what was received from it."""

    def __init__(self, aws: Aws, proxy: HalvingProxy, sink: Any, queue: str, call: str, knows_ids: bool) -> None:
        self.aws, self.proxy, self.sink, self.queue, self.call = aws, proxy, sink, queue, call
        self.knows_ids = knows_ids
        self.found: list[tuple[str, bytes]] = []

    def received(self) -> list[tuple[str, bytes]]:
        for message in drain(self.aws, self.queue):
            self.found.append((message["MessageAttributes"]["id"]["StringValue"], message["Body"].encode()))
        return self.found

    def throttle(self, times: int) -> None:
        if self.call == "SendMessageBatch":
            throttled = {"__type": "com.amazonaws.sqs#RequestThrottled", "message": "Request is throttled."}
            self.proxy.answer(times, 403, throttled, to=self.call)
        else:
            text = b"<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code></Error></ErrorResponse>"
            self.proxy.answer(times, 400, text, to=self.call)

    def fail_partly(self, times: int) -> None:
        self.proxy.halve = times

    def lose_answers(self, times: int) -> None:
        self.proxy.lose_answers(times, to=self.call)

    def restart(self) -> None:
        raise ImpossibleError("a server that is killed forgets its queues")

    def poisoned(self) -> list[Message]:
        long = b'{"alert_id":"poison","x":"%s"}' % (b"x" * 2_000_000)
        return [*messages(5), Message("poison", long), *messages(9)[5:]]


class SqsConformance(MessageSinkConformance):
    """Queues pass what every sink of messages must."""

    fifo = False

    @pytest.fixture
    def subject(self, aws: Aws) -> Iterator[Subject]:
        queue = create_queue(aws, a_name(self.fifo))
        with HalvingProxy("127.0.0.1", aws.port) as proxy:
            sink = SqsSink(queue, backoff=QUICK, endpoint=proxy.url)
            yield Subject(aws, proxy, sink, queue, "SendMessageBatch", self.fifo)


class TestSqsConformance(SqsConformance):
    """A standard queue: receivers tell a repetition by the id."""


class TestSqsFifoConformance(SqsConformance):
    """A FIFO queue tells a repetition itself."""

    fifo = True


class SnsConformance(MessageSinkConformance):
    """Topics pass what every sink of messages must."""

    fifo = False

    @pytest.fixture
    def subject(self, aws: Aws) -> Iterator[Subject]:
        topic, queue = create_topic(aws, a_name(self.fifo))
        with HalvingProxy("127.0.0.1", aws.port) as proxy:
            yield Subject(
                aws, proxy, SnsSink(topic, backoff=QUICK, endpoint=proxy.url), queue, "PublishBatch", self.fifo
            )


class TestSnsConformance(SnsConformance):
    """A standard topic: receivers tell a repetition by the id."""


class TestSnsFifoConformance(SnsConformance):
    """A FIFO topic tells a repetition itself."""

    fifo = True


def test_mail_and_text_messages_are_in_words_and_programs_get_json(aws: Aws) -> None:
    """`format=text`: each kind of subscription gets what suits it, and the subject says what it is about."""
    topic, queue = create_topic(aws, a_name(False))
    body = {
        "alert_id": "a1",
        "decision": "decline",
        "amount_minor": 51230,
        "score": 0.5,
        "customer_id": "4111111111111111",
    }
    message = Message("a1", json.dumps(body).encode(), "t1", (("decision", "decline"),))
    calls: list[bytes] = []

    def keep(path: str, headers: Mapping[str, str], call: bytes, answer: Answer) -> Answer:
        calls.append(call)
        return answer

    with HttpFaultProxy("127.0.0.1", aws.port) as proxy:
        proxy.change_answers(1, keep)
        send_all(SnsSink(topic, text=True, backoff=QUICK, endpoint=proxy.url), [message])
    (seen,) = drain(aws, queue)
    assert json.loads(seen["Body"]) == body
    assert seen["MessageAttributes"]["decision"]["StringValue"] == "decline"
    sent = {name.rpartition(".member.1.")[2]: value for name, value in parse_qsl(calls[0].decode())}
    words = json.loads(sent["Message"])
    assert sent["Subject"] == "Fraud alert: decline"
    assert words["email"].startswith("decline: 512.30, score 0.500\nof customer ************1111")
    assert words["sms"] == "Fraud alert: decline: 512.30, score 0.500, of customer ************1111"


def test_a_queue_that_is_not_there_is_a_users_error(aws: Aws) -> None:
    """Looked up by name it is named in the message; nothing is tried again."""
    writer = SqsSink("no-such-queue", backoff=QUICK).open(lambda error: None)
    with pytest.raises(UserError, match="there is no queue no-such-queue in us-east-1"):
        writer.write(messages(1))
    writer.close()


def test_dead_letters_go_to_a_queue_by_its_name(aws: Aws) -> None:
    """`--dead_letters sqs://NAME`: every letter with its cause, which is an attribute too, and an id of its own."""
    queue = create_queue(aws, "letters")
    letters = [
        DeadLetter(stage="parse", reason="not_json", error="no JSON", payload=f"{n}", source="topic-0", position=n)
        for n in range(25)
    ]
    with beam.Pipeline(FnApiRunner()) as pipeline:
        _ = pipeline | beam.Create(letters) | record_sink("sqs://letters", "--dead_letters")
    seen = drain(aws, queue)
    assert {message["Body"].encode() for message in seen} == {letter.to_json() for letter in letters}
    assert {message["MessageAttributes"]["reason"]["StringValue"] for message in seen} == {"not_json"}
    assert len({message["MessageAttributes"]["id"]["StringValue"] for message in seen}) == 25


def test_dead_letters_are_never_let_go_of(aws: Aws) -> None:
    """Where they cannot be written the run fails, and with it nothing is lost."""
    letter = DeadLetter(stage="parse", reason="r", error="e", payload="p", source="s", position=0)
    pipeline = beam.Pipeline(FnApiRunner())
    url = "sqs:http://127.0.0.1:1/000000000000/letters?give_up_after=0.1"
    _ = pipeline | beam.Create([letter]) | record_sink(url, "--dead_letters")
    with pytest.raises(Exception, match="1 messages could not be delivered"):
        pipeline.run()


def test_a_fifo_queue_keeps_a_customers_alerts_in_order(aws: Aws) -> None:
    """Alerts of one customer are one group, in the order they were raised."""
    queue = create_queue(aws, a_name(True))
    sent = [Message(f"a{n:03}", b'{"customer_id":"c%d","n":%d}' % (n % 3, n)) for n in range(60)]
    send_all(SqsSink(queue, backoff=QUICK, endpoint=aws.endpoint), sent)
    seen = [json.loads(message["Body"]) for message in drain(aws, queue)]
    for customer in ("c0", "c1", "c2"):
        numbers = [each["n"] for each in seen if each["customer_id"] == customer]
        assert len(numbers) == 20
        assert numbers == sorted(numbers)
