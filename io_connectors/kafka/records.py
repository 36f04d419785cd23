"""From what a poll gave to a raw batch."""

from __future__ import annotations

import numpy as np

from io_connectors.kafka.clients import Damaged, Fetched
from transforms.dead_letters import DeadLetter, safe_payload
from transforms.raw_batch import RawBatch, Reach


def raw_batch(source: str, fetched: Fetched, bound: int, ingest_time: int, reach: Reach | None = None) -> RawBatch:
    """The records before offset `bound`. Those without a value and what could not be read are among its rejected.

    Example:
        >>> at = np.arange(2)
        >>> fetched = Fetched(at, [b"{}", None], [b"a", b"b"], None, at, 2)
        >>> batch = raw_batch("t-0", fetched, 2, 0)
        >>> batch.positions.tolist(), batch.keys, [letter.reason for letter in batch.rejected]
        ([0], [b'a'], ['no_value'])
    """
    count = int(np.searchsorted(fetched.offsets, bound))
    offsets, values, keys = fetched.offsets[:count], fetched.values[:count], fetched.keys[:count]
    headers = fetched.headers[:count] if fetched.headers else None
    timestamps = np.where(fetched.timestamps < 0, ingest_time, fetched.timestamps)[:count]
    rejected = [_damaged(source, damage, bound) for damage in fetched.damaged if damage.first < bound]
    rejected += [_lost(source, lost.first, min(lost.stop, bound)) for lost in fetched.lost]
    if None in values:
        rejected += [_no_value(source, int(offsets[at]), keys[at]) for at in range(count) if values[at] is None]
        kept = [at for at in range(count) if values[at] is not None]
        offsets, timestamps = offsets[kept], timestamps[kept]
        values, keys = [values[at] for at in kept], [keys[at] for at in kept]
        headers = [headers[at] for at in kept] if headers else None
    return RawBatch(
        source,
        ingest_time,
        offsets,
        payloads=[value for value in values if value is not None],
        rejected=tuple(rejected),
        keys=keys,
        headers=headers,
        timestamps=timestamps,
        reach=reach,
    )


def _no_value(source: str, offset: int, key: bytes | None) -> DeadLetter:
    return DeadLetter(
        stage="read",
        reason="no_value",
        error="the record has no value (a tombstone), where a JSON object was expected",
        payload="" if key is None else f"key: {safe_payload(key)}",
        source=source,
        position=offset,
    )


def _damaged(source: str, damage: Damaged, bound: int) -> DeadLetter:
    stop = min(damage.stop, bound)
    return DeadLetter(
        stage="read",
        reason="damaged",
        error=f"offsets {damage.first} to {stop - 1}, {stop - damage.first} in all, cannot be read: {damage.error}",
        payload="",
        source=source,
        position=damage.first,
    )


def _lost(source: str, first: int, stop: int) -> DeadLetter:
    return DeadLetter(
        stage="read",
        reason="offsets_lost",
        error=f"offsets {first} to {stop - 1} were deleted before they were read: {stop - first} are skipped",
        payload="",
        source=source,
        position=first,
    )
