"""A batch's rows as DynamoDB items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from io_connectors.delivery import Refused
from transforms.batch import PROVENANCE_COLUMNS, TransactionBatch
from transforms.errors import UserError

#: An attribute's name to its value under DynamoDB's name of the type: `{"decision": {"S": "approve"}}`.
Item = dict[str, dict[str, Any]]

KEY = "transaction_id"
EXPIRES_AT = "expires_at"
KEY_BYTES = 2048  # the longest partition key
ITEM_BYTES = 400 * 1024  # the largest item: its names and values

_ITEMS_AT_ONCE = 500  # an item takes some kilobytes as Python objects


def items_of(batch: TransactionBatch, ttl: int | None = None) -> Iterator[Item]:
    """Each row as an item, in the rows' order; missing values are left out, as is where a row was read.

    Integers are exact, floats the shortest decimal that reads as the same float, times ISO 8601 text in UTC.

    Args:
        batch: every number in it must be finite; see `unwritable`.
        ttl: how long after its event time an item expires, in microseconds; None: never.

    Raises:
        UserError: a column is called as the one that `ttl` adds.

    Example:
        >>> from transforms.batch import from_rows
        >>> row = {"transaction_id": "t1", "event_time": 1_522_540_831_000_000, "amount_minor": 5716}
        >>> for name, value in next(items_of(from_rows([row]), ttl=1_000_000)).items():
        ...     print(name, value)
        transaction_id {'S': 't1'}
        event_time {'S': '2018-04-01T00:00:31+00:00'}
        amount_minor {'N': '5716'}
        late {'BOOL': False}
        expires_at {'N': '1522540832'}
    """
    if ttl is not None and EXPIRES_AT in batch.rows.schema.names:
        raise UserError(f"dynamodb: a column is called {EXPIRES_AT}, which is where ttl= puts the time of expiry")
    for piece in batch.without_columns(PROVENANCE_COLUMNS).pieces(_ITEMS_AT_ONCE):
        columns = {name: _values(name, piece.rows.column(name)) for name in piece.rows.schema.names}
        if ttl is not None:
            columns[EXPIRES_AT] = [{"N": str(at)} for at in ((piece.numpy("event_time") + ttl) // 1_000_000).tolist()]
        names = list(columns)
        for values in zip(*columns.values(), strict=True):
            yield {name: value for name, value in zip(names, values, strict=True) if value is not None}


def unwritable(batch: TransactionBatch) -> list[Refused]:
    """The rows that no table takes: without a usable key, or with a number that is none.

    Example:
        >>> from transforms.batch import from_rows
        >>> row = {"event_time": 0, "amount_minor": 1}
        >>> unwritable(from_rows([{**row, "transaction_id": ""}]))[0].reason
        'key_empty'
    """
    length = np.asarray(pc.binary_length(batch.rows.column(KEY)))
    found = {int(at): ("key_empty", f"{KEY} is empty; a table's key cannot be") for at in np.flatnonzero(length == 0)}
    for at in np.flatnonzero(length > KEY_BYTES):
        error = f"{KEY} has {length[at]} bytes; a table's key has at most {KEY_BYTES}"
        found.setdefault(int(at), ("key_too_long", error))
    for name in batch.rows.schema.names:
        column = batch.rows.column(name)
        if pa.types.is_floating(column.type):
            infinite = pc.fill_null(pc.invert(pc.is_finite(column)), False)
            for at in np.flatnonzero(infinite.to_numpy(zero_copy_only=False)):
                error = f"{name} is {column[int(at)]}; DynamoDB's numbers are finite"
                found.setdefault(int(at), ("number_not_finite", error))
    return [Refused(at, *why) for at, why in sorted(found.items())]


def item_bytes(item: Item) -> int:
    """About how large DynamoDB counts an item: UTF-8 of names and text, numbers by their digits.

    Example:
        >>> item_bytes({"transaction_id": {"S": "é1"}, "late": {"BOOL": False}})
        22
    """
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def _value_bytes(value: dict[str, Any]) -> int:
    ((kind, content),) = value.items()
    if kind == "L":
        return 3 + sum(1 + _value_bytes(element) for element in content)
    return {"S": lambda: len(content.encode()), "N": lambda: len(content) // 2 + 1}.get(kind, lambda: 1)()


def _values(name: str, column: pa.Array) -> list[dict[str, Any] | None]:
    """The attribute values of a column, None for null."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _values(name, column.dictionary_decode())
    if pa.types.is_timestamp(kind):
        return [None if at is None else {"S": at.isoformat()} for at in column.to_pylist()]
    if pa.types.is_string(kind):
        return [None if text is None else {"S": text} for text in column.to_pylist()]
    if pa.types.is_boolean(kind):
        return [None if flag is None else {"BOOL": flag} for flag in column.to_pylist()]
    if pa.types.is_integer(kind):
        return [None if number is None else {"N": str(number)} for number in column.to_pylist()]
    if pa.types.is_floating(kind):
        return [None if number is None else {"N": repr(number)} for number in column.to_pylist()]
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        return [None if texts is None else {"L": [{"S": text} for text in texts]} for texts in column.to_pylist()]
    raise TypeError(f"column {name} is {kind}, which no attribute of an item is made of")
