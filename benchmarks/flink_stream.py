"""`python -m benchmarks.flink_stream`: the whole job on Flink, from a Kafka topic to another.

Handbook transactions as JSON, the default job (duplicates, fifteen features, model, rules, reasons, windows) with the
preset as it is, checkpoints and all; Kafka, the cluster and the workers on this machine. Topics are stamped by
the broker when it appends (LogAppendTime): latency is from one stamp to the other.

* backlog: the job starts on a topic that filled at the steady rate; from its first decision to its last.
* steady: transactions come at a fixed rate, which one subtask can carry (`ONE_SUBTASK`); the first seconds, in which
  code is compiled, are left out.
* identical: input that ends, in order of event time, here and on Flink; every column of every decision is compared.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.report import print_results, table
from io_connectors.simulation import Simulation, simulate_days
from pipelines.fraud import main as run_fraud
from runners.flink.cluster import FlinkCluster, start_cluster, stop_cluster
from runners.local import Kafka, free_port
from runners.local.processes import descendants
from runners.local.server import Server
from transforms.errors import UserError

ROWS = 1_000_000
RATE, SECONDS, WARM_UP = 1_000, 90, 40
PARTITIONS = 4
ONE_SUBTASK = ("--parallelism=1", "--set", "pipeline.shards=1")
SIMULATION = Simulation(customers=20_000, terminals=10_000, days=3650)
_COLUMNS = ("TRANSACTION_ID", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT")


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        rows: of the backlog.
        backlog_seconds: from its first decision to its last.
        cpu_seconds: of each kind of process, while it was caught up with.
        latencies: milliseconds of each transaction that came at a fixed rate.
        missing: transactions that got no decision, and decisions more than one.
        checkpoints: of both jobs: how many, the median and the longest in milliseconds, the largest in bytes.
        identical: rows compared, and how many of them differed.
    """

    rows: int
    backlog_seconds: float
    cpu_seconds: Mapping[str, float]
    latencies: np.ndarray[Any, Any]
    missing: int
    checkpoints: Sequence[tuple[str, int, float, float, int]] = field(default_factory=list)
    identical: tuple[int, int] = (0, 0)


def measure_locally(rows: int = ROWS) -> Measured:
    """As described above, on servers that are started for it.

    Raises:
        UserError: Java or Maven are missing, or a server cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="fraud-bench-") as name:
        directory = Path(name)
        kafka = Kafka(directory / "kafka", free_port()).start()
        try:
            cluster = start_cluster(directory / "flink", ports={"rest": 0, "workers": 0})
            return _measure(kafka, cluster, directory, rows)
        finally:
            stop_cluster(directory / "flink")
            kafka.stop()


def _measure(kafka: Kafka, cluster: FlinkCluster, directory: Path, rows: int) -> Measured:
    kafka.create_topic("full", PARTITIONS)
    for name in ("full-out", "live", "live-out"):
        kafka.create_topic(name, PARTITIONS, {"message.timestamp.type": "LogAppendTime"})
    messages = _messages()
    _produce(kafka, "full", messages, rows)
    cpu, backlog = _catch_up(kafka, cluster, directory, rows)
    first = _checkpoints("backlog", cluster)
    cancel_jobs(cluster)
    seconds = SECONDS if rows >= ROWS else SECONDS // 2
    latencies, missing = _live(kafka, cluster, directory, messages, seconds)
    second = _checkpoints(f"{RATE:,}/s", cluster)
    cancel_jobs(cluster)
    return Measured(rows, backlog, cpu, latencies, missing, [first, second], _compare(cluster, directory, rows))


def _messages() -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Made-up transactions without end, each with its customer as the key; times are filled in when they are sent."""
    for day in simulate_days(SIMULATION):
        columns = [day.column(name).to_pylist() for name in _COLUMNS]
        times = day.column("TX_DATETIME").to_pylist()
        for number, customer, terminal, amount, at in zip(*columns, times, strict=True):
            body = {"TRANSACTION_ID": str(number), "TX_DATETIME": at.isoformat(), "CUSTOMER_ID": str(customer)}
            yield str(customer).encode(), {**body, "TERMINAL_ID": str(terminal), "TX_AMOUNT": float(amount)}


def make_producer(kafka: Kafka) -> Producer:
    """A producer that takes a million records before it has sent the first."""
    return Producer({"bootstrap.servers": kafka.bootstrap, "linger.ms": 1, "queue.buffering.max.messages": 1_000_000})


def _produce(kafka: Kafka, topic: str, messages: Iterator[tuple[bytes, dict[str, Any]]], rows: int) -> None:
    """What came at the fixed rate while nobody read, each record stamped with its transaction's time."""
    producer, encode = make_producer(kafka), msgspec.json.Encoder().encode
    first = time.time_ns() // 1000 - rows * 1_000_000 // RATE
    for sent in range(rows):
        key, body = next(messages)
        moment = first + sent * 1_000_000 // RATE
        body["TX_DATETIME"] = str(np.datetime64(moment, "us"))
        producer.produce(topic, encode(body), key, timestamp=moment // 1000)
        if sent % 50_000 == 0:
            producer.flush()
    producer.flush()


def start_job(kafka: Kafka, cluster: FlinkCluster, directory: Path, source: str, sink: str, *flags: str) -> None:
    """Have the default job, with more flags, read a topic and write its decisions into another."""
    argv = [*cluster.flags, "--schema", "handbook", "--output", str(directory / f"output-{source}")]
    urls = ["--source", f"kafka://{kafka.bootstrap}/{source}", "--sink", f"kafka://{kafka.bootstrap}/{sink}"]
    run_silently([*argv, *urls, *flags])


def run_silently(argv: Sequence[str]) -> None:
    """Run the pipeline's command.

    Raises:
        UserError: it failed, with all that it said.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run_fraud(argv)
    if code != 0:
        raise UserError(f"the job could not be started: {said.getvalue()}")


def cancel_jobs(cluster: FlinkCluster) -> None:
    """End all jobs, and wait till their slots are free."""
    for job in cluster.rest.jobs():
        if job["state"] == "RUNNING":
            cluster.rest.cancel(job["jid"])
    wait_for(lambda: cluster.rest.slots()[1] == cluster.rest.slots()[0], 60.0, "the slots")


def _catch_up(kafka: Kafka, cluster: FlinkCluster, directory: Path, rows: int) -> tuple[Mapping[str, float], float]:
    before = cpu_seconds(cluster.processes())
    start_job(kafka, cluster, directory, "full", "full-out")
    wait_for(lambda: count_records(kafka, "full-out") >= rows, 600.0, "the end of the backlog")
    after = cpu_seconds(cluster.processes())
    stamps = np.array([stamp for _, stamp in read_stamps(kafka, "full-out")])
    return {name: after[name] - before.get(name, 0.0) for name in after}, float(stamps.max() - stamps.min()) / 1000


def _live(
    kafka: Kafka, cluster: FlinkCluster, directory: Path, messages: Iterator[tuple[bytes, dict[str, Any]]], seconds: int
) -> tuple[np.ndarray[Any, Any], int]:
    start_job(kafka, cluster, directory, "live", "live-out", *ONE_SUBTASK)
    producer, encode = make_producer(kafka), msgspec.json.Encoder().encode
    began, sent = time.time(), 0
    while (now := time.time()) < began + seconds:
        for _ in range(int((now - began) * RATE) - sent):
            key, body = next(messages)
            moment = np.datetime_as_string(np.datetime64(int(now * 1e6), "us"))
            producer.produce("live", encode({**body, "TX_DATETIME": str(moment)}), key)
            sent += 1
        producer.poll(0)
        time.sleep(0.005)
    producer.flush()
    with contextlib.suppress(UserError):  # what is missing then is counted
        wait_for(lambda: count_records(kafka, "live-out") >= sent, 30.0, "the last decisions")
    went, came = read_stamps(kafka, "live"), read_stamps(kafka, "live-out")
    stamps, decided = dict(went), dict(came)
    since = (began + WARM_UP * seconds / SECONDS) * 1000
    late = [decided[name] - at for name, at in stamps.items() if name in decided and at >= since]
    return np.array(late), len(stamps) - len(decided) + len(came) - len(decided)


def count_records(kafka: Kafka, topic: str) -> int:
    """How many records were appended to a topic of `PARTITIONS` partitions."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "benchmark"})
    ends = [consumer.get_watermark_offsets(TopicPartition(topic, at), 10.0)[1] for at in range(PARTITIONS)]
    consumer.close()
    return sum(ends)


def read_stamps(kafka: Kafka, topic: str) -> list[tuple[str, int]]:
    """Each record's transaction id and when it was appended, milliseconds, of a topic of `PARTITIONS` partitions."""
    total = count_records(kafka, topic)
    found: list[tuple[str, int]] = []
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "benchmark", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, at, 0) for at in range(PARTITIONS)])
    while len(found) < total:
        for message in consumer.consume(10_000, 5.0):
            body = msgspec.json.decode(message.value() or b"{}")
            found.append((str(body.get("transaction_id") or body["TRANSACTION_ID"]), message.timestamp()[1]))
    consumer.close()
    return found


def wait_for(done: Callable[[], bool], patience: float, what: str) -> None:
    """Wait till something is done.

    Raises:
        UserError: it was not, in so many seconds.
    """
    deadline = time.monotonic() + patience
    while not done():
        if time.monotonic() > deadline:
            raise UserError(f"{what} did not come in {patience:.0f} s")
        time.sleep(0.25)


def cpu_seconds(servers: Mapping[str, Server]) -> dict[str, float]:
    """Seconds that servers have used, and what they have started, such as Python workers, with the dead among it."""
    ticks = os.sysconf("SC_CLK_TCK")
    used = {}
    for name, process in servers.items():
        pid = int(msgspec.json.decode((process.directory / "process.json").read_bytes())["pid"])
        used[name] = sum(map(_ticks, [pid, *descendants(pid)])) / ticks
    return used


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except FileNotFoundError:
        return 0
    return sum(int(each) for each in fields[11:15])


def _checkpoints(what: str, cluster: FlinkCluster) -> tuple[str, int, float, float, int]:
    (job,) = [job["jid"] for job in cluster.rest.jobs() if job["state"] == "RUNNING"]
    found = cluster.rest.checkpoints(job)
    done = [each for each in found["history"] if each["status"] == "COMPLETED"]
    took = [float(each["end_to_end_duration"]) for each in done] or [0.0]
    return (
        what,
        int(found["counts"]["completed"]),
        float(np.median(took)),
        max(took),
        max((int(each["state_size"]) for each in done), default=0),
    )


def _compare(cluster: FlinkCluster, directory: Path, rows: int) -> tuple[int, int]:
    """Rows that the same input, which ends, gives here and on Flink, and how many of them differ in any column."""
    days = max(2, rows // 19_200)  # of ten thousand customers
    tables = []
    for name, flags in (("here", []), ("there", cluster.flags)):
        argv = ["--source", f"simulator:?customers=10000&terminals=20000&days={days}", "--quiet"]
        with contextlib.redirect_stdout(io.StringIO()):
            if run_fraud([*argv, "--output", str(directory / name), *flags]) != 0:
                raise UserError(f"the run to compare, {name}, failed")
        found = pq.read_table(directory / name / "decisions").sort_by("transaction_id").combine_chunks()
        tables.append(found.drop_columns([each for each in _MOMENTS if each in found.column_names]))
    here, there = tables
    if here.num_rows != there.num_rows:
        return here.num_rows, abs(here.num_rows - there.num_rows)
    same = np.ones(here.num_rows, dtype=np.bool_)
    for column in here.column_names:
        same &= _equal(here.column(column), there.column(column))
    return here.num_rows, int((~same).sum())


_MOMENTS = ("ingest_time", "decided_at")


def _equal(left: pa.ChunkedArray, right: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    if left.equals(right):
        return np.ones(len(left), dtype=np.bool_)
    return np.array([a == b for a, b in zip(left.to_pylist(), right.to_pylist(), strict=True)])


def results_text(measured: Measured) -> str:
    """The measures as Markdown tables."""
    cpu = sum(measured.cpu_seconds.values())
    quantiles = [float(np.quantile(measured.latencies, each)) for each in (0.5, 0.99, 0.999)]
    compared, different = measured.identical
    return "\n\n".join(
        [
            table(
                ["", ""],
                [
                    ["backlog of transactions", f"{measured.rows:,}"],
                    ["decided on in a second", f"{measured.rows / measured.backlog_seconds:,.0f}"],
                    ["for each second of CPU, start of the job included", f"{measured.rows / cpu:,.0f}"],
                    [
                        f"latency at {RATE:,}/s, one subtask, p50 / p99 / p99.9",
                        " / ".join(f"{each:,.0f} ms" for each in quantiles),
                    ],
                    ["transactions missing or decided on twice", f"{measured.missing:,}"],
                    ["rows compared with the DirectRunner's, and different", f"{compared:,}, {different:,}"],
                ],
            ),
            table(
                ["checkpoints", "completed", "median, ms", "longest, ms", "largest, MB"],
                [
                    [what, f"{count:,}", f"{median:,.0f}", f"{longest:,.0f}", f"{size / 1e6:,.1f}"]
                    for what, count, median, longest, size in measured.checkpoints
                ],
            ),
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 when something that is needed cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flink_stream", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=ROWS, metavar="N", help=f"of the backlog (default {ROWS:,})")
    options = parser.parse_args(argv)
    return print_results(lambda: results_text(measure_locally(options.rows)))


if __name__ == "__main__":
    sys.exit(main())
