"""Fitting a neural network: Keras does it, on JAX unless KERAS_BACKEND names another (tests run on JAX).

Imported only when a network is asked for: Keras and JAX are an extra of the package, and scoring does without them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_artifacts.onnx_network import Layer, Standardiser, network_to_onnx, round_weights
from transforms.errors import UserError

Matrix = NDArray[np.float64]
Single = NDArray[np.float32]

_LEAST_BATCH = 32
_STEPS_AN_EPOCH = 100  # few rows are cut into smaller batches, so that an epoch still leads somewhere
_AT_ONCE = 65_536


def fit_neural(
    matrix: Matrix, labels: NDArray[np.int8], class_weight: str, seed: int, settings: Mapping[str, Any]
) -> tuple[bytes, Matrix, str]:
    """A multilayer perceptron on standardised features, fitted until its last days' loss falls no further.

    Args:
        matrix: shape (rows, features), in order of event time.
        labels: 0 or 1, shape (rows,).
        class_weight: `balanced` gives frauds the weight of all others in the loss.
        seed: of the first weights and of the order of rows.
        settings: as in `pipelines.training.fit.RECIPES`.

    Returns:
        The graph, the library's own probabilities of the rows, and library and version.

    Raises:
        UserError: Keras or its backend is missing.
    """
    keras = import_keras()
    standardiser = _standardiser(matrix, settings["limit"])
    rows = standardiser.apply(matrix).astype(np.float32)
    network = _network(keras, matrix.shape[1], seed, settings)
    _descend(keras, network, rows, labels, _weights(labels, class_weight), seed, settings)
    parts = _read(keras, network)
    layers = [
        Layer(round_weights(weights), bias.astype(np.float64))
        for weights, bias in zip(parts[::2], parts[1::2], strict=True)
    ]
    # What is exported is compared with what Keras makes of the same rounded weights.
    network.set_weights([part.astype(np.float32) for layer in layers for part in (layer.weights, layer.bias)])
    probability = np.exp(-np.logaddexp(0.0, -_log_odds(network, rows)))
    return network_to_onnx(standardiser, layers), probability, f"keras {keras.__version__} on {keras.backend.backend()}"


def import_keras() -> ModuleType:
    """Keras with its backend, or a word on what to install."""
    os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras's own default is TensorFlow, three times as large
    try:
        import keras
    except ImportError as error:
        raise UserError(
            "--model neural needs Keras and JAX, which are an extra of this package: pip install "
            f"'fraud-detection-beam[neural]', or in a checkout pip install -r requirements-neural.in ({error})"
        ) from error
    module: ModuleType = keras
    return module


def _standardiser(matrix: Matrix, limit: float) -> Standardiser:
    deviation = matrix.std(axis=0)
    return Standardiser(matrix.mean(axis=0), np.where(deviation > 0.0, deviation, 1.0), limit)


def _weights(labels: NDArray[np.int8], class_weight: str) -> Single:
    """The weight of each row in the loss."""
    goods_a_fraud = float((labels == 0).sum() / labels.sum())
    return np.where((labels == 1) & (class_weight == "balanced"), goods_a_fraud, 1.0).astype(np.float32)


def _network(keras: ModuleType, width: int, seed: int, settings: Mapping[str, Any]) -> Any:
    """The untrained network: every weight drawn from a generator of its own, none from a global one."""
    seeds = iter(np.random.SeedSequence(seed).generate_state(len(settings["hidden"]) + 1).tolist())
    hidden = [
        keras.layers.Dense(units, "relu", kernel_initializer=keras.initializers.HeNormal(next(seeds)))
        for units in settings["hidden"]
    ]
    last = keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(next(seeds)))
    network = keras.Sequential([keras.Input((width,)), *hidden, last])
    network.compile(
        optimizer=keras.optimizers.Adam(settings["learning_rate"]),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
    )
    return network


def _descend(
    keras: ModuleType,
    network: Any,
    rows: Single,
    labels: NDArray[np.int8],
    weights: Single,
    seed: int,
    settings: Mapping[str, Any],
) -> None:
    """Go over the earlier rows until the later ones have gained nothing for a while; keep the best weights.

    The later rows are those since the last tenth of the frauds began, so both parts have some.
    """
    frauds = np.flatnonzero(labels)
    cut = int(frauds[min(len(frauds) - 1, round(len(frauds) * (1.0 - settings["held_back"])))])
    batch = max(_LEAST_BATCH, min(settings["batch_size"], cut // _STEPS_AN_EPOCH))
    target = labels.astype(np.float32)
    later = rows[cut:], target[cut:].astype(np.float64), weights[cut:].astype(np.float64)
    rng = np.random.default_rng(seed)
    least, best, best_epoch = math.inf, _read(keras, network), 0
    for epoch in range(settings["epochs"]):
        network.optimizer.learning_rate = settings["learning_rate"] * settings["decay"] ** epoch
        order = rng.permutation(cut)[: max(batch, cut // batch * batch)]  # whole batches: one shape to compile for
        network.fit(
            rows[order],
            target[order],
            sample_weight=weights[order],
            batch_size=batch,
            epochs=1,
            shuffle=False,
            verbose=0,
        )
        loss = _loss(_log_odds(network, later[0]), *later[1:])
        if loss < least:
            least, best, best_epoch = loss, _read(keras, network), epoch
        elif epoch - best_epoch >= settings["patience"]:
            break
    network.set_weights(best)


def _read(keras: ModuleType, network: Any) -> list[Single]:
    """A copy of each layer's weights and bias in turn. Keras's own `get_weights` calls NumPy in a deprecated way."""
    return [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in network.weights]


def _log_odds(network: Any, rows: Single) -> Matrix:
    return np.asarray(network.predict(rows, batch_size=_AT_ONCE, verbose=0), dtype=np.float64)[:, 0]


def _loss(log_odds: Matrix, target: Matrix, weights: Matrix) -> float:
    """Weighted cross-entropy, written so that nothing overflows."""
    return float(np.average(np.logaddexp(0.0, log_odds) - target * log_odds, weights=weights))
