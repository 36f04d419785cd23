"""Fitted models as ONNX graphs: the same bytes for the same model, and no converter in between.

Every graph takes `features`, double of shape (rows, features), and answers with one number a row:

- linear models: `log_odds`, summed in double precision, feature by feature;
- boosted trees: `log_odds`, the sum of the leaves in single precision, as XGBoost itself adds them;
- averages of boosted trees: `log_odds`, the mean of theirs, in double precision;
- forests: `probability`, the mean of the leaves.

Trees compare in single precision, as they were fitted, so every row takes the branch it took there.
ONNX operators: https://onnx.ai/onnx/operators/ and, for trees, ai.onnx.ml's TreeEnsembleRegressor.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier
    from xgboost import Booster

# Old enough for every ONNX Runtime in use, new enough for what is written here.
_OPSETS = {"": 17, "ai.onnx.ml": 3}
_IR_VERSION = 8

Output = Literal["log_odds", "probability"]


@dataclass(frozen=True)
class Tree:
    """One binary tree in arrays of shape (nodes,); node 0 is the root.

    Attributes:
        left: index of the child taken when the condition holds; -1 at a leaf.
        right: the other child.
        feature: index of the feature compared; any number at a leaf.
        threshold: float32, what it is compared with.
        value: float32, what a leaf answers with.
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float32]
    value: NDArray[np.float32]


def linear_to_onnx(weights: NDArray[np.float64], intercept: float) -> bytes:
    """The graph of `intercept + sum(weights * features)`.

    The sum is one element-wise `Sum` over the columns and not a matrix product: a product's order of
    additions depends on how many rows it is given.
    """
    width = len(weights)
    columns = [f"term_{at}" for at in range(width)]
    nodes = [
        helper.make_node("Mul", ["features", "weights"], ["terms"], name="weigh"),
        helper.make_node("Split", ["terms"], columns, name="by_feature", axis=1),
        helper.make_node("Sum", [*columns, "intercept"], ["column"], name="add"),
        helper.make_node("Reshape", ["column", "flat"], ["log_odds"], name="flatten"),
    ]
    constants = {
        "weights": np.asarray(weights, dtype=np.float64).reshape(1, width),
        "intercept": np.array([[intercept]], dtype=np.float64),
        "flat": np.array([-1], dtype=np.int64),
    }
    return graph_bytes(nodes, constants, width, "log_odds")


def trees_to_onnx(
    trees: Sequence[Tree], width: int, output: Output, holds: Literal["<", "<="], base: float = 0.0
) -> bytes:
    """The graph of `base` plus the sum of what the trees answer.

    Args:
        trees: at least one.
        width: the number of features.
        output: what the sum means.
        holds: the comparison of feature and threshold that leads to the left child.
        base: added to the sum.
    """
    nodes = [
        helper.make_node("Cast", ["features"], ["single"], name="to_single", to=onnx.TensorProto.FLOAT),
        _ensemble("trees", "sum", trees, holds, base),
        helper.make_node("Cast", ["sum"], ["column"], name="to_double", to=onnx.TensorProto.DOUBLE),
        helper.make_node("Reshape", ["column", "flat"], [output], name="flatten"),
    ]
    return graph_bytes(nodes, {"flat": np.array([-1], dtype=np.int64)}, width, output)


def average_to_onnx(members: Sequence[tuple[Sequence[Tree], float]], width: int) -> bytes:
    """The graph of the mean of several boosters' log-odds.

    Each member's leaves are summed as it sums them alone; the mean of the sums is taken in double precision.

    Args:
        members: each one's trees, as `xgboost_trees` gives them, and the log-odds it starts from.
        width: the number of features.
    """
    nodes = [helper.make_node("Cast", ["features"], ["single"], name="to_single", to=onnx.TensorProto.FLOAT)]
    for at, (trees, base) in enumerate(members):
        nodes.append(_ensemble(f"trees_{at}", f"sum_{at}", trees, "<", base))
        cast = helper.make_node(
            "Cast", [f"sum_{at}"], [f"column_{at}"], name=f"to_double_{at}", to=onnx.TensorProto.DOUBLE
        )
        nodes.append(cast)
    nodes += [
        helper.make_node("Sum", [f"column_{at}" for at in range(len(members))], ["total"], name="add"),
        helper.make_node("Div", ["total", "members"], ["column"], name="mean"),
        helper.make_node("Reshape", ["column", "flat"], ["log_odds"], name="flatten"),
    ]
    constants: dict[str, NDArray[Any]] = {
        "members": np.array([[len(members)]], dtype=np.float64),
        "flat": np.array([-1], dtype=np.int64),
    }
    return graph_bytes(nodes, constants, width, "log_odds")


def forest_trees(forest: RandomForestClassifier) -> list[Tree]:
    """The trees of a fitted two-class forest; a leaf's value is its share of frauds over the number of trees."""
    trees = []
    for estimator in forest.estimators_:
        fitted = estimator.tree_
        counts = fitted.value[:, 0, :]
        trees.append(
            Tree(
                left=fitted.children_left.astype(np.int64),
                right=fitted.children_right.astype(np.int64),
                feature=fitted.feature.astype(np.int64),
                threshold=_round_down(fitted.threshold),
                value=(counts[:, 1] / counts.sum(axis=1) / len(forest.estimators_)).astype(np.float32),
            )
        )
    return trees


def xgboost_trees(booster: Booster) -> tuple[list[Tree], float]:
    """The trees of a fitted two-class booster and the log-odds it starts from.

    Read from XGBoost's JSON format (https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html),
    in which a leaf keeps its value where a branch keeps its threshold.
    """
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    trees = []
    for stored in learner["gradient_booster"]["model"]["trees"]:
        condition = np.array(stored["split_conditions"], dtype=np.float32)
        trees.append(
            Tree(
                left=np.array(stored["left_children"], dtype=np.int64),
                right=np.array(stored["right_children"], dtype=np.int64),
                feature=np.array(stored["split_indices"], dtype=np.int64),
                threshold=condition,
                value=condition,
            )
        )
    # A plain number up to XGBoost 3.0, a list with one entry for each target since.
    prior = float(str(learner["learner_model_param"]["base_score"]).strip("[]"))
    return trees, float(np.log(prior / (1.0 - prior)))


def _ensemble(name: str, output: str, trees: Sequence[Tree], holds: Literal["<", "<="], base: float) -> onnx.NodeProto:
    """The node that adds what the trees answer for `single` to `base`."""
    return helper.make_node(
        "TreeEnsembleRegressor",
        ["single"],
        [output],
        name=name,
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
        base_values=[base],
        **_nodes(trees, "BRANCH_LT" if holds == "<" else "BRANCH_LEQ"),
        **_leaves(trees),
    )


def _round_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 not above each threshold: for a float32 x, `x <= t` stays the same question."""
    rounded = thresholds.astype(np.float32)
    return np.where(rounded > thresholds, np.nextafter(rounded, np.float32(-np.inf)), rounded)


def _nodes(trees: Sequence[Tree], branch: str) -> dict[str, Any]:
    """The trees' branches as TreeEnsembleRegressor's attributes: flat lists over all nodes."""
    inner = [tree.left >= 0 for tree in trees]
    return {
        "nodes_treeids": _flat(np.full(len(tree.left), at) for at, tree in enumerate(trees)),
        "nodes_nodeids": _flat(np.arange(len(tree.left)) for tree in trees),
        "nodes_modes": [branch if is_inner else "LEAF" for is_inner in _flat(inner)],
        "nodes_featureids": _flat(np.where(is_inner, t.feature, 0) for t, is_inner in zip(trees, inner, strict=True)),
        "nodes_values": _flat(np.where(is_inner, t.threshold, 0) for t, is_inner in zip(trees, inner, strict=True)),
        "nodes_truenodeids": _flat(np.maximum(tree.left, 0) for tree in trees),
        "nodes_falsenodeids": _flat(np.maximum(tree.right, 0) for tree in trees),
    }


def _leaves(trees: Sequence[Tree]) -> dict[str, Any]:
    """The trees' leaves as TreeEnsembleRegressor's attributes."""
    leaves = [np.flatnonzero(tree.left < 0) for tree in trees]
    return {
        "target_treeids": _flat(np.full(len(ids), at) for at, ids in enumerate(leaves)),
        "target_nodeids": _flat(leaves),
        "target_ids": [0] * sum(map(len, leaves)),
        "target_weights": _flat(tree.value[ids] for tree, ids in zip(trees, leaves, strict=True)),
    }


def _flat(parts: Any) -> list[Any]:
    flat: list[Any] = np.concatenate(list(parts)).tolist()
    return flat


def graph_bytes(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[Any]], width: int, output: Output) -> bytes:
    """The serialised graph: no producer's version, no date, fixed names."""
    graph = helper.make_graph(
        nodes,
        "fraud",
        inputs=[helper.make_tensor_value_info("features", onnx.TensorProto.DOUBLE, ["rows", width])],
        outputs=[helper.make_tensor_value_info(output, onnx.TensorProto.DOUBLE, ["rows"])],
        initializer=[numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="")
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))
