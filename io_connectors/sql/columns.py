"""What a column holds, whichever database it is in, and which column an Arrow column becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from transforms.errors import UserError

#: `texts` are a list of text; `money` is an amount in major units with two decimals.
Kind = Literal["text", "texts", "flag", "small", "integer", "big", "double", "money", "time"]

#: The Arrow type in which each kind is written; times are UTC.
ARROW_TYPES: dict[Kind, pa.DataType] = {
    "text": pa.string(),
    "texts": pa.list_(pa.string()),
    "flag": pa.bool_(),
    "small": pa.int16(),
    "integer": pa.int32(),
    "big": pa.int64(),
    "double": pa.float64(),
    "money": pa.float64(),
    "time": pa.timestamp("us"),
}
KEY = "transaction_id"
#: A column of the staging table alone: the row's place in its batch.
PLACE = "row_of_batch"


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str
    kind: Kind


def column_of(field: pa.Field) -> Column:
    """The column that holds what an Arrow column holds.

    Raises:
        UserError: none does.

    Example:
        >>> column_of(pa.field("late", pa.bool_()))
        Column(name='late', kind='flag')
    """
    kind = _kind_of(field.type)
    if kind is None:
        raise UserError(f"column {field.name}: there is no column for Arrow's {field.type} in a database")
    return Column(field.name, kind)


def _kind_of(arrow: pa.DataType) -> Kind | None:
    if pa.types.is_dictionary(arrow):
        return _kind_of(arrow.value_type)
    if pa.types.is_list(arrow):
        return "texts" if _kind_of(arrow.value_type) == "text" else None
    if pa.types.is_string(arrow) or pa.types.is_large_string(arrow):
        return "text"
    if pa.types.is_integer(arrow):
        bits = arrow.bit_width + pa.types.is_unsigned_integer(arrow)
        return "small" if bits <= 16 else "integer" if bits <= 32 else "big" if bits <= 64 else None
    if pa.types.is_floating(arrow):
        return "double"
    if pa.types.is_timestamp(arrow):
        return "time"
    return "flag" if pa.types.is_boolean(arrow) else None
