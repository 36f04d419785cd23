"""The counting under `MonitorCalibration`: does a score of 0.3 still mean that three in ten are frauds?

The expected calibration error is the mean distance of predicted and observed share over the bins of scores, weighted by
their rows (Naeini, Cooper, Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", 2015). As
nearly all transactions score near 0, it is small whatever becomes of the rest: the bins say more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
import msgspec
import numpy as np
import pyarrow.compute as pc

from transforms.batch import TransactionBatch
from transforms.histograms import Ints
from transforms.struct_coder import StructCoder
from transforms.window_counts import Pane, Windows

#: Where bins of scores begin: finer where most scores lie.
EDGES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
#: Scores have nine decimals: as whole billionths they add up to the same whatever their order.
_BILLION = 1_000_000_000


class ScoreBin(msgspec.Struct, frozen=True, kw_only=True):
    """The labelled decisions of one range of scores.

    Attributes:
        low: the range's lower end, included.
        rows: how many.
        predicted: their mean score.
        observed: the share of frauds among them.
    """

    low: float
    rows: int
    predicted: float
    observed: float


class WindowCalibration(msgspec.Struct, frozen=True, kw_only=True):
    """How well the scores of one window agree with its labels.

    Attributes:
        window_start, window_end: microseconds since 1970; the end is not part of the window.
        rows: decisions whose label is known.
        frauds: how many of them are.
        predicted: their mean score: the share of frauds that the model expected.
        observed: the share that there was.
        error: the expected calibration error.
        bins: those that hold any, ascending.
        pane, firing: as in `ColumnDrift`.
    """

    window_start: int
    window_end: int
    rows: int
    frauds: int
    predicted: float
    observed: float
    error: float
    bins: tuple[ScoreBin, ...]
    pane: Pane = "on_time"
    firing: int = 0

    def to_json(self) -> bytes:
        """One line of JSON, without the line's end."""
        return msgspec.json.encode(self)


beam.coders.registry.register_coder(WindowCalibration, StructCoder)


@dataclass(frozen=True)
class Calibration:
    """Calibration as `MeasureWindows` measures it: for each bin the rows, the frauds, the sum of scores."""

    @property
    def key(self) -> str:
        """Differs where counts cannot be added, because they are of other bins."""
        return f"{len(EDGES)}"

    @property
    def width(self) -> int:
        """How many cells there are."""
        return 3 * len(EDGES)

    def rows(self, counts: Ints) -> int:
        """How many rows were counted."""
        return int(counts[::3].sum())

    def count(self, batch: TransactionBatch, windows: Windows) -> Iterator[tuple[int, Ints]]:
        """Of each window: its start, and int64 (bins * 3,); without a label, nothing.

        Args:
            batch: decided rows with `is_fraud` where it is known.
            windows: to count in.
        """
        known = np.flatnonzero(np.asarray(batch.rows.column("is_fraud").is_valid()))
        times, scores = batch.numpy("event_time")[known], batch.numpy("score")[known]
        frauds = np.asarray(pc.fill_null(batch.rows.column("is_fraud"), 0)).astype(np.int64)[known]
        bins = np.searchsorted(EDGES, scores, side="right") - 1
        rows, starts = windows.of(times)
        distinct, at = np.unique(starts, return_inverse=True)
        counts = np.zeros((len(distinct), 3 * len(EDGES)), dtype=np.int64)
        billionths = np.rint(scores * _BILLION).astype(np.int64)
        each = np.stack([np.ones_like(frauds), frauds, billionths], axis=1)
        np.add.at(counts.reshape(len(distinct), len(EDGES), 3), (at, bins[rows]), each[rows])
        yield from zip(distinct.tolist(), counts, strict=True)

    def tell(self, counts: Ints, start: int, end: int) -> list[WindowCalibration]:
        """The one row of a window."""
        rows, frauds, sums = counts.reshape(-1, 3).T
        used, total = np.flatnonzero(rows), int(rows.sum())
        predicted, observed = sums[used] / _BILLION / rows[used], frauds[used] / rows[used]
        error = float(np.sum(np.abs(predicted - observed) * rows[used]) / total)
        bins = tuple(
            ScoreBin(low=EDGES[at], rows=int(rows[at]), predicted=round(float(p), 9), observed=round(float(o), 9))
            for at, p, o in zip(used.tolist(), predicted, observed, strict=True)
        )
        return [
            WindowCalibration(
                window_start=start,
                window_end=end,
                rows=total,
                frauds=int(frauds.sum()),
                predicted=round(int(sums.sum()) / _BILLION / total, 9),
                observed=int(frauds.sum()) / total,
                error=round(error, 9),
                bins=bins,
            )
        ]
