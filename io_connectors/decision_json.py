"""Decided transactions as JSON objects, a column at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from io_connectors.delivery import Message
from transforms.batch import PROVENANCE_COLUMNS, TransactionBatch

_NULL = pa.scalar("null")
#: What JSON wants escaped in a string; text from outside may hold it, ids and decisions hardly ever do.
_TO_ESCAPE = r'["\\\x00-\x1f]'


def decision_messages(batch: TransactionBatch) -> list[Message]:
    """A message for every row, in the rows' order: its id is the transaction's, its body what is known of it.

    Money is whole minor units, times are ISO 8601 in UTC, what is unknown and what is no number is null.

    Example:
        >>> from transforms.batch import from_rows
        >>> row = {"transaction_id": "t1", "event_time": 1_500_000, "amount_minor": 5716, "decision": "review"}
        >>> message = decision_messages(from_rows([row], {"decision": pa.string()}))[0]
        >>> message.id, message.attributes
        ('t1', (('decision', 'review'),))
        >>> message.body[:68]
        b'{"transaction_id":"t1","event_time":"1970-01-01T00:00:01.500000Z","c'
    """
    rows = batch.without_columns(PROVENANCE_COLUMNS).rows
    ids = rows.column("transaction_id").to_pylist()
    decisions = rows.column("decision").to_pylist()
    attributes = {decision: (("decision", decision),) for decision in set(decisions)}
    return [
        Message(name, body, name, attributes[decision])
        for name, body, decision in zip(ids, rows_as_json(rows), decisions, strict=True)
    ]


def rows_as_json(rows: pa.RecordBatch) -> list[bytes]:
    r"""Each row as a JSON object.

    Example:
        >>> rows_as_json(pa.record_batch({"n": [1, None], "s": ['a"', "b"]}))
        [b'{"n":1,"s":"a\\""}', b'{"n":null,"s":"b"}']
    """
    if not rows.num_rows:
        return []
    pieces: list[Any] = []
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        # One text before each value: joining costs by the piece.
        pieces += [f"{',' if pieces else '{'}{msgspec.json.encode(name).decode()}:", values_as_json(column)]
    lines: list[bytes] = pc.binary_join_element_wise(*pieces, "}", "").cast(pa.binary()).to_pylist()
    return lines


def values_as_json(column: pa.Array) -> pa.Array:
    """Each value as JSON text."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type):
        if pc.any(pc.match_substring_regex(column, _TO_ESCAPE)).as_py():
            return _one_by_one(column.to_pylist())
        text = pc.binary_join_element_wise('"', column, '"', "")
    elif pa.types.is_timestamp(column.type):
        # Without a zone it is UTC all the same, and becomes text at a fraction of what formatting costs.
        text = pc.replace_substring(column.cast(pa.timestamp(column.type.unit)).cast(pa.string()), " ", "T")
        text = pc.binary_join_element_wise('"', text, 'Z"', "")
    elif pa.types.is_floating(column.type):
        text = column.cast(pa.string())
        if not np.isfinite(column.to_numpy(zero_copy_only=False)).all():  # a null is no finite number either
            text = pc.if_else(pc.is_finite(column), text, None)
    elif pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        text = column.cast(pa.string())
    elif pa.types.is_list(column.type):
        full = pc.fill_null(pc.not_equal(pc.list_value_length(column), 0), True)
        # Most decisions have no reasons; those that have some are few.
        text = pc.replace_with_mask(pa.repeat("[]", len(column)), full, _one_by_one(column.filter(full).to_pylist()))
    else:
        return _one_by_one(column.to_pylist())
    return pc.fill_null(text, _NULL) if text.null_count else text


def _one_by_one(values: Sequence[Any]) -> pa.Array:
    return pa.array([msgspec.json.encode(value).decode() for value in values], pa.string())
