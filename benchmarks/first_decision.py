"""`python -m benchmarks.first_decision`: from the start of the command to the first decision of the default job.

A thousand transactions wait in a topic, and decisions go into another; both ends of the time are clocks of this
machine: when Python was started, and when the broker appended the first decision. On Flink a cluster runs already. The
first job loads what its JVMs have not loaded yet, later ones find it there.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.flink_stream import cancel_jobs
from benchmarks.fraud1.workload import DEFAULT_SCHEMA, make_transactions, messages
from benchmarks.report import print_results, table
from runners.flink.cluster import start_cluster, stop_cluster
from runners.local import Kafka
from runners.local.ports import free_port
from transforms.errors import UserError

ROWS, RUNS = 1_000, 3
_ROOT = Path(__file__).parents[1]
_TOPIC, _PATIENCE = "transactions", 120.0


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        here: seconds on the DirectRunner, of each run.
        on_flink: on a Flink cluster, of each job, the first on that cluster before the others.
    """

    here: Sequence[float]
    on_flink: Sequence[float]


def measure_locally(rows: int = ROWS) -> Measured:
    """As described above.

    Raises:
        UserError: a server cannot be had here, or a run gave no decision.
    """
    with tempfile.TemporaryDirectory(prefix="fraud-first-") as name:
        directory = Path(name)
        kafka = Kafka(directory / "kafka", free_port()).start()
        try:
            kafka.create_topic(_TOPIC, 4)
            producer = Producer({"bootstrap.servers": kafka.bootstrap})
            for key, value in messages(make_transactions(rows)):
                producer.produce(_TOPIC, value, key)
            producer.flush()
            here = [
                _seconds(kafka, directory, f"here-{run}", "?until=latest", "--runner=DirectRunner")
                for run in range(RUNS)
            ]
            cluster = start_cluster(directory / "flink", ports={"rest": 0, "workers": 0})  # it keeps cores busy
            on_flink = []
            for run in range(RUNS):
                on_flink.append(_seconds(kafka, directory, f"flink-{run}", "", *cluster.flags))
                cancel_jobs(cluster)
            return Measured(here, on_flink)
        finally:
            stop_cluster(directory / "flink")
            kafka.stop()


def _seconds(kafka: Kafka, directory: Path, sink: str, until: str, *flags: str) -> float:
    kafka.create_topic(sink, 1, {"message.timestamp.type": "LogAppendTime"})
    command = [sys.executable, "-m", "pipelines.fraud", "--schema", DEFAULT_SCHEMA, *flags]
    command += ["--source", f"kafka://{kafka.bootstrap}/{_TOPIC}{until}", "--sink", f"kafka://{kafka.bootstrap}/{sink}"]
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": sink, "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(sink, 0, 0)])
    with (directory / f"{sink}.txt").open("wb") as said:
        began = time.time()
        process = subprocess.Popen(  # noqa: S603 - this project's own command
            [*command, "--output", str(directory / sink)], cwd=_ROOT, stdout=said, stderr=said
        )
    try:
        first = None
        while first is None:
            first = consumer.poll(0.5)
            if first is None and (process.poll() or time.time() > began + _PATIENCE):
                words = (directory / f"{sink}.txt").read_text("utf-8", errors="replace")[-2_000:]
                raise UserError(f"no decision after {time.time() - began:.0f} s: {words}")
        return float(first.timestamp()[1] / 1000 - began)
    finally:
        consumer.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30.0)
        process.kill()
        process.wait()


def results_text(measured: Measured) -> str:
    """The measures as a Markdown table."""
    rows = [
        ("DirectRunner", measured.here),
        ("Flink, the first job of a cluster", measured.on_flink[:1]),
        ("Flink, later jobs", measured.on_flink[1:]),
    ]
    return table(
        ["seconds to the first decision", "each run"],
        [[name, " / ".join(f"{each:.1f}" for each in seconds)] for name, seconds in rows],
    )


def main() -> int:
    """Measure and print; 2 when something that is needed cannot be had."""
    return print_results(lambda: results_text(measure_locally()))


if __name__ == "__main__":
    sys.exit(main())
