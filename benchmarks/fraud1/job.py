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
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fraud1.workload import DEFAULT_SCHEMA, SCHEMA, write_model
from pipelines.fraud import main as run_fraud
from runners.flink.cluster import start_cluster, stop_cluster

START = "CONSUME_START"
#: What the default job does besides, and the peers' programs do not.
_UNASKED = ("pipeline.deduplicate", "policy.reasons", "alerts.enabled", "summary.enabled", "monitor.calibration")
#: As of input that ends: sixty days in a topic are 86,400 windows of a stream's minute, which nobody asks of a backlog.
_DEFAULT = ("--schema", DEFAULT_SCHEMA, "--set", "summary.window=1h")


def main(argv: Sequence[str] | None = None) -> int:
    """Read what is there and end (DirectRunner), or read on until a signal to terminate (FlinkRunner)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fraud1.job", description=__doc__, allow_abbrev=False)
    parser.add_argument("--runner", choices=("DirectRunner", "FlinkRunner"), default="DirectRunner")
    parser.add_argument("--default", action="store_true", help="the default job on FRAUD-1's transactions")
    options, more = parser.parse_known_args(argv)
    directory = Path(os.environ["WORKDIR"])
    write_model(directory / "model")
    own = _DEFAULT if options.default else _fraud1_flags(directory)
    if options.runner == "DirectRunner":
        return _run([*own, *_flags(directory, "?until=latest"), "--quiet", *more])
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    cluster = start_cluster(directory / "flink", ports={"rest": 0, "workers": 0})
    try:
        code = _run([*own, *_flags(directory, ""), *cluster.flags, *more])
        if code == 0:
            over.wait()
        return code
    finally:
        stop_cluster(directory / "flink")


def _fraud1_flags(directory: Path) -> list[str]:
    off = [part for name in _UNASKED for part in ("--set", f"{name}=false")]
    return ["--schema", SCHEMA, "--model", f"file:{directory}/model", *off]


def _flags(directory: Path, until: str) -> list[str]:
    broker, source, sink = (os.environ[name] for name in ("BOOT", "IN_TOPIC", "OUT_TOPIC"))
    return [
        *("--source", f"kafka://{broker}/{source}{until}"),
        *("--sink", f"kafka://{broker}/{sink}?columns=transaction_id,score,decision"),
        *("--output", str(directory / "output")),
    ]


def _run(argv: list[str]) -> int:
    print(START, flush=True)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = run_fraud(argv)
    if code != 0:
        print(said.getvalue(), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
