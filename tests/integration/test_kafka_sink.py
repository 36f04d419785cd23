"""Kafka as a sink of decisions and of alerts, against a real broker, with both clients."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from uuid import uuid4

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from io_connectors.delivery import Message, Written
from io_connectors.kafka.connect import LOOKERS
from io_connectors.kafka.settings import CLIENTS
from io_connectors.kafka.write import KafkaDecisionSink, KafkaSink, kafka_decision_sink, kafka_sink
from io_connectors.sinks import DECISION_SINKS, decision_sink, record_sink
from io_connectors.urls import parse_url
from tests.integration.conftest import at_hand
from tests.integration.faults import TcpFaultProxy
from tests.integration.kafka_topics import LEFT_SOCKETS, ProxiedKafka, held, proxied
from tests.integration.sink_conformance import (
    BatchSinkConformance,
    ImpossibleError,
    MessageSinkConformance,
    decided,
    messages,
    send_all,
)
from transforms.alerts import alerts_of
from transforms.batch import TransactionBatch, concat_batches

pytestmark = pytest.mark.filterwarnings(LEFT_SOCKETS)
PARTITIONS = 2
MOST_BYTES = 2_000  # of a message, as the topic is set up


@pytest.fixture(scope="module")
def behind_proxy(servers: Path) -> Iterator[tuple[ProxiedKafka, TcpFaultProxy]]:
    context = proxied(servers / "kafka-proxied")
    yield at_hand(context.__enter__)
    context.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def _no_connections_left() -> Iterator[None]:
    yield
    LOOKERS.close()
    gc.collect()


@dataclass
class _Topic:
    """A topic of its own; the marker is what its messages have in them."""

    kafka: ProxiedKafka
    proxy: TcpFaultProxy
    client: str
    name: str

    knows_rows = True  # a reader knows a repetition by its key
    knows_ids = False

    @property
    def url(self) -> str:
        return f"kafka://{self.kafka.advertised}/{self.name}?client={self.client}&compression=none"

    def throttle(self, times: int) -> None:
        raise ImpossibleError("a broker delays its answers, and the client waits")

    def fail_partly(self, times: int) -> None:
        raise ImpossibleError("a broker takes a batch or it does not")

    def restart(self) -> None:
        self.kafka.kill()
        self.kafka.start()


class DecisionSubject(_Topic):
    """Decisions as messages."""

    @cached_property
    def sink(self) -> KafkaDecisionSink:
        return kafka_decision_sink(parse_url(self.url, DECISION_SINKS))

    def held(self) -> list[tuple[str, int, float, str]]:
        rows = {}
        for message in held(self.kafka.advertised, self.name, PARTITIONS):
            row = json.loads(message.value())
            assert message.key() == row["transaction_id"].encode()
            rows[message.key()] = (row["transaction_id"], row["amount_minor"], row["score"], row["decision"])
        return list(rows.values())

    def lose_answers(self, times: int) -> None:
        self.proxy.lose_answers(times, b'"transaction_id":"t')

    def poisoned(self) -> TransactionBatch:
        like = decided(1_000, 1).rows
        row = {**like.to_pylist()[0], "transaction_id": "poison", "model_id": "m" * MOST_BYTES}
        poison = TransactionBatch(pa.RecordBatch.from_pylist([row], like.schema))
        return concat_batches([decided(0, 20), poison, decided(20, 20)])


class AlertSubject(_Topic):
    """Messages as they are."""

    @cached_property
    def sink(self) -> KafkaSink:
        return kafka_sink(parse_url(self.url, DECISION_SINKS))

    def received(self) -> list[tuple[str, bytes]]:
        return [(m.key().decode(), m.value()) for m in held(self.kafka.advertised, self.name, PARTITIONS)]

    def lose_answers(self, times: int) -> None:
        self.proxy.lose_answers(times, b'"alert_id":"a')

    def poisoned(self) -> list[Message]:
        good = messages(40)
        return [*good[:20], Message("poison", b'{"text":"%s"}' % (b"x" * MOST_BYTES)), *good[20:]]


def topic_of(behind_proxy: tuple[ProxiedKafka, TcpFaultProxy]) -> str:
    name = f"sink-{uuid4().hex}"
    behind_proxy[0].create_topic(name, PARTITIONS, {"max.message.bytes": str(MOST_BYTES)})
    return name


@pytest.mark.parametrize("client", CLIENTS)
class TestDecisions(BatchSinkConformance):
    """What every sink of decisions must stand."""

    @pytest.fixture
    def subject(self, client: str, behind_proxy: tuple[ProxiedKafka, TcpFaultProxy]) -> DecisionSubject:
        subject = DecisionSubject(*behind_proxy, client, topic_of(behind_proxy))
        assert subject.sink  # opened while the broker answers
        return subject


@pytest.mark.parametrize("client", CLIENTS)
class TestAlerts(MessageSinkConformance):
    """What every sink of messages must stand."""

    @pytest.fixture
    def subject(self, client: str, behind_proxy: tuple[ProxiedKafka, TcpFaultProxy]) -> AlertSubject:
        return AlertSubject(*behind_proxy, client, topic_of(behind_proxy))

    def test_an_answer_lost_repeats_no_message(self, subject: AlertSubject) -> None:
        """The producer is idempotent: what the broker had taken in it does not take in again."""
        subject.lose_answers(2)
        sent = messages(500)
        send_all(subject.sink, sent)
        assert sorted(subject.received()) == sorted((message.id, message.body) for message in sent)

    def test_attributes_are_headers(self, subject: AlertSubject) -> None:
        """A receiver can filter without opening the body."""
        send_all(subject.sink, messages(1))
        (message,) = held(subject.kafka.advertised, subject.name, PARTITIONS)
        assert message.headers() == [("decision", b"review")]


def test_a_key_goes_to_the_same_partition_with_either_client(behind_proxy: tuple[ProxiedKafka, TcpFaultProxy]) -> None:
    """Kafka's own way to choose one: readers find what belongs together in one place, whoever wrote it."""
    places = []
    for client in CLIENTS:
        topic = AlertSubject(*behind_proxy, client, topic_of(behind_proxy))
        send_all(topic.sink, messages(50))
        places.append({m.key(): m.partition() for m in held(topic.kafka.advertised, topic.name, PARTITIONS)})
    assert places[0] == places[1]
    assert set(places[0].values()) == set(range(PARTITIONS))


def test_decisions_and_alerts_name_it_in_urls(behind_proxy: tuple[ProxiedKafka, TcpFaultProxy]) -> None:
    """`--sink kafka://` and `--alert kafka://` write what a pipeline gives them, and say what is durable."""
    topic = AlertSubject(*behind_proxy, "confluent", topic_of(behind_proxy))
    batch = decided(0, 30)
    with beam.Pipeline(FnApiRunner()) as pipeline:
        batches = pipeline | beam.Create([batch], reshuffle=False)
        written = (batches | "Decisions" >> decision_sink(topic.url)).written
        alerts = batches | "Alerts" >> beam.FlatMap(alerts_of)
        sent = alerts | "Send" >> record_sink(topic.url, "--alert")
        assert_that(written, equal_to([Written("memory", ((0, 30),))]), "durable")
        assert_that(sent.dead_letters, equal_to([]), "none refused")
    found = held(topic.kafka.advertised, topic.name, PARTITIONS)
    bodies = [json.loads(message.value()) for message in found]
    assert len([body for body in bodies if "alert_id" in body]) == 3
    assert len([body for body in bodies if "alert_id" not in body]) == 30
