"""Which shard a reader reads next: pure functions over a stream's shards.

A stream cuts the space of hash keys, 0 to 2^128 - 1, into shards; a split or a merge closes shards and opens others.
Work is shared out by SLICES of that space, as many as there were open shards at the start, and a slice never changes
hands: whatever becomes of the shards, a key lies in one slice, and its records are read by one reader in their order.
No reader has to know how far another is. A shard that spans several slices after a merge is read by each of their
readers, and each takes what is its own.

At every moment a slice is cut into SEGMENTS, each with the one shard that is being read for it. A segment whose shard
has been read to its end is `done` and waits for the next shard; a shard's turn comes once all of the slice that it
covers is done with that shard's parents. Since at any point of the space shards follow each other in time, nothing else
need be remembered, however often a stream was resharded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

HASH_KEYS = 1 << 128


class Keys(NamedTuple):
    """The hash keys from `first` to `last`, both among them."""

    first: int
    last: int

    def __contains__(self, key: object) -> bool:
        return isinstance(key, int) and self.first <= key <= self.last

    def overlap(self, other: Keys) -> Keys | None:
        """The keys that are in both.

        Example:
            >>> Keys(0, 9).overlap(Keys(5, 20)), Keys(0, 9).overlap(Keys(10, 20))
            (Keys(first=5, last=9), None)
        """
        first, last = max(self.first, other.first), min(self.last, other.last)
        return Keys(first, last) if first <= last else None

    def without(self, other: Keys) -> list[Keys]:
        """The keys that are not in the other, as at most two ranges."""
        parts = (Keys(self.first, min(self.last, other.first - 1)), Keys(max(self.first, other.last + 1), self.last))
        return [part for part in parts if part.first <= part.last]


class Shard(NamedTuple):
    """A shard as ListShards tells of it.

    Attributes:
        id: such as `shardId-000000000000`.
        keys: the hash keys that go to it.
        parents: ids of the shards it was split from or merged of, also of those that are gone.
        is_open: whether records still go to it.
    """

    id: str
    keys: Keys
    parents: tuple[str, ...] = ()
    is_open: bool = True


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """Part of a slice, and how far it has been read. Fields may be added at the end, never moved.

    Attributes:
        shard: the shard that is being read, or was; empty before the first.
        first, last: the segment's hash keys in decimal: more than 64 bits.
        sequence: of the last record taken; empty: none yet.
        subsequence: of it, where it is an aggregate.
        done: whether the shard was read to its end.
        seen: the time up to which records have been read, microseconds since 1970; 0: unknown.
        over: whether all was read that this run is to read.
    """

    shard: str
    first: str
    last: str
    sequence: str = ""
    subsequence: int = 0
    done: bool = False
    seen: int = 0
    over: bool = False

    @property
    def keys(self) -> Keys:
        """The segment's hash keys."""
        return Keys(int(self.first), int(self.last))


Shards = Mapping[str, Shard]
Segments = tuple[Segment, ...]


def slices_of(shards: Iterable[Shard]) -> list[Keys]:
    """The space of hash keys, cut where the open shards meet.

    Example:
        >>> halves = [Shard("a", Keys(0, 9)), Shard("b", Keys(10, HASH_KEYS - 1))]
        >>> [int(keys.first) for keys in slices_of(halves)]
        [0, 10]
    """
    firsts = sorted({0, *(shard.keys.first for shard in shards if shard.is_open)})
    ends = [*firsts[1:], HASH_KEYS]
    return [Keys(first, end - 1) for first, end in zip(firsts, ends, strict=True)]


def unread(keys: Keys) -> Segments:
    """The segments of a slice of which nothing has been read."""
    return (Segment("", str(keys.first), str(keys.last), done=True),)


def start_shards(segments: Segments, shards: Shards) -> Segments:
    """The segments once every shard whose turn has come has been started; in the order of their keys.

    Example:
        >>> whole = unread(Keys(0, 99))
        >>> parent = Shard("p", Keys(0, 99), is_open=False)
        >>> left, right = Shard("l", Keys(0, 49), ("p",)), Shard("r", Keys(50, 99), ("p",))
        >>> known = {shard.id: shard for shard in (parent, left, right)}
        >>> begun = start_shards(whole, known)
        >>> [segment.shard for segment in begun]
        ['p']
        >>> [segment.shard for segment in start_shards(finish(begun, "p"), known)]
        ['l', 'r']
    """
    current = list(segments)
    for shard in shards.values():
        touched = [(s, common) for s in current if (common := s.keys.overlap(shard.keys))]
        if touched and all(s.done and _follows(shard, s.shard, common, shards) for s, common in touched):
            current = _replace(current, touched, shard.id)
    return tuple(sorted(current, key=lambda segment: segment.keys))


def finish(segments: Segments, shard: str) -> Segments:
    """The segments once a shard has been read to its end."""
    return tuple(Segment(s.shard, s.first, s.last, done=True, seen=s.seen) if s.shard == shard else s for s in segments)


def unlisted(segments: Segments, shards: Shards) -> list[str]:
    """The shards that a slice was reading and a listing does not have: they are gone, or it is an old listing."""
    return sorted({s.shard for s in segments if s.shard and s.shard not in shards})


def lost(segments: Segments, shards: Shards) -> list[str]:
    """The shards that a slice has not read to their end, or not at all, and that the stream no longer holds.

    A shard that comes next, and is no child of the one that was read last, tells of others in between.
    """
    gone = {s.shard for s in segments if not s.done and not s.over and s.shard not in shards}
    for s in segments:
        if s.done and s.shard and s.shard not in shards:
            for shard in shards.values():
                common = s.keys.overlap(shard.keys)
                if common and s.shard not in shard.parents and _follows(shard, s.shard, common, shards):
                    gone.update(shard.parents)
    return sorted(gone)


def give_up(segments: Segments, shards: Shards) -> Segments:
    """The segments once shards that the stream no longer holds count as read."""
    for name in {s.shard for s in segments if not s.done and not s.over and s.shard not in shards}:
        segments = finish(segments, name)
    return segments


def place_of(partition_key: str, shard: Keys, hash_key: int | None = None) -> int:
    """The hash key that says to which slice a record belongs.

    It is the MD5 of the partition key. Where that is not the shard's, the producer named a hash key of its own, which
    Kinesis does not tell: the record counts as the shard's first key, so that every reader thinks the same of it.

    Args:
        partition_key: as it was put.
        shard: the keys of the shard it is in.
        hash_key: the explicit hash key, where it is known.
    """
    place = hash_key
    if place is None:
        place = int.from_bytes(hashlib.md5(partition_key.encode(), usedforsecurity=False).digest(), "big")
    return place if place in shard else shard.first


def _follows(shard: Shard, before: str, keys: Keys, shards: Shards) -> bool:
    """Whether, for these keys, a shard is the one that comes after `before`."""
    if before in shards:
        return before in shard.parents
    # What was read before has left the stream, and all that was older with it: the oldest that is left comes next.
    parents = (shards[parent] for parent in shard.parents if parent in shards)
    return not any(parent.keys.overlap(keys) for parent in parents)


def _replace(segments: Sequence[Segment], touched: Sequence[tuple[Segment, Keys]], shard: str) -> list[Segment]:
    """The segments with those keys given to a shard that is about to be read."""
    kept = [s for s in segments if all(s is not t for t, _ in touched)]
    for s, common in touched:
        kept += [msgspec.structs.replace(s, first=str(p.first), last=str(p.last)) for p in s.keys.without(common)]
    keys = Keys(min(common.first for _, common in touched), max(common.last for _, common in touched))
    # What its parents had been read up to holds for it: its records are younger than all of theirs.
    return [*kept, Segment(shard, str(keys.first), str(keys.last), seen=min(s.seen for s, _ in touched))]
