"""`python -m benchmarks.flink_state`: what a stream's state weighs in Flink's checkpoints as months of it are replayed.

Transactions of the simulator go into a topic a few days at a time, in their order; the default job takes them as they
come (`arrival`) and remembers them by their event times. After each step a checkpoint is awaited. Features reach back
37 days and duplicates 30: from then on state must not grow, however much goes through.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Producer

from benchmarks.flink_stream import PARTITIONS, cancel_jobs, count_records, start_job, wait_for
from benchmarks.report import print_results, table
from io_connectors.simulation import Simulation, simulate_days
from runners.flink.cluster import FlinkCluster, start_cluster, stop_cluster
from runners.local import Kafka, free_port

ROWS, DAYS, STEP = 240_000, 120, 15
A_DAY = 2  # transactions of a customer, about
_COLUMNS = ("TRANSACTION_ID", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT")


@dataclass(frozen=True)
class Step:
    """The job after some days of event time.

    Attributes:
        days: of event time so far.
        rows: that went through so far.
        seconds: from the step's first record to its last decision.
        state: bytes of the checkpoint that follows, with what it shares with earlier ones.
        written: bytes of it that were new.
        milliseconds: that it took.
    """

    days: int
    rows: int
    seconds: float
    state: int
    written: int
    milliseconds: int


def measure_locally(rows: int = ROWS) -> list[Step]:
    """As described above, with about so many transactions, on servers that are started for it.

    Raises:
        UserError: Java or Maven are missing, or a server cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="fraud-bench-") as name:
        directory = Path(name)
        kafka = Kafka(directory / "kafka", free_port()).start()
        try:
            cluster = start_cluster(directory / "flink", ports={"rest": 0, "workers": 0})
            return measure(kafka, cluster, directory, rows // A_DAY // DAYS, DAYS)
        finally:
            stop_cluster(directory / "flink")
            kafka.stop()


def measure(kafka: Kafka, cluster: FlinkCluster, directory: Path, customers: int, days: int) -> list[Step]:
    """Replay `days` of so many customers, a step at a time, on servers that run."""
    for topic in ("replay", "replay-out"):
        kafka.create_topic(topic, PARTITIONS, {"retention.ms": "-1"})
    start_job(kafka, cluster, directory, "replay", "replay-out")
    job = next(each["jid"] for each in cluster.rest.jobs() if each["state"] == "RUNNING")
    producer, rows, steps = Producer({"bootstrap.servers": kafka.bootstrap}), 0, []
    simulation = Simulation(customers=customers, terminals=2 * customers, days=days)
    began = time.monotonic()
    for day, transactions in enumerate(simulate_days(simulation), 1):
        rows += _send(producer, transactions)
        if day % STEP == 0:
            wait_for(lambda sent=rows: count_records(kafka, "replay-out") >= sent, 600.0, "the decisions")  # type: ignore[misc]
            seconds = time.monotonic() - began
            found = _next_checkpoint(cluster, job)
            sizes = int(found["state_size"]), int(found["checkpointed_size"])
            steps.append(Step(day, rows, seconds, *sizes, int(found["end_to_end_duration"])))
            began = time.monotonic()
    cancel_jobs(cluster)
    return steps


def _send(producer: Producer, day: Any) -> int:
    """Send a day's transactions, all to one partition: that keeps their order."""
    columns = [day.column(name).to_pylist() for name in _COLUMNS]
    times = day.column("TX_DATETIME").to_pylist()
    for number, customer, terminal, amount, at in zip(*columns, times, strict=True):
        body = {"TRANSACTION_ID": str(number), "TX_DATETIME": at.isoformat(), "CUSTOMER_ID": str(customer)}
        body |= {"TERMINAL_ID": str(terminal), "TX_AMOUNT": float(amount)}
        producer.produce("replay", msgspec.json.encode(body), str(customer), partition=0)
    producer.flush()
    return len(times)


def _next_checkpoint(cluster: FlinkCluster, job: str) -> Any:
    """The first checkpoint that was begun after now and is complete."""
    now = time.time() * 1000

    def latest() -> Any:
        found = cluster.rest.checkpoints(job)["latest"]["completed"]
        return found if found and found["trigger_timestamp"] > now else None

    wait_for(lambda: latest() is not None, 120.0, "a checkpoint")
    return latest()


def results_text(steps: Sequence[Step]) -> str:
    """The measures as a Markdown table, a line a step."""
    columns = ("days of event time", "rows", "rows/s", "state MB", "written MB", "checkpoint ms")
    before, lines = 0, []
    for step in steps:
        speed = (step.rows - before) / step.seconds
        sizes = (f"{step.state / 1e6:.1f}", f"{step.written / 1e6:.1f}", f"{step.milliseconds:,}")
        lines.append((str(step.days), f"{step.rows:,}", f"{speed:,.0f}", *sizes))
        before = step.rows
    return table(columns, lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flink_state", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=ROWS, metavar="N", help=f"about as many (default {ROWS:,})")
    given = parser.parse_args(argv)
    return print_results(lambda: results_text(measure_locally(given.rows)))


if __name__ == "__main__":
    sys.exit(main())
