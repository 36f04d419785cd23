"""Turn scores into decisions: approve, review or decline, with reasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import PCollection

from model_artifacts.artifact import Model
from model_artifacts.manifest import Manifest, Thresholds
from transforms.batch import TransactionBatch
from transforms.policy import CompiledSegments
from transforms.reasons import reasons
from transforms.rules import CompiledRules
from transforms.score import SharedModel

APPROVE, REVIEW, DECLINE = "approve", "review", "decline"
#: What deciding adds.
DECIDE_COLUMNS = ("decision", "reasons")
_DECISIONS = np.array([APPROVE, REVIEW, DECLINE])


@dataclass(frozen=True)
class ThresholdPolicy:
    """Thresholds over a model's own, whichever model it is.

    Attributes:
        review, decline: see `Thresholds`; None: the model's.
    """

    review: float | None = None
    decline: float | None = None


def thresholds_for(manifest: Manifest, policy: Thresholds | ThresholdPolicy) -> Thresholds:
    """A model's thresholds under a policy; one given alone moves the other out of its way."""
    own = manifest.thresholds
    review = policy.review if policy.review is not None else own.review
    decline = policy.decline if policy.decline is not None else max(own.decline, review)
    return Thresholds(review=min(review, decline), decline=decline)


def decide_batch(
    batch: TransactionBatch,
    model: Model,
    thresholds: Thresholds,
    rules: CompiledRules | None = None,
    segments: CompiledSegments | None = None,
    explained: bool = True,
) -> TransactionBatch:
    """The batch with `decision` and `reasons`.

    A score from `thresholds.review` on is reviewed, from `thresholds.decline` on declined; a segment that a
    transaction is in has thresholds of its own, and a rule that applies can only make a decision stricter.
    Reasons are given for what is not approved: first the rules that applied, then, where it is to be `explained`, the
    features that pushed the score up.
    """
    severity = _severity(batch.numpy("score"), *_by_row(batch, thresholds, segments))
    applied = [(rule, mask) for rule, mask in rules.apply(batch) if mask.any()] if rules else []
    for rule, mask in applied:
        severity[mask] = np.maximum(severity[mask], 2 if rule.action == DECLINE else 1)
    why: dict[int, list[str]] = {row: [] for row in np.flatnonzero(severity).tolist()}
    for rule, mask in applied:
        for row in np.flatnonzero(mask).tolist():
            why[row].append(f"rule {rule.name}: {rule.when}")
    if why and explained:
        matrix = batch.take(np.fromiter(why, dtype=np.int64)).feature_matrix(model.manifest.feature_names)
        for mine, pushed in zip(why.values(), reasons(matrix, model), strict=True):
            mine += pushed
    added = (pa.array(_DECISIONS[severity]), _lists(why, len(batch)))
    return batch.with_columns(dict(zip(DECIDE_COLUMNS, added, strict=True)))


def decisions_of(scores: np.ndarray[Any, np.dtype[np.float64]], thresholds: Thresholds) -> pa.Array:
    """The decision on each score alone, no rule considered.

    Example:
        >>> decisions_of(np.array([0.1, 0.2, 0.9]), Thresholds(review=0.2, decline=0.5)).to_pylist()
        ['approve', 'review', 'decline']
    """
    return pa.array(_DECISIONS[_severity(scores, thresholds.review, thresholds.decline)])


def _severity(scores: np.ndarray[Any, Any], review: Any, decline: Any) -> np.ndarray[Any, Any]:
    """0, 1 or 2 for each score; thresholds are numbers, or one a score."""
    return np.asarray((scores >= review).astype(np.int8) + (scores >= decline))


def _by_row(batch: TransactionBatch, thresholds: Thresholds, segments: CompiledSegments | None) -> tuple[Any, Any]:
    return segments.thresholds(batch, thresholds) if segments else (thresholds.review, thresholds.decline)


def _lists(of_rows: dict[int, list[str]], count: int) -> pa.Array:
    """Lists for some of `count` rows, which are in order, and empty ones for the rest."""
    lengths = np.zeros(count + 1, dtype=np.int32)
    for row, texts in of_rows.items():
        lengths[row + 1] = len(texts)
    values = pa.array([text for texts in of_rows.values() for text in texts], pa.string())
    return pa.ListArray.from_arrays(pa.array(np.cumsum(lengths, dtype=np.int32)), values)


class DecideTransactions(beam.PTransform[PCollection[TransactionBatch], PCollection[TransactionBatch]]):
    """Decide on scored transactions and say why.

    Args:
        model: what scored them. Each batch is decided on by the model that its `model_id` names.
        thresholds: from which scores on to review and to decline; what is not given is the model's own.
        rules: conditions that force a review or a decline.
        segments: transactions with thresholds of their own.
        explained: whether the model's reasons are given beside the rules; to find them costs several scores a row.

    Example:
        >>> import apache_beam as beam
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> from apache_beam.testing.util import assert_that, equal_to
        >>> from model_artifacts.artifact import load_model
        >>> from model_artifacts.manifest import Manifest, Thresholds
        >>> from transforms.batch import from_rows
        >>> from transforms.enrich import EnrichTransactions
        >>> from transforms.score import ScoreTransactions, SharedModel
        >>> model = SharedModel("transaction-events")
        >>> rows = [{"transaction_id": "t", "event_time": 0, "customer_id": "c", "amount_minor": 100}]
        >>> with TestPipeline() as pipeline:
        ...     enriched = pipeline | beam.Create([from_rows(rows)]) | EnrichTransactions(model().manifest.feature_set)
        ...     scored = enriched.batches | ScoreTransactions(model)
        ...     decided = scored.batches | DecideTransactions(model, Thresholds(review=0.0, decline=0.99))
        ...     _ = assert_that(decided | beam.FlatMap(lambda b: b.rows.column("decision").to_pylist()),
        ...                     equal_to(["review"]))
    """

    def __init__(
        self,
        model: SharedModel,
        thresholds: Thresholds | ThresholdPolicy | None = None,
        rules: CompiledRules | None = None,
        segments: CompiledSegments | None = None,
        explained: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        self.thresholds = thresholds
        self.rules = rules
        self.segments = segments
        self.explained = explained

    def expand(self, pcoll: PCollection[TransactionBatch]) -> PCollection[TransactionBatch]:
        policy = self.thresholds or ThresholdPolicy()
        fn = _Decide(self.model, policy, self.rules, self.segments, self.explained)
        decided: PCollection[TransactionBatch] = pcoll | "Decide" >> beam.ParDo(fn).with_output_types(TransactionBatch)
        return decided


class _Decide(beam.DoFn):
    def __init__(
        self,
        model: SharedModel,
        policy: Thresholds | ThresholdPolicy,
        rules: CompiledRules | None,
        segments: CompiledSegments | None,
        explained: bool,
    ) -> None:
        self.model = model
        self.policy = policy
        self.rules = rules
        self.segments = segments
        self.explained = explained

    def process(self, element: TransactionBatch) -> Iterator[Any]:
        for model_id, batch in by_model(element):
            model = self.model.named(model_id)
            thresholds = thresholds_for(model.manifest, self.policy)
            yield decide_batch(batch, model, thresholds, self.rules, self.segments, self.explained)


def by_model(batch: TransactionBatch) -> Iterator[tuple[str, TransactionBatch]]:
    """A scored batch by the models that scored it: as a rule one."""
    column = batch.rows.column("model_id")
    for model_id in (names := column.unique().to_pylist()):
        rows = np.flatnonzero(np.asarray(pc.equal(column, model_id))) if len(names) > 1 else None
        yield model_id, batch if rows is None else batch.take(rows)
