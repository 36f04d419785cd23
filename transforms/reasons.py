"""Why a score is high: which features pushed it up, in words.

A feature's push is the difference in log-odds between the row as it is and the row with that one feature
at its typical value (the median of the training data). For a linear model that is exactly the feature's
weight times its distance from typical. For trees and networks it is the one-at-a-time effect around the
row (ablation to a baseline; see Covert, Lundberg and Lee, "Explaining by Removing", 2021): features
that only act together are each credited with the whole of what they do together.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from model_artifacts.artifact import Model
from transforms.features import Feature, describe

MOST_REASONS = 3
LEAST_PUSH = 0.05  # log-odds; below it a feature is no reason
ROWS_AT_ONCE = 4096  # each row is scored once a feature: all rows of a large batch together would fill the memory

Matrix = np.ndarray[Any, np.dtype[np.float64]]


def pushes(matrix: Matrix, model: Model) -> Matrix:
    """How much each feature of each row pushes the log-odds up (or, below 0, down).

    Args:
        matrix: float64[n, features], the rows.
        model: what scores them; it is asked for a score a row, and one more for each feature that is not typical.
    """
    baseline, found = np.asarray(model.manifest.baseline), model.log_odds(matrix)
    rows, features = np.nonzero(matrix != baseline)  # a typical value pushes nowhere
    altered = matrix[rows]
    altered[np.arange(len(rows)), features] = baseline[features]
    pushed = np.zeros_like(matrix)
    if len(rows):
        pushed[rows, features] = found[rows] - model.log_odds(altered)
    return pushed


def reasons(matrix: Matrix, model: Model) -> list[list[str]]:
    """For each row the features that pushed its score up most, strongest first: `name: words`.

    Args:
        matrix: float64[n, features], the rows.
        model: what scored them.
    """
    if not len(matrix):
        return []
    words = _words(model.manifest.feature_set.features, model.manifest.baseline)
    parts = [pushes(matrix[at : at + ROWS_AT_ONCE], model) for at in range(0, len(matrix), ROWS_AT_ONCE)]
    pushed = np.concatenate(parts)
    strongest = np.argsort(-pushed, axis=1, kind="stable")[:, :MOST_REASONS]
    return [
        [words[f] % row[f] for f in order if push[f] >= LEAST_PUSH]
        for row, push, order in zip(matrix.tolist(), pushed.tolist(), strongest.tolist(), strict=True)
    ]


@lru_cache(maxsize=16)
def _words(features: tuple[Feature, ...], baseline: tuple[float, ...]) -> tuple[str, ...]:
    """For each feature the sentence that its value goes into."""
    told = [f"{feature.name}: {describe(feature)} is ".replace("%", "%%") for feature in features]
    return tuple(f"{text}%.6g, typically {usual:.6g}" for text, usual in zip(told, baseline, strict=True))
