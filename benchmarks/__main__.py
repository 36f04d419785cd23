"""`python -m benchmarks`: run every benchmark, and write the results with what they were measured on.

With --data FILE, the Fraud Detection Handbook's transactions, the main job reads these and the quality of the models
is measured too; without, the main job reads made-up transactions of the same number.
FRAUD-1 is also run by the peers that are installed where the environment's PEERS says.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import benchmarks.fraud1.__main__ as fraud1
from benchmarks import (
    dynamodb_sink,
    feature_state,
    first_decision,
    flink_state,
    flink_stream,
    handbook,
    kafka_source,
    kinesis_source,
    main_job,
    scaling,
    scaling_flink,
    sql_sinks,
)
from benchmarks.report import machine_facts, table, write_whole
from io_connectors.simulation import Simulation
from transforms.errors import UserError

HERE = Path(__file__).parent
#: What is measured against a server: the section's title, the module, and its function that starts the server.
WITH_SERVERS: Mapping[str, tuple[ModuleType, str]] = {
    "## FRAUD-1: `python -m benchmarks.fraud1`": (fraud1, "measure_with_peers"),
    "## First decision: `python -m benchmarks.first_decision`": (first_decision, "measure_locally"),
    "## Flink: `python -m benchmarks.flink_stream`": (flink_stream, "measure_locally"),
    "## Scaling on Flink: `python -m benchmarks.scaling --flink`": (scaling_flink, "measure_locally"),
    "## State on Flink: `python -m benchmarks.flink_state`": (flink_state, "measure_locally"),
    "## PostgreSQL: `python -m benchmarks.sql_sinks`": (sql_sinks, "measure_here"),
    "## DynamoDB: `python -m benchmarks.dynamodb_sink`": (dynamodb_sink, "measure_locally"),
    "## Kafka: `python -m benchmarks.kafka_source`": (kafka_source, "measure_locally"),
    "## Kinesis: `python -m benchmarks.kinesis_source`": (kinesis_source, "measure_locally"),
}
#: A tenth of the people make a tenth of the transactions.
QUICK_SIMULATION = Simulation(customers=500, terminals=1_000, days=157, start=main_job.SIMULATION.start)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; 2 after a mistake of the user's."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", type=Path, metavar="FILE", help="the Handbook's transactions, Parquet or CSV")
    parser.add_argument("--quick", action="store_true", help="one run, a tenth of the rows; written to --output only")
    parser.add_argument("--output", type=Path, metavar="DIR", help="for RESULTS.md and plots/ (default benchmarks)")
    options = parser.parse_args(argv)
    try:
        page, plots = measure_all(options.data, options.quick)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(page)
    output = options.output or (None if options.quick else HERE)
    if output:
        for name, content in plots.items():
            write_whole(output / "plots" / name, content)
        write_whole(output / "RESULTS.md", page.encode())
    return 0


def measure_all(data: Path | None, quick: bool) -> tuple[str, Mapping[str, bytes]]:
    """Run everything; returns the page as Markdown and its plots, PNG files by name.

    Raises:
        UserError: the main job cannot read the data.
    """
    started, facts = time.monotonic(), machine_facts()
    read = "the Handbook file" if data else "the simulator"
    if quick:
        runs = main_job.measure(data, 1, QUICK_SIMULATION)
        state = feature_state.measure(feature_state.ROWS // 10, scales=feature_state.SCALES[:2])
        scaled = scaling.measure(scaling.ROWS // 10)
    else:
        runs, state, scaled = main_job.measure(data), feature_state.measure(), scaling.measure()
    plots: dict[str, bytes] = {}
    parts = [
        "# What the benchmarks measured",
        f"{datetime.now(UTC):%Y-%m-%d}, by `python -m benchmarks{' --quick' if quick else ''}"
        f"{' --data FILE' if data else ''}`, on this machine and these versions:",
        table(["", ""], [[name, value] for name, value in facts.items()]),
        "## Main job: `python -m benchmarks.main_job`",
        main_job.results_text(runs, read),
        "![Throughput of each run](plots/main_job.png)",
        "## Feature state: `python -m benchmarks.feature_state`",
        feature_state.results_text(state),
        "![Cost of a row against the rows passed](plots/cost_of_a_row.png)",
        "![Bytes for each live transaction](plots/bytes_of_a_transaction.png)",
        "## Scaling: `python -m benchmarks.scaling`",
        scaling.results_text(scaled),
        "![Cost of a transaction against each axis](plots/scaling.png)",
        *[text for title in WITH_SERVERS for text in (title, _with_a_server(title, quick, plots))],
        "## Models: `python -m benchmarks.handbook --data FILE`",
        _handbook_text(data),
        f"All of this took {time.monotonic() - started:.0f} s.",
    ]
    plots |= {
        "main_job.png": main_job.throughput_plot(runs),
        "cost_of_a_row.png": feature_state.cost_plot(state),
        "bytes_of_a_transaction.png": feature_state.bytes_plot(state),
        "scaling.png": scaling.costs_plot(scaled),
    }
    return "\n\n".join(parts) + "\n", plots


def _with_a_server(title: str, quick: bool, plots: dict[str, bytes]) -> str:
    """What was measured against a server started for it, or what this machine lacks for that."""
    module, measure = WITH_SERVERS[title]
    try:
        measured = getattr(module, measure)(module.ROWS // (10 if quick else 1))
    except UserError as error:
        return f"Not measured: {error}"
    text: str = module.results_text(measured)
    if module is not fraud1:
        return text
    plots["fraud1.png"] = fraud1.throughput_plot(measured)
    return f"{text}\n\n![Transactions a CPU second](plots/fraud1.png)"


def _handbook_text(data: Path | None) -> str:
    """What `benchmarks.handbook` prints."""
    if data is None:
        return "Not measured: this needs the Handbook's transactions (`--data FILE`)."
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        failed = handbook.main(["--data", str(data)])
    if failed:  # it has said why
        return "Not measured: the file given with `--data` is not the Handbook's."
    return f"```\n{printed.getvalue().rstrip()}\n```"


if __name__ == "__main__":
    sys.exit(main())
