"""Fitting: scikit-learn, XGBoost and Keras do it, an ONNX graph is what they leave behind.

They are imported only here and in `neural.py`, and only when asked for: scoring does without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model_artifacts.manifest import ModelKind
from model_artifacts.onnx_export import average_to_onnx, forest_trees, linear_to_onnx, trees_to_onnx, xgboost_trees
from model_artifacts.onnx_graph import OnnxGraph, sigmoid
from pipelines.training.neural import fit_neural
from transforms.errors import UserError

ClassWeight = Literal["none", "balanced"]
Settings = Mapping[str, Any]
Matrix = NDArray[np.float64]

#: Beyond this an exported model is not the one that was fitted.
MOST_DIFFERENCE = 1e-5

#: What the libraries are told unless the caller says otherwise. Shallow trees and slow learning: with
#: one fraud in a hundred rows deeper ones learn the accidents of the training days.
RECIPES: Mapping[ModelKind, Settings] = MappingProxyType(
    {
        "logistic": {"C": 1.0, "max_iter": 1000},
        "forest": {"n_estimators": 100, "max_depth": 10, "min_samples_leaf": 5, "max_samples": 200_000},
        "xgboost": {
            "n_estimators": 150,
            "max_depth": 4,
            "learning_rate": 0.1,
            "min_child_weight": 5,
            "tree_method": "hist",
        },
        # Boosters that differ in depth and in what they draw err differently. Chosen on days before those that
        # benchmarks.prequential tests on; docs/handbook.md has what else was tried.
        "average": {
            "n_estimators": 200,
            "learning_rate": 0.06,
            "min_child_weight": 5,
            "subsample": 0.8,
            "colsample_bytree": 0.5,
            "tree_method": "hist",
            "max_depth": (4, 5, 6),
        },
        # Two hidden layers; the learning rate falls by a fifth an epoch. `limit`: how many standard deviations from the
        # mean a feature counts at most. `held_back`: of the frauds, the last ones, whose days say when to stop.
        "neural": {
            "hidden": (128, 64),
            "limit": 50.0,
            "learning_rate": 3e-3,
            "decay": 0.8,
            "batch_size": 1024,
            "epochs": 40,
            "patience": 5,
            "held_back": 0.1,
        },
    }
)


@dataclass(frozen=True)
class FittedModel:
    """A fitted and exported model.

    Attributes:
        onnx: the graph's bytes.
        difference: the largest distance of its probability from the library's own on the training rows.
        made_by: library and version.
        settings: what the library was told.
    """

    onnx: bytes
    difference: float
    made_by: str
    settings: Settings


def fit_model(
    kind: ModelKind,
    matrix: Matrix,
    labels: NDArray[np.int8],
    class_weight: ClassWeight = "none",
    seed: int = 0,
    settings: Settings | None = None,
) -> FittedModel:
    """Fit and export one model; the same input gives the same bytes.

    Args:
        kind: which model.
        matrix: finite float64, shape (rows, features), in order of event time.
        labels: 0 or 1, shape (rows,); both occur.
        class_weight: `balanced` gives both classes the same weight in all.
        seed: of whatever the library draws.
        settings: the library's parameters instead of the recipe's.

    Raises:
        UserError: a library is missing, or the exported model disagrees with the fitted one.
    """
    told = dict(RECIPES[kind] if settings is None else settings)
    fit: Callable[..., tuple[bytes, NDArray[np.float64], str]]
    fit = {
        "logistic": _fit_logistic,
        "forest": _fit_forest,
        "xgboost": _fit_xgboost,
        "average": _fit_average,
        "neural": fit_neural,
    }[kind]
    onnx, expected, made_by = fit(matrix, labels, class_weight, seed, told)
    difference = float(np.abs(sigmoid(OnnxGraph(onnx).log_odds(matrix)) - expected).max())
    if not difference <= MOST_DIFFERENCE:
        raise UserError(
            f"the exported {kind} model's probabilities differ from {made_by}'s by up to {difference:.2g}, more than "
            f"{MOST_DIFFERENCE:g}: it is not saved. Please report this with the library's version"
        )
    return FittedModel(onnx=onnx, difference=difference, made_by=made_by, settings=MappingProxyType(told))


def _fit_logistic(
    matrix: Matrix, labels: NDArray[np.int8], class_weight: ClassWeight, seed: int, settings: Settings
) -> tuple[bytes, NDArray[np.float64], str]:
    """Standardise, fit, and fold the standardisation into the weights."""
    import sklearn
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    weight = "balanced" if class_weight == "balanced" else None
    scaler = StandardScaler().fit(matrix)
    model = LogisticRegression(class_weight=weight, random_state=seed, **settings)
    with threadpool_limits(1):  # the order of a sum over threads would show in the last bits
        model.fit(scaler.transform(matrix), labels)
        expected = model.predict_proba(scaler.transform(matrix))[:, 1]
    weights = model.coef_[0] / scaler.scale_
    intercept = float(model.intercept_[0] - np.sum(weights * scaler.mean_))
    return linear_to_onnx(weights, intercept), expected, f"scikit-learn {sklearn.__version__}"


def _fit_forest(
    matrix: Matrix, labels: NDArray[np.int8], class_weight: ClassWeight, seed: int, settings: Settings
) -> tuple[bytes, NDArray[np.float64], str]:
    import sklearn
    from sklearn.ensemble import RandomForestClassifier

    weight = "balanced" if class_weight == "balanced" else None
    told = dict(settings)
    if told.get("max_samples"):
        told["max_samples"] = min(told["max_samples"], len(labels))
    single = matrix.astype(np.float32)
    model = RandomForestClassifier(class_weight=weight, random_state=seed, n_jobs=-1, **told).fit(single, labels)
    expected = model.predict_proba(single)[:, 1]
    onnx = trees_to_onnx(forest_trees(model), matrix.shape[1], "probability", "<=")
    return onnx, expected, f"scikit-learn {sklearn.__version__}"


def _fit_xgboost(
    matrix: Matrix, labels: NDArray[np.int8], class_weight: ClassWeight, seed: int, settings: Settings
) -> tuple[bytes, NDArray[np.float64], str]:
    model, single, made_by = _boost(matrix, labels, class_weight, seed, settings)
    trees, base = xgboost_trees(model.get_booster())
    onnx = trees_to_onnx(trees, matrix.shape[1], "log_odds", "<", base)
    return onnx, model.predict_proba(single)[:, 1], made_by


def _fit_average(
    matrix: Matrix, labels: NDArray[np.int8], class_weight: ClassWeight, seed: int, settings: Settings
) -> tuple[bytes, NDArray[np.float64], str]:
    """A booster for each of the settings' depths, each with a seed of its own; the mean of their log-odds."""
    told = dict(settings)
    members, margins, made_by = [], [], ""
    for at, depth in enumerate(told.pop("max_depth")):
        own = {**told, "max_depth": depth}
        model, single, made_by = _boost(matrix, labels, class_weight, seed + at, own)
        members.append(xgboost_trees(model.get_booster()))
        margins.append(model.predict(single, output_margin=True).astype(np.float64))
    expected = sigmoid(np.mean(margins, axis=0))
    return average_to_onnx(members, matrix.shape[1]), expected, made_by


def _boost(
    matrix: Matrix, labels: NDArray[np.int8], class_weight: ClassWeight, seed: int, settings: Settings
) -> tuple[Any, NDArray[np.float32], str]:
    """A fitted booster, the matrix as it saw it, and the library's version."""
    xgboost = _import_xgboost()
    goods_a_fraud = float((labels == 0).sum() / labels.sum())
    single = matrix.astype(np.float32)
    model = xgboost.XGBClassifier(
        scale_pos_weight=goods_a_fraud if class_weight == "balanced" else 1.0,
        random_state=seed,
        n_jobs=1,  # histograms summed by several threads differ from run to run
        **settings,
    ).fit(single, labels)
    return model, single, f"xgboost {xgboost.__version__}"


def _import_xgboost() -> ModuleType:
    """XGBoost, or a word on why not: its own message runs over a page."""
    try:
        import xgboost
    except ImportError as error:
        raise UserError(
            f"--model xgboost or average needs the package xgboost: pip install xgboost ({error})"
        ) from error
    except Exception as error:  # xgboost raises XGBoostError, which cannot be imported without it
        raise UserError(
            f"xgboost is installed but cannot load its library ({str(error).strip().splitlines()[0]}). It needs "
            "OpenMP: on macOS run brew install libomp, on Linux install libgomp1; or choose --model logistic or forest"
        ) from error
    return xgboost
