"""Who is let into a secured Kafka and who is not, with both clients, against real brokers."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator, Mapping

import pytest

from io_connectors.delivery import Message
from io_connectors.kafka import check
from io_connectors.kafka.check import check_source, check_topic
from io_connectors.kafka.connect import LOOKERS, READERS, reader_of
from io_connectors.kafka.settings import CLIENTS, KAFKA_SOURCE, ReadSettings, WriteSettings, read_settings
from io_connectors.kafka.write import KafkaSink
from io_connectors.urls import parse_url
from runners.local import Aws, Kafka, KafkaOauth, KafkaScram
from runners.local.kafka import TOPIC
from tests.integration.kafka_topics import LEFT_SOCKETS
from transforms.errors import UserError

#: Seconds in which what was written must have been read.
PATIENCE = 30.0

pytestmark = [pytest.mark.filterwarnings(LEFT_SOCKETS), pytest.mark.parametrize("client", CLIENTS)]


@pytest.fixture(autouse=True)
def _no_connections_left() -> Iterator[None]:
    yield
    READERS.close()
    LOOKERS.close()
    gc.collect()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have brokers that let nobody in found out sooner: some clients try until the time is up."""
    monkeypatch.setattr(check, "CHECK_SECONDS", 2.5)


def settings_of(server: Kafka, client: str, **parameters: str) -> ReadSettings:
    path, _, query = server.url.partition("?")
    given = dict(part.split("=", 1) for part in query.split("&") if part) | {"client": client} | parameters
    url = f"{path}?{'&'.join(f'{name}={value}' for name, value in given.items())}"
    return read_settings(parse_url(url, {"kafka": KAFKA_SOURCE}), 1_000)


def environment(monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str]) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def write_and_read(settings: ReadSettings) -> None:
    """One message there and back."""
    check_source(settings)
    body = f'{{"at": {time.time_ns()}}}'.encode()
    writer = KafkaSink(WriteSettings(settings.cluster, TOPIC)).open(lambda _: None)
    assert list(writer.write([Message("m1", body)])) == []
    writer.close()
    found: list[bytes | None] = []
    with contextlib.ExitStack() as readers:
        opened = [
            readers.enter_context(reader_of(settings, partition, 0))
            for partition in range(check_topic(settings.cluster, TOPIC))
        ]
        # a first poll connects and signs in, which on a busy machine takes a second and more
        deadline = time.monotonic() + PATIENCE
        while body not in found and time.monotonic() < deadline:
            for reader in opened:
                found += reader.poll(1_000, 0.1).values
    assert body in found


def test_a_password_lets_in(client: str, kafka_scram: KafkaScram, monkeypatch: pytest.MonkeyPatch) -> None:
    """SASL_SSL with SCRAM-SHA-512 and a certificate authority of one's own: what is written is read."""
    environment(monkeypatch, kafka_scram.environment)
    write_and_read(settings_of(kafka_scram, client))


@pytest.mark.usefixtures("impatient")
def test_a_wrong_password_is_said_at_once(
    client: str, kafka_scram: KafkaScram, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what was refused and where the password came from, and not the password."""
    environment(monkeypatch, {**kafka_scram.environment, "KAFKA_PASSWORD": "hunter2"})
    started = time.monotonic()
    with pytest.raises(UserError, match=r"(?i)(auth|login).*check KAFKA_USERNAME and KAFKA_PASSWORD") as caught:
        check_source(settings_of(kafka_scram, client))
    assert "hunter2" not in str(caught.value)
    assert time.monotonic() - started < 15


def test_a_missing_password_is_asked_for(client: str, kafka_scram: KafkaScram, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked before the variables are there."""
    monkeypatch.delenv("KAFKA_PASSWORD", raising=False)
    monkeypatch.setenv("KAFKA_USERNAME", "fraud")
    with pytest.raises(UserError, match="needs KAFKA_PASSWORD in the environment"):
        check_source(settings_of(kafka_scram, client))


def test_a_password_from_secrets_manager_lets_in(
    client: str, kafka_scram: KafkaScram, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret as MSK wants it gives username and password."""
    environment(monkeypatch, aws.environment)
    manager = aws.client("secretsmanager")
    name = f"AmazonMSK_{client}"
    text = f'{{"username": "{kafka_scram.username}", "password": "{kafka_scram.password}"}}'
    manager.create_secret(Name=name, SecretString=text)
    manager.close()
    check_source(settings_of(kafka_scram, client, secret=name))


@pytest.mark.usefixtures("impatient")
def test_an_unknown_certificate_is_said(client: str, kafka_scram: KafkaScram, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the authority's certificate nobody knows whom they speak to; the error names it."""
    environment(monkeypatch, kafka_scram.environment)
    settings = settings_of(kafka_scram, client)
    without = ReadSettings(cluster=type(settings.cluster)(**{**vars(settings.cluster), "ca": None}), topic=TOPIC)
    with pytest.raises(UserError, match=r"(?i)certificate.*ca="):
        check_source(without)


@pytest.mark.usefixtures("impatient")
def test_plain_text_to_a_secured_port_is_said(client: str, kafka_scram: KafkaScram) -> None:
    """Who forgets security= is told of it, in seconds."""
    settings = settings_of(kafka_scram, client)
    plain = ReadSettings(cluster=type(settings.cluster)(settings.cluster.brokers, client), topic=TOPIC)
    with pytest.raises(UserError, match="security="):
        check_source(plain)


def test_iam_lets_in(client: str, kafka_oauth: KafkaOauth, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL signed with the AWS credentials of the environment is what MSK's access control wants."""
    environment(monkeypatch, kafka_oauth.environment)
    write_and_read(settings_of(kafka_oauth, client))


@pytest.mark.usefixtures("impatient")
def test_wrong_iam_credentials_are_said(client: str, kafka_oauth: KafkaOauth, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error points at the credentials, and does not hold the key."""
    environment(monkeypatch, {**kafka_oauth.environment, "AWS_SECRET_ACCESS_KEY": "hunter2"})
    with pytest.raises(UserError, match="check the AWS credentials") as caught:
        check_source(settings_of(kafka_oauth, client))
    assert "hunter2" not in str(caught.value)
