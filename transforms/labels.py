"""Labels are a stream of their own: what turned out to be fraud, and when that became known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import PBegin, PCollection, TaggedOutput
from apache_beam.transforms.window import TimestampedValue

from transforms.batch import EVENT_TIME, TransactionBatch, concat_batches, earliest
from transforms.dead_letters import DeadLetter, dead_letters_of_rows
from transforms.parse import ParseTransactions
from transforms.raw_batch import RawBatch
from transforms.schema import Schema
from transforms.sharding import ShardBy


def as_labels(batch: TransactionBatch, delay: int) -> tuple[TransactionBatch | None, list[DeadLetter]]:
    """Parsed records of a label source as labels: with the column `label_arrival`, when each became known.

    That is the record's `label_time` where the schema has such a column and the record a value; otherwise
    the transaction's event time and `delay`. A record without a label, or with one from before its
    transaction, is a dead letter.

    Args:
        batch: records with the transaction's id, event time and entities, and `is_fraud`.
        delay: how long after a transaction its label is known, in microseconds.
    """
    event_time = batch.rows.column("event_time").view(pa.int64())
    arrival = pc.add(event_time, delay)
    if "label_time" in batch.rows.schema.names:
        arrival = pc.coalesce(batch.rows.column("label_time").view(pa.int64()), arrival)
    letters: list[DeadLetter] = []
    good = np.asarray(batch.rows.column("is_fraud").is_valid())
    after = np.asarray(pc.greater(arrival, event_time))
    if not good.all():
        letters += _refuse(batch, ~good, "label_missing", "a record of the label source has no label")
    if not (good <= after).all():
        letters += _refuse(batch, good & ~after, "label_early", "a label must be later than its transaction")
    labelled = batch.with_columns({"label_arrival": arrival.view(EVENT_TIME)})
    keep = good & after
    if keep.all():
        return labelled, letters
    return (labelled.take(np.flatnonzero(keep)) if keep.any() else None), letters


def _refuse(batch: TransactionBatch, rows: np.ndarray[Any, Any], reason: str, error: str) -> list[DeadLetter]:
    return dead_letters_of_rows(batch.take(np.flatnonzero(rows)), "validate", reason, error)


class Labels(NamedTuple):
    """What `ReadLabels` gives: batches with `label_arrival`, and records that are no labels."""

    batches: PCollection[TransactionBatch]
    dead_letters: PCollection[DeadLetter]


class ReadLabels(beam.PTransform[PBegin, Labels]):
    """Read labels from a source of the transactions' schema.

    Args:
        read: root of a pipeline to `RawBatch`es.
        schema: their fields; `is_fraud` is the label, `label_time`, where there is one, its arrival.
        delay: the arrival of labels that do not say, in microseconds after their transaction.
        apart: as of `ParseTransactions`.

    Example:
        >>> import apache_beam as beam
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> from apache_beam.testing.util import assert_that, equal_to
        >>> from io_connectors.simulation import Simulation
        >>> from io_connectors.simulator import SimulateTransactions
        >>> from transforms.schema import load_schema
        >>> simulated = SimulateTransactions(Simulation(customers=50, terminals=100, days=2))
        >>> with TestPipeline() as pipeline:
        ...     labels = pipeline | ReadLabels(simulated, load_schema("handbook"), delay=7_000_000)
        ...     waits = labels.batches | beam.FlatMap(lambda b: set(b.numpy("label_arrival") - b.numpy("event_time")))
        ...     _ = assert_that(waits, equal_to([7_000_000]))
    """

    def __init__(
        self, read: beam.PTransform[PBegin, PCollection[RawBatch]], schema: Schema, delay: int, apart: bool = False
    ) -> None:
        super().__init__()
        self.read = read
        self.schema = schema
        self.delay = delay
        self.apart = apart

    def expand(self, root: PBegin) -> Labels:
        parsed = root | "Read" >> self.read | "Parse" >> ParseTransactions(self.schema, apart=self.apart)
        timed = beam.ParDo(_AsLabels(self.delay)).with_output_types(TransactionBatch, dead_letters=DeadLetter)
        labels = parsed.batches | "AsLabels" >> timed.with_outputs("dead_letters", main="batches")
        dead_letters = [parsed.dead_letters, labels.dead_letters] | beam.Flatten(pipeline=root.pipeline)
        return Labels(labels.batches, dead_letters)


class _AsLabels(beam.DoFn):
    def __init__(self, delay: int) -> None:
        self.delay = delay

    def process(self, element: TransactionBatch) -> Iterator[Any]:
        labels, letters = as_labels(element, self.delay)
        if labels is not None:
            yield TimestampedValue(labels, earliest(labels))
        for letter in letters:
            yield TaggedOutput("dead_letters", letter)


class AttachLabels(beam.PTransform[PCollection[TransactionBatch], PCollection[TransactionBatch]]):
    """Give decided transactions the labels that arrived for them, for evaluation: `is_fraud` is replaced.

    Both inputs must end: every label is waited for.

    Args:
        labels: batches that `as_labels` made; of several for one transaction the latest counts.
        shards: how many keys to join by.

    Example:
        >>> import apache_beam as beam
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> from apache_beam.testing.util import assert_that, equal_to
        >>> from transforms.batch import from_rows
        >>> row = {"transaction_id": "t", "event_time": 0, "amount_minor": 1}
        >>> with TestPipeline() as pipeline:
        ...     decided = pipeline | "Decided" >> beam.Create([from_rows([row])])
        ...     told = as_labels(from_rows([{**row, "is_fraud": 1}]), delay=5)[0]
        ...     labels = pipeline | "Labels" >> beam.Create([told])
        ...     labelled = decided | AttachLabels(labels)
        ...     _ = assert_that(labelled | beam.FlatMap(lambda batch: batch.numpy("is_fraud").tolist()), equal_to([1]))
    """

    def __init__(self, labels: PCollection[TransactionBatch], shards: int = 8) -> None:
        super().__init__()
        self.labels = labels
        self.shards = shards

    def expand(self, pcoll: PCollection[TransactionBatch]) -> PCollection[TransactionBatch]:
        by_id = {
            "decided": pcoll | "ShardDecided" >> ShardBy("transaction_id", self.shards),
            "labels": self.labels | "ShardLabels" >> ShardBy("transaction_id", self.shards),
        }
        attached: PCollection[TransactionBatch] = (
            by_id | beam.CoGroupByKey() | "Attach" >> beam.FlatMap(_attach_shard).with_output_types(TransactionBatch)
        )
        return attached


def _attach_shard(element: tuple[int, dict[str, Iterable[TransactionBatch]]]) -> Iterator[Any]:
    _, sides = element
    told = list(sides["labels"])
    labels = concat_batches(told) if told else None
    for batch in sides["decided"]:
        attached = attach_labels(batch, labels) if labels is not None else batch
        yield TimestampedValue(attached, earliest(attached))


def attach_labels(batch: TransactionBatch, labels: TransactionBatch) -> TransactionBatch:
    """The batch with `is_fraud` as the latest label of each transaction says, null where there is none."""
    latest_first = np.argsort(-labels.numpy("label_arrival"), kind="stable")
    ids = labels.rows.column("transaction_id").take(pa.array(latest_first))
    found = pc.index_in(batch.rows.column("transaction_id"), value_set=ids)
    values = labels.rows.column("is_fraud").take(pa.array(latest_first)).take(found)
    return batch.with_columns({"is_fraud": values})
