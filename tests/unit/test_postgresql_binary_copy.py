from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_connectors.postgresql.binary_copy import binary_copy
from io_connectors.sql.columns import ARROW_TYPES, Kind

MICROS = timedelta(microseconds=1)


def slowly(batch: pa.RecordBatch) -> bytes:
    """The same, row by row and field by field, as PostgreSQL's manual says it."""
    rows = [
        struct.pack("!h", batch.num_columns) + b"".join(map(field, row.values(), batch.schema.types))
        for row in batch.to_pylist()
    ]
    return b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0) + b"".join(rows) + struct.pack("!h", -1)


def field(value: Any, kind: pa.DataType) -> bytes:
    content = None if value is None else wire(value, kind)
    return struct.pack("!i", -1) if content is None else struct.pack("!i", len(content)) + content


def wire(value: Any, kind: pa.DataType) -> bytes:
    if pa.types.is_list(kind):
        if not value:
            return struct.pack("!iiI", 0, None in HOLES, 25)
        elements = b"".join(field(each, pa.string()) for each in value)
        return struct.pack("!iiIii", 1, None in HOLES, 25, len(value), 1) + elements
    if pa.types.is_string(kind):
        text: bytes = value.encode()
        return text
    if pa.types.is_timestamp(kind):
        return struct.pack("!q", (value.replace(tzinfo=UTC) - datetime(2000, 1, 1, tzinfo=UTC)) // MICROS)
    codes = {pa.bool_(): "?", pa.int16(): "h", pa.int32(): "i", pa.int64(): "q", pa.float64(): "d"}
    return struct.pack("!" + codes[kind], value)


#: Whether lists of the batch have holes; PostgreSQL finds out itself, and takes the flag for a promise of nothing.
HOLES: set[None] = set()

VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    "text": st.text(max_size=6),
    "texts": st.lists(st.none() | st.text(max_size=4), max_size=3),
    "flag": st.booleans(),
    "small": st.integers(-(2**15), 2**15 - 1),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "big": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False),
    "time": st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)),
}


@st.composite
def batches(draw: st.DrawFn) -> pa.RecordBatch:
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=5))
    rows = draw(st.integers(1, 8))
    columns = []
    for kind in kinds:
        values = VALUES[kind] if draw(st.booleans()) else st.none() | VALUES[kind]
        column = pa.array(draw(st.lists(values, min_size=rows, max_size=rows)), ARROW_TYPES[kind])
        columns.append(column)
    batch = pa.RecordBatch.from_arrays(columns, names=[str(at) for at in range(len(kinds))])
    return batch.slice(draw(st.integers(0, rows - 1)))


@given(batches())
def test_the_bytes_are_those_of_the_slow_way(batch: pa.RecordBatch) -> None:
    """Of every type, with and without nulls, and of a batch that is a view into a longer one."""
    for column in batch.columns:
        HOLES.clear()
        if pa.types.is_list(column.type) and column.flatten().null_count:
            HOLES.add(None)
        one = pa.RecordBatch.from_arrays([column], names=["c"])
        assert bytes(binary_copy(one)) == slowly(one)
    if not any(pa.types.is_list(kind) for kind in batch.schema.types):
        assert bytes(binary_copy(batch)) == slowly(batch)


@pytest.mark.parametrize("kind", sorted(ARROW_TYPES))
def test_a_column_of_nulls_alone_is_written(kind: Kind) -> None:
    """A field of length -1 in each row."""
    batch = pa.RecordBatch.from_arrays([pa.nulls(3, ARROW_TYPES[kind])], names=["c"])
    assert bytes(binary_copy(batch))[19:-2] == 3 * struct.pack("!hi", 1, -1)


def test_what_lies_under_a_null_is_not_written() -> None:
    """Arrow says nothing of it: it may be some other row's secret."""
    offsets, text = pa.py_buffer(struct.pack("<4i", 0, 6, 7, 13)), pa.py_buffer(b"secretxsecret")
    column = pa.StringArray.from_buffers(3, offsets, text, pa.py_buffer(b"\x02"), 2)
    assert column.to_pylist() == [None, "x", None]
    assert b"secret" not in bytes(binary_copy(pa.RecordBatch.from_arrays([column], names=["c"])))
