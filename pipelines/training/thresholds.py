"""Where to review and where to decline: the thresholds under which the calibration days cost the least."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_artifacts.manifest import Costs, Thresholds

#: Probabilities spaced evenly in log-odds from 0.0003 to 0.9997: round numbers, and few enough that
#: the best of them is not the accident of one transaction.
CANDIDATES = np.unique(np.round(np.append(1.0 / (1.0 + np.exp(-np.linspace(-8.0, 8.0, 161))), 1.0), 4))


def choose_thresholds(
    scores: NDArray[np.float64], labels: NDArray[np.int8], amounts: NDArray[np.int64], costs: Costs
) -> Thresholds:
    """The review and decline thresholds of least cost; of equals the highest, which disturb fewest people.

    Args:
        scores: calibrated probabilities, shape (rows,), of rows the model was not fitted on.
        labels: 0 or 1, shape (rows,).
        amounts: in minor units, shape (rows,).
        costs: of a review and of a wrong decline.
    """
    order = np.argsort(scores, kind="stable")
    frauds = labels[order].astype(np.int64)
    below = np.searchsorted(scores[order], CANDIDATES, side="left")
    # With everything from a threshold upwards reviewed: the reviews, and the frauds below it.
    review = _sum_before(frauds * amounts[order])[below] + costs.review * (len(scores) - below)
    # What declining from a threshold upwards adds to that: good customers lost, less the reviews saved.
    decline = _sum_from(costs.decline * (1 - frauds) - costs.review)[below]
    best_decline = np.minimum.accumulate(decline[::-1])[::-1]  # the least at or above each candidate
    at = _last_least(review + best_decline)
    return Thresholds(
        review=float(CANDIDATES[at]),
        decline=float(CANDIDATES[at + _last_least(decline[at:])]),
    )


def policy_cost(
    scores: NDArray[np.float64],
    labels: NDArray[np.int8],
    amounts: NDArray[np.int64],
    thresholds: Thresholds,
    costs: Costs,
) -> int:
    """What deciding by `thresholds` costs in minor units: reviews, wrong declines, the frauds approved.

    Example:
        >>> policy = Thresholds(review=0.2, decline=0.9)
        >>> scores, labels = np.array([0.1, 0.3, 0.95]), np.array([1, 0, 0], np.int8)
        >>> policy_cost(scores, labels, np.array([70_00, 10_00, 10_00]), policy, Costs(review=500, decline=2000))
        9500
    """
    declined = scores >= thresholds.decline
    approved = scores < thresholds.review
    reviewed = int((~declined & ~approved).sum())
    lost = int(amounts[approved & (labels == 1)].sum())
    return costs.review * reviewed + costs.decline * int((declined & (labels == 0)).sum()) + lost


def _sum_before(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum of the first k values, for k = 0 to all."""
    return np.concatenate([[0], np.cumsum(values)])


def _sum_from(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum of all but the first k values, for k = 0 to all."""
    return np.concatenate([np.cumsum(values[::-1])[::-1], [0]])


def _last_least(values: NDArray[np.int64]) -> int:
    return len(values) - 1 - int(np.argmin(values[::-1]))
