"""Run programs that do FRAUD-1 between two topics, one after the other; see what each takes, and if it is right."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.flink_stream import ONE_SUBTASK, PARTITIONS
from benchmarks.fraud1.job import START
from benchmarks.fraud1.usage import TreeUsage
from benchmarks.fraud1.workload import Transactions, expected, make_transactions, messages
from runners.local import Kafka
from transforms.errors import UserError

RATE, SECONDS, WARM_UP = 1_000, 75, 25
_PATIENCE = 300.0
_APPENDED = {"message.timestamp.type": "LogAppendTime"}
_ROOT = Path(__file__).parents[2]
#: Scores that are further from pandas' than this are wrong.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Contender:
    """A program that does FRAUD-1.

    Attributes:
        name: for people.
        command: what is run for a topic that is full.
        steady: what is run for one that fills; the same, where that does both.
        directory: it is run in.
        limit: whether it is no contender but what the machine can do.
        scores: whether its scores are to be FRAUD-1's; of others only the ids are looked at.
        at_once: whether nothing comes out before its input ends, so that its output has no middle.
    """

    name: str
    command: Sequence[str]
    steady: Sequence[str]
    directory: Path = _ROOT
    limit: bool = False
    scores: bool = True
    at_once: bool = False


@dataclass(frozen=True)
class Throughput:
    """One run over a full topic.

    Attributes:
        name: of the contender.
        rows: that came out right; a run with a wrong one counts for nothing.
        seconds: from where it begins to read to its last record.
        middle_rate, middle_cpu_rate: rows a second, and a CPU second, between the first fifth of the output and the
            last tenth: without what a start costs; NaN of output that comes at once.
        cpu_seconds, cpu_in_all: of all its processes, from where it begins to read, and from its start.
        peak_bytes: of memory.
    """

    name: str
    rows: int
    seconds: float
    middle_rate: float
    middle_cpu_rate: float
    cpu_seconds: float
    cpu_in_all: float
    peak_bytes: int


@dataclass(frozen=True)
class Latency:
    """One run over a topic that fills at a steady rate.

    Attributes:
        name: of the contender.
        milliseconds: of each transaction after the warm-up, from one append by the broker to the other.
        cores: that all its processes kept busy meanwhile.
    """

    name: str
    milliseconds: np.ndarray[Any, Any]
    cores: float


def own_contenders() -> list[Contender]:
    """This project, on both runners; what ends cannot be measured at a steady rate.

    On Flink it is one subtask, whose stages, JVM and broker fill two cores as two subtasks do, for less.
    """
    command = [sys.executable, "-m", "benchmarks.fraud1.job", "--runner"]
    flink = [*command, "FlinkRunner", "--parallelism=1"]
    here = [*command, "DirectRunner"]
    return [
        Contender("this project, DirectRunner", here, (), at_once=True),
        Contender("this project, Flink, a cluster's first job", flink, [*flink, *ONE_SUBTASK]),
        Contender("this project, Flink, a cluster's second job", [*flink, "--warm"], ()),
        Contender("this project, DirectRunner, default job", [*here, "--default"], (), scores=False, at_once=True),
        Contender("this project, Flink, default job", [*flink, "--warm", "--default"], (), scores=False),
    ]


def peers_of(directory: Path) -> list[Contender]:
    """The peers that are installed below a directory."""
    listed = msgspec.toml.decode(Path(__file__).with_name("peers.toml").read_bytes())["peers"]
    found = []
    for each in listed:
        needed = directory / each.get("needs", Path(each["command"][0]).parts[0])
        if needed.exists():
            steady = each.get("steady", () if each.get("limit") else each["command"])
            found.append(Contender(each["name"], each["command"], steady, directory, each.get("limit", False)))
    return found


class Contest:
    """Topics on a broker, and what has to come out of them.

    Args:
        kafka: that runs.
        directory: each run gets a new one below it; topics are named after it.
        rows: of the full topic.
    """

    def __init__(self, kafka: Kafka, directory: Path, rows: int) -> None:
        self.kafka, self.directory, self.rows = kafka, directory, rows
        self._runs = 0
        self._full = f"{directory.name}-full"
        self._expected = self._fill(self._full, make_transactions(rows))

    def throughput(self, contender: Contender) -> Throughput:
        """Have a contender read the full topic.

        Raises:
            UserError: it ended too early, or too late, or something that came out is wrong.
        """
        sink = self._next("out", contender)
        with self._running(contender, contender.command, self._full, sink, self.rows) as (process, began, usage):
            before = usage.cpu_seconds()
            looks = self._wait(sink, self.rows, process, contender, usage)
        found = self._read(sink)
        _check(found, self._expected, contender)
        stamps = np.sort(found["at"].to_numpy()) / 1000
        first, last = stamps[int(0.2 * self.rows)], stamps[int(0.9 * self.rows) - 1]
        written, cpu = np.array(looks).T
        in_the_middle = np.interp([0.2 * self.rows, 0.9 * self.rows], written, cpu)
        middle = np.nan if contender.at_once else 0.7 * self.rows
        return Throughput(
            contender.name,
            self.rows,
            float(stamps[-1]) - began,
            middle / max(float(last - first), 0.001),
            middle / max(float(np.ptp(in_the_middle)), 0.001),
            cpu[-1] - before,
            cpu[-1],
            usage.peak_bytes,
        )

    def latency(self, contender: Contender) -> Latency:
        """Have a contender read a topic that fills.

        Raises:
            UserError: as `throughput`.
        """
        rows = RATE * SECONDS
        source, sink = self._next("in", contender), self._next("out", contender)
        made = make_transactions(rows, seed=2)
        with self._running(contender, contender.steady, source, sink, rows) as (process, _, usage):
            time.sleep(10.0)  # it may say that it reads before it does
            warm_at, busy = RATE * WARM_UP, 0.0
            producer, began = self._producer(linger=5), time.time()
            for sent, (key, value) in enumerate(messages(made)):
                if sent == warm_at:
                    busy = usage.cpu_seconds()
                if (ahead := began + sent / RATE - time.time()) > 0.002:
                    time.sleep(ahead)
                producer.produce(source, value, key)
                producer.poll(0)
            producer.flush()
            cores = (usage.cpu_seconds() - busy) / (SECONDS - WARM_UP)
            self._wait(sink, rows, process, contender, usage)
        found = self._read(sink)
        _check(found, expected(made), contender)
        went = self._read(source)["at"]
        warm = went[went >= went.min() + 1000 * WARM_UP]
        return Latency(contender.name, (found["at"].reindex(warm.index) - warm).to_numpy(), cores)

    def _fill(self, topic: str, made: Transactions) -> pd.DataFrame:
        self.kafka.create_topic(topic, PARTITIONS)
        producer = self._producer(linger=50)
        for sent, (key, value) in enumerate(messages(made)):
            producer.produce(topic, value, key)
            if sent % 50_000 == 0:
                producer.flush()
        producer.flush()
        return expected(made)

    def _producer(self, linger: int) -> Producer:
        return Producer(
            {"bootstrap.servers": self.kafka.bootstrap, "linger.ms": linger, "queue.buffering.max.messages": 1_000_000}
        )

    def _next(self, what: str, contender: Contender) -> str:
        self._runs += 1
        name = f"{self.directory.name}-{what}-{self._runs}"
        self.kafka.create_topic(name, PARTITIONS, _APPENDED)
        return name

    @contextlib.contextmanager
    def _running(
        self, contender: Contender, command: Sequence[str], source: str, sink: str, rows: int
    ) -> Iterator[tuple[subprocess.Popen[bytes], float, TreeUsage]]:
        """Inside, it has begun to read, at the moment given."""
        work = self.directory / sink
        work.mkdir()
        environment = {"BOOT": self.kafka.bootstrap, "IN_TOPIC": source, "OUT_TOPIC": sink, "N": str(rows)}
        with (work / "errors.txt").open("wb") as errors, (work / "said.txt").open("wb") as said:
            process = subprocess.Popen(  # noqa: S603 - a program that the user has named
                command,
                cwd=contender.directory,
                env={**os.environ, **environment, "WORKDIR": str(work), "PYTHONUNBUFFERED": "1"},
                stdout=said,
                stderr=errors,
                start_new_session=True,
            )
        try:
            with TreeUsage(process.pid) as usage:
                while START not in (work / "said.txt").read_text("utf-8", errors="replace"):
                    if process.poll() is not None:
                        raise UserError(f"{contender.name} ended before it read anything: {_end_of(work)}")
                    time.sleep(0.02)
                yield process, time.time(), usage
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30.0)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _wait(
        self, sink: str, rows: int, process: subprocess.Popen[bytes], contender: Contender, usage: TreeUsage
    ) -> list[tuple[int, float]]:
        """Wait for all rows; how many there were at each look, and the CPU seconds until then."""
        deadline, consumer = time.monotonic() + _PATIENCE, self._consumer()
        looks = []
        try:
            while (written := _count(consumer, sink)) < rows:
                looks.append((written, usage.cpu_seconds()))
                if time.monotonic() > deadline:
                    raise UserError(f"{contender.name} wrote {written:,} of {rows:,} records in {_PATIENCE:.0f} s")
                if process.poll() and _count(consumer, sink) < rows:
                    raise UserError(
                        f"{contender.name} ended with {process.returncode}: {_end_of(self.directory / sink)}"
                    )
                time.sleep(0.1)
        finally:
            consumer.close()
        return [*looks, (rows, usage.cpu_seconds())]

    def _consumer(self) -> Consumer:
        return Consumer({"bootstrap.servers": self.kafka.bootstrap, "group.id": "fraud-1", "enable.auto.commit": False})

    def _read(self, topic: str) -> pd.DataFrame:
        """Id, score, flag and the time of the append in milliseconds, of every record; ids are the index."""
        consumer = self._consumer()
        total, rows = _count(consumer, topic), list[tuple[Any, ...]]()
        consumer.assign([TopicPartition(topic, at, 0) for at in range(PARTITIONS)])
        while len(rows) < total:
            for message in consumer.consume(10_000, 5.0):
                if message.error() is None:
                    rows.append((*_decided(message.value() or b""), message.timestamp()[1]))
        consumer.close()
        return pd.DataFrame(rows, columns=["id", "score", "flag", "at"]).set_index("id")


class _Record(msgspec.Struct, gc=False):
    transaction_id: str
    score: float | str = 0.0
    flag: int | str | None = None
    decision: str = "approve"


_DECODER = msgspec.json.Decoder(_Record)


def _decided(value: bytes) -> tuple[str, float, bool]:
    record = _DECODER.decode(value)
    flagged = record.decision != "approve" if record.flag is None else bool(int(record.flag))
    return record.transaction_id, float(record.score), flagged


def _count(consumer: Consumer, topic: str) -> int:
    return sum(consumer.get_watermark_offsets(TopicPartition(topic, at), 10.0)[1] for at in range(PARTITIONS))


def _check(found: pd.DataFrame, right: pd.DataFrame, contender: Contender) -> None:
    """Refuse what differs from pandas; of a repetition, the first counts."""
    once = found[~found.index.duplicated()].reindex(right.index)
    if not contender.scores:
        once = right.where(once.score.notna(), np.nan)
    wrong = ~((once.score - right.score).abs() <= _TOLERANCE) | (once.flag != right.flag)
    near = (right.score - 0.5).abs() <= _TOLERANCE
    if (wrong & ~near).any():
        raise UserError(
            f"{contender.name}: {int((wrong & ~near).sum()):,} of {len(right):,} records are missing or wrong"
        )


def _end_of(work: Path) -> str:
    return (work / "errors.txt").read_text("utf-8", errors="replace")[-2_000:]
