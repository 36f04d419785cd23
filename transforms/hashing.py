"""A hash of text that is the same on every machine, in every process and in every release.

Shards, histories and duplicate checks are keyed by it, so it is part of the state's format: a change
here makes every savepoint unreadable and must raise the state version.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numba
import numpy as np
import pyarrow as pa

#: What a missing value hashes to; no present value does.
NO_VALUE = np.uint64(0)

_MULTIPLIER = np.uint64(0xC6A4A7935BD1E995)
_SHIFT = np.uint64(47)


def stable_hash(values: pa.Array) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """A 64-bit hash of each text in `values` (MurmurHash64A with seed 0); missing ones give `NO_VALUE`.

    Two of n texts share a hash with a probability of about n^2 / 2^65: three in a million for ten
    million customers.

    Example:
        >>> stable_hash(pa.array(["c1", "c2", "c1", None])).tolist()
        [9592619915129918108, 1207901138576979381, 9592619915129918108, 0]
    """
    text = values if pa.types.is_string(values.type) else values.cast(pa.string())
    _, offsets_buffer, data_buffer = text.buffers()
    count = len(text)
    if count == 0:
        return np.empty(0, dtype=np.uint64)
    offsets = np.frombuffer(offsets_buffer, dtype=np.int32)[text.offset : text.offset + count + 1]
    data = np.frombuffer(data_buffer, dtype=np.uint8) if data_buffer else np.empty(0, dtype=np.uint8)
    hashes: np.ndarray[Any, np.dtype[np.uint64]] = _hash_texts(offsets, data)
    if text.null_count:
        hashes[np.asarray(text.is_null())] = NO_VALUE
    return hashes


def text_digest(content: bytes) -> str:
    """32 hexadecimal digits that tell one content from another, for ids of what has none of its own.

    Example:
        >>> text_digest(b"a") == text_digest(b"a"), len(text_digest(b"a"))
        (True, 32)
    """
    return hashlib.blake2b(content, digest_size=16).hexdigest()


@numba.njit(cache=True, nogil=True)
def _hash_texts(offsets: Any, data: Any) -> Any:
    hashes = np.empty(offsets.shape[0] - 1, dtype=np.uint64)
    for row in range(hashes.shape[0]):
        start, end = offsets[row], offsets[row + 1]
        length = end - start
        value = np.uint64(length) * _MULTIPLIER
        whole = start + (length // 8) * 8
        for at in range(start, whole, 8):
            word = np.uint64(0)
            for byte in range(8):
                word |= np.uint64(data[at + byte]) << np.uint64(8 * byte)
            word *= _MULTIPLIER
            word ^= word >> _SHIFT
            word *= _MULTIPLIER
            value ^= word
            value *= _MULTIPLIER
        if whole < end:
            word = np.uint64(0)
            for byte in range(end - whole):
                word |= np.uint64(data[whole + byte]) << np.uint64(8 * byte)
            value ^= word
            value *= _MULTIPLIER
        value ^= value >> _SHIFT
        value *= _MULTIPLIER
        value ^= value >> _SHIFT
        hashes[row] = value if value != np.uint64(0) else np.uint64(1)
    return hashes
