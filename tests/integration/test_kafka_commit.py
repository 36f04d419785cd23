"""Group offsets follow what the sinks hold, and are never ahead of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from confluent_kafka import Consumer, Producer, TopicPartition

from io_connectors.delivery import Written, written_of
from io_connectors.kafka.commit import CommitOffsets
from io_connectors.kafka.connect import COMMITTERS, LOOKERS, READERS
from io_connectors.kafka.read import ReadKafka
from io_connectors.kafka.settings import CLIENTS, KAFKA_SOURCE, ReadSettings, read_settings
from io_connectors.urls import parse_url
from runners.local import Kafka
from tests.integration.source_conformance import SCHEMA, events
from transforms.dead_letters import DeadLetter
from transforms.parse import ParseTransactions

IN_MEMORY = "--runner=apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
PARTITIONS = 2


@pytest.fixture(autouse=True)
def _no_connections_left() -> Iterator[None]:
    yield
    for pool in (READERS, LOOKERS, COMMITTERS):
        pool.close()


@pytest.fixture
def topic(kafka: Kafka) -> str:
    """Good records, poison and tombstones; half of them in transactions, whose markers take offsets of their own."""
    name = f"commit-{uuid4().hex}"
    kafka.create_topic(name, PARTITIONS)
    good = events(400)
    produce(kafka, name, [*good[:100], b"{", None, *good[100:200]])
    for first in (200, 300):
        produce(kafka, name, good[first : first + 100], in_transaction=True)
    return name


def produce(kafka: Kafka, topic: str, payloads: Sequence[bytes | None], in_transaction: bool = False) -> None:
    own = {"transactional.id": topic} if in_transaction else {}
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0, **own})
    if in_transaction:
        producer.init_transactions(30)
        producer.begin_transaction()
    for at, payload in enumerate(payloads):
        producer.produce(topic, payload, partition=at % PARTITIONS)
    assert producer.flush(30) == 0
    if in_transaction:
        producer.commit_transaction(30)


def settings_of(kafka: Kafka, topic: str, client: str = "confluent") -> ReadSettings:
    url = f"kafka://{kafka.bootstrap}/{topic}?client={client}&group={topic}&until=latest"
    return read_settings(parse_url(url, {"kafka": KAFKA_SOURCE}), 37)


def committed(kafka: Kafka, group: str) -> list[int]:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": group, "log_level": 0})
    found = consumer.committed([TopicPartition(group, partition) for partition in range(PARTITIONS)], 30)
    consumer.close()
    return [place.offset for place in found]


def ends(kafka: Kafka, topic: str) -> list[int]:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": topic, "log_level": 0})
    found = [consumer.get_watermark_offsets(TopicPartition(topic, p), 30)[1] for p in range(PARTITIONS)]
    consumer.close()
    return found


def below(written: Written, bound: int) -> list[Written]:
    """What of it lies before a position."""
    kept = tuple((first, min(stop, bound)) for first, stop in written.ranges if first < bound)
    return [Written(written.source, kept)] if kept else []


def letter_written(letter: DeadLetter) -> Written:
    return Written(letter.source, ((letter.position, letter.position + 1),))


def run(settings: ReadSettings, options: PipelineOptions, most: int = 1 << 40, most_letters: int = 1 << 40) -> None:
    """Read, and pretend that one sink holds everything, another what lies before `most`."""
    with beam.Pipeline(options=options) as pipeline:
        read = pipeline | ReadKafka(settings)
        parsed = read | ParseTransactions(SCHEMA)
        written = parsed.batches | "WriteAll" >> beam.FlatMap(written_of).with_output_types(Written)
        some = written | "WriteSome" >> beam.FlatMap(below, most).with_output_types(Written)
        letters = parsed.dead_letters | "Letters" >> beam.Map(letter_written).with_output_types(Written)
        letters |= "SomeLetters" >> beam.FlatMap(below, most_letters).with_output_types(Written)
        inputs: dict[str, Any] = {"read": read, "dead_letters": letters, "all": written, "some": some}
        _ = inputs | CommitOffsets(settings)


@pytest.mark.parametrize("client", CLIENTS)
def test_all_that_is_held_is_committed(kafka: Kafka, topic: str, client: str) -> None:
    """Poison, tombstones and the markers of transactions are no gaps: the group ends up at the end."""
    run(settings_of(kafka, topic, client), PipelineOptions([IN_MEMORY]))
    assert committed(kafka, topic) == ends(kafka, topic)


def test_what_one_sink_does_not_hold_is_not_committed(kafka: Kafka, topic: str) -> None:
    """The slowest sink decides."""
    run(settings_of(kafka, topic), PipelineOptions([IN_MEMORY]), most=40)
    assert committed(kafka, topic) == [40, 40]


def test_a_dead_letter_that_is_not_held_is_not_committed(kafka: Kafka, topic: str) -> None:
    """What lies behind it waits for it."""
    run(settings_of(kafka, topic), PipelineOptions([IN_MEMORY]), most_letters=0)
    assert committed(kafka, topic) == [50, 50]  # where the poison and the tombstone are


def test_offsets_are_committed_on_a_runner_that_streams(kafka: Kafka, topic: str, prism: Path) -> None:
    """The same on Prism, where bundles of reader and sinks come in any order."""
    arguments = ["--runner=PrismRunner", f"--prism_location={prism}", "--environment_type=LOOPBACK"]
    run(settings_of(kafka, topic), PipelineOptions(arguments))
    assert committed(kafka, topic) == ends(kafka, topic)
