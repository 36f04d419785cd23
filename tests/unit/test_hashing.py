"""The hash that shards and histories are keyed by: part of the state's format, so pinned."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from transforms.hashing import NO_VALUE, stable_hash

WORD = 2**64 - 1


def murmur64a(data: bytes) -> int:
    """Austin Appleby's MurmurHash64A with seed 0, byte by byte."""
    multiplier, value = 0xC6A4A7935BD1E995, len(data) * 0xC6A4A7935BD1E995 & WORD
    whole = len(data) // 8 * 8
    for at in range(0, whole, 8):
        word = int.from_bytes(data[at : at + 8], "little") * multiplier & WORD
        word = (word ^ word >> 47) * multiplier & WORD
        value = (value ^ word) * multiplier & WORD
    if whole < len(data):
        value = (value ^ int.from_bytes(data[whole:], "little")) * multiplier & WORD
    value = (value ^ value >> 47) * multiplier & WORD
    return value ^ value >> 47


@given(st.lists(st.text(max_size=40) | st.none(), max_size=20), st.integers(0, 3))
def test_texts_hash_as_murmur_does_whatever_array_they_lie_in(texts: list[str | None], offset: int) -> None:
    """Every text has its MurmurHash64A, slices and nulls included; only a missing value hashes to 0."""
    values = pa.array([None] * offset + texts, pa.string()).slice(offset)
    expected = [NO_VALUE if text is None else max(1, murmur64a(text.encode())) for text in texts]
    np.testing.assert_array_equal(stable_hash(values), np.array(expected, dtype=np.uint64))
