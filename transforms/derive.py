"""Features of a row made of other features of it: how unusual its amount is, and whether that is too much."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import pyarrow as pa

from transforms.batch import TransactionBatch
from transforms.features import DerivedFeature, Feature

Array = np.ndarray[Any, np.dtype[np.float64]]


def add_derived(batch: TransactionBatch, features: Iterable[Feature]) -> TransactionBatch:
    """The batch with these features, each of which may be made of those before it.

    Example:
        >>> from transforms.batch import from_rows
        >>> batch = from_rows([{"transaction_id": "t", "event_time": 0, "amount_minor": 600}])
        >>> batch = batch.with_columns({"amount": pa.array([6.0]), "usual": pa.array([2.0])})
        >>> ratio = DerivedFeature(name="high", kind="ratio", column="amount", by="usual")
        >>> above = DerivedFeature(name="too_high", kind="above", column="high", threshold=2.5)
        >>> added = add_derived(batch, [ratio, above])
        >>> [added.numpy(name).tolist() for name in ("high", "too_high")]
        [[3.0], [1.0]]
    """
    for feature in features:
        batch = batch.with_columns({feature.name: pa.array(_derive(batch, cast(DerivedFeature, feature)))})
    return batch


def _derive(batch: TransactionBatch, feature: DerivedFeature) -> Array:
    values = _numbers(batch, str(feature.column))
    if feature.kind == "above":
        return (values > feature.threshold).astype(np.float64)
    by = _numbers(batch, str(feature.by))
    return np.divide(values, by, out=np.zeros_like(values), where=by > 0)


def _numbers(batch: TransactionBatch, name: str) -> Array:
    return np.asarray(batch.rows.column(name).to_numpy(zero_copy_only=False), dtype=np.float64)
