"""Cut batches by the entity whose past they need, so that one key of the runner holds many entities.

Keying by card would make every shuffle and every state access a per-row affair; a shard is a key that
stands for all entities whose hash falls on it, and a batch stays a batch.

Shards are few, so it matters where they go. Flink hashes a key onto one of 128 groups and gives each subtask a range
of groups; of the keys 0 to 3 one subtask of two would get a single one. So a shard's key is a number that falls where
the shard should be. Runners that hash otherwise lose nothing by it.
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

#: For each of 128 key groups, Flink's default (`--max_parallelism`), the smallest number that as a key falls on it.
#: Part of the state's format. `tests/unit/test_sharding.py` computes it.
# fmt: off
_KEY_OF_GROUP = (
    6, 107, 122, 51, 83, 165, 10, 257, 17, 74, 32, 162, 18, 16, 128, 105, 11, 247, 137, 435, 112, 5, 146, 9, 287, 100,
    138, 50, 235, 39, 232, 251, 237, 15, 24, 477, 88, 63, 101, 47, 19, 48, 42, 169, 344, 41, 0, 472, 4, 27, 44, 86,
    342, 54, 186, 87, 139, 96, 202, 12, 75, 240, 59, 225, 568, 37, 35, 369, 3, 91, 13, 7, 415, 25, 23, 31, 141, 21,
    249, 135, 95, 142, 132, 62, 124, 204, 206, 181, 196, 78, 495, 121, 45, 58, 14, 117, 60, 276, 272, 57, 207, 188,
    94, 97, 198, 72, 161, 22, 28, 49, 70, 218, 65, 40, 115, 320, 8, 145, 175, 166, 20, 43, 1, 158, 449, 2, 174, 102,
)
# fmt: on


def shard_keys(shards: int) -> tuple[int, ...]:
    """The key of each shard: spread evenly over Flink's key groups, or plain numbers where there are more than those.

    Example:
        >>> shard_keys(2), len(set(shard_keys(100))), shard_keys(1000)[-1]
        ((237, 60), 100, 999)
    """
    groups = len(_KEY_OF_GROUP)
    if shards > groups:
        return tuple(range(shards))
    return tuple(_KEY_OF_GROUP[(2 * shard + 1) * groups // (2 * shards)] for shard in range(shards))


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
    sorted_rows = batch.take(by_shard if places is None else places[by_shard]).plain()
    start = 0
    for shard, end in enumerate(ends.tolist()):
        if end > start:
            yield shard, sorted_rows.slice(start, end - start)
        start = end


class ShardBy(beam.PTransform[PCollection[TransactionBatch], PCollection[tuple[int, TransactionBatch]]]):
    """Key batches by the shard of an entity column; those of a bundle together, so that it gives a shard one piece.

    Args:
        column: a text column, such as `customer_id`.
        shards: how many keys, see `shard_keys`; at least the parallelism, and fixed for the life of a stream's state.

    Example:
        >>> import apache_beam as beam
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> from apache_beam.testing.util import assert_that, equal_to
        >>> from transforms.batch import from_rows
        >>> row = {"event_time": 0, "amount_minor": 1}
        >>> batch = from_rows([{"transaction_id": c, "customer_id": c, **row} for c in "abcab"])
        >>> with TestPipeline() as pipeline:
        ...     keyed = pipeline | beam.Create([batch]) | ShardBy("customer_id", shards=1)
        ...     _ = assert_that(keyed | beam.MapTuple(lambda key, part: len(part)), equal_to([5]))
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
        self.keys = shard_keys(shards)

    def process(self, element: TransactionBatch) -> Iterator[Any]:
        for shard, part in split_by_shard(element, self.column, self.shards):
            yield TimestampedValue((self.keys[shard], part), earliest(part))
