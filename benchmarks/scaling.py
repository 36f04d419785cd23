"""`python -m benchmarks.scaling`: what a transaction costs, against everything that may grow.

FRAUD-1's way from JSON to JSON (`benchmarks.hot_path`), in processor time and with no runner: against the number of
transactions and of customers, the longest window, the size of the model and of a batch, the number of shards, and a
second process beside the first. With `--flink` the job is run on Flink instead, on topics of one partition and more,
by one subtask and two (`benchmarks.scaling_flink`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import scaling_flink
from benchmarks.hot_path import FEATURES, STEPS, HotPath, features_over, linear_model, records, tree_model
from benchmarks.report import plot, table, write_whole
from benchmarks.traffic import Traffic
from model_artifacts.artifact import OnnxModel
from transforms.durations import DAY
from transforms.errors import UserError

ROWS = 10_000_000
CUSTOMERS = (1_000, 10_000, 100_000, 1_000_000)
WINDOW_DAYS = (1, 7, 30, 90)
TREES = (10, 30, 100, 300, 1_000)
SHARDS = (1, 2, 4, 8, 16)
BATCHES = (100, 300, 1_000, 4_000, 16_000)
#: A customer makes one transaction a day: a window of thirty days holds 150,000.
USUAL = Traffic(customers=5_000, terminals=10_000, per_day=5_000)
BATCH_ROWS, SMALL_BATCH = 16_000, 1_000
_RUNS = 2  # of which the cheaper counts: whatever else a machine does adds to processor time and takes nothing away
_SETTLED = 3  # times the longest window: for one it fills, for two the log is rewritten about as often as ever after


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        axis: what is varied.
        value: of it.
        rows: that were measured, the last ones of the run.
        microseconds: of processor time a row, by step.
        live: transactions that can still matter at the end.
        entities: that they are of.
        state_bytes: in the state that a runner would keep.
    """

    axis: str
    value: int
    rows: int
    microseconds: Mapping[str, float]
    live: int
    entities: int
    state_bytes: int

    @property
    def total(self) -> float:
        """Microseconds a row, all steps together."""
        return sum(self.microseconds.values())


@dataclass(frozen=True)
class Run:
    """What is sent through the hot path.

    Attributes:
        traffic: transactions.
        window_days: FRAUD-1's longest window; the others are a thirtieth and a quarter of it, as a day and a week
            are of a month.
        trees: of the model; 0 for a logistic regression.
        shards: of the state.
        batch_rows: of a batch.
    """

    traffic: Traffic = USUAL
    window_days: int = 30
    trees: int = 0
    shards: int = 2
    batch_rows: int = BATCH_ROWS

    def model(self) -> OnnxModel:
        """The model with its features."""
        longest = self.window_days * DAY
        features = FEATURES if self.window_days == 30 else features_over((longest // 30, longest // 4, longest))
        return tree_model(self.trees, features) if self.trees else linear_model(features)


def follow(axis: str, run: Run, spans: Mapping[int, tuple[int, int]]) -> list[Point]:
    """Send transactions through, and measure spans of them.

    Args:
        axis: what is varied.
        run: how.
        spans: for each value of the axis the rows from which on, and up to which, it is measured.
    """
    path, points = HotPath(run.model(), run.shards), list[Point]()
    course = [(0, dict(path.seconds))]
    for raw in records(run.traffic, max(end for _, end in spans.values()), run.batch_rows):
        path.take(raw)
        course.append((path.rows, dict(path.seconds)))
        for value, (begin, end) in spans.items():
            if path.rows - len(raw) < end <= path.rows:
                since, before = next(look for look in course if look[0] >= begin)
                rows = path.rows - since
                each = {step: 1e6 * (path.seconds[step] - before[step]) / rows for step in STEPS}
                points.append(Point(axis, value, rows, each, *path.live(raw.ingest_time), path.state_bytes()))
    for point in points:
        print(f"  {axis} {point.value:,}: {point.total:.2f} microseconds", file=sys.stderr, flush=True)
    return points


def measure(rows: int = ROWS) -> list[Point]:
    """Everything, one after the other.

    Raises:
        UserError: too few rows to fill the windows.
    """
    if rows < ROWS // 100:
        raise UserError(f"--rows must be at least {ROWS // 100:,}, found {rows:,}")
    follow("warm-up", Run(), {BATCH_ROWS: (0, BATCH_ROWS * 2)})  # compiles
    share = rows / ROWS
    points = follow("rows", Run(), {n: (n // 2, n) for n in (10**5, 10**6, 10**7) if n <= rows})
    for customers in CUSTOMERS:
        busy = Traffic(customers=customers, terminals=10_000, per_day=4 * USUAL.per_day)
        points += _settled("customers", customers, Run(traffic=busy), share)
    for days in WINDOW_DAYS:
        points += _settled("longest window, days", days, Run(window_days=days), share)
    for trees in (0, *TREES):
        points += _settled("trees", trees, Run(trees=trees), share / 2)
    for batch_rows in (BATCH_ROWS, SMALL_BATCH):
        for shards in SHARDS:
            points += _settled(_by_shards(batch_rows), shards, Run(shards=shards, batch_rows=batch_rows), share)
    for batch_rows in BATCHES:
        points += _settled("batch", batch_rows, Run(batch_rows=batch_rows), share)
    for processes in (1, 2):
        points += _side_by_side(processes, share)
    return points


def _settled(axis: str, value: int, run: Run, share: float) -> list[Point]:
    """One point with full windows; with less than the whole `share` of rows they are not as full."""
    fill = run.window_days * run.traffic.per_day
    rows = max(int(share * max(_SETTLED * fill, 300_000)), 4 * run.batch_rows)
    found = [follow(axis, run, {value: (rows // _SETTLED, rows)})[0] for _ in range(_RUNS)]
    return [min(found, key=lambda point: point.total)]


def _side_by_side(processes: int, share: float) -> list[Point]:
    """The mean of so many processes that do the same at the same time."""
    measured = partial(_settled, "processes", processes, Run(), share)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        found = [each.result()[0] for each in [pool.submit(measured) for _ in range(processes)]]
    mean = {step: float(np.mean([point.microseconds[step] for point in found])) for step in STEPS}
    first = found[0]
    return [Point("processes", processes, first.rows, mean, first.live, first.entities, first.state_bytes)]


def batch_cost(points: Sequence[Point]) -> tuple[float, float]:
    """What a batch costs whatever is in it, and what each row costs: microseconds, by least squares over batch sizes.

    Small batches cost many times as much a row, so what is fitted is relative to each.

    Example:
        >>> points = [Point("batch", n, n, {"parse": 500 / n + 4}, 0, 0, 0) for n in BATCHES]
        >>> [round(cost, 6) for cost in batch_cost(points)]
        [500.0, 4.0]
    """
    chosen = [point for point in points if point.axis == "batch"]
    sizes, costs = np.array([p.value for p in chosen], dtype=np.float64), np.array([p.total for p in chosen])
    terms = np.stack([1 / sizes, np.ones(len(sizes))], axis=1) / costs[:, None]
    (fixed, row), *_ = np.linalg.lstsq(terms, np.ones(len(sizes)), rcond=None)
    return float(fixed), float(row)


def piece_cost(points: Sequence[Point]) -> float:
    """What each shard's piece of a batch costs whatever is in it: microseconds, by the slope over shards.

    Example:
        >>> points = [Point(_by_shards(SMALL_BATCH), n, n, {"parse": 4 + 0.6 * n}, 0, 0, 0) for n in SHARDS]
        >>> round(piece_cost(points), 6)
        600.0
    """
    chosen = [point for point in points if point.axis == _by_shards(SMALL_BATCH)]
    slope, _ = np.polyfit([p.value for p in chosen], [p.total for p in chosen], 1)
    return float(slope) * SMALL_BATCH


def _by_shards(batch_rows: int) -> str:
    return f"shards, batches of {batch_rows:,}"


def results_text(points: Sequence[Point]) -> str:
    """The measurements as Markdown."""
    fixed, row = batch_cost(points)
    return "\n\n".join(
        [
            "Microseconds of processor time for a transaction, from JSON to JSON by FRAUD-1's nine features, with no "
            f"runner. Unless it is what varies: {USUAL.customers:,} customers with {USUAL.per_day:,} transactions a "
            f"day (customers: {4 * USUAL.per_day:,}), windows of 1, 7 and 30 days, a logistic regression, 2 shards, "
            f"batches of {BATCH_ROWS:,}. Rows are measured over the second half of so many, everything else with full "
            "windows. Trees have depth four; 0 of them is the logistic regression. One transaction in a hundred gets "
            "reasons. `Live` are the transactions that can still matter, `state` is what Beam would keep. Two "
            "processes do the same at the same time, and the mean of them is given. Of two runs the cheaper counts.",
            _costs_table(points),
            f"A batch costs {fixed:,.0f} microseconds whatever is in it, and {row:.2f} for each row (fitted over "
            f"batches, 2 shards); of these each shard's piece {piece_cost(points):,.0f} (the slope over shards).",
        ]
    )


def _costs_table(points: Sequence[Point]) -> str:
    head = ["", *STEPS, "together", "tx/s of a core", "live", "customers held", "state, MB"]
    rows = []
    for p in points:
        steps = [f"{p.microseconds[step]:.2f}" for step in STEPS]
        held = [f"{p.live:,}", f"{p.entities:,}", f"{p.state_bytes / 1e6:.1f}"]
        rows.append([f"{p.axis}: {p.value:,}", *steps, f"{p.total:.2f}", f"{1e6 / p.total:,.0f}", *held])
    return table(head, rows)


def costs_plot(points: Sequence[Point]) -> bytes:
    """Cost of a transaction against each axis, as multiples of its smallest value."""

    def draw(axes: Any) -> None:
        for axis in dict.fromkeys(p.axis for p in points):
            mine = [p for p in points if p.axis == axis and p.value > 0]
            axes.plot([p.value / mine[0].value for p in mine], [p.total for p in mine], marker=".", label=axis)
        axes.set(title="Cost of a transaction", xscale="log", xlabel="times as much as the least", yscale="log")
        axes.set_ylabel("microseconds")
        axes.legend(fontsize=7)

    return plot(draw)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; 2 after a mistake of the user's, or when something that is needed cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__, allow_abbrev=False)
    parser.add_argument("--flink", action="store_true", help="on Flink, with Kafka; both are started for it")
    parser.add_argument(
        "--rows",
        type=int,
        metavar="N",
        help=f"the most (default {ROWS:,}; of each run on Flink {scaling_flink.ROWS:,})",
    )
    parser.add_argument("--plot", type=str, metavar="FILE", help="write the plot of what has no runner there")
    options = parser.parse_args(argv)
    try:
        if options.flink:
            print(scaling_flink.results_text(scaling_flink.measure_locally(options.rows or scaling_flink.ROWS)))
            return 0
        points = measure(options.rows or ROWS)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(results_text(points))
    if options.plot:
        write_whole(Path(options.plot), costs_plot(points))
    return 0


if __name__ == "__main__":
    sys.exit(main())
