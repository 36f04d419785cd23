"""The order in which transactions are taken: by event time, then by transaction id, whatever came first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.batch import PROVENANCE_COLUMNS, TransactionBatch


def order_time(batch: TransactionBatch) -> np.ndarray[Any, np.dtype[np.int64]]:
    """When each row takes effect: a label when it arrives, a transaction at its event time."""
    return batch.numpy("label_arrival" if is_labels(batch) else "event_time")


def is_labels(batch: TransactionBatch) -> bool:
    """Whether a batch carries labels of past transactions and not transactions."""
    return "label_arrival" in batch.rows.schema.names


def in_event_order(batch: TransactionBatch) -> TransactionBatch:
    """The batch sorted by time, then transaction id.

    Ids compare by length and then by bytes, so that numbers written without leading zeros stand in
    the order of their values. Rows that agree in both are sorted by the rest of their content: the
    result does not depend on the order they came in.

    Example:
        >>> from transforms.batch import from_rows
        >>> rows = [{"transaction_id": t, "event_time": 5, "amount_minor": 1} for t in ("10", "9")]
        >>> in_event_order(from_rows(rows)).rows.column("transaction_id").to_pylist()
        ['9', '10']
    """
    order = event_order(batch)
    return batch if order is None else batch.take(order)


def event_order(batch: TransactionBatch) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    """The places of the rows in the order of `in_event_order`; None where that is the order they are in.

    Example:
        >>> from transforms.batch import from_rows
        >>> rows = [{"transaction_id": t, "event_time": 5, "amount_minor": 1} for t in ("10", "9")]
        >>> event_order(from_rows(rows)).tolist()
        [1, 0]
    """
    time = order_time(batch)
    if len(batch) < 2 or bool(np.all(time[1:] > time[:-1])):
        return None
    places = np.argsort(time, kind="stable")
    ordered = time[places]
    tied = np.zeros(len(places), dtype=bool)
    same = ordered[1:] == ordered[:-1]
    tied[1:] |= same
    tied[:-1] |= same
    if tied.any():
        at = np.flatnonzero(tied)
        places[at] = _order_ties(batch, places[at], ordered[at])
    return None if bool(np.all(places[1:] > places[:-1])) else places


def _order_ties(
    batch: TransactionBatch, rows: np.ndarray[Any, Any], time: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """`rows`, whose times are given and rising, in the order of their ids within each time."""
    ids = batch.rows.column("transaction_id").take(pa.array(rows))
    lengths = np.asarray(pc.binary_length(ids))
    texts = np.asarray(ids.cast(pa.binary()).to_numpy(zero_copy_only=False)).astype(np.bytes_)
    order = np.lexsort((texts, lengths, time))
    same = (time[order][1:] == time[order][:-1]) & (texts[order][1:] == texts[order][:-1])
    if same.any():
        return _order_twins(batch, rows[order], np.concatenate(([False], same)))
    return np.asarray(rows[order])


def _order_twins(
    batch: TransactionBatch, rows: np.ndarray[Any, Any], same_as_before: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Sort rows of one time and id by their content. Rare: an id was used twice at one instant."""
    content = batch.without_columns(PROVENANCE_COLUMNS)
    result = rows.copy()
    start = 0
    for end in [*np.flatnonzero(~same_as_before).tolist()[1:], len(rows)]:
        if end - start > 1:
            group = rows[start:end].tolist()
            keys = [repr(content.take(np.array([row])).rows.to_pylist()) for row in group]
            result[start:end] = [row for _, row in sorted(zip(keys, group, strict=True))]
        start = end
    return result
