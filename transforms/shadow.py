"""Score candidates beside the model that decides, without a say in anything."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.pvalue import PCollection
from apache_beam.utils.windowed_value import WindowedValue

from transforms.batch import CANONICAL_FIELDS, TransactionBatch, earliest
from transforms.candidates import AsideError, Candidate, Lane, Patience, Scores
from transforms.decide import decisions_of
from transforms.process_wide import ProcessWide

#: What a shadow row has beside the canonical columns.
SHADOW_COLUMNS = ("model_id", "score", "decision", "champion_model_id", "champion_score", "champion_decision")
#: Batches of a bundle that may wait for their candidates at once: their rows are in memory.
_MOST_WAITING = 8


class ScoreShadows(beam.PTransform[PCollection[TransactionBatch], PCollection[TransactionBatch]]):
    """Score decided batches with candidates too: batches of `SHADOW_COLUMNS` beside where rows come from.

    Each candidate has a thread of its own, and its own copy of the features. One that raises, takes longer than its
    budget, or gives anything but one probability a row has no rows for that batch: it is counted as
    `shadow.<model_id>.failed`, and after some failures in a row it is put aside for a while. What is decided is the
    same to the last byte whatever candidates do; at most it waits for the budget, at the end of a bundle.

    Args:
        candidates: at least one.
        patience: with them.

    Example:
        >>> import apache_beam as beam
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> from apache_beam.testing.util import assert_that, equal_to
        >>> from model_artifacts.artifact import load_model
        >>> from transforms.batch import from_rows
        >>> from transforms.decide import DecideTransactions
        >>> from transforms.enrich import EnrichTransactions
        >>> from transforms.score import ScoreTransactions, SharedModel
        >>> champion = SharedModel("transaction-events")
        >>> features = champion().manifest.feature_set
        >>> candidate, patience = Candidate("transaction-events", champion().manifest), Patience(60_000_000)
        >>> rows = [{"transaction_id": "t", "event_time": 0, "customer_id": "c", "amount_minor": 100}]
        >>> with TestPipeline() as pipeline:
        ...     enriched = pipeline | beam.Create([from_rows(rows)]) | EnrichTransactions(features)
        ...     scored = enriched.batches | ScoreTransactions(champion)
        ...     shadows = scored.batches | DecideTransactions(champion) | ScoreShadows([candidate], patience)
        ...     same = shadows | beam.FlatMap(lambda b: (b.numpy("score") == b.numpy("champion_score")).tolist())
        ...     _ = assert_that(same, equal_to([True]))
    """

    def __init__(self, candidates: Sequence[Candidate], patience: Patience | None = None) -> None:
        super().__init__()
        self.candidates = tuple(candidates)
        self.patience = patience or Patience()

    def expand(self, pcoll: PCollection[TransactionBatch]) -> PCollection[TransactionBatch]:
        fn = _ScoreShadows(self.candidates, self.patience)
        shadows: PCollection[TransactionBatch] = pcoll | "Score" >> beam.ParDo(fn).with_output_types(TransactionBatch)
        return shadows


class _Asked(NamedTuple):
    """A batch that was handed to the candidates."""

    batch: TransactionBatch
    window: Any
    at: float
    futures: list[Future[Scores]]


class _ScoreShadows(beam.DoFn):
    def __init__(self, candidates: tuple[Candidate, ...], patience: Patience) -> None:
        self.candidates = candidates
        self.patience = patience
        self.shared: ProcessWide[list[Lane]] = ProcessWide()

    def setup(self) -> None:
        self.lanes = self.shared.get(lambda: [Lane(each, self.patience) for each in self.candidates])

    def start_bundle(self) -> None:
        self.waiting: deque[_Asked] = deque()

    def process(self, element: TransactionBatch, window: Any = beam.DoFn.WindowParam) -> Iterator[Any]:
        futures = [lane.ask(element) for lane in self.lanes]
        self.waiting.append(_Asked(element, window, time.monotonic(), futures))
        if len(self.waiting) > _MOST_WAITING:
            yield from self._settle(self.waiting.popleft())

    def finish_bundle(self) -> Iterator[Any]:
        while self.waiting:
            yield from self._settle(self.waiting.popleft())

    def _settle(self, asked: _Asked) -> Iterator[Any]:
        """The rows of the candidates that have scored a batch."""
        for lane, future in zip(self.lanes, asked.futures, strict=True):
            namespace, rows = f"shadow.{lane.candidate.manifest.model_id}", len(asked.batch)
            try:
                scores = lane.answer(future, rows, asked.at)
            except AsideError:
                Metrics.counter(namespace, "aside").inc()
            except Exception:  # the lane has told of it
                Metrics.counter(namespace, "failed").inc()
            else:
                Metrics.counter(namespace, "scored").inc(rows)
                shadow = shadow_batch(asked.batch, lane.candidate, scores)
                yield WindowedValue(shadow, earliest(shadow), (asked.window,))


def shadow_batch(decided: TransactionBatch, candidate: Candidate, scores: Scores) -> TransactionBatch:
    """What a candidate makes of a batch: its scores and the decisions under its own thresholds, beside the champion's.

    Args:
        decided: by the champion.
        candidate: that scored it.
        scores: probabilities of shape (rows,).
    """
    rows = decided.rows.select([field.name for field in CANONICAL_FIELDS])
    columns = (
        pa.repeat(candidate.manifest.model_id, len(decided)),
        pa.array(scores),
        decisions_of(scores, candidate.manifest.thresholds),
        *(decided.rows.column(name) for name in ("model_id", "score", "decision")),
    )
    return TransactionBatch(rows).with_columns(dict(zip(SHADOW_COLUMNS, columns, strict=True)))
