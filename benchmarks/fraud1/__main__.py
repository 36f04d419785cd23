"""`python -m benchmarks.fraud1`: this project and its peers at the same work, in one run, on servers started for it.

Each contender catches up with a full topic, several times; then each reads a topic that fills at 1,000 a second. The
broker's CPU time is nobody's. `--peers` names a directory in which the programs of `peers.toml` are installed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.fraud1.measure import RATE, Contender, Contest, Latency, Throughput, own_contenders, peers_of
from benchmarks.report import plot, spread, table, write_whole
from runners.local import Kafka, free_port
from transforms.errors import UserError

ROWS, RUNS = 1_000_000, 3


@dataclass
class Measured:
    """What was measured.

    Attributes:
        throughputs: every run, by contender.
        latencies: of those that go on reading.
        failed: what could not be measured, and why.
        limit: the name of the program that stands for the machine, if it ran.
    """

    throughputs: dict[str, list[Throughput]] = field(default_factory=dict)
    latencies: list[Latency] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    limit: str | None = None


def measure_locally(rows: int = ROWS, runs: int = RUNS, peers: Path | None = None, only: str = "") -> Measured:
    """As described above.

    Args:
        rows: of the full topic.
        runs: over it, of each contender in turn.
        peers: where peers are installed.
        only: part of the names of those that are wanted.

    Raises:
        UserError: Kafka cannot be had here.
    """
    contenders = [*own_contenders(), *(peers_of(peers) if peers else [])]
    contenders = [each for each in contenders if only.lower() in each.name.lower()]
    measured = Measured(limit=next((each.name for each in contenders if each.limit), None))
    with tempfile.TemporaryDirectory(prefix="fraud-1-") as name:
        kafka = Kafka(Path(name, "kafka"), free_port()).start()
        try:
            contest = Contest(kafka, Path(name), rows)
            for number in range(runs):
                for contender in contenders:
                    _tell(f"{contender.name}, run {number + 1} of {runs}")
                    _catch_up(contest, contender, measured)
            for contender in contenders:
                if contender.steady:
                    _tell(f"{contender.name}, {RATE:,} a second")
                    _keep_up(contest, contender, measured)
        finally:
            kafka.stop()
    return measured


def measure_with_peers(rows: int = ROWS) -> Measured:
    """As `measure_locally`, with the peers that are installed where the environment says (PEERS)."""
    peers = os.environ.get("PEERS")
    return measure_locally(rows, peers=Path(peers) if peers else None)


def _catch_up(contest: Contest, contender: Contender, measured: Measured) -> None:
    try:
        measured.throughputs.setdefault(contender.name, []).append(contest.throughput(contender))
    except UserError as error:
        measured.failed[contender.name] = str(error)


def _keep_up(contest: Contest, contender: Contender, measured: Measured) -> None:
    try:
        measured.latencies.append(contest.latency(contender))
    except UserError as error:
        measured.failed[f"{contender.name}, {RATE:,} a second"] = str(error)


def _tell(what: str) -> None:
    print(f"  {what}", file=sys.stderr, flush=True)


def results_text(measured: Measured) -> str:
    """The measures as Markdown tables."""
    parts = [_throughput_table(measured)]
    if measured.latencies:
        rows = []
        for each in measured.latencies:
            quantiles = (f"{np.quantile(each.milliseconds, at):,.0f}" for at in (0.5, 0.9, 0.99, 1.0))
            rows.append([each.name, *quantiles, f"{each.cores:.2f}"])
        parts.append(table([f"milliseconds at {RATE:,}/s", "p50", "p90", "p99", "longest", "cores"], rows))
    parts += [f"Not measured: {name}: {why}" for name, why in measured.failed.items()]
    return "\n\n".join(parts)


def _throughput_table(measured: Measured) -> str:
    """A line a contender, with the spread over its runs; shares are those of the medians."""
    per_cpu = {
        name: [run.rows / run.cpu_seconds for run in runs] for name, runs in measured.throughputs.items() if runs
    }
    limit = median(per_cpu[measured.limit]) if measured.limit in per_cpu else None
    rows = []
    for name, rates in per_cpu.items():
        runs = measured.throughputs[name]
        rows.append(
            [
                name,
                _spread([run.rows / run.seconds for run in runs]),
                _spread([run.middle_rate for run in runs]),
                _spread(rates),
                _spread([run.middle_cpu_rate for run in runs]),
                _spread([run.rows / run.cpu_in_all for run in runs]),
                f"{median(rates) / limit:.0%}" if limit else "-",
                f"{max(run.peak_bytes for run in runs) / 1e6:,.0f}",
            ]
        )
    head = ["", "a second", "in the middle", "a CPU second", "in its middle", "start included", "of the limit", "MB"]
    return table(head, rows)


def throughput_plot(measured: Measured) -> bytes:
    """Transactions a CPU second of each contender: the median of its runs, and a line from the least to the most."""

    def draw(axes: Any) -> None:
        rates = {
            name: [run.rows / run.cpu_seconds for run in runs] for name, runs in measured.throughputs.items() if runs
        }
        middles = [median(each) for each in rates.values()]
        reach = [
            [middle - min(each) for middle, each in zip(middles, rates.values(), strict=True)],
            [max(each) - middle for middle, each in zip(middles, rates.values(), strict=True)],
        ]
        own = ["tab:blue" if name.startswith("this project") else "silver" for name in rates]
        axes.barh(list(rates), middles, xerr=reach, color=own)
        axes.invert_yaxis()
        axes.set(title="FRAUD-1: transactions a CPU second", xlabel="all processes but the broker's")
        axes.tick_params(labelsize=7)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.figure.subplots_adjust(left=0.32)

    return plot(draw)


def _spread(values: Sequence[float]) -> str:
    """Smallest, median and largest, of what has any."""
    return "-" if np.isnan(values).any() else spread(values, ",.0f")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 when something that is needed cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fraud1", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=ROWS, metavar="N", help=f"of the full topic (default {ROWS:,})")
    parser.add_argument("--runs", type=int, default=RUNS, metavar="N", help=f"of each contender (default {RUNS})")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="where the programs of peers.toml are installed")
    parser.add_argument("--only", default="", metavar="TEXT", help="contenders whose names have this in them")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a picture of the throughputs there")
    options = parser.parse_args(argv)
    try:
        measured = measure_locally(options.rows, options.runs, options.peers, options.only)
        print(results_text(measured))
        if options.plot:
            write_whole(options.plot, throughput_plot(measured))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
