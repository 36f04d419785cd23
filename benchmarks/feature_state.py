"""`python -m benchmarks.feature_state`: what a row costs, and what is kept, however much history has passed.

Made-up traffic of a fixed rate, so that the open windows hold the same number of transactions all the time, goes
through the stages that remember something. A `stage` is the product's own with all it does to a row: hashing,
features, the log it writes into Beam's state, and the rewriting of that log when most of it has expired. Beam's
shuffle is left out, and lists in memory stand in for the runner's state. A `history` is the compiled history
alone, on arrays: nothing is rewritten, and an entity's old transactions go when its next one comes.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, median
from typing import Any

from benchmarks.report import plot, print_results, spread, table
from benchmarks.subjects import (
    BATCH_ROWS,
    HOT_TERMINAL,
    Held,
    Subject,
    default_histories,
    default_stages,
    extremes_subjects,
)
from benchmarks.traffic import Traffic
from transforms.errors import UserError
from transforms.shard_log import LOG_SLACK

ROWS = 10_000_000
LOOK = 50_000  # rows between two looks: about one rewriting of the log in each
SCALED_LOOK = 4 * BATCH_ROWS  # about a week
SCALED_LOOKS = 12  # of which the first six fill the windows: the longest needs 37 days
SCALES = (1, 4, 16)


@dataclass(frozen=True)
class Point:
    """One look at a subject.

    Attributes:
        rows: transactions taken until then.
        microseconds: for each of those since the look before.
        held: what it holds.
    """

    rows: int
    microseconds: float
    held: Held


@dataclass(frozen=True)
class Course:
    """The looks at one subject, in their order."""

    subject: str
    points: tuple[Point, ...]

    def cost(self, rows: int) -> float | None:
        """Microseconds a row over the second half of the first `rows`; None when there were not so many."""
        if rows > self.points[-1].rows:
            return None
        return fmean(point.microseconds for point in self.points if rows / 2 < point.rows <= rows)

    @cached_property
    def settled(self) -> tuple[Point, ...]:
        """The points of the second half: by then every window is as full as it gets."""
        return tuple(point for point in self.points if point.rows > self.points[-1].rows / 2)

    @cached_property
    def live(self) -> float:
        """Live transactions at the middle one of the settled looks."""
        return median(point.held.live for point in self.settled)

    @cached_property
    def memory_each(self) -> list[float]:
        """Bytes in memory for each live transaction, look by settled look."""
        return [point.held.memory_bytes / point.held.live for point in self.settled]

    @cached_property
    def log_each(self) -> list[float]:
        """Bytes in Beam's state for each live transaction, look by settled look."""
        return [point.held.log_bytes / point.held.live for point in self.settled]

    @cached_property
    def rewritten_each(self) -> float:
        """The same right after the log was last rewritten, when it holds live transactions only; 0 without a log."""
        return self.points[-1].held.rewritten_bytes / self.live


@dataclass(frozen=True)
class FeatureState:
    """All that `measure` found.

    Attributes:
        histories, stages: courses over all rows.
        extremes: courses over a tenth of them, made by one terminal.
        scaled: by factor, courses of stages under so much more traffic.
    """

    histories: Sequence[Course]
    stages: Sequence[Course]
    extremes: Sequence[Course]
    scaled: Mapping[int, Sequence[Course]]


def follow(subjects: Sequence[Subject], traffic: Traffic, rows: int, look: int) -> list[Course]:
    """Send the same transactions through all subjects, with a look at each after every `look` rows."""
    points: list[list[Point]] = [[] for _ in subjects]
    passed = 0
    for batch in traffic.batches(rows, look):
        passed += len(batch)
        now = int(batch.numpy("event_time")[-1])
        for subject, seen in zip(subjects, points, strict=True):
            seconds = subject.take(batch)
            seen.append(Point(passed, 1e6 * seconds / len(batch), subject.held(now)))
    return [Course(subject.name, tuple(seen)) for subject, seen in zip(subjects, points, strict=True)]


def measure(rows: int = ROWS, look: int = LOOK, scales: Sequence[int] = SCALES) -> FeatureState:
    """Run every measurement, one after the other.

    Raises:
        UserError: too few rows to fill the windows.
    """
    if rows < 2 * look:
        raise UserError(f"--rows must be at least {2 * look:,}: the first half only fills the windows; found {rows:,}")
    warm_up()
    usual = Traffic()
    found = FeatureState(
        histories=follow(default_histories(), usual, rows, look),
        stages=follow(default_stages(), usual, rows, look),
        extremes=follow(extremes_subjects(), HOT_TERMINAL, max(rows // 10, 2 * look), look),
        scaled={factor: scaled(factor) for factor in scales},
    )
    print("feature state: measured", file=sys.stderr, flush=True)
    return found


def warm_up() -> None:
    """Compile every kernel on enough rows for a log to be rewritten."""
    for subjects in (default_histories(), default_stages(), extremes_subjects()):
        follow(subjects, Traffic(), 20_000, 10_000)


def scaled(factor: int) -> list[Course]:
    """The stages under `factor` times the usual traffic, for twice as long as it takes to fill the windows."""
    look = SCALED_LOOK * factor
    return follow(default_stages(), Traffic().scaled(factor), SCALED_LOOKS * look, look)


def results_text(found: FeatureState) -> str:
    """The measurements as Markdown."""
    usual = Traffic()
    return "\n\n".join(
        [
            "Transactions of a fixed rate, an eighth of those of the default run "
            f"({usual.customers:,} customers, {usual.terminals:,} terminals, {usual.per_day:,} a day), in batches of "
            f"{BATCH_ROWS:,}. A stage does all that the product does to a row: hashes, features, the log in Beam's "
            "state and its rewriting; Beam's shuffle and the runner's state are left out. A history is the features "
            "alone. `One terminal` has minimum, maximum and distinct count over 1, 7 and 30 days, and one terminal "
            "makes all transactions.",
            "Microseconds a row, over the second half of the first so many rows, and the spread over all looks, one "
            f"every {found.stages[0].points[0].rows:,} rows:",
            _cost_table([*found.histories, *found.stages, *found.extremes]),
            "Bytes for each live transaction, one in a window still open (min / median / max of the looks in the "
            "second half). Memory holds an engine's arrays, the log is what Beam's state holds: it grows to twice "
            f"its live rows and {LOG_SLACK:,} more before it is rewritten. The goal for features is 200 bytes of "
            "memory.",
            _state_table(found),
            "The stages under the same habits of more people, and so with more transactions in the open windows:",
            _scale_table(found.scaled),
        ]
    )


def _cost_table(courses: Sequence[Course]) -> str:
    last = max(course.points[-1].rows for course in courses)
    milestones = sorted({count for count in (10**5, 10**6, 10**7) if count < last} | {last})
    rows = []
    for course in courses:
        costs = [course.cost(count) for count in milestones]
        cells = ["-" if cost is None else f"{cost:.2f}" for cost in costs]
        rows.append([course.subject, *cells, spread([point.microseconds for point in course.points])])
    return table(["", *(f"{count:,} rows" for count in milestones), "min / median / max"], rows)


def _state_table(found: FeatureState) -> str:
    rows = []
    for course in (*found.histories, *found.stages, *found.extremes):
        logs = [spread(course.log_each, ".0f"), f"{course.rewritten_each:.0f}"] if course.rewritten_each else ["-", "-"]
        rows.append([course.subject, f"{course.live:,.0f}", spread(course.memory_each, ".0f"), *logs])
    stages = len(found.histories) + len(found.stages)
    rows[stages:stages] = [
        _together("both stages of features", found.stages[:-1]),
        _together("all three stages", found.stages),
    ]
    return table(["", "live transactions", "memory", "log", "log just rewritten"], rows)


def _together(name: str, stages: Sequence[Course]) -> list[str]:
    """What a transaction takes that is live in several stages."""
    memory = [sum(each) for each in zip(*(course.memory_each for course in stages), strict=True)]
    log = [sum(each) for each in zip(*(course.log_each for course in stages), strict=True)]
    rewritten = sum(course.rewritten_each for course in stages)
    return [name, "", spread(memory, ".0f"), spread(log, ".0f"), f"{rewritten:.0f}"]


def _scale_table(by_factor: Mapping[int, Sequence[Course]]) -> str:
    rows = []
    for factor, courses in by_factor.items():
        for course in courses:
            cost = fmean(point.microseconds for point in course.settled)
            daily = f"{Traffic().scaled(factor).per_day:,}"
            rows.append(
                [course.subject, daily, f"{course.live:,.0f}", spread(course.memory_each, ".0f"), f"{cost:.2f}"]
            )
    return table(["", "transactions a day", "live transactions", "memory", "microseconds a row"], rows)


def cost_plot(found: FeatureState) -> bytes:
    """Microseconds a row against the rows that have passed."""

    def draw(axes: Any) -> None:
        for course in (*found.histories, *found.stages, *found.extremes):
            _band(axes, course, lambda point: point.microseconds)
        _label(axes, "Cost of a row (median and range)", "microseconds")

    return plot(draw)


def bytes_plot(found: FeatureState) -> bytes:
    """Bytes for each live transaction against the rows that have passed."""

    def draw(axes: Any) -> None:
        for course in found.stages:
            _band(axes, course, lambda point: point.held.memory_bytes / point.held.live)
        _label(axes, "Memory of a live transaction (median and range)", "bytes")

    return plot(draw)


def _band(axes: Any, course: Course, value: Callable[[Point], float]) -> None:
    """A line with the spread about it, over equal factors of rows: single looks would hide each other."""
    groups: dict[int, list[Point]] = {}
    for point in course.points:
        groups.setdefault(round(8 * math.log10(point.rows)), []).append(point)
    rows = [median(point.rows for point in group) for group in groups.values()]
    values = [[value(point) for point in group] for group in groups.values()]
    (line,) = axes.plot(rows, [median(group) for group in values], label=course.subject, marker=".")
    axes.fill_between(rows, [min(g) for g in values], [max(g) for g in values], color=line.get_color(), alpha=0.15)


def _label(axes: Any, title: str, unit: str) -> None:
    axes.set(title=title, xscale="log", xlabel="rows passed", ylim=(0, None), ylabel=unit)
    axes.legend(fontsize=8)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; 2 after a mistake of the user's."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.feature_state", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=ROWS, metavar="N", help=f"transactions (default {ROWS:,})")
    options = parser.parse_args(argv)
    return print_results(lambda: results_text(measure(options.rows)))


if __name__ == "__main__":
    sys.exit(main())
