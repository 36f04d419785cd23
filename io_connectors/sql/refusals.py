"""Rows that a database will never take and that can be told before they are sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from io_connectors.delivery import Refused
from io_connectors.sql.layouts import Rows

Mask = np.ndarray[Any, np.dtype[np.bool_]]

#: 4713 BC, before which PostgreSQL and Redshift have no times, in microseconds since 1970.
_EARLIEST = -210_866_803_200_000_000


def refuse(rows: Rows, longest: Mapping[str, int], counts_bytes: bool) -> list[Refused]:
    r"""The rows that are refused, one reason each, in order.

    Args:
        rows: as they would be sent.
        longest: of columns of text whose length has a limit, that limit.
        counts_bytes: whether the limits are of bytes, else of characters.

    Example:
        >>> from transforms.batch import from_rows
        >>> from io_connectors.sql.layouts import rows_of
        >>> ids = [{"transaction_id": name, "event_time": 0, "amount_minor": 1} for name in ("good", "b\0d", "much")]
        >>> refuse(rows_of(from_rows(ids).rows, "decisions", json_lists=True), {"transaction_id": 4}, counts_bytes=True)
        [Refused(at=1, reason='nul_character', error='transaction_id holds a NUL character, which no database takes')]
    """
    found: dict[int, Refused] = {}
    for column, values in zip(rows.columns, rows.values.columns, strict=True):
        for at, reason, error in _faults(column.name, values, longest.get(column.name), counts_bytes):
            found.setdefault(at, Refused(at, reason, error))
    return [found[at] for at in sorted(found)]


def _faults(name: str, values: pa.Array, longest: int | None, counts_bytes: bool) -> list[tuple[int, str, str]]:
    faults: list[tuple[int, str, str]] = []
    if pa.types.is_timestamp(values.type):
        micros = np.asarray(values.view(pa.int64()).fill_null(0))
        error = f"{name} lies before 4713 BC, where the database's times begin"
        faults += [(at, "time_out_of_range", error) for at in np.flatnonzero(micros < _EARLIEST).tolist()]
    elif pa.types.is_string(values.type):
        faults += [(at, "nul_character", _NUL.format(name)) for at in _where(_holds_nul(values))]
        if longest is not None:
            length = pc.binary_length(values) if counts_bytes else pc.utf8_length(values)
            error = f"{name} is longer than the {longest} {'bytes' if counts_bytes else 'characters'} of its column"
            faults += [(at, "text_too_long", error) for at in _where(pc.greater(length, longest))]
    elif pa.types.is_list(values.type):
        parents = np.asarray(pc.list_parent_indices(values))
        spoilt = np.unique(parents[_where(_holds_nul(values.flatten()))]).tolist()
        faults += [(at, "nul_character", _NUL.format(name)) for at in spoilt]
    return faults


_NUL = "{} holds a NUL character, which no database takes"


def _holds_nul(texts: pa.Array) -> pa.Array:
    return pc.match_substring(texts, "\0")


def _where(mask: pa.Array) -> list[int]:
    places: list[int] = np.flatnonzero(np.asarray(mask.fill_null(False))).tolist()
    return places
