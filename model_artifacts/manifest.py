"""What is known of a model: written beside its ONNX file, checked before that file is opened."""

from __future__ import annotations

from typing import Literal

import msgspec

from transforms.features import FeatureSet

FORMAT_VERSION = 1
ModelKind = Literal["logistic", "forest", "xgboost", "average", "neural"]


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Platt's sigmoid on the log-odds: probability = sigmoid(slope * logit(raw) + intercept).

    Strictly rising, so it never changes which of two transactions ranks higher.
    Platt, "Probabilistic outputs for support vector machines", 1999.
    """

    slope: float = 1.0
    intercept: float = 0.0


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Calibrated probabilities from which a transaction is reviewed, and from which it is declined."""

    review: float
    decline: float


class Costs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a decision costs, in minor units; a missed fraud costs its amount.

    Attributes:
        review: an analyst's look at one transaction; the fraud is then stopped.
        decline: turning away a good customer.
    """

    review: int = 500
    decline: int = 2000


class TrainingFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the model learnt from: times are ISO 8601 in UTC, spans as `7d`."""

    source: str
    train_from: str
    train_to: str
    test_from: str
    test_to: str
    label_delay: str
    rows: int
    frauds: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model's description.

    Attributes:
        model_id: name and the first 12 digits of `model_sha256`; every decision names it.
        kind: what was fitted.
        schema: the schema it was trained on.
        feature_set: the complete declaration, so that serving needs nothing else.
        feature_names: the matrix's columns, in order.
        fingerprint: of the feature set.
        model_sha256: of the ONNX file's bytes.
        calibration: raw score to probability.
        thresholds: chosen by cost on days the model was not fitted on.
        costs: the costs they were chosen for.
        baseline: a typical value of each feature (the training median), for reasons.
        training: what it learnt from.
        metrics: on the test days; names as in the model card.
    """

    format_version: int = FORMAT_VERSION
    model_id: str
    kind: ModelKind
    schema: str
    feature_set: FeatureSet
    feature_names: tuple[str, ...]
    fingerprint: str
    model_sha256: str
    calibration: Calibration
    thresholds: Thresholds
    costs: Costs
    baseline: tuple[float, ...]
    training: TrainingFacts
    metrics: dict[str, float]
