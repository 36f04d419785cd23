"""Platt scaling: log-odds that rank become probabilities that can be taken at their word."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_artifacts.manifest import Calibration
from transforms.errors import UserError

_STEPS = 100
_CONVERGED = 1e-10
_DECIMALS = 6  # as people read them; the last bits would depend on the processor


def fit_platt(log_odds: NDArray[np.float64], labels: NDArray[np.int8]) -> Calibration:
    """Slope and intercept that make `sigmoid(slope * log_odds + intercept)` the most likely.

    Newton's method with step halving, on Platt's softened labels, which keep the slope finite where
    the classes can be told apart completely. Lin, Lin and Weng, "A note on Platt's probabilistic
    outputs for support vector machines", 2007.

    Args:
        log_odds: raw scores, shape (rows,), of rows the model was not fitted on.
        labels: 0 or 1, shape (rows,); both occur.

    Raises:
        UserError: the scores do not rise with fraud, so no rising curve fits them.

    Example:
        >>> fit_platt(np.array([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0] * 50), np.array([0, 0, 0, 1, 0, 1] * 50, np.int8))
        Calibration(slope=1.107483, intercept=-1.759701)
    """
    frauds, goods = int(labels.sum()), int((labels == 0).sum())
    target = np.where(labels == 1, (frauds + 1) / (frauds + 2), 1 / (goods + 2))
    design = np.column_stack([log_odds, np.ones_like(log_odds)])
    weights = np.array([0.0, np.log((frauds + 1) / (goods + 1))])
    loss = _loss(design @ weights, target)
    for _ in range(_STEPS):
        probability = np.exp(-np.logaddexp(0.0, -(design @ weights)))
        gradient = design.T @ (probability - target)
        curvature = (design * (probability * (1.0 - probability))[:, None]).T @ design + 1e-12 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        scale = 1.0
        while (reached := _loss(design @ (weights - scale * step), target)) > loss and scale > 1e-10:
            scale /= 2
        weights = weights - scale * step
        if abs(loss - reached) < _CONVERGED * max(1.0, loss):
            break
        loss = reached
    slope, intercept = round(float(weights[0]), _DECIMALS), round(float(weights[1]), _DECIMALS)
    if slope <= 0.0:
        raise UserError(
            f"on the calibration days the model ranks frauds no better than chance (slope {slope}): it has learnt "
            "nothing it can use. Give it more days, other features, or check the labels"
        )
    return Calibration(slope=slope, intercept=intercept)


def _loss(log_odds: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """Cross-entropy: log(1 + e^z) - target * z, written so that nothing overflows."""
    return float(np.sum(np.logaddexp(0.0, log_odds) - target * log_odds))
