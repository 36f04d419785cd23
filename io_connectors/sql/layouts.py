"""Which columns of a decided batch a table has: all of them, or those of the Kaggle credit-card set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from io_connectors.sql.columns import ARROW_TYPES, KEY, Column, column_of
from transforms.batch import PROVENANCE_COLUMNS
from transforms.errors import UserError
from transforms.schema import load_schema
from transforms.validate import epoch_micros

COMPONENTS = tuple(f"v{n}" for n in range(1, 29))
_MICROS = 1e6


class Rows(NamedTuple):
    """Rows as a table has them.

    Attributes:
        columns: of the table.
        values: an Arrow column for each, of the type of its kind; a list of text may be JSON.
    """

    columns: tuple[Column, ...]
    values: pa.RecordBatch


def decisions(batch: pa.RecordBatch) -> Mapping[Column, pa.Array]:
    """All that is known of a decision. Where its record was read is left out: that depends on how input was cut."""
    kept = [field for field in batch.schema if field.name not in PROVENANCE_COLUMNS]
    return {column_of(field): batch.column(field.name) for field in kept}


def kaggle(batch: pa.RecordBatch) -> Mapping[Column, pa.Array]:
    """`time`, `v1` to `v28`, `amount` and `class` as in the Kaggle credit-card set, and the id that tells rows apart.

    The set has no id: the pipeline makes one of the file's name and the row's number. `time` is in seconds since the
    schema's epoch, `class` the label a record carries, if any.

    Raises:
        UserError: the batch is of another schema.
    """
    missing = [name for name in COMPONENTS if name not in batch.schema.names]
    if missing:
        raise UserError(
            f"layout=kaggle: transactions have no {missing[0]} ({len(missing)} of v1 to v28 are missing); "
            "it is for --schema creditcard, other transactions go without layout="
        )
    epoch = epoch_micros(load_schema("creditcard").columns["event_time"])
    since = np.asarray(batch.column("event_time").cast(ARROW_TYPES["time"]).view(pa.int64())) - epoch
    return {
        Column("time", "double"): pa.array(since / _MICROS),
        **{Column(name, "double"): batch.column(name) for name in COMPONENTS},
        Column("amount", "money"): pc.divide(batch.column("amount_minor").cast(pa.float64()), 100.0),
        Column("class", "small"): batch.column("is_fraud"),
        Column(KEY, "text"): batch.column(KEY),
    }


Layout = Callable[[pa.RecordBatch], Mapping[Column, pa.Array]]
LAYOUTS: Mapping[str, Layout] = {"decisions": decisions, "kaggle": kaggle}


def rows_of(batch: pa.RecordBatch, layout: str, json_lists: bool) -> Rows:
    """The rows of a decided batch.

    Args:
        batch: decided.
        layout: one of `LAYOUTS`.
        json_lists: whether a list of text is written as JSON.

    Raises:
        UserError: the batch has a column that a table cannot have, or lacks one that the layout needs.

    Example:
        >>> from transforms.batch import from_rows
        >>> batch = from_rows([{"transaction_id": "t1", "event_time": 0, "amount_minor": 5716}])
        >>> [column.name for column in rows_of(batch.rows, "decisions", json_lists=False).columns[:3]]
        ['transaction_id', 'event_time', 'customer_id']
    """
    columns = LAYOUTS[layout](batch)
    values = [_plain(values, ARROW_TYPES[column.kind]) for column, values in columns.items()]
    if json_lists:
        values = [json_texts(each) if pa.types.is_list(each.type) else each for each in values]
    return Rows(tuple(columns), pa.RecordBatch.from_arrays(values, names=[column.name for column in columns]))


def _plain(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values if values.type.equals(kind) else values.cast(kind, safe=False)


def json_texts(lists: pa.Array) -> pa.Array:
    """Lists of text as JSON arrays; most are empty, and only the others are looked at.

    Example:
        >>> json_texts(pa.array([[], ["amount: high"], None])).to_pylist()
        ['[]', '["amount: high"]', None]
    """
    texts = np.full(len(lists), "[]", dtype=object)
    filled = np.flatnonzero(np.asarray(pc.fill_null(pc.list_value_length(lists), 0)))
    texts[filled] = [msgspec.json.encode(each).decode() for each in lists.take(pa.array(filled)).to_pylist()]
    return pa.array(texts, pa.string(), mask=np.asarray(lists.is_null()))
