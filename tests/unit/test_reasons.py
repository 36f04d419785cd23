"""Reasons: which features are named, in which order, and that a row's do not depend on its neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from model_artifacts.artifact import Model, load_model, shipped_models
from tests.small_models import network_model
from transforms.reasons import LEAST_PUSH, MOST_REASONS, ROWS_AT_ONCE, Matrix, pushes, reasons


@pytest.fixture(scope="module", params=[*shipped_models(), "a network"])
def model(request: pytest.FixtureRequest) -> Model:
    return network_model() if request.param == "a network" else load_model(request.param)


def random_rows(model: Model, rows: int) -> Matrix:
    """Rows around the typical one, each feature as it is typically or up to five times that."""
    baseline = np.asarray(model.manifest.baseline)
    factors = np.random.default_rng(3).choice([1.0, 1.0, 0.2, 3.0, 5.0], (rows, len(baseline)))
    return np.asarray(np.where(baseline > 0, baseline, 1.0) * factors)


def test_a_typical_row_has_no_reasons(model: Model) -> None:
    """Where every feature has its typical value nothing pushes, and there is nothing to say; nor without rows."""
    typical = np.asarray([model.manifest.baseline])
    assert not pushes(typical, model).any()
    assert reasons(typical, model) == [[]]
    assert reasons(typical[:0], model) == []


def test_a_push_is_what_the_score_loses_without_the_feature(model: Model) -> None:
    """Each push is the difference of log-odds to the same row with that one feature as it typically is."""
    for row in random_rows(model, 20):
        found = pushes(row[np.newaxis], model)[0]
        for at, usual in enumerate(model.manifest.baseline):
            without = row.copy()
            without[at] = usual
            both = model.log_odds(np.stack([row, without]))
            assert found[at] == pytest.approx(both[0] - both[1], abs=1e-9)


def test_the_strongest_pushes_are_named(model: Model) -> None:
    """At most three features, the strongest first, none that pushes less than is worth a word."""
    rows = random_rows(model, 50)
    for push, found in zip(pushes(rows, model), reasons(rows, model), strict=True):
        names = [reason.split(": ")[0] for reason in found]
        order = [model.manifest.feature_names[at] for at in np.argsort(-push, kind="stable")]
        assert (
            names
            == [name for name in order if push[model.manifest.feature_names.index(name)] >= LEAST_PUSH][:MOST_REASONS]
        )
        assert len(names) <= MOST_REASONS


def test_neighbours_change_no_reason(model: Model) -> None:
    """A row's reasons are the same alone as among more rows than are looked at together."""
    rows = random_rows(model, ROWS_AT_ONCE + 10)
    together = reasons(rows, model)
    assert len(together) == len(rows)
    for at in (0, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 9):
        assert reasons(rows[at : at + 1], model) == [together[at]]
