"""From a table of features and labels to a model directory's contents."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from model_artifacts.artifact import OnnxModel
from model_artifacts.manifest import Costs, Manifest, ModelKind, TrainingFacts
from model_artifacts.onnx_graph import OnnxGraph, calibrate, sigmoid
from model_artifacts.reference import Reference
from pipelines.training.calibrate import fit_platt
from pipelines.training.card import CardFacts, write_card
from pipelines.training.dataset import LabelledRows, labelled_rows
from pipelines.training.evaluate import Evaluation, evaluate
from pipelines.training.fit import ClassWeight, FittedModel, fit_model
from pipelines.training.leakage import refuse_label_features, refuse_shared_ids, refuse_telltales
from pipelines.training.plots import draw_plots
from pipelines.training.reference import training_reference
from pipelines.training.split import Periods, SplitRequest, day, split_by_time, warm_up, within
from pipelines.training.thresholds import choose_thresholds
from transforms.durations import format_duration
from transforms.errors import UserError
from transforms.features import FeatureSet, check_label_delay

_LEAST_FRAUDS = {"fit": 10, "calibration": 5, "test": 1}


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """What to train.

    Attributes:
        name: the model's, the first part of its id.
        kind: what to fit.
        source: where the table came from, for the manifest; passwords in it are left out there.
        schema: the schema it was read with, for the manifest.
        feature_set: the declared features.
        label_delay: how long after a transaction its label is known, in microseconds.
        labels: where labels came from that arrive on their own, if they do: features then saw none before it arrived.
        costs: what the thresholds are chosen by.
        split: periods the user fixed.
        class_weight: `balanced` gives frauds and the rest the same weight while fitting.
        seed: of everything drawn.
    """

    name: str
    kind: ModelKind
    source: str
    schema: str
    feature_set: FeatureSet
    label_delay: int
    labels: str | None = None
    costs: Costs = field(default_factory=Costs)
    split: SplitRequest = field(default_factory=SplitRequest)
    class_weight: ClassWeight = "none"
    seed: int = 0


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model directory's contents, as `model_artifacts.artifact.save_model` takes them.

    Attributes:
        onnx: the graph's bytes.
        manifest: with the test days' metrics.
        card: MODEL_CARD.md.
        plots: PNG files by name.
        reference: how features and scores lay in the training period.
    """

    onnx: bytes
    manifest: Manifest
    card: str
    plots: dict[str, bytes]
    reference: Reference


def train(table: pa.Table, request: TrainingRequest, say: Callable[[str], None] = lambda line: None) -> TrainedModel:
    """Split by time, fit, calibrate, choose thresholds, export and measure.

    The same table and request give the same bytes, whatever order the rows come in.

    Args:
        table: canonical columns, `is_fraud` among them, and one column for each feature.
        request: what to train.
        say: is told what is being done, a line at a time.

    Raises:
        UserError: the data does not allow it, or the request would leak the future into training.
    """
    if request.labels is None:
        check_label_delay(request.feature_set, request.label_delay)
    refuse_label_features(request.feature_set)
    rows = labelled_rows(table, request.feature_set)
    periods = split_by_time(rows.event_time, request.label_delay, warm_up(request.feature_set), request.split)
    fit_rows, calibration_rows = _training_parts(rows, periods, request)
    say(f"fitting {request.kind} on {len(fit_rows):,} transactions, {fit_rows.frauds:,} frauds")
    fitted = fit_model(request.kind, fit_rows.matrix, fit_rows.labels, request.class_weight, request.seed)
    say(f"exported by way of {fitted.made_by}: probabilities differ by at most {fitted.difference:.1g}")
    model = _calibrated(fitted, fit_rows, calibration_rows, _facts(rows, periods, request), request)
    say(f"testing on {day(periods.test_from)} to {day(periods.test_to)}")
    evaluation = evaluate(model, rows, periods, request.label_delay, request.seed)
    reference = training_reference(table, model, periods)
    return _finished(model.manifest, fitted, rows, periods, evaluation, reference, request)


def _training_parts(
    rows: LabelledRows, periods: Periods, request: TrainingRequest
) -> tuple[LabelledRows, LabelledRows]:
    """The rows to fit on and those to calibrate on, after the checks that need all periods."""
    in_training = within(rows.event_time, periods.train_from, periods.train_to)
    in_test = within(rows.event_time, periods.test_from, periods.test_to)
    fit_rows = rows.part(within(rows.event_time, periods.train_from, periods.fit_to))
    calibration_rows = rows.part(within(rows.event_time, periods.calibrate_from, periods.train_to))
    _refuse_too_few("fit", fit_rows.labels, periods.train_from, periods.fit_to)
    _refuse_too_few("calibration", calibration_rows.labels, periods.calibrate_from, periods.train_to)
    _refuse_too_few("test", rows.labels[in_test], periods.test_from, periods.test_to)
    refuse_shared_ids(rows.ids.filter(pa.array(in_training)), rows.ids.filter(pa.array(in_test)))
    refuse_telltales(fit_rows.matrix, request.feature_set.names, fit_rows.labels)
    return fit_rows, calibration_rows


def _refuse_too_few(name: str, labels: NDArray[np.int8], start: int, end: int) -> None:
    frauds, least = int(labels.sum()), _LEAST_FRAUDS[name]
    if frauds < least or frauds == len(labels):
        raise UserError(
            f"the {name} period, {day(start)} to {day(end)}, has {len(labels)} labelled transactions and {frauds} "
            f"frauds; it needs at least {least} frauds, and transactions known to be good. Give more days, or other "
            "dates"
        )


def _facts(rows: LabelledRows, periods: Periods, request: TrainingRequest) -> TrainingFacts:
    labels = rows.labels[within(rows.event_time, periods.train_from, periods.train_to)]
    return TrainingFacts(
        source=without_password(request.source),
        train_from=day(periods.train_from),
        train_to=day(periods.train_to),
        test_from=day(periods.test_from),
        test_to=day(periods.test_to),
        label_delay=format_duration(request.label_delay),
        rows=len(labels),
        frauds=int(labels.sum()),
    )


def _calibrated(
    fitted: FittedModel, fit_rows: LabelledRows, later: LabelledRows, facts: TrainingFacts, request: TrainingRequest
) -> OnnxModel:
    """The model with calibration and thresholds of the `later` rows, and no metrics yet."""
    graph = OnnxGraph(fitted.onnx)
    raw = graph.log_odds(later.matrix)
    calibration = fit_platt(raw, later.labels)
    scores = sigmoid(calibrate(raw, calibration))
    sha256 = hashlib.sha256(fitted.onnx).hexdigest()
    manifest = Manifest(
        model_id=f"{request.name}-{sha256[:12]}",
        kind=request.kind,
        schema=request.schema,
        feature_set=request.feature_set,
        feature_names=request.feature_set.names,
        fingerprint=request.feature_set.fingerprint,
        model_sha256=sha256,
        calibration=calibration,
        thresholds=choose_thresholds(scores, later.labels, later.amounts, request.costs),
        costs=request.costs,
        baseline=tuple(np.median(fit_rows.matrix, axis=0).tolist()),
        training=facts,
        metrics={},
    )
    return OnnxModel(manifest, graph)


def _finished(
    manifest: Manifest,
    fitted: FittedModel,
    rows: LabelledRows,
    periods: Periods,
    evaluation: Evaluation,
    reference: Reference,
    request: TrainingRequest,
) -> TrainedModel:
    measured = msgspec.structs.replace(manifest, metrics=evaluation.metrics)
    facts = CardFacts(
        manifest=measured,
        fitted=fitted,
        rows=rows,
        periods=periods,
        evaluation=evaluation,
        class_weight=request.class_weight,
        seed=request.seed,
    )
    plots = draw_plots(evaluation, measured.thresholds)
    return TrainedModel(onnx=fitted.onnx, manifest=measured, card=write_card(facts), plots=plots, reference=reference)


def without_password(url: str) -> str:
    """`url` less the user and password before its host.

    Example:
        >>> without_password("postgresql://me:secret@db/labels")
        'postgresql://db/labels'
    """
    return re.sub(r"(?<=//)[^/@]*@", "", url)
