"""Neural networks as ONNX graphs, in numbers whose sums are exact.

A matrix product's order of additions depends on the processor and on how many rows it is given, so in ordinary numbers
a row's last bits would depend on both. Here what is multiplied are whole numbers in double precision: weights count
steps of 2**-16, what enters a layer counts steps as fine as keeps every sum it can come to below 2**53. Up to there
such sums are exact, whatever their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from model_artifacts.onnx_export import graph_bytes

Array = NDArray[np.float64]

#: Weights are whole numbers of 2**-16.
WEIGHT_BITS = 16
_EXACT_BITS = 52  # doubles hold whole numbers of 53 bits; one is left for what rounding adds to a bound


@dataclass(frozen=True, eq=False)
class Standardiser:
    """What comes before the first layer: `(features - center) / scale`, held within `-limit` and `limit`.

    Attributes:
        center: shape (features,).
        scale: shape (features,), above 0.
        limit: how many scales from the center a feature counts at most.
    """

    center: Array
    scale: Array
    limit: float

    def apply(self, matrix: Array) -> Array:
        """The standardised rows, of the same shape."""
        return np.clip((matrix - self.center) / self.scale, -self.limit, self.limit)


@dataclass(frozen=True, eq=False)
class Layer:
    """A dense layer: `inputs @ weights + bias`.

    Attributes:
        weights: shape (inputs, outputs), multiples of 2**-16 as `round_weights` makes them.
        bias: shape (outputs,).
    """

    weights: Array
    bias: Array


def round_weights(weights: NDArray[Any]) -> Array:
    """The nearest weights that a graph can hold."""
    return np.round(np.asarray(weights, dtype=np.float64) * 2.0**WEIGHT_BITS) / 2.0**WEIGHT_BITS


def network_to_onnx(standardiser: Standardiser, layers: Sequence[Layer]) -> bytes:
    """The graph of a network: `log_odds`, rectified linear units between its layers.

    Args:
        standardiser: of the features.
        layers: at least one; the last has one output.
    """
    width = len(standardiser.center)
    nodes = [
        helper.make_node("Sub", ["features", "center"], ["centered"], name="center"),
        helper.make_node("Div", ["centered", "scale"], ["scaled"], name="scale"),
        helper.make_node("Clip", ["scaled", "least", "most"], ["units_0"], name="limit"),
    ]
    constants: dict[str, NDArray[Any]] = {
        "center": standardiser.center.reshape(1, width),
        "scale": standardiser.scale.reshape(1, width),
        "least": np.array(-standardiser.limit),
        "most": np.array(standardiser.limit),
        "flat": np.array([-1], dtype=np.int64),
    }
    bound = standardiser.limit
    for at, layer in enumerate(layers):
        bound = float((np.abs(layer.weights).sum(axis=0) * bound + np.abs(layer.bias)).max())
        bits = _EXACT_BITS - WEIGHT_BITS - int(np.ceil(np.log2(max(bound, 1.0))))
        nodes += _layer(at, last=at == len(layers) - 1)
        constants |= {
            f"steps_{at}": np.array(2.0**bits),
            f"weights_{at}": np.round(layer.weights * 2.0**WEIGHT_BITS),
            f"bias_{at}": np.round(layer.bias * 2.0 ** (WEIGHT_BITS + bits)).reshape(1, -1),
            f"step_{at}": np.array(2.0 ** -(WEIGHT_BITS + bits)),
        }
    nodes.append(helper.make_node("Reshape", [f"units_{len(layers)}", "flat"], ["log_odds"], name="flatten"))
    return graph_bytes(nodes, constants, width, "log_odds")


def _layer(at: int, last: bool) -> list[NodeProto]:
    """The nodes from `units_<at>` to the next layer's: count steps, multiply, rectify, and back to units."""
    product = f"product_{at}"
    nodes = [
        helper.make_node("Mul", [f"units_{at}", f"steps_{at}"], [f"fine_{at}"], name=f"count_{at}"),
        helper.make_node("Round", [f"fine_{at}"], [f"whole_{at}"], name=f"round_{at}"),
        helper.make_node("MatMul", [f"whole_{at}", f"weights_{at}"], [product], name=f"multiply_{at}"),
        helper.make_node("Add", [product, f"bias_{at}"], [f"sum_{at}"], name=f"add_{at}"),
    ]
    if not last:
        nodes.append(helper.make_node("Relu", [f"sum_{at}"], [f"rectified_{at}"], name=f"rectify_{at}"))
    summed = f"sum_{at}" if last else f"rectified_{at}"
    nodes.append(helper.make_node("Mul", [summed, f"step_{at}"], [f"units_{at + 1}"], name=f"measure_{at}"))
    return nodes
