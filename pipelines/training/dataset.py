"""The training table as arrays: what every later step works on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.errors import UserError
from transforms.features import FeatureSet


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """Transactions whose label is known, in order of (event_time, transaction_id).

    Attributes:
        ids: transaction ids.
        event_time: int64 microseconds, shape (rows,).
        amounts: int64 minor units, shape (rows,).
        cards: int64, a number for each customer, -1 for none, shape (rows,).
        labels: int8, 1 for fraud, shape (rows,).
        matrix: float64, finite, shape (rows, features).
    """

    ids: pa.ChunkedArray
    event_time: NDArray[np.int64]
    amounts: NDArray[np.int64]
    cards: NDArray[np.int64]
    labels: NDArray[np.int8]
    matrix: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def frauds(self) -> int:
        """How many rows are frauds."""
        return int(self.labels.sum())

    def part(self, rows: NDArray[np.bool_]) -> LabelledRows:
        """The rows where `rows` is true."""
        return LabelledRows(
            ids=self.ids.filter(pa.array(rows)),
            event_time=self.event_time[rows],
            amounts=self.amounts[rows],
            cards=self.cards[rows],
            labels=self.labels[rows],
            matrix=self.matrix[rows],
        )


def labelled_rows(table: pa.Table, feature_set: FeatureSet) -> LabelledRows:
    """The rows of `table` that have a label.

    Args:
        table: canonical columns and one column for each feature, in any order.
        feature_set: names the features and their order.

    Raises:
        UserError: a column is missing, a feature is not finite, or no row has a label.
    """
    for name in ("transaction_id", "event_time", "amount_minor", "customer_id", "is_fraud", *feature_set.names):
        if name not in table.column_names:
            raise UserError(f"the training table has no column {name}; found {', '.join(table.column_names)}")
    known = table.filter(pc.is_valid(table["is_fraud"]))
    if not known.num_rows:
        raise UserError(
            f"none of the {table.num_rows} transactions has a label: give --labels, or a source whose schema "
            "fills is_fraud"
        )
    ordered = known.sort_by([("event_time", "ascending"), ("transaction_id", "ascending")])
    return LabelledRows(
        ids=ordered["transaction_id"],
        event_time=_numpy(ordered["event_time"].cast(pa.int64())),
        amounts=_numpy(ordered["amount_minor"]),
        cards=_card_numbers(ordered["customer_id"]),
        labels=_numpy(ordered["is_fraud"].cast(pa.int8())),
        matrix=_matrix(ordered, feature_set.names),
    )


def _matrix(table: pa.Table, names: tuple[str, ...]) -> NDArray[np.float64]:
    matrix = np.empty((table.num_rows, len(names)), dtype=np.float64)
    for at, name in enumerate(names):
        matrix[:, at] = _numpy(table[name].cast(pa.float64()))
        missing = int((~np.isfinite(matrix[:, at])).sum())
        if missing:
            raise UserError(
                f"feature {name} is null, NaN or infinite in {missing} of {table.num_rows} rows: a model needs a "
                "number everywhere. Mend the source, or leave the feature out"
            )
    return matrix


def _card_numbers(customers: pa.ChunkedArray) -> NDArray[np.int64]:
    encoded = customers.combine_chunks().dictionary_encode()
    return _numpy(pc.fill_null(encoded.indices.cast(pa.int64()), -1))


def _numpy(values: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return np.asarray(values.to_numpy(zero_copy_only=False))
