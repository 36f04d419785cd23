"""`python -m benchmarks.scaling --flink`: FRAUD-1 on Flink with more partitions, subtasks and shards.

The job catches up with one topic after another on a cluster, a broker and workers of this machine. Rates and processor
time are those between the first fifth of the decisions and the last tenth, by the broker's stamps on them: neither the
start of a job nor its end counts. After the last decision the job is left idle, to see what is paid by the second and
not by the transaction.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from benchmarks.flink_stream import (
    PARTITIONS,
    cancel_jobs,
    count_records,
    cpu_seconds,
    make_producer,
    read_stamps,
    run_silently,
    wait_for,
)
from benchmarks.fraud1.job import ASKED_ONLY
from benchmarks.fraud1.workload import SCHEMA, make_transactions, messages, write_model
from benchmarks.report import table
from runners.flink.cluster import FlinkCluster, start_cluster, stop_cluster
from runners.local import Kafka, free_port
from runners.local.server import Server
from transforms.errors import UserError

ROWS = 300_000
#: Partitions, subtasks, shards. The first is run for what is compiled in it, and not counted.
SETUPS = ((4, 2, 2), (4, 2, 2), (4, 1, 1), (1, 2, 2), (16, 2, 2), (4, 2, 16), (4, 2, 64))
NODES, CORES = 100, 2
_IDLE_SECONDS, _PATIENCE, _LOOK_EVERY = 12.0, 600.0, 0.2
_FROM, _TO = 0.2, 0.9
#: What every node has of its own; the others are one for all.
_ON_NODES = ("taskmanager-1", "workers")
_IN_ONE_PLACE = ("jobmanager", "zookeeper")


@dataclass(frozen=True)
class Point:
    """One topic caught up with.

    Attributes:
        partitions: of the topic.
        subtasks: of the job.
        shards: of its state.
        rate: transactions a second.
        microseconds: of processor time for a transaction, by process.
        idle: cores that each process keeps busy when nothing comes.
    """

    partitions: int
    subtasks: int
    shards: int
    rate: float
    microseconds: Mapping[str, float]
    idle: Mapping[str, float]

    @property
    def on_nodes(self) -> float:
        """Microseconds that are paid where there may be any number of machines."""
        return sum(self.microseconds[name] for name in _ON_NODES)

    @property
    def in_one_place(self) -> float:
        """Microseconds that are paid by processes that are one for all, beyond what these take anyway."""
        anyway = sum(self.idle[name] for name in _IN_ONE_PLACE) / self.rate * 1e6
        return max(sum(self.microseconds[name] for name in _IN_ONE_PLACE) - anyway, 0.0)

    @property
    def busy(self) -> float:
        """Cores that all processes keep busy meanwhile."""
        return sum(self.microseconds.values()) * self.rate / 1e6


def measure_locally(rows: int = ROWS) -> list[Point]:
    """As described above, on servers that are started for it.

    Raises:
        UserError: Java or Maven are missing, or a server cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="fraud-bench-") as name:
        directory = Path(name)
        kafka = Kafka(directory / "kafka", free_port()).start()
        try:
            cluster = start_cluster(directory / "flink", ports={"rest": 0, "workers": 0})
            write_model(directory / "model")
            _fill(kafka, rows)
            points = [_measure(kafka, cluster, directory, rows, at) for at in range(len(SETUPS))]
        finally:
            stop_cluster(directory / "flink")
            kafka.stop()
    return points[1:]


def _fill(kafka: Kafka, rows: int) -> None:
    """The same transactions into a topic of each number of partitions, by customer."""
    topics = {_topic(partitions): partitions for partitions, *_ in SETUPS}
    for topic, partitions in topics.items():
        kafka.create_topic(topic, partitions)
    producer = make_producer(kafka)
    for sent, (key, value) in enumerate(messages(make_transactions(rows))):
        for topic in topics:
            producer.produce(topic, value, key)
        if sent % 50_000 == 0:
            producer.flush()
    producer.flush()


def _topic(partitions: int) -> str:
    return f"of-{partitions}"


def _measure(kafka: Kafka, cluster: FlinkCluster, directory: Path, rows: int, at: int) -> Point:
    partitions, subtasks, shards = SETUPS[at]
    sink = f"decided-{at}"
    kafka.create_topic(sink, PARTITIONS, {"message.timestamp.type": "LogAppendTime"})
    with _Watch({**cluster.processes(), "kafka": kafka}) as watch:
        run_silently(
            [
                *cluster.flags,
                *("--source", f"kafka://{kafka.bootstrap}/{_topic(partitions)}", "--schema", SCHEMA),
                *("--sink", f"kafka://{kafka.bootstrap}/{sink}?columns=transaction_id,score,decision"),
                *("--model", f"file:{directory}/model", *ASKED_ONLY),
                *(f"--parallelism={subtasks}", "--set", f"pipeline.shards={shards}"),
                *("--output", str(directory / sink)),
            ]
        )
        wait_for(lambda: count_records(kafka, sink) >= rows, _PATIENCE, f"the end of topic {_topic(partitions)}")
        time.sleep(_IDLE_SECONDS / 4)  # what is left to do after the last decision
        idle_from = time.time()
        time.sleep(_IDLE_SECONDS)
        idle = watch.between(idle_from, time.time())
    cancel_jobs(cluster)
    stamps = np.sort([stamp for _, stamp in read_stamps(kafka, sink)]) / 1000
    if len(stamps) != rows:
        raise UserError(f"{rows:,} transactions went in, {len(stamps):,} decisions came out")
    first, last = float(stamps[int(_FROM * rows)]), float(stamps[int(_TO * rows) - 1])
    if last - first < 5 * _LOOK_EVERY:
        raise UserError(f"{rows:,} rows are decided on too soon to be measured; give more of them")
    decided = (_TO - _FROM) * rows
    point = Point(
        partitions,
        subtasks,
        shards,
        decided / (last - first),
        {name: 1e6 * used / decided for name, used in watch.between(first, last).items()},
        {name: used / _IDLE_SECONDS for name, used in idle.items()},
    )
    print(f"  {partitions} partitions, {subtasks} subtasks, {shards} shards: {point.rate:,.0f}/s", file=sys.stderr)
    return point


class _Watch:
    """A thread that looks at the processor time of servers for as long as the context lasts."""

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self._servers = servers
        self._looks: list[tuple[float, dict[str, float]]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def between(self, begin: float, end: float) -> dict[str, float]:
        """Seconds that each server used between two moments of the clock, straight lines between the looks."""
        looks = list(self._looks)
        moments = [moment for moment, _ in looks]
        courses = {name: [used.get(name, 0.0) for _, used in looks] for name in self._servers}
        return {name: float(np.diff(np.interp([begin, end], moments, course))[0]) for name, course in courses.items()}

    def _run(self) -> None:
        while not self._over.wait(_LOOK_EVERY):
            self._looks.append((time.time(), cpu_seconds(self._servers)))


@dataclass(frozen=True)
class Fractions:
    """What the points say of many nodes.

    Attributes:
        speed_up: of two subtasks over one, on this machine.
        serial: Amdahl's fraction that this speed-up would mean.
        shard: microseconds that each shard more adds to a transaction.
        row: microseconds of a transaction on the nodes, with none.
        one_place: microseconds of a transaction on the JobManager and what it needs, beyond what these take anyway.
        anyway: cores that these take with one subtask and with two.
    """

    speed_up: float
    serial: float
    shard: float
    row: float
    one_place: float
    anyway: tuple[float, float]

    def efficiency(self, shards: int) -> float:
        """What a node does where the state has so many shards, of what it does with one."""
        return (self.row + self.shard) / (self.row + self.shard * shards)


def fractions_of(points: Sequence[Point]) -> Fractions:
    """Serial fractions and the cost of exchanges, from the points of `SETUPS`."""
    usual = {(p.partitions, p.subtasks, p.shards): p for p in points}
    one, two = usual[(PARTITIONS, 1, 1)], usual[(PARTITIONS, 2, 2)]
    by_shards = [p for p in points if (p.partitions, p.subtasks) == (PARTITIONS, 2)]
    shard, row = np.polyfit([p.shards for p in by_shards], [p.on_nodes for p in by_shards], 1)
    speed_up = two.rate / one.rate
    anyway = [sum(p.idle[name] for name in _IN_ONE_PLACE) for p in (one, two)]
    return Fractions(
        speed_up=speed_up,
        serial=2 / speed_up - 1,
        shard=max(float(shard), 0.0),
        row=float(row),
        one_place=float(np.mean([p.in_one_place for p in points])),
        anyway=(anyway[0], anyway[1]),
    )


def results_text(points: Sequence[Point]) -> str:
    """The measures as Markdown tables."""
    return "\n\n".join(
        [
            "Transactions a second, and microseconds of processor time for each by process:",
            _points_table(points),
            f"Cores that an idle job keeps busy, by process: {_idle_text(points)}.",
            _fractions_table(points),
        ]
    )


def _points_table(points: Sequence[Point]) -> str:
    names = list(points[0].microseconds)
    rows = []
    for p in points:
        costs = [f"{p.microseconds[name]:.2f}" for name in names]
        setup = f"{p.partitions} partitions, {p.subtasks} subtask{'s' * (p.subtasks > 1)}, {p.shards} shards"
        rows.append([setup, f"{p.rate:,.0f}", f"{p.busy:.2f}", *costs, f"{p.on_nodes:.1f}"])
    return table(["", "tx/s", "cores busy", *names, "on nodes"], rows)


def _idle_text(points: Sequence[Point]) -> str:
    return ", ".join(f"{name} {np.mean([p.idle[name] for p in points]):.3f}" for name in points[0].idle)


def _fractions_table(points: Sequence[Point]) -> str:
    found = fractions_of(points)
    one, two = found.anyway
    most = f"{1e6 / found.one_place:,.0f} tx/s" if found.one_place else "none that could be measured"
    node = CORES * 1e6 / (found.row + found.shard)
    rows = [
        ["speed-up of the second subtask, on this machine", f"{found.speed_up:.2f}"],
        ["Amdahl's serial fraction, were the machine larger and this the speed-up all the same", f"{found.serial:.2f}"],
        ["a transaction on the nodes, without its shards, microseconds", f"{found.row:.1f}"],
        ["each shard more, microseconds a transaction", f"{found.shard:.3f}"],
        ["a transaction on the JobManager and ZooKeeper, microseconds", f"{found.one_place:.3f}"],
        ["serial fraction by processor time", f"{found.one_place / (found.one_place + found.row):.4f}"],
        ["what that serial part would allow, whatever the nodes", most],
        ["JobManager and ZooKeeper anyway, cores with one subtask and with two", f"{one:.3f}, {two:.3f}"],
        [f"a node of {CORES} cores, from its two processes' cost, tx/s", f"{node:,.0f}"],
    ]
    for shards in (NODES, NODES * CORES):
        share = found.efficiency(shards)
        whole = [f"{NODES} nodes with {shards} shards: efficiency, tx/s", f"{share:.0%}, {NODES * node * share:,.0f}"]
        rows.append(whole)
    return table(["", ""], rows)
