"""Transactions by the value of a column: as it is where it is text, in bands where it is a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.errors import UserError, did_you_mean

#: More segments than this say nothing to a reader and fill the memory.
MOST_SEGMENTS = 200
NONE = "(none)"
_STEPS = (1.0, 2.0, 5.0)


def check_segments(by: str, columns: Sequence[str]) -> None:
    """Refuse a column that decisions do not have.

    Args:
        by: the column, or `amount`, which is `amount_minor` in major units.
        columns: of the decisions.

    Raises:
        UserError: names what there is.
    """
    known = [*columns, "amount"]
    if by not in known:
        raise UserError(
            f"--by {by!r} is no column of the decisions{did_you_mean(by, known) or '; there are ' + ', '.join(columns)}"
        )
    if by in ("event_time", "reasons", "transaction_id"):
        raise UserError(f"--by {by} would make a segment of every transaction; name a category, an entity or a number")


def segments(table: pa.Table, by: str, minor_digits: int) -> pa.Array:
    """The segment of each row: text, never null.

    Args:
        table: decisions.
        by: as `check_segments` takes it.
        minor_digits: decimals of the currency.

    Example:
        >>> rows = pa.table({"amount_minor": [750, 4_999, 120_000], "shop": ["a", None, "b"]})
        >>> segments(rows, "amount", 2).to_pylist(), segments(rows, "shop", 2).to_pylist()
        (['5 to 10', '20 to 50', '1,000 to 2,000'], ['a', '(none)', 'b'])
    """
    if by == "amount" and by not in table.column_names:
        return bands(np.asarray(table["amount_minor"].to_numpy()) / 10.0**minor_digits)
    column = table[by].combine_chunks()
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return bands(np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False)))
    return pc.fill_null(column.cast(pa.string()), NONE)


def bands(values: np.ndarray[Any, np.dtype[np.float64]]) -> pa.Array:
    """The band of each number, in steps of 1, 2 and 5 and their tens, the lower end included; the same for any data.

    Example:
        >>> bands(np.array([0.0, 1.0, 1.99, 20.0, -3.0, np.nan, 0.25])).to_pylist()
        ['0', '1 to 2', '1 to 2', '20 to 50', 'below 0', '(none)', '0.2 to 0.5']
    """
    ends = np.array([step * 10.0**power for power in range(-6, 16) for step in _STEPS])
    names = [
        "below 0",
        "0",
        NONE,
        *(f"{low:,.6g} to {high:,.6g}" for low, high in zip([0.0, *ends], [*ends, np.inf], strict=True)),
    ]
    place = 3 + np.searchsorted(ends, np.nan_to_num(values), side="right")
    place = np.select([np.isnan(values), values < 0, values == 0], [2, 0, 1], place)
    return pa.array(names).take(pa.array(place))


def in_order(names: Sequence[str]) -> list[str]:
    """Segments as people want them: bands by their lower ends, words by the alphabet.

    Example:
        >>> in_order(["100 to 200", "travel", "20 to 50", "0", "(none)", "below 0"])
        ['below 0', '0', '20 to 50', '100 to 200', '(none)', 'travel']
    """
    return sorted(names, key=lambda name: (_low(name), name))


def _low(name: str) -> float:
    if name == "below 0":
        return -1.0
    try:
        return float(name.split(" to ")[0].replace(",", ""))
    except ValueError:
        return float("inf")
