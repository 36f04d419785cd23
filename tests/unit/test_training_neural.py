"""Fitting a network with Keras: stopping in time, seeds, weights, and what a feature that says nothing does."""

from __future__ import annotations

import random
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from model_artifacts.onnx_graph import OnnxGraph, sigmoid
from pipelines.training.fit import RECIPES, ClassWeight, FittedModel, fit_model
from pipelines.training.metrics import auc_roc
from tests.training_table import needs_keras

pytestmark = needs_keras
SMALL = {**RECIPES["neural"], "hidden": (8,), "epochs": 12}


def _data(rows: int = 2_000) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Frauds are where two features agree in sign: no linear model finds them."""
    matrix = np.random.default_rng(6).normal(size=(rows, 3)) * [1.0, 40.0, 1.0] + [0.0, 1000.0, 0.0]
    return matrix, ((matrix[:, 0] * (matrix[:, 1] - 1000.0)) > 15.0).astype(np.int8)


def _fit(matrix: NDArray[np.float64], labels: NDArray[np.int8], **changed: object) -> FittedModel:
    return fit_model("neural", matrix, labels, settings={**SMALL, **changed})


def test_it_learns_what_no_linear_model_can() -> None:
    """Hidden units find frauds that depend on two features together, whatever the features' scales."""
    matrix, labels = _data()
    network = OnnxGraph(_fit(matrix, labels, epochs=40, decay=0.95).onnx)
    line = OnnxGraph(fit_model("logistic", matrix, labels).onnx)
    assert auc_roc(network.log_odds(matrix), labels) > 0.95
    assert auc_roc(line.log_odds(matrix), labels) < 0.65


def _global_state() -> tuple[object, bytes]:
    return random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tobytes()


def test_a_seed_gives_one_network_and_leaves_other_generators_alone() -> None:
    """The same seed gives the same bytes, another one others; nobody else's random numbers move."""
    matrix, labels = _data()
    random.seed(1)
    np.random.seed(1)  # the global generator is what must stay as it is
    before = _global_state()
    first, again = _fit(matrix, labels), _fit(matrix, labels)
    other = fit_model("neural", matrix, labels, seed=1, settings=SMALL)
    assert first.onnx == again.onnx != other.onnx
    assert _global_state() == before


def test_it_stops_by_the_last_days_and_goes_back_to_the_best() -> None:
    """Where the last frauds look like good rows every epoch makes it worse: the first is kept, however many run."""
    matrix, labels = _data()
    frauds = np.flatnonzero(labels)
    start = frauds[round(len(frauds) * 0.9)]
    turned = labels.copy()
    turned[start:] = 1 - labels[start:]
    assert _fit(matrix, turned, patience=4).onnx == _fit(matrix, turned, epochs=1).onnx
    assert _fit(matrix, labels, patience=4).onnx != _fit(matrix, labels, epochs=1).onnx


def test_balanced_classes_weigh_alike() -> None:
    """With the weight of all others frauds make up about half of what the network expects, not their share."""
    matrix, labels = _data()
    expected = []
    for weight in get_args(ClassWeight):
        fitted = fit_model("neural", matrix, labels, weight, settings={**SMALL, "epochs": 2})
        expected.append(float(sigmoid(OnnxGraph(fitted.onnx).log_odds(matrix)).mean()))
    assert expected[0] < 1.5 * labels.mean()
    assert expected[1] > 1.2 * expected[0]


def test_few_frauds_and_a_feature_that_never_changes_are_no_obstacle() -> None:
    """Ten frauds, the fewest that training takes, leave one to stop by; a constant adds nothing."""
    matrix, labels = _data()
    labels[np.flatnonzero(labels)[10:]] = 0
    still = np.column_stack([matrix, np.full(len(matrix), 7.0)])
    assert np.isfinite(OnnxGraph(_fit(still, labels).onnx).log_odds(still)).all()
