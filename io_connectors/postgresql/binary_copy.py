"""Arrow columns as the bytes that `COPY ... FROM STDIN (FORMAT BINARY)` reads, without a step for each row.

A row is the number of its fields, and each field its length and its bytes; -1 is the length of NULL.
https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Counts = np.ndarray[Any, np.dtype[np.int64]]

_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TAIL = b"\xff\xff"
_NULL = -1
_EPOCH = 946_684_800_000_000  # 2000-01-01, PostgreSQL's instant 0, in microseconds since 1970
_TEXT_OID = 25

#: The bytes of a value of each Arrow type.
_WIRE = {pa.int16(): ">i2", pa.int32(): ">i4", pa.int64(): ">i8", pa.float64(): ">f8"}


@dataclass(frozen=True)
class _Part:
    """Some bytes of each row.

    Attributes:
        data: those of all rows, one after the other.
        lengths: how many each row has.
    """

    data: Bytes
    lengths: Counts


def binary_copy(values: pa.RecordBatch) -> Bytes:
    r"""All rows as COPY reads them.

    Args:
        values: columns of the types in `io_connectors.sql.columns.ARROW_TYPES`.

    Example:
        >>> bytes(binary_copy(pa.record_batch({"a": ["x", None]})))[19:]
        b'\x00\x01\x00\x00\x00\x01x\x00\x01\xff\xff\xff\xff\xff\xff'
    """
    fields = np.full(values.num_rows, values.num_columns)
    parts = [_fixed(fields, ">i2"), *(part for column in values.columns for part in _field(column))]
    return np.concatenate([_bytes(_HEAD), _interleave(parts).data, _bytes(_TAIL)])


def _field(column: pa.Array) -> list[_Part]:
    """A column's length and bytes in each row."""
    if pa.types.is_list(column.type):
        parts = _array(column)
    elif pa.types.is_string(column.type):
        parts = [_text(column)]
    else:
        parts = [_fixed(*_numbers(column))]
    length = _total(parts)
    if column.null_count == 0:
        return [_fixed(length, ">i4"), *parts]
    there = np.asarray(column.is_valid())
    return [_fixed(np.where(there, length, _NULL), ">i4"), *(_only(part, there) for part in parts)]


def _numbers(column: pa.Array) -> tuple[np.ndarray[Any, Any], str]:
    """A column's values, with anything in place of nulls, and how the wire has them."""
    if pa.types.is_timestamp(column.type):
        return np.asarray(_filled(column.view(pa.int64()), _EPOCH)) - _EPOCH, ">i8"
    if pa.types.is_boolean(column.type):
        return np.asarray(_filled(column, False)), ">u1"
    return np.asarray(_filled(column, 0)), _WIRE[column.type]


def _filled(column: pa.Array, value: object) -> pa.Array:
    return column.fill_null(value) if column.null_count else column


def _fixed(values: np.ndarray[Any, Any], wire: str) -> _Part:
    data = np.ascontiguousarray(values, dtype=wire).view(np.uint8)
    return _Part(data, np.full(len(values), np.dtype(wire).itemsize))


def _text(column: pa.Array) -> _Part:
    column = _filled(column, "")  # what lies under a null may be anything
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[column.offset : column.offset + len(column) + 1]
    text = np.frombuffer(data, dtype=np.uint8) if data else np.empty(0, dtype=np.uint8)
    return _Part(text[ends[0] : ends[-1]], np.diff(ends).astype(np.int64))


def _array(column: pa.Array) -> list[_Part]:
    """`text[]`: dimensions (0 or 1), whether there are nulls, the elements' type; number and first index; elements."""
    elements = column.flatten()
    written = _interleave(_field(elements)) if len(elements) else _Part(np.empty(0, np.uint8), np.empty(0, np.int64))
    counts = np.asarray(pc.fill_null(pc.list_value_length(column), 0), dtype=np.int64)
    filled = counts > 0
    ends = np.append(0, np.cumsum(written.lengths))[np.append(0, np.cumsum(counts))]
    head = np.stack([filled, np.full(len(counts), elements.null_count > 0), np.full(len(counts), _TEXT_OID)], axis=1)
    size = np.stack([counts, np.ones_like(counts)], axis=1)
    return [
        _rows_of_words(head),
        _only(_rows_of_words(size), filled),
        _Part(written.data, np.diff(ends)),
    ]


def _rows_of_words(words: np.ndarray[Any, Any]) -> _Part:
    """32-bit words, some a row."""
    return _Part(words.astype(">i4").reshape(-1).view(np.uint8), np.full(len(words), 4 * words.shape[1]))


def _only(part: _Part, there: np.ndarray[Any, Any]) -> _Part:
    """A part that some rows do not have."""
    if there.all():
        return part
    return _Part(part.data[np.repeat(there, part.lengths)], np.where(there, part.lengths, 0))


def _interleave(parts: Sequence[_Part]) -> _Part:
    """The parts row by row: all of the first row's, then all of the second's, and so on."""
    lengths = _total(parts)
    ends = np.cumsum(lengths)
    at = ends - lengths  # where each row's next part begins
    out = np.empty(ends[-1] if len(ends) else 0, dtype=np.uint8)
    for part in parts:
        _put(out, at, part)
        at += part.lengths
    return _Part(out, lengths)


def _total(parts: Sequence[_Part]) -> Counts:
    """How many bytes each row has in all parts."""
    total: Counts = parts[0].lengths if len(parts) == 1 else np.sum([part.lengths for part in parts], axis=0)
    return total


def _put(out: Bytes, at: Counts, part: _Part) -> None:
    width = int(part.lengths[0]) if len(part.lengths) else 0
    if (part.lengths == width).all():
        out[at[:, None] + np.arange(width)] = part.data.reshape(-1, width) if width else 0
        return
    starts = np.cumsum(part.lengths) - part.lengths
    out[np.arange(len(part.data)) + np.repeat(at - starts, part.lengths)] = part.data


def _bytes(content: bytes) -> Bytes:
    return np.frombuffer(content, dtype=np.uint8)
