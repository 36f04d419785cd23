"""How good scores are: ranking, alerts, probabilities. Plain NumPy, shape (rows,) each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transforms.durations import DAY

Scores = NDArray[np.float64]
Labels = NDArray[np.int8]


@dataclass(frozen=True)
class Curve:
    """Counts when everything from a score upwards is an alert, for each distinct score, highest first.

    Attributes:
        caught: frauds among the alerts.
        false: good transactions among the alerts.
    """

    caught: NDArray[np.int64]
    false: NDArray[np.int64]

    @property
    def recall(self) -> NDArray[np.float64]:
        """Share of the frauds that are alerts."""
        return np.asarray(self.caught / self.caught[-1])

    @property
    def precision(self) -> NDArray[np.float64]:
        """Share of the alerts that are frauds."""
        return self.caught / (self.caught + self.false)

    @property
    def false_rate(self) -> NDArray[np.float64]:
        """Share of the good transactions that are alerts."""
        return np.asarray(self.false / self.false[-1])


@dataclass(frozen=True)
class Confusion:
    """Decisions against labels; an alert is anything not approved."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @property
    def precision(self) -> float:
        """Share of the alerts that are frauds; 0 without alerts."""
        return self.true_positives / max(1, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of the frauds that are alerts; 0 without frauds."""
        return self.true_positives / max(1, self.true_positives + self.false_negatives)


@dataclass(frozen=True)
class CalibrationBin:
    """The transactions of one range of scores.

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


def curve(scores: Scores, labels: Labels) -> Curve:
    """The counts behind the ROC and precision-recall curves; ties are taken together."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    caught = np.cumsum(labels[order], dtype=np.int64)[ends]
    return Curve(caught=caught, false=ends + 1 - caught)


def auc_roc(scores: Scores, labels: Labels) -> float:
    """Probability that a fraud scores above a good transaction, ties counted half.

    Example:
        >>> auc_roc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1], np.int8))
        0.875
    """
    points = curve(scores, labels)
    return float(np.trapezoid(np.append(0.0, points.recall), np.append(0.0, points.false_rate)))


def average_precision(scores: Scores, labels: Labels) -> float:
    """Area under the precision-recall curve as a step function: precision weighted by the recall gained.

    Example:
        >>> round(average_precision(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1], np.int8)), 3)
        0.833
    """
    points = curve(scores, labels)
    return float(np.sum(np.diff(points.recall, prepend=0.0) * points.precision))


def confusion(scores: Scores, labels: Labels, threshold: float) -> Confusion:
    """Counts when every score from `threshold` upwards is an alert."""
    alert, fraud = scores >= threshold, labels == 1
    return Confusion(
        true_positives=int((alert & fraud).sum()),
        false_positives=int((alert & ~fraud).sum()),
        false_negatives=int((~alert & fraud).sum()),
        true_negatives=int((~alert & ~fraud).sum()),
    )


def brier(scores: Scores, labels: Labels) -> float:
    """Mean squared distance of probability and label: 0 is perfect."""
    return float(np.mean((scores - labels) ** 2))


def calibration_table(scores: Scores, labels: Labels, bins: int = 10) -> list[CalibrationBin]:
    """Predicted and observed share of frauds for each range of scores that has any."""
    which = np.minimum((scores * bins).astype(np.int64), bins - 1)
    return [
        CalibrationBin(
            low=at / bins,
            rows=int((which == at).sum()),
            predicted=float(scores[which == at].mean()),
            observed=float(labels[which == at].mean()),
        )
        for at in np.unique(which).tolist()
    ]


def card_precision_at_k(
    event_time: NDArray[np.int64], cards: NDArray[np.int64], scores: Scores, labels: Labels, k: int
) -> float:
    """Of the k cards an analyst looks at each day, the share that was compromised, averaged over the days.

    A card's score of a day is its highest. A compromised card that was looked at is blocked: it does not
    count on later days. The Fraud Detection Handbook, chapter 4, "Precision top-k metrics".

    Args:
        event_time: in microseconds; days are UTC days.
        cards: a number for each card; rows below 0 have none and are left out.
        scores: the higher, the more suspect.
        labels: 0 or 1.
        k: cards looked at a day; a day with fewer cards counts as k all the same.

    Example:
        >>> day_one, card = np.zeros(3, np.int64), np.array([7, 7, 9])
        >>> card_precision_at_k(day_one, card, np.array([0.1, 0.9, 0.5]), np.array([0, 1, 0], np.int8), k=2)
        0.5
    """
    days = event_time // DAY
    blocked: NDArray[np.int64] = np.array([], dtype=np.int64)
    shares = []
    for day in np.unique(days):
        rows = np.flatnonzero((days == day) & (cards >= 0) & ~np.isin(cards, blocked))
        found = _compromised_of_top(cards[rows], scores[rows], labels[rows], k)
        shares.append(len(found) / k)
        blocked = np.append(blocked, found)
    return float(np.mean(shares))


def _compromised_of_top(cards: NDArray[np.int64], scores: Scores, labels: Labels, k: int) -> NDArray[np.int64]:
    """The compromised ones among the k cards with the highest scores."""
    names, at = np.unique(cards, return_inverse=True)
    highest = np.full(len(names), -np.inf)
    np.maximum.at(highest, at, scores)
    compromised = np.zeros(len(names), dtype=bool)
    np.logical_or.at(compromised, at, labels == 1)
    top = np.argsort(-highest, kind="stable")[:k]
    return names[top][compromised[top]]


def known_compromised(
    event_time: NDArray[np.int64],
    cards: NDArray[np.int64],
    labels: Labels,
    since: int,
    label_delay: int,
) -> NDArray[np.bool_]:
    """Which rows are of a card known to be compromised when their day began.

    A fraud counts from `since` on and is known `label_delay` later. Such cards are blocked, so finding
    them again is no merit. The Fraud Detection Handbook, chapter 3, removes them from its test set.

    Args:
        event_time: in microseconds, shape (rows,), in any order.
        cards: a number for each card; below 0 is no card and never compromised.
        labels: 0 or 1.
        since: the start of the training period, in microseconds.
        label_delay: in microseconds.
    """
    never = np.iinfo(np.int64).max
    first_fraud = np.full(int(cards.max(initial=-1)) + 2, never)  # the last entry is for rows without a card
    frauds = (labels == 1) & (cards >= 0) & (event_time >= since)
    np.minimum.at(first_fraud, cards[frauds], event_time[frauds])
    return first_fraud[np.maximum(cards, -1)] < event_time // DAY * DAY - label_delay
