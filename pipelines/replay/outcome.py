"""What came of the same transactions under two sets of decisions: those served and those replayed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np

from transforms.histograms import SCORE_BINS, score_bins
from transforms.statistics import DECISIONS, LABELS, RunStatistics, empty_statistics

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Side = Literal["served", "replayed"]
SIDES: tuple[Side, Side] = ("served", "replayed")
_CUBE = (len(DECISIONS), len(DECISIONS), len(LABELS))


@dataclass(frozen=True, eq=False)
class Outcome:
    """Counts over transactions that were served and replayed; two can be added.

    Attributes:
        counts: int64 (decision served, decision replayed, label), in the order of `DECISIONS` and `LABELS`.
        amounts: the same in minor units.
        scores: int64 (side, label, bin): the histograms of both scores, see `transforms.histograms`.
        score_amounts: the same in minor units.
    """

    counts: Ints
    amounts: Ints
    scores: Ints
    score_amounts: Ints

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.counts + other.counts,
            self.amounts + other.amounts,
            self.scores + other.scores,
            self.score_amounts + other.score_amounts,
        )

    @property
    def transactions(self) -> int:
        """How many there are."""
        return int(self.counts.sum())

    @property
    def flips(self) -> Ints:
        """int64 (decision served, decision replayed), whatever the label."""
        return np.asarray(self.counts.sum(axis=2))

    @property
    def changed(self) -> int:
        """How many are decided on otherwise."""
        return self.transactions - int(np.trace(self.flips))

    @property
    def alerts_gained(self) -> int:
        """Approved when served, reviewed or declined now."""
        return int(self.flips[0, 1:].sum())

    @property
    def alerts_lost(self) -> int:
        """Reviewed or declined when served, approved now."""
        return int(self.flips[1:, 0].sum())

    def of(self, side: Side) -> RunStatistics:
        """One side as the statistics of a run, of which `transforms.outcomes` tells precision, recall and money."""
        at = SIDES.index(side)
        return msgspec.structs.replace(
            empty_statistics(),
            counts=self.counts.sum(axis=1 - at),
            amounts=self.amounts.sum(axis=1 - at),
            score_counts=self.scores[at],
            score_amounts=self.score_amounts[at],
        )


def no_outcome() -> Outcome:
    """The outcome of no transactions."""
    bins = (len(SIDES), len(LABELS), SCORE_BINS)
    return Outcome(*(np.zeros(shape, dtype=np.int64) for shape in (_CUBE, _CUBE, bins, bins)))


@dataclass(frozen=True, eq=False)
class Decided:
    """Transactions with both decisions, in columns of one length.

    Attributes:
        decisions: a column a side: int64, places in `DECISIONS`.
        scores: a column a side: float64.
        labels: int64, places in `LABELS`.
        amounts: int64, minor units.
    """

    decisions: tuple[Ints, Ints]
    scores: tuple[Floats, Floats]
    labels: Ints
    amounts: Ints

    @property
    def changed(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which are decided on otherwise."""
        return np.asarray(self.decisions[0] != self.decisions[1])

    def outcome(self, rows: np.ndarray[Any, np.dtype[np.bool_]]) -> Outcome:
        """What came of those where `rows` is true.

        Example:
            >>> decided = Decided((np.array([0, 1]), np.array([2, 1])), (np.array([0.1, 0.5]), np.array([0.9, 0.5])),
            ...                   labels=np.array([0, 2]), amounts=np.array([70, 10]))
            >>> came = decided.outcome(np.array([True, True]))
            >>> came.alerts_gained, came.alerts_lost, came.changed, came.of("served").amounts[0].tolist()
            (1, 0, 1, [70, 0, 0])
        """
        came = no_outcome()
        labels, amounts = self.labels[rows], self.amounts[rows]
        cell = (self.decisions[0][rows], self.decisions[1][rows], labels)
        np.add.at(came.counts, cell, 1)
        np.add.at(came.amounts, cell, amounts)
        for side, scores in enumerate(self.scores):
            bins = score_bins(scores[rows])
            np.add.at(came.scores[side], (labels, bins), 1)
            np.add.at(came.score_amounts[side], (labels, bins), amounts)
        return came
