"""Models made in a moment, for tests of what becomes of models."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from model_artifacts.artifact import OnnxModel, load_model, save_model
from model_artifacts.manifest import Calibration, Costs, Manifest, Thresholds, TrainingFacts
from model_artifacts.onnx_export import linear_to_onnx
from model_artifacts.onnx_graph import OnnxGraph
from model_artifacts.onnx_network import Layer, Standardiser, network_to_onnx, round_weights
from transforms.features import FeatureSet

SHIPPED = load_model("transaction-events").manifest
FEATURES = SHIPPED.feature_set


def make_model(
    directory: Path,
    name: str,
    intercept: float = -3.0,
    feature_set: FeatureSet = FEATURES,
    weight: float = 0.001,
    **changed: Any,
) -> str:
    """Write a linear model of these features; its model_id. `changed` are fields of its manifest."""
    width = len(feature_set.names)
    content = linear_to_onnx(np.full(width, weight), intercept)
    sha256 = hashlib.sha256(content).hexdigest()
    facts: dict[str, Any] = {
        "model_id": f"{name}-{sha256[:12]}",
        "kind": "logistic",
        "schema": SHIPPED.schema,
        "feature_set": feature_set,
        "feature_names": feature_set.names,
        "fingerprint": feature_set.fingerprint,
        "model_sha256": sha256,
        "calibration": Calibration(),
        "thresholds": Thresholds(review=0.1, decline=0.8),
        "costs": Costs(),
        "baseline": (1.0,) * width,
        "training": TrainingFacts(
            source="memory",
            train_from="2026-01-01",
            train_to="2026-02-01",
            test_from="2026-02-08",
            test_to="2026-03-01",
            label_delay="7d",
            rows=1,
            frauds=0,
        ),
        "metrics": {"average_precision": 0.5},
    }
    manifest = Manifest(**(facts | changed))
    save_model(directory, content, manifest, f"# {manifest.model_id}\n", {"roc.png": b"not looked at"})
    return manifest.model_id


def network_layers(width: int, hidden: tuple[int, ...] = (16, 8), seed: int = 4) -> list[Layer]:
    """Layers of drawn weights."""
    rng = np.random.default_rng(seed)
    sizes = (width, *hidden, 1)
    return [
        Layer(round_weights(rng.normal(size=(first, then)) / np.sqrt(first)), rng.normal(size=then) / 4)
        for first, then in pairwise(sizes)
    ]


def network_model() -> OnnxModel:
    """A neural network on the shipped features: its weights are drawn, so no training is waited for."""
    typical = np.asarray(SHIPPED.baseline)
    standardiser = Standardiser(typical, np.maximum(np.abs(typical), 1.0), 50.0)
    content = network_to_onnx(standardiser, network_layers(len(typical)))
    manifest = msgspec.structs.replace(SHIPPED, kind="neural", model_sha256=hashlib.sha256(content).hexdigest())
    return OnnxModel(manifest, OnnxGraph(content))
