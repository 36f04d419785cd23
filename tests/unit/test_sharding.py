"""Shards' keys fall evenly on Flink's key groups, whatever the parallelism."""

from __future__ import annotations

from collections import Counter
from itertools import count

import pytest

from transforms.sharding import _KEY_OF_GROUP, shard_keys

GROUPS = 128
LOW_64 = 2**64 - 1
LOW_32 = 2**32 - 1


def rotated(value: int, by: int, bits: int) -> int:
    return (value << by | value >> (bits - by)) & ((1 << bits) - 1)


def mixed(value: int) -> int:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = (value ^ value >> 33) * factor & LOW_64
    return int(value ^ value >> 33)


def hash_of_key(encoded: bytes) -> int:
    """Beam's: the low 32 bits of MurmurHash3 x64 128 of a key of at most eight bytes."""
    word = int.from_bytes(encoded, "little") * 0x87C37B91114253D5 & LOW_64
    low = rotated(word, 31, 64) * 0x4CF5AD432745937F & LOW_64
    low, high = low ^ len(encoded), len(encoded)
    low = low + high & LOW_64
    high = high + low & LOW_64
    return mixed(low) + mixed(high) & LOW_32


def key_group(number: int) -> int:
    """Flink's: MurmurHash3 of 32 bits of the hash, as an absolute value, over the groups."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    code = hash_of_key(bytes(encoded)) * 0xCC9E2D51 & LOW_32
    code = rotated(code, 15, 32) * 0x1B873593 & LOW_32
    code = (rotated(code, 13, 32) * 5 + 0xE6546B64 & LOW_32) ^ 4
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        code = (code ^ code >> shift) * factor & LOW_32
    code ^= code >> 16
    return (code if code < 2**31 else 2**32 - code) % GROUPS


def test_the_hash_is_that_of_a_cluster() -> None:
    """As keys of these numbers fell on the groups of a cluster that ran."""
    seen = {0: 46, 1: 122, 2: 125, 3: 68, 127: 62, 128: 14, 300: 31, 16383: 45, 16384: 121, 1_000_000: 124}
    assert {number: key_group(number) for number in seen} == seen


def test_each_group_has_its_smallest_number() -> None:
    """The table is what a search from 0 on finds."""
    found: dict[int, int] = {}
    for number in count():
        found.setdefault(key_group(number), number)
        if len(found) == GROUPS:
            break
    assert tuple(found[group] for group in range(GROUPS)) == _KEY_OF_GROUP


@pytest.mark.parametrize("shards", [1, 2, 4, 8, 12, 64, 128])
def test_every_subtask_has_as_many_shards(shards: int) -> None:
    """Wherever the parallelism divides the shards; otherwise one more or less."""
    for parallelism in range(1, shards + 1):
        held = Counter(key_group(key) * parallelism // GROUPS for key in shard_keys(shards))
        spread = [held[subtask] for subtask in range(parallelism)]
        assert max(spread) - min(spread) <= (shards % parallelism > 0)
