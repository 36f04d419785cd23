"""Sending with a producer that is made up."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError

from io_connectors.delivery import Message, UndeliveredError
from io_connectors.kafka import producers
from io_connectors.kafka.clients import RefusedError, UnreachableError
from io_connectors.kafka.confluent import FORGET_SECONDS, PATIENCE_SECONDS, Troubles
from io_connectors.kafka.diagnose import diagnose
from io_connectors.kafka.producers import Failed, GaveUpError, KafkaWriter, send
from io_connectors.kafka.security import login, msk_token
from io_connectors.kafka.settings import Cluster, WriteSettings
from io_connectors.retry import Backoff
from transforms.errors import UserError

SETTINGS = WriteSettings(Cluster("b:1"), "t")
MESSAGES = [Message(name, name.encode()) for name in "abcd"]


class FakeProducer:
    """Keeps what it was given; fails whatever `fails` says of a message and of the number of messages of the call."""

    def __init__(self, fails: Callable[[Message, int], Failed | None] = lambda message, count: None) -> None:
        self.fails = fails
        self.calls: list[list[str]] = []
        self.closed = False

    def send(self, messages: Sequence[Message]) -> list[Failed]:
        self.calls.append([message.id for message in messages])
        failed = [self.fails(message, len(messages)) for message in messages]
        return [one._replace(at=at) for at, one in enumerate(failed) if one is not None]

    def close(self) -> None:
        self.closed = True


def for_good(message: Message, count: int) -> Failed | None:
    """A batch is refused for its `c`; alone, only `c` is."""
    return Failed(0, ValueError("too large"), True) if message.id == "c" or (message.id > "b" and count > 1) else None


def test_who_was_refused_with_others_is_tried_alone() -> None:
    """A broker refuses whole batches; only the message that it refuses alone is refused."""
    producer = FakeProducer(for_good)
    refused = send(producer, MESSAGES)
    assert [(one.at, one.reason) for one in refused] == [(2, "refused_by_broker")]
    assert "too large" in refused[0].error
    assert producer.calls == [["a", "b", "c", "d"], ["c"], ["d"]]


def test_a_failure_that_may_pass_fails_the_call() -> None:
    """Nothing is called refused that the broker never judged."""
    with pytest.raises(GaveUpError, match="1 messages were not delivered: timed out"):
        send(FakeProducer(lambda m, _: Failed(0, TimeoutError("timed out"), False) if m.id == "b" else None), MESSAGES)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[FakeProducer | Exception]:
    """What opening a producer gives, one after the other."""
    gives: list[FakeProducer | Exception] = []

    def give(settings: WriteSettings, on_retry: Any) -> FakeProducer:
        given = gives.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    monkeypatch.setattr(producers, "open_producer", give)
    return gives


def writer(retried: list[Exception]) -> KafkaWriter:
    return KafkaWriter(SETTINGS, retried.append, Backoff(give_up_after=1e9, sleep=lambda _: None))


def test_what_was_not_delivered_is_sent_again_by_a_new_producer(opened: list[FakeProducer | Exception]) -> None:
    """The old one is closed first: it might deliver what it still holds beside it."""
    broken, sound = FakeProducer(lambda m, _: Failed(0, TimeoutError("slow"), False)), FakeProducer()
    opened += [broken, UnreachableError("down"), sound]
    retried: list[Exception] = []
    writing = writer(retried)
    assert list(writing.write(MESSAGES)) == []
    assert (broken.closed, sound.closed) == (True, False)
    assert [type(error) for error in retried] == [GaveUpError, UnreachableError]
    assert list(writing.write(MESSAGES)) == []
    assert len(sound.calls) == 2, "a producer that works is kept"
    writing.close()
    assert sound.closed


def test_after_a_while_messages_are_given_back_with_the_cause(opened: list[FakeProducer | Exception]) -> None:
    """Alerts become dead letters then, and decisions are written again by the bundle that is run again."""
    opened += [UnreachableError("down")] * 10
    now = iter(range(1_000))
    writing = KafkaWriter(
        SETTINGS, lambda _: None, Backoff(give_up_after=5, sleep=lambda _: None, clock=lambda: float(next(now)))
    )
    with pytest.raises(UndeliveredError) as given_up:
        writing.write(MESSAGES)
    assert [refused.at for refused in given_up.value.refused] == list(range(len(MESSAGES)))
    assert {refused.error for refused in given_up.value.refused} == {"down"}


def test_a_refusal_is_not_tried_again(opened: list[FakeProducer | Exception]) -> None:
    """A password does not become right by waiting."""
    opened.append(RefusedError("wrong password", "login"))
    retried: list[Exception] = []
    cluster = Cluster("b:1", security="sasl_ssl", mechanism="SCRAM-SHA-512")
    writing = KafkaWriter(WriteSettings(cluster, "t"), retried.append)
    with pytest.raises(UserError, match="wrong password; check KAFKA_USERNAME and KAFKA_PASSWORD"):
        writing.write(MESSAGES)
    assert retried == []


def test_a_refusal_of_a_client_at_work_counts_once_it_has_lasted() -> None:
    """A broker that is being restarted breaks off handshakes for a moment."""
    seconds = [0.0]
    troubles = Troubles(PATIENCE_SECONDS, clock=lambda: seconds[0])
    refusal = KafkaError(KafkaError._AUTHENTICATION, "no")

    def refused_until(end: float) -> None:
        while seconds[0] < end:
            troubles(refusal)
            troubles.raise_refusal()
            seconds[0] += 2

    refused_until(PATIENCE_SECONDS - 2)
    seconds[0] += FORGET_SECONDS + 1
    again = seconds[0]
    refused_until(again + PATIENCE_SECONDS - 2)
    with pytest.raises(RefusedError, match="no"):
        refused_until(again + PATIENCE_SECONDS + 5)


def test_other_complaints_are_no_refusal() -> None:
    """Of a client that is just being made a refusal counts at once, and nothing else does."""
    told: list[KafkaError] = []
    troubles = Troubles(tell=told.append)
    troubles(KafkaError(KafkaError._TRANSPORT, "reset"))
    troubles.raise_refusal()
    assert (troubles.latest(), len(told)) == ("reset", 1)
    troubles(KafkaError(KafkaError._SSL, "unknown ca"))
    with pytest.raises(RefusedError) as caught:
        troubles.raise_refusal()
    assert caught.value.what == "certificate"


SCRAM = Cluster("b:1", security="sasl_ssl", mechanism="SCRAM-SHA-512")


def test_a_login_comes_from_the_environment() -> None:
    """What is missing is named."""
    assert login(SCRAM, {"KAFKA_USERNAME": "u", "KAFKA_PASSWORD": "p"}) == ("u", "p")
    with pytest.raises(UserError, match="SCRAM-SHA-512 needs KAFKA_USERNAME and KAFKA_PASSWORD in the environment"):
        login(SCRAM, {"KAFKA_PASSWORD": ""})


def test_a_secret_of_another_form_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which form it must have, and nothing of what it holds."""

    class Manager:
        def get_secret_value(self, SecretId: str) -> dict[str, str]:  # noqa: N803 - AWS's name
            return {"SecretString": '{"username": "u", "password": ["hunter2"]}'}

        def close(self) -> None: ...

    monkeypatch.setattr("io_connectors.aws.client", lambda *given: Manager())
    with pytest.raises(UserError, match="secret=name is not of the form") as caught:
        login(Cluster("b:1", security="sasl_ssl", mechanism="PLAIN", secret="name"))  # noqa: S106 - its name
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def address_in(token: str) -> str:
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()


def test_a_token_is_a_signed_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """As MSK wants it: base64 without padding, valid for 15 minutes, with the session's token."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKID",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_SESSION_TOKEN": "se/ss+ion",
        "AWS_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)
    token = msk_token(Cluster("b:1"), now=1_000.0)
    signed = address_in(token.text)
    assert "=" not in token.text
    assert token.expires == 1_900.0
    assert signed.startswith("https://kafka.eu-west-1.amazonaws.com/?Action=kafka-cluster%3AConnect&X-Amz-Algorithm=")
    for part in (
        "X-Amz-Expires=900",
        "X-Amz-Security-Token=se%2Fss%2Bion",
        "X-Amz-Signature=",
        "X-Amz-Date=",
        "%2Feu-west-1%2Fkafka-cluster%2Faws4_request",
        "X-Amz-SignedHeaders=host",
        "User-Agent=",
    ):
        assert part in signed
    assert "hunter2" not in signed
    assert "kafka.us-east-2." in address_in(msk_token(Cluster("b:1", region="us-east-2")).text)


def test_no_region_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the ways to give one."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(UserError, match=r"no AWS region: give \?region= in the URL, or set AWS_REGION"):
        msk_token(Cluster("b:1"))


@pytest.fixture
def silent() -> Iterator[str]:
    """An address where connections are taken and closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_what_keeps_a_client_out_is_found(silent: str) -> None:
    """Nobody there, nobody who speaks TLS, nobody who lets in, nobody who answers."""
    nobody = diagnose(Cluster("127.0.0.1:9"), "said")
    assert isinstance(nobody, UnreachableError)
    assert "127.0.0.1:9: Connection refused" in str(nobody)
    tls = diagnose(Cluster(f"127.0.0.1:9,{silent}", security="ssl"), "said")
    assert isinstance(tls, RefusedError)
    assert tls.what == "certificate"
    refused = diagnose(Cluster(silent, security="sasl_plaintext", mechanism="PLAIN"), "said")
    assert isinstance(refused, RefusedError)
    assert (refused.what, "no login with PLAIN: said" in str(refused)) == ("login", True)
    mute = diagnose(Cluster(silent), "said")
    assert isinstance(mute, UnreachableError)
    assert "does not answer as a broker does: said" in str(mute)
