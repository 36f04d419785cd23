"""`python -m benchmarks.fraud1.job`: FRAUD-1 by this project's own command, as `measure` runs it and its peers.

The topics, the broker and a directory come from the environment, as `peers.toml` says. With --default it is the default
job instead, with all that FRAUD-1 does not ask for: fifteen features over two entities, the boosted trees, reasons,
alerts, duplicates, drift.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.flink_stream import PARTITIONS, cancel_jobs, count_records
from benchmarks.fraud1.workload import DEFAULT_SCHEMA, SCHEMA, write_model
from pipelines.run import main as run_fraud
from runners.flink.cluster import FlinkCluster, start_cluster, stop_cluster
from runners.flink.rest import wait_for
from runners.local import Kafka

START = "CONSUME_START"
#: What the default job does besides, and the peers' programs do not.
_UNASKED = ("pipeline.deduplicate", "policy.reasons", "alerts.enabled", "summary.enabled", "monitor.calibration")
#: Its flags without them.
ASKED_ONLY = tuple(part for name in _UNASKED for part in ("--set", f"{name}=false"))
#: As of input that ends: sixty days in a topic are 86,400 windows of a stream's minute, which nobody asks of a backlog.
_DEFAULT = ("--schema", DEFAULT_SCHEMA, "--set", "summary.window=1h")


def main(argv: Sequence[str] | None = None) -> int:
    """Read what is there and end (DirectRunner), or read on until a signal to terminate (FlinkRunner)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fraud1.job", description=__doc__, allow_abbrev=False)
    parser.add_argument("--runner", choices=("DirectRunner", "FlinkRunner"), default="DirectRunner")
    parser.add_argument("--default", action="store_true", help="the default job on FRAUD-1's transactions")
    parser.add_argument("--warm", action="store_true", help="on Flink: the cluster has run the same job before")
    options, more = parser.parse_known_args(argv)
    directory = Path(os.environ["WORKDIR"])
    write_model(directory / "model")
    own = _DEFAULT if options.default else _fraud1_flags(directory)
    if options.runner == "DirectRunner":
        return _run([*own, *_flags(directory, "?until=latest"), "--quiet", *more])
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    try:
        cluster = start_cluster(directory / "flink", ports={"rest": 0, "workers": 0})
        if options.warm:
            _warm_up(cluster, directory, [*own, *cluster.flags, *more])
        code = _run([*own, *_flags(directory, ""), *cluster.flags, *more])
        if code == 0:
            over.wait()
        return code
    finally:
        stop_cluster(directory / "flink")


def _fraud1_flags(directory: Path) -> list[str]:
    return ["--schema", SCHEMA, "--model", f"file:{directory}/model", *ASKED_ONLY]


def _flags(directory: Path, until: str) -> list[str]:
    topics = _topics(os.environ["IN_TOPIC"] + until, os.environ["OUT_TOPIC"])
    return [*topics, "--output", str(directory / "output")]


def _topics(source: str, sink: str) -> list[str]:
    broker = os.environ["BOOT"]
    columns = "columns=transaction_id,score,decision"
    return ["--source", f"kafka://{broker}/{source}", "--sink", f"kafka://{broker}/{sink}?{columns}"]


def _warm_up(cluster: FlinkCluster, directory: Path, flags: list[str]) -> None:
    """Have the cluster run the whole job once before, to a topic that nobody reads, and end it."""
    kafka = Kafka(directory / "kafka", int(os.environ["BOOT"].rpartition(":")[2]))  # it runs; this tells of its address
    sink = f"{os.environ['OUT_TOPIC']}-warm-up"
    kafka.create_topic(sink, PARTITIONS)
    topics = _topics(os.environ["IN_TOPIC"], sink)
    if _run([*flags, *topics, "--output", str(directory / "warm-up")], tell=lambda: None):
        raise RuntimeError("the job that warms the cluster up has failed")
    wait_for(lambda: count_records(kafka, sink) >= int(os.environ["N"]), 240.0, "the job that warms the cluster up")
    cancel_jobs(cluster)


def _tell() -> None:
    """As the peers' programs say it: everything is wired, and it begins to read."""
    print(START, file=sys.__stdout__, flush=True)


def _run(argv: list[str], tell: Callable[[], None] = _tell) -> int:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run_fraud(argv, tell)
    if code != 0:
        print(said.getvalue(), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
