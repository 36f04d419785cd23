"""A Kinesis stream in memory that can be split, merged and trimmed: the slow, obvious way to be one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from botocore.exceptions import ClientError

from io_connectors.kinesis.aggregation import MAGIC
from io_connectors.kinesis.api import EARLIEST, Answer, Moments
from io_connectors.kinesis.settings import Stream
from io_connectors.kinesis.shards import HASH_KEYS, Keys, Segment, Shard
from transforms.durations import DAY

NOW = 1_790_000_000_000_000


def hash_key(key: str) -> int:
    return int(hashlib.md5(key.encode(), usedforsecurity=False).hexdigest(), 16)


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def text(field_number: int, content: bytes) -> bytes:
    return varint(field_number << 3 | 2) + varint(len(content)) + content


def aggregate(records: Sequence[tuple[str, bytes]], hash_keys: Sequence[int | None] = ()) -> bytes:
    """What the Kinesis Producer Library makes of (key, data) records, some with an explicit hash key."""
    keys = sorted({key for key, _ in records})
    explicit = sorted({each for each in hash_keys if each is not None})
    message = b"".join(text(1, key.encode()) for key in keys) + b"".join(text(2, b"%d" % each) for each in explicit)
    for at, (key, data) in enumerate(records):
        own = hash_keys[at] if at < len(hash_keys) else None
        named = b"" if own is None else b"\x10" + varint(explicit.index(own))
        message += text(3, b"\x08" + varint(keys.index(key)) + named + text(3, data))
    return MAGIC + message + hashlib.md5(message, usedforsecurity=False).digest()


def error(code: str, message: str = "", status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Call"
    )


@dataclass
class Held:
    """A shard with its records, each as boto3 gives it."""

    id: str
    keys: Keys
    parents: tuple[str, ...] = ()
    is_open: bool = True
    records: list[dict[str, Any]] = field(default_factory=list)
    trimmed: int = 0

    def told(self) -> Shard:
        return Shard(self.id, self.keys, self.parents, self.is_open)


class StreamInMemory:
    """The stream, and a stand-in for `KinesisApi`.

    Attributes:
        page: most records of a call.
        hidden: how many of the newest shards the next listing does not show.
        empty: how many of the next calls give nothing though there are records.
        errors: raised by the next calls for records, first to last.
        now: microseconds since 1970; every record takes a millisecond.
    """

    def __init__(self, shards: int = 1, page: int = 10_000) -> None:
        self.stream = Stream("events")
        self.page, self.empty = page, 0
        self.hidden = 0
        self.errors: list[Exception] = []
        self.now = NOW
        self.held: dict[str, Held] = {}
        self.sequence = 0
        edges = [HASH_KEYS * n // shards for n in range(shards + 1)]
        for first, end in pairwise(edges):
            self._open(Keys(first, end - 1))

    def put(self, key: str, data: bytes, explicit: int | None = None) -> str:
        """Where a record came to lie."""
        place = hash_key(key) if explicit is None else explicit
        shard = next(held for held in self.held.values() if held.is_open and place in held.keys)
        self.sequence += 1
        self.now += 1000
        arrived = datetime.fromtimestamp(self.now / 1e6, UTC)
        record = {"SequenceNumber": f"{self.sequence:056d}", "PartitionKey": key, "Data": data}
        shard.records.append({**record, "ApproximateArrivalTimestamp": arrived})
        return shard.id

    def open_shards(self) -> list[Held]:
        return sorted((held for held in self.held.values() if held.is_open), key=lambda held: held.keys)

    def split(self, at: int, where: float) -> None:
        """Split the open shard number `at` of those there are, at a part of its keys."""
        shards = self.open_shards()
        old = shards[at % len(shards)]
        middle = old.keys.first + 1 + int((old.keys.last - old.keys.first - 1) * where)
        if old.keys.first < middle <= old.keys.last:
            old.is_open = False
            self._open(Keys(old.keys.first, middle - 1), (old.id,))
            self._open(Keys(middle, old.keys.last), (old.id,))

    def merge(self, at: int) -> None:
        """Merge the open shard number `at` with the next."""
        shards = self.open_shards()
        if len(shards) > 1:
            left, right = shards[at % (len(shards) - 1) :][:2]
            left.is_open = right.is_open = False
            self._open(Keys(left.keys.first, right.keys.last), (left.id, right.id))

    def trim(self) -> None:
        """Let go of all that there is; closed shards go with their records."""
        for held in list(self.held.values()):
            held.trimmed = len(held.records)
            if not held.is_open:
                del self.held[held.id]

    def shards(self) -> dict[str, Shard]:
        listed = list(self.held.values())
        shown, self.hidden = listed[: len(listed) - self.hidden], 0
        return {held.id: held.told() for held in reversed(shown)}  # nobody promises an order

    def has(self, shard: str) -> bool:
        return shard in self.held

    def shards_at(self) -> tuple[list[Shard], Moments]:
        return list(self.shards().values()), Moments(self.now, self.now)

    def retention(self) -> int:
        return DAY

    def iterator(self, segment: Segment, start: int) -> str:
        held = self.held.get(segment.shard)
        if held is None:
            raise error("ResourceNotFoundException", f"no {segment.shard}")
        at = held.trimmed
        while at < len(held.records) and _is_before(held.records[at], segment.sequence, start):
            at += 1
        return f"{segment.shard}/{at}"

    def records(self, iterator: str) -> Answer:
        if self.errors:
            raise self.errors.pop(0)
        shard, _, place = iterator.partition("/")
        held, at = self.held[shard], int(place)
        if self.empty:
            self.empty -= 1
            return Answer([], iterator, 1000, self.now)
        found = held.records[at : at + self.page]
        end = at + len(found)
        is_over = not held.is_open and end == len(held.records)
        behind = 0 if end == len(held.records) else 1000
        return Answer(found, None if is_over else f"{shard}/{end}", behind, self.now)

    def _open(self, keys: Keys, parents: tuple[str, ...] = ()) -> None:
        held = Held(f"shardId-{len(self.held):012d}", keys, parents)
        self.held[held.id] = held


def _is_before(record: dict[str, Any], sequence: str, start: int) -> bool:
    if sequence:
        return str(record["SequenceNumber"]) < sequence
    return start != EARLIEST and record["ApproximateArrivalTimestamp"].timestamp() * 1e6 < start


def payloads(batches: Iterable[Any]) -> list[bytes]:
    """Those of batches with their times, in order."""
    return [payload for batch in batches for payload in batch.value.payloads]
