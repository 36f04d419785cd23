"""Decided transactions as JSON objects: columns become lists of values at once, rows become text one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from io_connectors.delivery import Message
from transforms.batch import PROVENANCE_COLUMNS, TransactionBatch

_ENCODER = msgspec.json.Encoder()
#: Rows that become Python objects together: of so many all stay in the processor's cache.
_AT_ONCE = 2_000


def decision_messages(batch: TransactionBatch, columns: Sequence[str] | None = None) -> list[Message]:
    """A message for every row, in the rows' order: its id is the transaction's, its body what is known of it.

    Money is whole minor units, times are ISO 8601 in UTC, what is unknown and what is no number is null.

    Args:
        batch: decided on.
        columns: what a body has, in this order; all but where a row came from unless they are named.

    Example:
        >>> from transforms.batch import from_rows
        >>> row = {"transaction_id": "t1", "event_time": 1_500_000, "amount_minor": 5716, "decision": "review"}
        >>> message = decision_messages(from_rows([row], {"decision": pa.string()}))[0]
        >>> message.id, message.body[:68]
        ('t1', b'{"transaction_id":"t1","event_time":"1970-01-01T00:00:01.500000Z","c')
    """
    ids = batch.rows.column("transaction_id").to_pylist()
    rows = batch.without_columns(PROVENANCE_COLUMNS).rows if columns is None else batch.rows.select(list(columns))
    return list(map(Message, ids, rows_as_json(rows), ids))


def rows_as_json(rows: pa.RecordBatch) -> list[bytes]:
    r"""Each row as a JSON object.

    Example:
        >>> rows_as_json(pa.record_batch({"n": [1, None], "s": ['a"', "b"]}))
        [b'{"n":1,"s":"a\\""}', b'{"n":null,"s":"b"}']
    """
    record, texts = _record(tuple(rows.schema.names)), list[bytes]()
    for first in range(0, rows.num_rows, _AT_ONCE):
        columns = map(_values, rows.slice(first, _AT_ONCE).columns)
        lines = _ENCODER.encode_lines(list(map(record, *columns)))  # a line each: JSON escapes line ends in text
        texts += lines.splitlines()
    return texts


@lru_cache(maxsize=64)
def _record(names: tuple[str, ...]) -> Callable[..., Any]:
    """Makes an object of these names from their values: a struct, which msgspec writes twice as fast as a dictionary.

    A struct takes no name that JSON has to escape.
    """
    if any(msgspec.json.encode(name) != f'"{name}"'.encode() for name in names):
        return lambda *values: dict(zip(names, values, strict=True))
    fields = {f"field_{at}": name for at, name in enumerate(names)}  # a name may be no identifier
    return msgspec.defstruct("Row", [(field, Any) for field in fields], rename=fields, gc=False)


def _values(column: pa.Array) -> list[Any]:
    """A column as values that JSON has; what is no number (NaN, infinity) msgspec writes as null."""
    if pa.types.is_timestamp(column.type):
        # Without a zone it is UTC all the same, and becomes text at a fraction of what formatting costs.
        text = pc.replace_substring(column.cast(pa.timestamp(column.type.unit)).cast(pa.string()), " ", "T")
        column = pc.binary_join_element_wise(text, "Z", "")
    elif pa.types.is_list(column.type) and not column.null_count:
        texts, ends = column.flatten().to_pylist(), pc.list_value_length(column).to_numpy().cumsum().tolist()
        return [texts[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    elif not column.null_count and (pa.types.is_primitive(column.type) or pa.types.is_boolean(column.type)):
        return list(column.to_numpy(zero_copy_only=False).tolist())
    return list(column.to_pylist())
