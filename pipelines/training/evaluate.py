"""What a model is worth on days it has not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_artifacts.artifact import Model
from pipelines.training.dataset import LabelledRows
from pipelines.training.metrics import (
    CalibrationBin,
    Confusion,
    Curve,
    auc_roc,
    average_precision,
    brier,
    calibration_table,
    card_precision_at_k,
    confusion,
    curve,
    known_compromised,
)
from pipelines.training.split import Periods, within
from pipelines.training.thresholds import policy_cost

CARDS_A_DAY = 100

_IMPORTANCE_ROWS = 10_000
_SHUFFLES = 3


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The test days' results.

    Attributes:
        metrics: by name, as the manifest keeps them: rates to six decimals, money in minor units.
        rows: the test days' transactions.
        scores: their calibrated probabilities, shape (rows,).
        ranked: which rows the ranking metrics and curves are measured on.
        points: the curves' points, of the ranked rows.
        confusion: at the review threshold, of all rows.
        bins: the calibration table, of all rows.
        importance: fall in average precision when a feature's values are shuffled, by feature.
        notes: sentences for the model card.
    """

    metrics: dict[str, float]
    rows: LabelledRows
    scores: NDArray[np.float64]
    ranked: NDArray[np.bool_]
    points: Curve
    confusion: Confusion
    bins: list[CalibrationBin]
    importance: dict[str, float]
    notes: tuple[str, ...]


def evaluate(model: Model, rows: LabelledRows, periods: Periods, label_delay: int, seed: int) -> Evaluation:
    """Measure `model` on the test period.

    Ranking is measured as in the literature, without the cards already known to be compromised; what
    the decisions cost is measured on every transaction, as the pipeline will meet them.

    Args:
        model: calibrated, with thresholds.
        rows: of all periods: frauds of the training period say which cards are known.
        periods: the split.
        label_delay: in microseconds.
        seed: of the shuffles behind the importance.
    """
    in_test = within(rows.event_time, periods.test_from, periods.test_to)
    known = known_compromised(rows.event_time, rows.cards, rows.labels, periods.train_from, label_delay)
    test = rows.part(in_test)
    scores = model.score(test.matrix)
    ranked, notes = _rankable(test, ~known[in_test])
    at_threshold = confusion(scores, test.labels, model.manifest.thresholds.review)
    metrics = {
        **_ranking(test.part(ranked), scores[ranked]),
        **_decisions(model, test, scores, at_threshold, periods.test_days),
    }
    return Evaluation(
        metrics={name: round(value, 6) for name, value in metrics.items()},
        rows=test,
        scores=scores,
        ranked=ranked,
        points=curve(scores[ranked], test.labels[ranked]),
        confusion=at_threshold,
        bins=calibration_table(scores, test.labels),
        importance=_importance(model, test, seed),
        notes=notes,
    )


def _rankable(test: LabelledRows, fresh: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """The rows of cards not known to be compromised, unless that leaves nothing to rank."""
    if 0 < test.labels[fresh].sum() < fresh.sum():
        return fresh, ()
    note = "Every fraud of the test days is on a card known to be compromised: ranking is measured on all cards."
    return np.ones(len(test), dtype=bool), (note,)


def _ranking(rows: LabelledRows, scores: NDArray[np.float64]) -> dict[str, float]:
    metrics = {
        "auc_roc": auc_roc(scores, rows.labels),
        "average_precision": average_precision(scores, rows.labels),
    }
    if (rows.cards >= 0).any():
        metrics[f"card_precision_at_{CARDS_A_DAY}"] = card_precision_at_k(
            rows.event_time, rows.cards, scores, rows.labels, CARDS_A_DAY
        )
    return metrics


def _decisions(
    model: Model, test: LabelledRows, scores: NDArray[np.float64], at_threshold: Confusion, days: float
) -> dict[str, float]:
    manifest = model.manifest
    cost = policy_cost(scores, test.labels, test.amounts, manifest.thresholds, manifest.costs)
    return {
        "precision": at_threshold.precision,
        "recall": at_threshold.recall,
        "true_positives": at_threshold.true_positives,
        "false_positives": at_threshold.false_positives,
        "false_negatives": at_threshold.false_negatives,
        "true_negatives": at_threshold.true_negatives,
        "brier": brier(scores, test.labels),
        "fraud_rate": float(test.labels.mean()),
        "alerts_per_day": (at_threshold.true_positives + at_threshold.false_positives) / days,
        "declines_per_day": float((scores >= manifest.thresholds.decline).sum()) / days,
        "cost_per_day": cost / days,
        "cost_per_day_doing_nothing": float(test.amounts[test.labels == 1].sum()) / days,
    }


def _importance(model: Model, test: LabelledRows, seed: int) -> dict[str, float]:
    """Permutation importance: Breiman, "Random forests", 2001, with average precision as the measure."""
    frauds, goods = np.flatnonzero(test.labels == 1), np.flatnonzero(test.labels == 0)
    every = -(-len(goods) // _IMPORTANCE_ROWS)
    chosen = np.sort(np.concatenate([frauds, goods[::every]]))
    matrix, labels = test.matrix[chosen], test.labels[chosen]
    rng = np.random.default_rng(seed)
    whole = average_precision(model.score(matrix), labels)
    importance = {}
    for at, name in enumerate(model.manifest.feature_names):
        shuffled = matrix.copy()
        falls = []
        for _ in range(_SHUFFLES):
            shuffled[:, at] = rng.permutation(matrix[:, at])
            falls.append(whole - average_precision(model.score(shuffled), labels))
        importance[name] = round(float(np.mean(falls)), 6)
    return importance
