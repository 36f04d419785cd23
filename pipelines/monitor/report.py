"""What a run's monitoring says: two plots for the report, a few lines for the terminal, figures for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from pipelines import plots
from pipelines.formats import day, moment, share
from transforms.calibration import EDGES, WindowCalibration
from transforms.drift import ColumnDrift
from transforms.durations import DAY

_COLOURS = ("accent", "good", "review", "ink")
_Row = TypeVar("_Row", ColumnDrift, WindowCalibration)


@dataclass(frozen=True)
class Monitored:
    """What was found of a run's windows.

    Attributes:
        drift: one row for each window and column, in order of windows.
        calibration: one row for each window.
        psi_alert: from which index on a column has drifted.
        full_from: when every window of the features had been filled since the run began, in microseconds; until then
            the features of a run without a past differ from those of training, whatever the transactions do.
        why_not: why drift was not measured; empty where it was.
    """

    drift: Sequence[ColumnDrift] = ()
    calibration: Sequence[WindowCalibration] = ()
    psi_alert: float = 0.25
    full_from: int = 0
    why_not: str = ""

    @property
    def drifted(self) -> dict[str, list[ColumnDrift]]:
        """The windows in which each column drifted, of those with full histories; the most drifted column first."""
        found: dict[str, list[ColumnDrift]] = {}
        for row in self.drift:
            if row.drifted and row.window_start >= self.full_from:
                found.setdefault(row.column, []).append(row)
        return dict(sorted(found.items(), key=lambda entry: (-len(entry[1]), entry[0])))

    @property
    def windows(self) -> int:
        """How many windows with full histories were compared."""
        return len({row.window_start for row in self.drift if row.window_start >= self.full_from})


def read_rows(path: Path, kind: type[_Row]) -> list[_Row]:
    """The rows of a file of JSON lines, of each window the last firing, in order; none of a file that is not there."""
    if not path.is_file():
        return []
    last: dict[tuple[int, str], _Row] = {}
    for line in path.read_bytes().splitlines():
        row = msgspec.json.decode(line, type=kind)
        at = (row.window_start, getattr(row, "column", ""))
        if at not in last or row.firing >= last[at].firing:
            last[at] = row
    return sorted(last.values(), key=lambda row: row.window_start)


def monitoring_lines(monitored: Monitored) -> list[tuple[str, str]]:
    """Pairs of a label and words."""
    lines = [("drift", f"not measured: {monitored.why_not}")] if monitored.why_not else _drift_lines(monitored)
    counts = _by_bin(monitored.calibration)
    rows, frauds, predicted = (int(counts[0].sum()), int(counts[1].sum()), float(counts[2].sum()))
    if rows:
        lines.append(("calibration", f"{share(predicted / rows)} frauds expected, {share(frauds, rows)} found"))
    return lines


def _drift_lines(monitored: Monitored, most: int = 5) -> list[tuple[str, str]]:
    drifted, windows = monitored.drifted, monitored.windows
    if not windows:
        until = f", the first of them from {moment(monitored.full_from)} on" if monitored.drift else ""
        return [("drift", f"no windows with full histories{until}")] if monitored.drift else []
    names = {row.column for row in monitored.drift}
    lines = [("drift", f"{len(drifted)} of {len(names)} columns, in {windows:,} windows with full histories")]
    for name, rows in list(drifted.items())[:most]:
        worst = max(rows, key=lambda row: row.psi)
        when = day(worst.window_start // DAY)
        lines.append((f"  {name}", f"in {len(rows):,} windows, PSI up to {worst.psi:.2f} ({when})"))
    return lines


def monitoring_json(monitored: Monitored) -> dict[str, Any]:
    """The figures for `summary.json`."""
    counts = _by_bin(monitored.calibration)
    rows = int(counts[0].sum())
    return {
        "not_measured": monitored.why_not or None,
        "windows": monitored.windows,
        "drifted": {name: len(found) for name, found in monitored.drifted.items()},
        "expected_fraud_rate": float(counts[2].sum()) / rows if rows else None,
        "observed_fraud_rate": float(counts[1].sum()) / rows if rows else None,
    }


def drift_plot(monitored: Monitored) -> str:
    """PSI by window of the columns that moved furthest; nothing where none was measured."""
    if len({row.window_start for row in monitored.drift}) < 2:
        return ""
    first, last = monitored.drift[0].window_start, monitored.drift[-1].window_end
    middle = (first + last) // 2
    ticks = [(at / DAY, day(at // DAY)) for at in (first, middle, last)]
    x = plots.x_axis(first / DAY, last / DAY, ticks)
    powers = [(10.0**power, f"{10.0**power:g}") for power in range(-3, 2)]
    y = plots.Axis(1e-3, 10.0, plots.HEIGHT - plots.BOTTOM, plots.TOP, powers, log=True, title="PSI")
    names = _furthest(monitored)
    marks = [
        plots.line(
            [(r.window_start / DAY, min(r.psi, 10.0)) for r in monitored.drift if r.column == name], x, y, colour
        )
        for name, colour in zip(names, _COLOURS, strict=False)
    ]
    marks.append(plots.line([(x.low, monitored.psi_alert), (x.high, monitored.psi_alert)], x, y, "fraud"))
    if first < monitored.full_from < last:
        marks.append(plots.rule(monitored.full_from / DAY, "histories full", x, "unknown"))
    legend = [*zip(_COLOURS, names, strict=False), ("fraud", f"drifted from {monitored.psi_alert:g}")]
    return plots.chart("Drift from training", x, y, marks, legend)


def _furthest(monitored: Monitored) -> list[str]:
    """The score, and the columns with the largest PSI in windows with full histories, or in all if there is none."""
    rows = [row for row in monitored.drift if row.window_start >= monitored.full_from] or monitored.drift
    largest: dict[str, float] = {}
    for row in rows:
        largest[row.column] = max(row.psi, largest.get(row.column, 0.0))
    ranked = sorted(largest, key=lambda name: (name != "score", -largest[name], name))
    return ranked[: len(_COLOURS)]


def calibration_plot(monitored: Monitored) -> str:
    """Observed share of frauds against the predicted, by bin of scores; nothing without labelled frauds."""
    rows, frauds, predicted = _by_bin(monitored.calibration)
    used = np.flatnonzero(frauds)
    if not len(used):
        return ""
    ticks = [(10.0**power, f"{10.0**power:g}") for power in range(-4, 1)]
    x = plots.Axis(1e-4, 1.0, plots.LEFT, plots.WIDTH - plots.RIGHT, ticks, log=True, title="mean score")
    y = plots.Axis(1e-4, 1.0, plots.HEIGHT - plots.BOTTOM, plots.TOP, ticks, log=True, title="share of frauds")
    points = [(float(predicted[at] / rows[at]), float(frauds[at] / rows[at])) for at in used.tolist()]
    marks = [
        plots.line([(1e-4, 1e-4), (1.0, 1.0)], x, y, "unknown"),
        plots.line(points, x, y, "accent"),
        *(plots.dot(point, "", x, y, "accent") for point in points),
    ]
    return plots.chart("Scores against labels", x, y, marks, [("accent", "found"), ("unknown", "as predicted")])


def _by_bin(windows: Sequence[WindowCalibration]) -> tuple[np.ndarray[Any, Any], ...]:
    """Rows, frauds and sum of scores of all windows together, by bin of scores."""
    counts = np.zeros((3, len(EDGES)))
    for window in windows:
        for part in window.bins:
            counts[:, EDGES.index(part.low)] += (
                part.rows,
                round(part.rows * part.observed),
                part.rows * part.predicted,
            )
    return counts[0], counts[1], counts[2]
