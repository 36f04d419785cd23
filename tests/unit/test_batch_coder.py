"""A batch through its coder."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.batch import TransactionBatchCoder, concat_batches, from_rows, to_rows
from transforms.sharding import split_by_shard

_ROW = {"event_time": 0, "amount_minor": 1}


@given(st.lists(st.integers(0, 40), min_size=1, max_size=80), st.integers(1, 41))
def test_rows_come_back_as_they_were(sources: list[int], most: int) -> None:
    """However many sources they are from, also those of a shard, and joined again."""
    rows = [{"transaction_id": str(at), "source": f"in-{n % most}", **_ROW} for at, n in enumerate(sources)]
    batch, coder = from_rows(rows), TransactionBatchCoder()
    assert to_rows(coder.decode(coder.encode(batch))) == to_rows(batch)
    parts = [coder.decode(coder.encode(part)) for _, part in split_by_shard(batch, "transaction_id", 3)]
    assert sorted(to_rows(concat_batches(parts)), key=lambda row: row["position"]) == to_rows(batch)


@pytest.mark.parametrize(("sources", "kept"), [(4, True), (50, False)])
def test_a_dictionary_is_kept_where_it_is_smaller_than_text(sources: int, kept: bool) -> None:
    """As of a topic's partitions, and not of files with a row or two."""
    batch = from_rows({"transaction_id": str(at), "source": f"in-{at % sources}", **_ROW} for at in range(100))
    found = TransactionBatchCoder().decode(TransactionBatchCoder().encode(batch))
    assert pa.types.is_dictionary(found.rows.column("source").type) is kept
