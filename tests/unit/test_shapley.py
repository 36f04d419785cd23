"""Shapley values: those of the definition, and a sum that is the whole, for shipped models, a network, a linear one."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from model_artifacts.artifact import Model, load_model, shipped_models
from pipelines.explain.shapley import contributions
from tests.small_models import network_model
from transforms.reasons import Matrix, pushes

SUM_BOUND = 1e-9


@pytest.fixture(scope="module", params=[*shipped_models(), "a network"])
def model(request: pytest.FixtureRequest) -> Model:
    return network_model() if request.param == "a network" else load_model(request.param)


def strange_rows(model: Model, rows: int, moved: int | None = None) -> Matrix:
    """Rows of which some features, or all, are up to five times what is typical."""
    typical = np.asarray(model.manifest.baseline)
    rng = np.random.default_rng(11)
    matrix = np.where(typical > 0, typical, 1.0) * rng.choice([0.0, 0.3, 2.0, 5.0], (rows, len(typical)))
    if moved is not None:
        for row in matrix:
            still = rng.permutation(len(typical))[moved:]
            row[still] = typical[still]
    return np.asarray(matrix)


class Linear:
    """A linear model of 28 features, each of which would be too many for all combinations."""

    def __init__(self, manifest: Any, weights: Matrix) -> None:
        self.manifest = manifest
        self.weights = weights

    def log_odds(self, matrix: Matrix) -> Matrix:
        return np.asarray(matrix @ self.weights - 3.0)

    score = log_odds


def linear(kind: str) -> Any:
    from types import SimpleNamespace

    rng = np.random.default_rng(2)
    return Linear(SimpleNamespace(kind=kind, baseline=tuple(rng.normal(size=28))), rng.normal(size=28))


def by_definition(row: Matrix, model: Model) -> Matrix:
    """The mean of what each feature adds, over all orders of those that are not typical: slow and obvious."""
    typical = np.asarray(model.manifest.baseline)
    moved = np.flatnonzero(row != typical)
    orders = list(permutations(moved.tolist()))
    added = np.zeros(len(row))
    for order in orders:
        walk = [typical.copy()]
        for feature in order:
            walk.append(walk[-1].copy())
            walk[-1][feature] = row[feature]
        worth = model.log_odds(np.stack(walk))
        added[list(order)] += np.diff(worth)
    return np.asarray(added / len(orders))


def test_all_combinations_give_the_values_of_the_definition(model: Model) -> None:
    """What a feature adds, averaged over every order in which features can join."""
    for row in strange_rows(model, 3, moved=5):
        assert contributions(row, model).values == pytest.approx(by_definition(row, model), abs=1e-9)


@pytest.mark.parametrize("most_exact", [16, 3])
def test_the_parts_are_the_whole(model: Model, most_exact: int) -> None:
    """Exact or estimated, they sum to the log-odds less those of the typical transaction."""
    for row in strange_rows(model, 5):
        found = contributions(row, model, most_exact=most_exact, pairs=20)
        assert found.log_odds == float(model.log_odds(row[np.newaxis])[0])
        assert abs(found.values.sum() - (found.log_odds - found.typical)) < SUM_BOUND
        assert ("estimated" in found.method) == (most_exact == 3)
        assert (found.errors > 0).any() == (most_exact == 3)


def test_estimates_lie_about_the_exact_values(model: Model) -> None:
    """Within five of their standard errors, and the same at every run."""
    row = strange_rows(model, 1)[0]
    exact = contributions(row, model)
    found = contributions(row, model, most_exact=3)
    assert np.all(np.abs(found.values - exact.values) <= 5 * found.errors + SUM_BOUND)
    assert np.array_equal(found.values, contributions(row, model, most_exact=3).values)
    assert not np.array_equal(found.values, contributions(row, model, most_exact=3, seed=1).values)


def test_a_linear_model_needs_one_order() -> None:
    """Of 28 features each adds its weight times its distance from typical, whatever the others do."""
    model = linear("logistic")
    row = np.random.default_rng(5).normal(size=28)
    found = contributions(row, model)
    assert found.values == pytest.approx(model.weights * (row - np.asarray(model.manifest.baseline)), abs=1e-12)
    assert found.values == pytest.approx(pushes(row[np.newaxis], model)[0], abs=1e-12)
    assert found.method == "exact: the model is linear"
    assert not found.errors.any()


def test_orders_are_estimates_of_nothing_where_features_only_add() -> None:
    """A model that happens to be linear, and is not said to be, gets the same values from drawn orders."""
    told, found = (contributions(np.zeros(28), linear(kind), pairs=4) for kind in ("logistic", "xgboost"))
    assert found.values == pytest.approx(told.values, abs=1e-12)


def test_a_typical_transaction_has_no_parts(model: Model) -> None:
    """Where every feature is typical nothing moved the score."""
    found = contributions(np.asarray(model.manifest.baseline), model)
    assert not found.values.any()
    assert found.log_odds == found.typical
