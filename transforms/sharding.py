"""Cut batches by the entity whose past they need, so that one key of the runner holds many entities.

Keying by card would make every shuffle and every state access a per-row affair; a shard is a key that
stands for all entities whose hash falls on it, and a batch stays a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import PCollection
from apache_beam.transforms.window import TimestampedValue

from transforms.batch import TransactionBatch, earliest
from transforms.hashing import stable_hash
from transforms.join import JoinBatches
from transforms.ordering import event_order


def split_by_shard(batch: TransactionBatch, column: str, shards: int) -> Iterator[tuple[int, TransactionBatch]]:
    """The batch's rows by `stable_hash(column) % shards`, each shard's `in_event_order`.

    Every shard will want them in that order, and to sort them once costs less than to sort each part.

    Example:
        >>> from transforms.batch import from_rows
        >>> row = {"event_time": 0, "amount_minor": 1}
        >>> batch = from_rows([{"transaction_id": c, "customer_id": c, **row} for c in "abcab"])
        >>> sum(len(part) for _, part in split_by_shard(batch, "customer_id", 4))
        5
    """
    shard_of = (stable_hash(batch.rows.column(column)) % np.uint64(shards)).astype(np.int64)
    places = event_order(batch)
    by_shard = np.argsort(shard_of if places is None else shard_of[places], kind="stable")
    ends = np.cumsum(np.bincount(shard_of, minlength=shards))
    sorted_rows = batch.take(by_shard if places is None else places[by_shard])
    start = 0
    for shard, end in enumerate(ends.tolist()):
        if end > start:
            yield shard, sorted_rows.slice(start, end - start)
        start = end


class ShardBy(beam.PTransform[PCollection[TransactionBatch], PCollection[tuple[int, TransactionBatch]]]):
    """Key batches by the shard of an entity column; those of a bundle together, so that it gives a shard one piece.

    Args:
        column: a text column, such as `customer_id`.
        shards: how many keys; at least the parallelism, and fixed for the life of a stream's state.

    Example:
        >>> import apache_beam as beam
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> from apache_beam.testing.util import assert_that, equal_to
        >>> from transforms.batch import from_rows
        >>> row = {"event_time": 0, "amount_minor": 1}
        >>> batch = from_rows([{"transaction_id": c, "customer_id": c, **row} for c in "abcab"])
        >>> with TestPipeline() as pipeline:
        ...     keyed = pipeline | beam.Create([batch]) | ShardBy("customer_id", shards=1)
        ...     _ = assert_that(keyed | beam.MapTuple(lambda shard, part: (shard, len(part))), equal_to([(0, 5)]))
    """

    def __init__(self, column: str, shards: int) -> None:
        super().__init__()
        self.column = column
        self.shards = shards

    def expand(self, pcoll: PCollection[TransactionBatch]) -> PCollection[tuple[int, TransactionBatch]]:
        split = beam.ParDo(_Split(self.column, self.shards)).with_output_types(tuple[int, TransactionBatch])
        keyed: PCollection[tuple[int, TransactionBatch]] = pcoll | JoinBatches() | "Split" >> split
        return keyed


class _Split(beam.DoFn):
    def __init__(self, column: str, shards: int) -> None:
        self.column = column
        self.shards = shards

    def process(self, element: TransactionBatch) -> Iterator[Any]:
        for shard, part in split_by_shard(element, self.column, self.shards):
            yield TimestampedValue((shard, part), earliest(part))
