"""Train-serve skew: are the features that were served those that the same transactions get when computed anew?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model_artifacts.reference import floats
from transforms.errors import UserError


@dataclass(frozen=True)
class ColumnSkew:
    """One column that differs.

    Attributes:
        name: the column's.
        rows: in how many transactions.
        largest: the largest distance; infinite where one side has no value.
        example: the id of the transaction with it.
        served, recomputed: its two values, NaN for none.
    """

    name: str
    rows: int
    largest: float
    example: str
    served: float
    recomputed: float


@dataclass(frozen=True)
class Skew:
    """What two tables of the same transactions differ in.

    Attributes:
        rows: transactions that are in both.
        only_served, only_recomputed: transactions that are in one.
        columns: those that differ, the one with most rows first.
    """

    rows: int
    only_served: int
    only_recomputed: int
    columns: tuple[ColumnSkew, ...]

    @property
    def found(self) -> bool:
        """Whether anything differs."""
        return bool(self.columns or self.only_served or self.only_recomputed)


def compare_features(
    served: pa.Table, recomputed: pa.Table, columns: Sequence[str], tolerance: float = 0.0, key: str = "transaction_id"
) -> Skew:
    """Compare columns of numbers, transaction by transaction; two missing values are equal.

    Args:
        served, recomputed: with `key` and `columns`, in any order; of a key's several rows the first counts.
        columns: what to compare.
        tolerance: distances up to it are none. Sums of money are exact here, so 0 is what to ask for.
        key: what identifies a transaction.

    Raises:
        UserError: a table lacks a column, or no transaction is in both.

    Example:
        >>> one = pa.table({"transaction_id": ["a", "b"], "count_1d": [1.0, 2.0]})
        >>> other = pa.table({"transaction_id": ["b", "a"], "count_1d": [3.0, 1.0]})
        >>> compare_features(one, other, ["count_1d"]).columns
        (ColumnSkew(name='count_1d', rows=1, largest=1.0, example='b', served=2.0, recomputed=3.0),)
    """
    for name, table in (("served", served), ("recomputed", recomputed)):
        absent = [column for column in (key, *columns) if column not in table.column_names]
        if absent:
            raise UserError(
                f"the {name} table has no column {', '.join(absent)}; found {', '.join(table.column_names)}"
            )
    served, recomputed = _first_of_each(served, key), _first_of_each(recomputed, key)
    places = pc.index_in(served.column(key), value_set=recomputed.column(key).combine_chunks())
    both = served.filter(places.is_valid())
    if not both.num_rows:
        raise UserError(
            f"not one {key} is in both of {served.num_rows} served and {recomputed.num_rows} recomputed rows: "
            "they are of other days"
        )
    other = recomputed.take(places.drop_null())
    found = [_compare(name, both, other, tolerance, key) for name in columns]
    return Skew(
        rows=both.num_rows,
        only_served=served.num_rows - both.num_rows,
        only_recomputed=recomputed.num_rows - both.num_rows,
        columns=tuple(sorted((each for each in found if each), key=lambda column: (-column.rows, column.name))),
    )


def _first_of_each(table: pa.Table, key: str) -> pa.Table:
    ids = table.column(key).combine_chunks()
    first = pc.index_in(ids, value_set=ids)
    return table.filter(pc.equal(first, pa.array(np.arange(len(ids)), first.type)))


def _compare(name: str, served: pa.Table, recomputed: pa.Table, tolerance: float, key: str) -> ColumnSkew | None:
    a, b = floats(served.column(name)), floats(recomputed.column(name))
    with np.errstate(invalid="ignore"):  # infinity less infinity: equal, as the next line sees
        distance = np.abs(a - b)
    distance[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
    distance[np.isnan(distance)] = np.inf
    differ = distance > tolerance
    if not differ.any():
        return None
    worst = int(distance.argmax())
    return ColumnSkew(
        name=name,
        rows=int(differ.sum()),
        largest=float(distance[worst]),
        example=str(served.column(key)[worst].as_py()),
        served=float(a[worst]),
        recomputed=float(b[worst]),
    )


def skew_lines(skew: Skew) -> list[str]:
    """A table of what differs, for a terminal."""
    lines = [f"{skew.rows:,} transactions in both"]
    for count, where in ((skew.only_served, "served"), (skew.only_recomputed, "recomputed")):
        lines += [f"{count:,} only in the {where} rows"] if count else []
    if not skew.columns:
        return [*lines, "no feature differs"]
    width = max(len(column.name) for column in skew.columns)
    lines.append(f"{'feature':<{width}}  {'rows':>10}  {'share':>8}  {'largest':>12}  served and recomputed, of")
    for c in skew.columns:
        share = f"{100 * c.rows / skew.rows:.2f} %"
        lines.append(
            f"{c.name:<{width}}  {c.rows:>10,}  {share:>8}  {c.largest:>12.6g}  "
            f"{c.served:.10g} and {c.recomputed:.10g}, {c.example}"
        )
    return lines
