"""Joining the batches of a bundle."""

from __future__ import annotations

import apache_beam as beam
import numpy as np
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from hypothesis import given
from hypothesis import strategies as st

from transforms.batch import TransactionBatch, TransactionBatchCoder, from_rows
from transforms.join import _Join
from transforms.sharding import ShardBy, shard_keys


def batch(first: int, rows: int) -> TransactionBatch:
    """Transactions numbered from `first`, a second apart."""
    numbers = range(first, first + rows)
    return from_rows([{"transaction_id": str(n), "event_time": n * 1_000_000, "amount_minor": n} for n in numbers])


def joined(batches: list[TransactionBatch], most_rows: int) -> list[TransactionBatch]:
    """What comes of one bundle."""
    join = _Join(most_rows)
    join.start_bundle()
    found = [each for one in batches for each in join.process(one, "window")]
    return [each.value for each in [*found, *join.finish_bundle()]]


@given(st.lists(st.integers(1, 30), max_size=20), st.integers(1, 40))
def test_rows_keep_their_order_and_none_is_lost_or_joined_beyond_the_limit(sizes: list[int], most: int) -> None:
    """Whatever sizes come, the rows that leave are those that came, in order; only a batch that came so is larger."""
    firsts = np.cumsum([0, *sizes])[:-1].tolist()
    found = joined([batch(first, size) for first, size in zip(firsts, sizes, strict=True)], most)
    assert [n for each in found for n in each.numpy("amount_minor").tolist()] == list(range(sum(sizes)))
    assert all(len(each) <= most or len(each) in sizes for each in found)


def test_batches_that_came_through_the_coder_join_those_that_did_not() -> None:
    """The source of a row is a dictionary before the coder and text behind it; both are one batch afterwards."""
    coder = TransactionBatchCoder()
    assert [len(each) for each in joined([batch(0, 2), coder.decode(coder.encode(batch(2, 3)))], 100)] == [5]


def test_batches_of_different_windows_stay_apart() -> None:
    """What a later stage groups by window is not mixed by joining."""
    rows = [TimestampedValue(batch(second, 1), second) for second in (1, 2, 61, 62)]
    with TestPipeline() as pipeline:
        keyed = (
            pipeline
            | beam.Create(rows, reshuffle=False)
            | beam.Map(lambda element: element)
            | beam.WindowInto(FixedWindows(60))
            | ShardBy("transaction_id", shards=1)
        )
        _ = assert_that(keyed | beam.MapTuple(lambda _, part: len(part)), equal_to([2, 2]))


def test_the_pieces_of_a_bundle_are_cut_once() -> None:
    """Eight small batches of a bundle give one piece a shard, not eight."""
    with TestPipeline() as pipeline:
        batches = pipeline | beam.Create([batch(n, 1) for n in range(8)], reshuffle=False)
        pieces = batches | ShardBy("transaction_id", shards=2) | beam.Keys()
        _ = assert_that(pieces, equal_to(shard_keys(2)))
