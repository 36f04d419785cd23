"""Parquet files of one bundle: all or none, names that depend on the rows alone, bounded memory."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_connectors.parquet_files import ROWS_PER_GROUP, ParquetFiles

START = 1_522_540_800_000_000


def decisions(rows: int, first: int = 0, **columns: Any) -> pa.RecordBatch:
    """`rows` decided transactions, a second apart."""
    numbers = np.arange(first, first + rows)
    arrays = {
        "transaction_id": pa.array([f"t{number}" for number in numbers]),
        "event_time": pa.array(START + numbers * 1_000_000, pa.timestamp("us", tz="UTC")),
        "customer_id": pa.array([f"c{number % 50}" for number in numbers]),
        "customer_amount_mean_1d": pa.array(numbers / 7),
        "score": pa.array(1 / (1 + numbers)),
        "decision": pa.array(["approve"] * rows),
        "reasons": pa.array([["amount is high"]] * rows, pa.list_(pa.string())),
        **columns,
    }
    return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))


def visible(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("part-*.parquet"))


def test_rows_written_are_the_rows_read(tmp_path: Path) -> None:
    """Every column comes back with its type and its values, in order, from one file."""
    files = ParquetFiles(tmp_path)
    files.add(decisions(10))
    files.add(decisions(20, first=10))
    names = files.commit()
    assert [name.name for name in names] == visible(tmp_path)
    assert pq.read_table(names[0]).equals(pa.Table.from_batches([decisions(30)]))


def test_nothing_is_visible_before_the_bundle_ends(tmp_path: Path) -> None:
    """Not even files that are complete: a bundle that fails must leave none."""
    files = ParquetFiles(tmp_path, rows_per_file=5)
    files.add(decisions(10))
    files.add(decisions(3))
    assert visible(tmp_path) == []
    files.discard()
    assert list(tmp_path.iterdir()) == []


def test_no_rows_write_no_file(tmp_path: Path) -> None:
    """Neither an empty bundle nor empty batches leave a file."""
    files = ParquetFiles(tmp_path)
    files.add(decisions(0))
    assert files.commit() == []
    assert list(tmp_path.iterdir()) == []


def test_the_same_rows_replace_their_own_file(tmp_path: Path) -> None:
    """A bundle that is run again gives the same name, so nothing comes twice."""
    for _ in range(2):
        files = ParquetFiles(tmp_path)
        files.add(decisions(10))
        files.commit()
    (name,) = visible(tmp_path)
    assert re.fullmatch(r"part-20180401T000000-[0-9a-f]{16}\.parquet", name)


@pytest.mark.parametrize(
    "other",
    [
        decisions(10, score=pa.array(np.full(10, 0.5))),
        decisions(10, transaction_id=pa.array([f"x{number}" for number in range(10)])),
        decisions(9),
        decisions(10, score=pa.array([None] * 10, pa.float64())),
        decisions(10, decision=pa.array(["approve"] * 9 + ["review"])),
    ],
    ids=["scores", "ids", "fewer rows", "no scores", "decisions"],
)
def test_other_rows_get_another_name(tmp_path: Path, other: pa.RecordBatch) -> None:
    """Neither other transactions nor other scores or decisions of the same ones overwrite a file."""
    for rows in (decisions(10), other):
        files = ParquetFiles(tmp_path)
        files.add(rows)
        files.commit()
    assert len(visible(tmp_path)) == 2


@given(cuts=st.lists(st.integers(0, 40), max_size=6))
def test_how_rows_were_cut_into_batches_does_not_change_the_name(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    """A name depends on rows, not on batches, slices or their buffers."""
    rows = decisions(40)
    edges = [0, *sorted(cuts), 40]
    names = []
    for pieces in ([rows], [rows.slice(start, end - start) for start, end in pairwise(edges)]):
        directory = tmp_path_factory.mktemp("cut")
        files = ParquetFiles(directory)
        for piece in pieces:
            files.add(piece)
        files.commit()
        names.append(visible(directory))
    assert names[0] == names[1]


def test_a_change_of_columns_begins_a_new_file(tmp_path: Path) -> None:
    """Each file has one schema; all of them appear together."""
    files = ParquetFiles(tmp_path)
    files.add(decisions(10))
    files.add(decisions(10, first=10, merchant_category=pa.array(["travel"] * 10)))
    files.add(decisions(10, first=20))
    names = files.commit()
    assert [pq.read_metadata(name).num_columns for name in names] == [7, 8, 7]
    assert len(visible(tmp_path)) == 3


def test_a_file_ends_with_the_batch_that_fills_it(tmp_path: Path) -> None:
    """Files are cut at `rows_per_file`, and no row is lost at a cut."""
    files = ParquetFiles(tmp_path, rows_per_file=25)
    for first in range(0, 60, 10):
        files.add(decisions(10, first=first))
    assert [pq.read_metadata(name).num_rows for name in files.commit()] == [30, 30]


def test_small_batches_become_whole_row_groups(tmp_path: Path) -> None:
    """Readers are slow on many small groups, so batches are gathered, but never more than a group of them."""
    files = ParquetFiles(tmp_path)
    batch = decisions(8192)
    for _ in range(20):
        files.add(batch)
    file = pq.ParquetFile(files.commit()[0])
    groups = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
    assert groups == [ROWS_PER_GROUP, 20 * 8192 - ROWS_PER_GROUP]


def test_text_that_repeats_has_a_dictionary_and_numbers_have_none(tmp_path: Path) -> None:
    """Decisions, customers and reasons repeat; ids of transactions and feature values do not."""
    files = ParquetFiles(tmp_path)
    files.add(decisions(100, model_id=pa.array(["logistic-1"] * 100).dictionary_encode()))
    group = pq.read_metadata(files.commit()[0]).row_group(0)
    columns = [group.column(at) for at in range(group.num_columns)]
    with_dictionary = {column.path_in_schema for column in columns if column.has_dictionary_page}
    assert with_dictionary == {"customer_id", "decision", "reasons.list.element", "model_id"}
    assert {column.compression for column in columns} == {"ZSTD"}


def test_a_name_tells_the_earliest_event_time(tmp_path: Path) -> None:
    """Rows may come in any order; files sort by the first thing that happened in them."""
    files = ParquetFiles(tmp_path)
    files.add(decisions(10, first=86_400))
    files.add(decisions(10, first=3_600))
    assert files.commit()[0].name.startswith("part-20180401T010000-")
