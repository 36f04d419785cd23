"""Kafka without an end, on Prism: what comes is handed on when it comes, whatever becomes of the broker meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]  # it is there

from io_connectors.kafka.settings import CLIENTS
from runners.local import Kafka
from tests.integration.source_conformance import events

PROGRAM = """
import sys
import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from io_connectors.json_lines import WriteJsonLines
from io_connectors.sources import open_source
from transforms.schema import load_schema
url, prism, out = sys.argv[1:]
options = PipelineOptions(["--runner=PrismRunner", "--prism_location=" + prism, "--environment_type=LOOPBACK"])
pipeline = beam.Pipeline(options=options)
read = open_source(url, load_schema("transaction-events"), 1000).read
_ = (pipeline | read | beam.FlatMap(lambda raw: raw.payloads) | beam.Reshuffle()
     | WriteJsonLines(out, lambda line: line))
pipeline.run().wait_until_finish()
"""


class Stream:
    """A pipeline in a process of its own that writes what it reads into a file."""

    def __init__(self, url: str, prism: Path, directory: Path) -> None:
        self.out, self.log = directory / "out.jsonl", directory / "log"
        self._log = self.log.open("wb")
        command = [sys.executable, "-c", PROGRAM, url, str(prism), str(self.out)]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log, start_new_session=True)

    def wait_for(self, count: int, seconds: float) -> list[str]:
        """The ids it has written, once they are so many."""
        deadline = time.monotonic() + seconds
        while len(found := self.ids()) < count:
            said = self.log.read_text("utf-8")[-3000:]
            assert time.monotonic() < deadline, f"{len(found)} of {count}: {said}"
            assert self._process.poll() is None, said
            time.sleep(0.05)
        return found

    def ids(self) -> list[str]:
        if not self.out.exists():
            return []
        return [json.loads(line)["transaction_id"] for line in self.out.read_bytes().splitlines()]

    def close(self) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)  # Prism is a process of its own
        self._process.wait()
        self._log.close()


@pytest.fixture(params=list(CLIENTS))
def streaming(
    request: pytest.FixtureRequest, kafka: Kafka, prism: Path, tmp_path: Path
) -> Iterator[tuple[Stream, str]]:
    topic = f"stream-{uuid4().hex}"
    kafka.create_topic(topic, 2)
    stream = Stream(f"kafka://{kafka.bootstrap}/{topic}?client={request.param}&discover=1s", prism, tmp_path)
    yield stream, topic
    stream.close()


def produce(kafka: Kafka, topic: str, first: int, count: int, partitions: int) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    for at, event in enumerate(events(count, first)):
        producer.produce(topic, event, partition=at % partitions)
    assert producer.flush(30) == 0


def test_a_stream_outlives_its_broker_and_finds_new_partitions(streaming: tuple[Stream, str], kafka: Kafka) -> None:
    """No record is lost and none comes twice: before a kill -9, after it, and in a partition that was added."""
    stream, topic = streaming
    produce(kafka, topic, 0, 100, 2)
    stream.wait_for(100, 60)
    kafka.kill()
    kafka.start()
    produce(kafka, topic, 100, 100, 2)
    stream.wait_for(200, 60)
    admin = kafka.admin()
    (future,) = admin.create_partitions([NewPartitions(topic, 3)]).values()
    future.result(30)
    produce(kafka, topic, 200, 150, 3)
    found = stream.wait_for(350, 60)
    assert Counter(found) == Counter(f"t{n}" for n in range(350))
