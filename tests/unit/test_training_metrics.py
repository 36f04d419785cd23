"""Metrics against scikit-learn and against pandas written the obvious way."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from pipelines.training.metrics import (
    auc_roc,
    average_precision,
    brier,
    calibration_table,
    card_precision_at_k,
    confusion,
    known_compromised,
)
from transforms.durations import DAY

#: Few distinct scores, so that ties are the rule.
ROWS = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.booleans()), min_size=2, max_size=60)


@given(ROWS)
def test_ranking_and_brier_agree_with_scikit_learn(rows: list[tuple[float, bool]]) -> None:
    """AUC, average precision and Brier score equal scikit-learn's, ties and all."""
    scores = np.array([score for score, _ in rows])
    labels = np.array([label for _, label in rows], dtype=np.int8)
    assume(0 < labels.sum() < len(labels))
    assert auc_roc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    assert average_precision(scores, labels) == pytest.approx(average_precision_score(labels, scores))
    assert brier(scores, labels) == pytest.approx(brier_score_loss(labels, scores))


def _top_k_obviously(frame: pd.DataFrame, k: int) -> float:
    blocked: set[int] = set()
    shares = []
    for _, of_day in frame.groupby("day"):
        left = of_day[~of_day.card.isin(blocked)].groupby("card")[["score", "label"]].max()
        top = left.reset_index().sort_values(["score", "card"], ascending=[False, True]).head(k)
        found = set(top[top.label == 1].card)
        shares.append(len(found) / k)
        blocked |= found
    return float(np.mean(shares))


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 6))
def test_card_precision_at_k_agrees_with_pandas(seed: int, k: int) -> None:
    """Each day's k most suspect cards, found ones blocked afterwards, averaged over the days."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "day": rng.integers(0, 4, 60),
            "card": rng.integers(0, 9, 60),
            "score": rng.integers(0, 5, 60) / 4,
            "label": (rng.random(60) < 0.3).astype(np.int8),
        }
    )
    times = frame.day.to_numpy() * DAY + rng.integers(0, DAY, 60)
    cards, scores, labels = frame.card.to_numpy(), frame.score.to_numpy(), frame.label.to_numpy()
    found = card_precision_at_k(times, cards, scores, labels, k)
    assert found == pytest.approx(_top_k_obviously(frame, k))


def test_a_found_card_does_not_count_again() -> None:
    """A card caught on the first day is blocked on the second, where the next card takes its place."""
    times = np.array([0, 1, DAY, DAY + 1])
    cards, scores = np.array([1, 2, 1, 2]), np.array([0.9, 0.1, 0.9, 0.1])
    labels = np.array([1, 0, 1, 0], np.int8)
    assert card_precision_at_k(times, cards, scores, labels, k=1) == 0.5


def test_a_card_is_known_only_after_the_label_delay() -> None:
    """A fraud on day 1 with a delay of 2 days blocks its card from day 4 on, and no other card."""
    days = np.array([1, 2, 3, 4, 4, 4])
    cards = np.array([7, 7, 7, 7, 8, -1])
    labels = np.array([1, 0, 0, 0, 0, 0], np.int8)
    known = known_compromised(days * DAY + 5, cards, labels, since=DAY, label_delay=2 * DAY)
    assert known.tolist() == [False, False, False, True, False, False]


def test_frauds_before_the_training_period_do_not_block() -> None:
    """Only frauds from `since` on count."""
    known = known_compromised(np.array([0, 9 * DAY]), np.array([1, 1]), np.array([1, 0], np.int8), DAY, DAY)
    assert not known.any()


@given(ROWS, st.sampled_from([0.0, 0.1, 0.3, 1.0]))
def test_confusion_counts_every_row_once(rows: list[tuple[float, bool]], threshold: float) -> None:
    """The four counts add up to the rows, the true ones to the frauds, and the threshold itself is an alert."""
    scores = np.array([score for score, _ in rows])
    labels = np.array([label for _, label in rows], dtype=np.int8)
    counts = confusion(scores, labels, threshold)
    assert counts.true_positives + counts.false_negatives == labels.sum()
    assert counts.true_positives + counts.false_positives == sum(score >= threshold for score, _ in rows)
    assert counts.true_negatives + counts.false_positives == (labels == 0).sum()


def test_calibration_table_counts_every_row_once() -> None:
    """Ranges are [low, low + 0.1), the last one closed; empty ones are left out."""
    scores = np.array([0.0, 0.05, 0.1, 0.99, 1.0])
    bins = calibration_table(scores, np.array([0, 1, 0, 1, 1], np.int8))
    assert [(entry.low, entry.rows, entry.observed) for entry in bins] == [(0.0, 2, 0.5), (0.1, 1, 0.0), (0.9, 2, 1.0)]
    assert bins[0].predicted == 0.025
