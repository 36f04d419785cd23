"""Networks as ONNX graphs: what they compute, and that no order of additions shows. None of this needs Keras."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from model_artifacts.onnx_graph import OnnxGraph
from model_artifacts.onnx_network import WEIGHT_BITS, Layer, Standardiser, network_to_onnx, round_weights
from tests.small_models import network_layers

WIDTH = 29
RNG = np.random.default_rng(8)
STANDARDISER = Standardiser(RNG.normal(size=WIDTH) * 100, np.exp(RNG.normal(size=WIDTH)), 50.0)
LAYERS = network_layers(WIDTH, (64, 32))
MATRIX = STANDARDISER.center + STANDARDISER.scale * RNG.standard_t(2, size=(500, WIDTH))


def _plain(matrix: NDArray[np.float64], layers: list[Layer] = LAYERS) -> NDArray[np.float64]:
    """The network in NumPy's ordinary numbers."""
    units = STANDARDISER.apply(matrix)
    for layer in layers[:-1]:
        units = np.maximum(units @ layer.weights + layer.bias, 0.0)
    return np.asarray((units @ layers[-1].weights + layers[-1].bias)[:, 0])


def _graph(layers: list[Layer], standardiser: Standardiser = STANDARDISER) -> OnnxGraph:
    return OnnxGraph(network_to_onnx(standardiser, layers))


def test_the_graph_is_the_network() -> None:
    """Whole numbers of small steps come within a millionth of ordinary numbers, in log-odds."""
    np.testing.assert_allclose(_graph(LAYERS).log_odds(MATRIX), _plain(MATRIX), rtol=0, atol=1e-6)


def test_a_linear_model_is_a_network_of_one_layer() -> None:
    """Nothing lies between features and log-odds but the weights."""
    layers = network_layers(WIDTH, ())
    np.testing.assert_allclose(_graph(layers).log_odds(MATRIX), _plain(MATRIX, layers), rtol=0, atol=1e-6)


def test_no_order_of_additions_shows() -> None:
    """With features and hidden units in another order each sum adds up otherwise, and log-odds keep every bit.

    In ordinary numbers they do not, which is why the graph has whole ones.
    """
    features, first, second = (RNG.permutation(size) for size in (WIDTH, 64, 32))
    moved = [
        Layer(LAYERS[0].weights[features][:, first], LAYERS[0].bias[first]),
        Layer(LAYERS[1].weights[first][:, second], LAYERS[1].bias[second]),
        Layer(LAYERS[2].weights[second], LAYERS[2].bias),
    ]
    standardiser = Standardiser(STANDARDISER.center[features], STANDARDISER.scale[features], STANDARDISER.limit)
    found = _graph(moved, standardiser).log_odds(MATRIX[:, features])
    assert found.tobytes() == _graph(LAYERS).log_odds(MATRIX).tobytes()
    units = np.maximum(STANDARDISER.apply(MATRIX) @ LAYERS[0].weights, 0.0)
    ordinary = units @ LAYERS[1].weights, units[:, first] @ LAYERS[1].weights[first]
    assert ordinary[0].tobytes() != ordinary[1].tobytes()


def test_every_sum_stays_below_what_doubles_count_exactly() -> None:
    """At the worst row for each unit (every input at its bound, of the weight's sign) sums are below 2**53."""
    model = onnx.load_model_from_string(network_to_onnx(STANDARDISER, LAYERS))
    held = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    bound = STANDARDISER.limit
    for at in range(len(LAYERS)):
        weights, steps = held[f"weights_{at}"], float(held[f"steps_{at}"])
        most = int((np.abs(weights).sum(axis=0) * (bound * steps + 1) + np.abs(held[f"bias_{at}"])).max())
        assert 2**50 < most < 2**53, "as fine as it can be, and no finer"
        assert np.array_equal(weights, np.round(weights))
        bound = most * float(held[f"step_{at}"])


def test_far_away_features_count_no_further_than_the_limit() -> None:
    """A value fifty standard deviations off, and any beyond, however large, score alike."""
    rows = np.repeat(MATRIX[:1], 3, axis=0)
    rows[:, 3] = STANDARDISER.center[3] + STANDARDISER.scale[3] * np.array([51.0, 1e6, 1e305])
    scores = _graph(LAYERS).log_odds(rows)
    assert np.isfinite(scores).all()
    assert len(set(scores.tolist())) == 1


@pytest.mark.parametrize("factor", [0.01, 1.0, 10.0])
def test_small_and_large_weights_keep_their_precision(factor: float) -> None:
    """The steps follow the weights: the distance from ordinary numbers stays small beside what is summed."""
    layers = [Layer(round_weights(layer.weights * factor), layer.bias * factor) for layer in LAYERS]
    expected = _plain(MATRIX, layers)
    assert np.abs(_graph(layers).log_odds(MATRIX) - expected).max() <= 1e-6 * max(1.0, np.abs(expected).max())


def test_weights_are_rounded_to_steps() -> None:
    """Rounding moves no weight by more than half a step, and rounded ones not at all."""
    weights = RNG.normal(size=(5, 4)).astype(np.float32)
    rounded = round_weights(weights)
    assert np.abs(rounded - weights).max() <= 2.0 ** -(WEIGHT_BITS + 1)
    assert np.array_equal(round_weights(rounded), rounded)
