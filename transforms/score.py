"""Score transactions with a model, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.pvalue import PCollection, TaggedOutput

from model_artifacts.artifact import Model, load_model
from model_artifacts.follow import FixedModel, Follow, FollowedModel
from transforms.batch import TransactionBatch
from transforms.dead_letters import DeadLetter, dead_letters_of_rows
from transforms.join import MOST_ROWS, JoinBatches
from transforms.process_wide import ProcessWide

#: What scoring adds: the probability, which model gave it, and the fingerprint of its features.
SCORE_COLUMNS = ("score", "model_id", "feature_set")


class SharedModel:
    """A model by its URI, loaded and verified once in each worker process, and swapped there where it is followed.

    Args:
        uri: see `model_artifacts.artifact.load_model`.
        public_key: likewise.
        follow: the alias to follow instead of staying with `uri`.
    """

    def __init__(self, uri: str, public_key: bytes | None = None, follow: Follow | None = None) -> None:
        self.uri = uri
        self.public_key = public_key
        self.follow = follow
        self._shared: ProcessWide[FixedModel | FollowedModel] = ProcessWide()

    def __call__(self) -> Model:
        """The model to score a batch with; the next batch may get another."""
        return self._served().now()

    def named(self, model_id: str) -> Model:
        """The model that scored a batch, by the batch's `model_id`."""
        return self._served().named(model_id)

    def take_counts(self) -> Mapping[str, int]:
        """See `FollowedModel.take_counts`."""
        return self._served().take_counts()

    def _served(self) -> FixedModel | FollowedModel:
        return self._shared.get(self._open)

    def _open(self) -> FixedModel | FollowedModel:
        if self.follow:
            return FollowedModel(self.follow)
        model = load_model(self.uri, self.public_key)
        return FixedModel(model, getattr(model, "take_counts", None))  # an endpoint's has them


def score_batch(batch: TransactionBatch, model: Model) -> tuple[TransactionBatch | None, list[DeadLetter]]:
    """The batch with `score` (calibrated probability of fraud), `model_id` and `feature_set`.

    A row whose score is not a number, because a feature was not, becomes a dead letter.
    """
    manifest = model.manifest
    scores = model.score(batch.feature_matrix(manifest.feature_names))
    letters: list[DeadLetter] = []
    finite = np.isfinite(scores)
    if not finite.all():
        error = f"model {manifest.model_id} gave no finite score: a feature of the row is not a finite number"
        letters = dead_letters_of_rows(batch.take(np.flatnonzero(~finite)), "score", "score_not_finite", error)
        if not finite.any():
            return None, letters
        batch, scores = batch.take(np.flatnonzero(finite)), scores[finite]
    constants = (pa.repeat(each, len(batch)) for each in (manifest.model_id, manifest.fingerprint))
    return batch.with_columns(dict(zip(SCORE_COLUMNS, (pa.array(scores), *constants), strict=True))), letters


@dataclass(frozen=True)
class Scored:
    """What `ScoreTransactions` gives: batches with scores, and rows that could not be scored."""

    batches: PCollection[TransactionBatch]
    dead_letters: PCollection[DeadLetter]


class ScoreTransactions(beam.PTransform[PCollection[TransactionBatch], Scored]):
    """Add the model's score to every transaction, to those of a bundle at once.

    Args:
        model: what scores. All rows of a batch have one model, whatever is swapped meanwhile.
        batch_rows: batches are not joined beyond so many rows.

    Example:
        >>> import apache_beam as beam
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> from apache_beam.testing.util import assert_that, equal_to
        >>> from model_artifacts.artifact import load_model
        >>> from transforms.batch import from_rows
        >>> from transforms.enrich import EnrichTransactions
        >>> features = load_model("transaction-events").manifest.feature_set
        >>> rows = [{"transaction_id": "t", "event_time": 0, "customer_id": "c", "amount_minor": 100}]
        >>> with TestPipeline() as pipeline:
        ...     enriched = pipeline | beam.Create([from_rows(rows)]) | EnrichTransactions(features)
        ...     scored = enriched.batches | ScoreTransactions(SharedModel("transaction-events"))
        ...     _ = assert_that(scored.batches | beam.FlatMap(lambda b: b.numpy("score") < 0.5), equal_to([True]))
    """

    def __init__(self, model: SharedModel, batch_rows: int = MOST_ROWS) -> None:
        super().__init__()
        self.model = model
        self.batch_rows = batch_rows

    def expand(self, pcoll: PCollection[TransactionBatch]) -> Scored:
        score = beam.ParDo(_Score(self.model)).with_output_types(TransactionBatch, dead_letters=DeadLetter)
        outputs = pcoll | JoinBatches(self.batch_rows) | "Score" >> score.with_outputs("dead_letters", main="batches")
        return Scored(outputs.batches, outputs.dead_letters)


class _Score(beam.DoFn):
    def __init__(self, model: SharedModel) -> None:
        self.model = model

    def setup(self) -> None:
        self.model()  # a model that cannot be loaded is known before there are rows

    def process(self, element: TransactionBatch) -> Iterator[Any]:
        scored, letters = score_batch(element, self.model())
        for name, count in self.model.take_counts().items():
            Metrics.counter("model", name).inc(count)
        if scored is not None:
            yield scored
        for letter in letters:
            yield TaggedOutput("dead_letters", letter)
