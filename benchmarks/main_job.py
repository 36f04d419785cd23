"""`python -m benchmarks.main_job`: the whole default job on a file of 1.5 million transactions, as a user runs it.

Each run is the command `python -m pipelines.fraud --runner=DirectRunner --source FILE --output DIR --quiet`: start of
Python, parsing, fifteen features, the shipped model, reasons, decisions as Parquet, alerts and report. FILE is given,
or made up by the project's own simulator.

How soon the first decision is there is not measured: input that ends is decided on at its end, in order of time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.parquet as pq

from benchmarks.report import plot, spread, table
from benchmarks.timed import run_timed
from io_connectors.simulation import Simulation, simulate
from transforms.errors import UserError

JOB = "pipelines.fraud"
RUNS = 3
#: As many customers, terminals and days as the Handbook's data, and as many transactions. Its past, so that
#: no transaction lies ahead of the clock.
SIMULATION = Simulation(customers=5_000, terminals=10_000, days=157, start=datetime(2018, 4, 1, tzinfo=UTC))


@dataclass(frozen=True)
class JobRun:
    """One run of the job.

    Attributes:
        transactions: how many were decided on.
        wall_seconds: from the command's start to its end.
        pipeline_seconds: of these, how long the pipeline ran by its own account.
        cpu_seconds: user and system time of all its processes.
        peak_bytes: most memory resident at once, of its largest process.
    """

    transactions: int
    wall_seconds: float
    pipeline_seconds: float
    cpu_seconds: float
    peak_bytes: int

    @property
    def per_second(self) -> float:
        """Transactions in a second of the whole command."""
        return self.transactions / self.wall_seconds


def run_job(source: Path, output: Path) -> JobRun:
    """Run the job once.

    Raises:
        UserError: the job did not end well, or what it read is not what it decided on or refused.
    """
    flags = ["--runner=DirectRunner", "--source", f"file:{source.absolute()}", "--output", str(output), "--quiet"]
    usage = run_timed([sys.executable, "-m", JOB, *flags])
    if usage.exit_code:
        lines = usage.errors.strip().splitlines()
        last = lines[-1].removeprefix("error: ") if lines else "no message"
        raise UserError(f"the main job ended with exit code {usage.exit_code}: {last}")
    figures = json.loads((output / "summary.json").read_bytes())
    decided, refused = figures["transactions"], sum(figures["dead_letters"].values())
    if figures["read"] != decided + refused or not decided:
        raise UserError(f"the main job read {figures['read']}, decided on {decided} and refused {refused} transactions")
    return JobRun(decided, usage.wall_seconds, figures["wall_seconds"], usage.cpu_seconds, usage.peak_bytes)


def measure(data: Path | None, runs: int = RUNS, simulation: Simulation = SIMULATION) -> list[JobRun]:
    """Run the job several times on a file, or on made-up transactions where there is none.

    Raises:
        UserError: no runs are asked for, or one fails; see `run_job`.
    """
    if runs < 1:
        raise UserError(f"--runs must be at least 1, found {runs}")
    with tempfile.TemporaryDirectory(prefix="fraud-benchmark-") as scratch:
        source = data
        if source is None:
            source = Path(scratch, "simulated.parquet")
            pq.write_table(simulate(simulation), source)
        found = []
        for number in range(1, runs + 1):
            found.append(run_job(source, Path(scratch, "output")))
            print(f"main job, run {number} of {runs}: {found[-1].wall_seconds:.1f} s", file=sys.stderr, flush=True)
        return found


def results_text(runs: Sequence[JobRun], data: str) -> str:
    """The measurements as Markdown; `data` says what was read, in words."""
    rows = [_row(str(number), run) for number, run in enumerate(runs, 1)]
    columns: list[tuple[list[float], str]] = [
        ([run.wall_seconds for run in runs], ".1f"),
        ([run.pipeline_seconds for run in runs], ".1f"),
        ([run.cpu_seconds for run in runs], ".1f"),
        ([run.peak_bytes / 1e9 for run in runs], ".2f"),
        ([run.per_second for run in runs], ",.0f"),
    ]
    rows.append(["min / median / max", *(spread(values, form) for values, form in columns)])
    head = ["run", "wall s", "pipeline s", "CPU s", "peak memory GB", "transactions/s"]
    return "\n\n".join(
        [
            f"{runs[0].transactions:,} transactions of {data} through the whole default job, each run a process of its "
            "own from the start of Python to the written report; compiled kernels are kept from run to run. `Pipeline` "
            "is what the job itself reports, without start and report; CPU is user and system time. The goal for 1.5 "
            "million on two cores is 60 s and 3 GB.",
            "    python -m pipelines.fraud --runner=DirectRunner --source FILE --output DIR --quiet",
            table(head, rows),
        ]
    )


def _row(name: str, run: JobRun) -> list[str]:
    seconds = [f"{value:.1f}" for value in (run.wall_seconds, run.pipeline_seconds, run.cpu_seconds)]
    return [name, *seconds, f"{run.peak_bytes / 1e9:.2f}", f"{run.per_second:,.0f}"]


def throughput_plot(runs: Sequence[JobRun]) -> bytes:
    """Transactions a second, run by run."""

    def draw(axes: Any) -> None:
        rates = [run.per_second for run in runs]
        axes.bar([str(number) for number in range(1, len(runs) + 1)], rates, width=0.5)
        axes.set_xlim(-1, len(runs))
        axes.axhline(median(rates), linestyle=":", color="grey", label=f"median {median(rates):,.0f}")
        axes.set(title=f"Main job on {runs[0].transactions:,} transactions", xlabel="run", ylabel="transactions/s")
        axes.legend(loc="lower right")

    return plot(draw)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; 2 after a mistake of the user's."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.main_job", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", type=Path, metavar="FILE", help="transactions with the columns of schema handbook")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"how often (default {RUNS})")
    options = parser.parse_args(argv)
    try:
        runs = measure(options.data, options.runs)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(results_text(runs, "the given file" if options.data else "the simulator"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
