"""Calibration and thresholds: probabilities at their word, decisions at least cost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_artifacts.manifest import Costs, Thresholds
from pipelines.training.calibrate import fit_platt
from pipelines.training.thresholds import CANDIDATES, choose_thresholds, policy_cost
from transforms.errors import UserError


def _labels(log_odds: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int8]:
    return (rng.random(len(log_odds)) < 1 / (1 + np.exp(-log_odds))).astype(np.int8)


def test_platt_recovers_slope_and_intercept() -> None:
    """Labels drawn from sigmoid(0.5 z - 3) give back 0.5 and -3, within sampling error."""
    rng = np.random.default_rng(0)
    raw = rng.normal(0, 3, 200_000)
    found = fit_platt(raw, _labels(0.5 * raw - 3, rng))
    assert found.slope == pytest.approx(0.5, abs=0.02)
    assert found.intercept == pytest.approx(-3, abs=0.05)


def test_platt_undoes_class_weights() -> None:
    """A model fitted with balanced classes is off by the log of the weight; calibration takes it back."""
    rng = np.random.default_rng(1)
    true = rng.normal(-4, 1.5, 200_000)
    found = fit_platt(true + np.log(50), _labels(true, rng))
    assert found.intercept == pytest.approx(-np.log(50), abs=0.1)


@pytest.mark.parametrize("far", [1.0, 700.0, 1e6])
def test_platt_stays_finite_when_classes_separate(far: float) -> None:
    """Perfectly separated classes give a finite, rising curve, and no warning."""
    raw = np.concatenate([np.full(300, -far), np.full(30, far)])
    found = fit_platt(raw, np.repeat([0, 1], [300, 30]).astype(np.int8))
    assert 0 < found.slope < np.inf
    assert np.isfinite(found.intercept)


def test_platt_refuses_scores_that_fall_with_fraud() -> None:
    """A model that ranks the wrong way round cannot be calibrated by a rising curve."""
    raw = np.arange(100.0)
    with pytest.raises(UserError, match="no better than chance"):
        fit_platt(raw, (raw < 30).astype(np.int8))


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), review=st.integers(1, 3_000), decline=st.integers(1, 5_000))
def test_chosen_thresholds_are_the_cheapest(seed: int, review: int, decline: int) -> None:
    """No pair of candidates costs less than the chosen one, counted transaction by transaction."""
    rng = np.random.default_rng(seed)
    rows = 60
    scores = np.round(rng.random(rows) ** 2, 4)
    labels = (rng.random(rows) < scores).astype(np.int8)
    amounts = rng.integers(1, 20_000, rows)
    costs = Costs(review=review, decline=decline)
    chosen = choose_thresholds(scores, labels, amounts, costs)
    assert 0 < chosen.review <= chosen.decline <= 1
    cost = policy_cost(scores, labels, amounts, chosen, costs)
    for low, high in itertools.combinations_with_replacement(CANDIDATES[::6].tolist(), 2):
        assert cost <= policy_cost(scores, labels, amounts, Thresholds(review=low, decline=high), costs)


def test_dear_reviews_and_declines_approve_everything() -> None:
    """When a look costs more than any fraud, the thresholds are out of reach."""
    scores = np.linspace(0.0, 0.9, 100)
    labels = (np.arange(100) % 2).astype(np.int8)
    chosen = choose_thresholds(scores, labels, np.full(100, 100), Costs(review=10_000, decline=10_000_000))
    assert chosen.review > 0.9


def test_free_declines_decline_rather_than_review() -> None:
    """When turning customers away costs nothing, nobody is reviewed."""
    scores = np.array([0.1, 0.6, 0.8])
    labels = np.array([0, 1, 1], np.int8)
    chosen = choose_thresholds(scores, labels, np.full(3, 10_000), Costs(review=500, decline=0))
    assert chosen.review == chosen.decline
    assert 0.1 < chosen.review <= 0.6


def test_policy_cost_of_each_decision() -> None:
    """A review costs its price whatever it finds, a decline only when the customer was good, approval the fraud."""
    scores, amounts = np.array([0.1, 0.1, 0.5, 0.5, 0.9, 0.9]), np.array([1, 20, 300, 4_000, 50_000, 600_000])
    labels = np.array([0, 1, 0, 1, 0, 1], np.int8)
    costs = Costs(review=7, decline=11)
    assert policy_cost(scores, labels, amounts, Thresholds(review=0.5, decline=0.9), costs) == 20 + 7 + 7 + 11
