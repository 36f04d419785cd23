"""Versions of a stream's job, one after the other, and what they and an uninterrupted run decide."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Producer

from pipelines.fraud import main
from pipelines.produce import simulated
from runners.flink.cluster import FlinkCluster
from runners.flink.rest import FlinkError
from runners.flink.submit import FlinkJob
from runners.local import Kafka
from tests.integration.kafka_topics import held

ROOT = Path(__file__).parents[2]
SCHEMA = "transaction-events"
PARTITIONS = 2
PATIENCE = 180.0
#: When simulations begin, in milliseconds since 1970: 2026-01-01.
SIMULATED = 1_767_225_600_000
#: One alert a card and hour; a tenth of the transactions is above this.
RULES = """
[alerts]
suppress = "1h"

[[rules]]
name = "large"
when = "amount > 120"
action = "review"
"""


class Row(NamedTuple):
    """A record of the topic."""

    partition: int
    millis: int
    key: str
    body: str


def rows_of(url: str, first: int | None = None) -> list[Row]:
    """A simulation's transactions in their order; the broker's time of each is its event time.

    Args:
        url: of the simulation.
        first: the millisecond at which it begins, if not when it says itself.
    """
    rows = []
    for events in simulated(url):
        times = np.asarray(events.times) + (0 if first is None else first - SIMULATED) * 1000
        for key, at, body in zip(events.keys, times.tolist(), events.bodies(0, times), strict=True):
            rows.append(Row(int(key) % PARTITIONS, at // 1000, key, body.decode()))
    return rows


def split_at(rows: Sequence[Row], *millis: int) -> list[list[Row]]:
    """Rows before, between and after moments."""
    ends = (-(2**63), *millis, 2**63)
    return [[row for row in rows if begin <= row.millis < end] for begin, end in pairwise(ends)]


def unpacked(content: bytes) -> Iterator[bytes]:
    """What lies compressed in bytes: each frame of Zstandard with the length before it, as batches are written."""
    for frame in re.finditer(re.escape(b"\x28\xb5\x2f\xfd"), content):
        at = frame.start()
        length = int.from_bytes(content[at - 4 : at], "big")
        yield pa.CompressedInputStream(pa.BufferReader(content[at:]), "zstd").read(length)


@dataclass
class Versions:
    """A topic, and the jobs that read it one after the other.

    Attributes:
        kafka: where the topics are.
        flink: where the jobs run.
        directory: of the command's files.
        name: of the topic that is read; the others' names begin with it.
        job: the one that runs now.
    """

    kafka: Kafka
    flink: FlinkCluster
    directory: Path
    name: str
    job: FlinkJob | None = None
    topics: set[str] = field(default_factory=set)

    def topic(self, part: str) -> str:
        """The name of a topic, which is there from now on; it forgets nothing."""
        name = f"{self.name}-{part}"
        if name not in self.topics:
            self.kafka.create_topic(name, PARTITIONS, {"retention.ms": "-1", "message.timestamp.type": "CreateTime"})
            self.topics.add(name)
        return name

    def url(self, part: str) -> str:
        """Of a topic."""
        return f"kafka://{self.kafka.bootstrap}/{self.topic(part)}"

    def send(self, rows: Iterable[Row]) -> None:
        """Append rows to the topic."""
        topic = self.topic("in")
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap, "log_level": 0})
        for row in rows:
            producer.produce(topic, row.body, row.key, row.partition, timestamp=row.millis)
        assert producer.flush(30.0) == 0

    def flags(self, sent: str, *flags: str) -> list[str]:
        """What a run is told whose results go to topics that begin with `sent`."""
        return [
            *("--schema", SCHEMA, "--set", "pipeline.ordering=event_time", "--quiet"),
            *("--sink", self.url(f"{sent}-decisions"), "--alert", self.url(f"{sent}-alerts")),
            *("--output", str(self.directory / sent), *flags),
        ]

    def start(self, sees_until: int | None, *flags: str, savepoint: str | None = None) -> None:
        """Leave a job running by the command for it.

        Args:
            sees_until: takes its time from records less so much that it ends about here, in milliseconds since 1970:
                later rows wait. None: nothing waits for long.
            flags: further ones.
            savepoint: that it goes on from.
        """
        delay = "2s" if sees_until is None else f"{int(time.time()) - sees_until // 1000}s"
        argv = [
            *("--source", f"{self.url('in')}?start=earliest&watermark_delay={delay}"),
            *(*self.flags("flink", *flags), *self.flink.flags),
            *([f"--savepoint_path={savepoint}"] if savepoint else []),
        ]
        run = subprocess.run(
            [sys.executable, "-m", "pipelines.fraud", *argv], cwd=ROOT, capture_output=True, text=True, check=False
        )
        said = re.match(r"job (\w+) runs", run.stdout)
        if run.returncode or said is None:
            raise FlinkError(run.stderr)
        self.job = FlinkJob(self.flink.rest, said[1])

    def stop(self) -> str:
        """Stop the job by the command for it; where its savepoint is."""
        assert self.job is not None
        argv = [sys.executable, "-m", "runners.flink", "stop", self.job.id, "--flink_master", self.flink.rest.address]
        run = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        self.job = None
        return run.stdout.strip()

    def cancel(self) -> None:
        """End the job, if one runs."""
        if self.job is not None:
            self.job.cancel()
            self.job.wait_until_finish()
            self.job = None

    def results(self, sent: str, what: str = "decisions") -> dict[str, bytes]:
        """The latest record of each transaction in a topic of results, by its id."""
        found = {}
        for message in held(self.kafka.bootstrap, self.topic(f"{sent}-{what}"), PARTITIONS):
            found[json.loads(message.value())["transaction_id"]] = message.value()
        return found

    def wait_for_decisions(self, ids: Iterable[str]) -> dict[str, bytes]:
        """Wait until these transactions are decided on; everything that is."""
        wanted = set(ids)
        self.wait(lambda: wanted <= set(self.results("flink")), f"{len(wanted)} decisions")
        return self.results("flink")

    def wait_until_remembered(self, names: Iterable[str]) -> None:
        """Wait until a savepoint holds what these transactions are called; ids lie there as they are, or packed."""
        assert self.job is not None
        job, wanted = self.job, [name.encode() for name in names]

        def remembered() -> bool:
            place = Path(self.flink.rest.savepoint(job.id).removeprefix("file:"))
            content = b"".join(file.read_bytes() for file in place.iterdir())
            content += b"".join(unpacked(content))
            return all(name in content for name in wanted)

        self.wait(remembered, f"{len(wanted)} rows in a savepoint")

    def wait(self, done: Callable[[], bool], what: str) -> None:
        """Wait until something is so, with a job that runs."""
        deadline = time.monotonic() + PATIENCE
        while not done():
            state = self.job.state() if self.job else ""
            if state in ("FAILED", "RESTARTING") or time.monotonic() > deadline:
                pytest.fail(f"{what}: not in {PATIENCE:.0f} s; the job is {state}: {self._cause()}")
            time.sleep(0.3)

    def _cause(self) -> str:
        return self.flink.rest.root_cause(self.job.id) if self.job else ""

    def run_without_a_break(self, sent: str, *flags: str) -> None:
        """Decide on all that the topic holds by a run in this process."""
        argv = ["--runner=DirectRunner", "--source", f"{self.url('in')}?start=earliest&until=latest"]
        assert main([*argv, *self.flags(sent, *flags)]) == 0


def ids_of(rows: Iterable[Row]) -> list[str]:
    """The ids of the transactions in rows."""
    return [json.loads(row.body)["transaction_id"] for row in rows]
