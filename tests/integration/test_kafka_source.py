"""Kafka as a source, against a real broker, with both clients."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import uuid4

import pytest
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker
from confluent_kafka import Producer

from io_connectors.kafka.connect import LOOKERS, READERS, looker_of
from io_connectors.kafka.partitions import Part, plan
from io_connectors.kafka.read import _ReadPart
from io_connectors.kafka.settings import CLIENTS, ReadSettings, read_settings
from io_connectors.sources import SOURCES
from io_connectors.spans import ENDLESS, Span, SpanCoder, SpanTracker
from io_connectors.urls import parse_url
from io_connectors.watermarks import AdvancingWatermark
from runners.local import Kafka
from tests.integration.kafka_topics import LEFT_SOCKETS
from tests.integration.source_conformance import SourceConformance

PARTITIONS = 3

pytestmark = pytest.mark.filterwarnings(LEFT_SOCKETS)


@pytest.fixture(autouse=True)
def _no_connections_left() -> Iterator[None]:
    yield
    READERS.close()
    LOOKERS.close()
    gc.collect()


@dataclass
class KafkaSubject:
    """A topic of its own."""

    kafka: Kafka
    client: str
    topic: str

    def url(self, **parameters: str) -> str:
        query = "&".join(f"{name}={value}" for name, value in {"client": self.client, **parameters}.items())
        return f"kafka://{self.kafka.bootstrap}/{self.topic}?{query}"

    def settings(self, batch_rows: int = 1_000, **parameters: str) -> ReadSettings:
        return read_settings(parse_url(self.url(**parameters), SOURCES), batch_rows)

    def produce(self, payloads: Sequence[bytes | None], partition: int | None = None) -> None:
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap, "linger.ms": 5, "enable.idempotence": True})
        for at, payload in enumerate(payloads):
            where = at % PARTITIONS if partition is None else partition
            producer.produce(self.topic, payload, b"key-%d" % at, partition=where)
            if at % 10_000 == 0:
                producer.poll(0)
        assert producer.flush(30) == 0

    def restart(self) -> None:
        self.kafka.kill()
        self.kafka.start()

    def read_with_checkpoints(self, records: int) -> list[bytes]:
        settings = self.settings(records, start="earliest", until="latest")
        with looker_of(settings.cluster, settings.isolation) as looker:
            parts = plan(looker, settings, ENDLESS, in_time=True)
        assert parts is not None
        found: list[bytes] = []
        for part in parts:
            checkpoint: bytes | None = SpanCoder().encode(Span(part[2], part[3]))
            while checkpoint is not None:
                checkpoint = self._one_turn(settings, part, SpanCoder().decode(checkpoint), found)
        return found

    def _one_turn(self, settings: ReadSettings, part: Part, span: Span, found: list[bytes]) -> bytes | None:
        """Read as a runner does that takes a checkpoint in the middle of a turn; gives what is left, as bytes."""
        tracker = ThreadsafeRestrictionTracker(SpanTracker(span))
        rest: Span | None = None
        for element in _ReadPart(settings).read(part, RestrictionTrackerView(tracker), AdvancingWatermark(0)):
            found += element.value.payloads or []
            split = tracker.try_split(0)
            rest = split[1] if split else rest
        tracker.check_done()
        deferred = tracker.deferred_status()
        if rest is not None:
            READERS.close()
        rest = rest or (deferred[0] if deferred else None)
        return None if rest is None else SpanCoder().encode(rest)


@pytest.fixture(params=list(CLIENTS))
def subject(request: pytest.FixtureRequest, kafka: Kafka) -> KafkaSubject:
    topic = f"source-{uuid4().hex}"
    kafka.create_topic(topic, PARTITIONS)
    return KafkaSubject(kafka, request.param, topic)


class TestKafkaSource(SourceConformance):
    """What every source must stand."""
