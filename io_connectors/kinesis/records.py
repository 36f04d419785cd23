"""From the records of a call to raw batches: aggregates are taken apart, what is another reader's is left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from io_connectors.kinesis.aggregation import CorruptAggregateError, is_aggregate, user_records
from io_connectors.kinesis.shards import Keys, place_of
from transforms.dead_letters import DeadLetter, safe_payload
from transforms.hashing import stable_hash
from transforms.raw_batch import RawBatch

Int64s = np.ndarray[Any, np.dtype[np.int64]]


@dataclass
class Records:
    """Some records of one shard in their order, as columns of the same length.

    Attributes:
        payloads: what they hold.
        keys: partition keys.
        sequences: sequence numbers.
        subsequences: places in the aggregate; 0 for a record that is none.
        times: approximate arrival, microseconds since 1970.
        hash_keys: explicit hash keys, where an aggregate names one, by place.
        corrupt: what is wrong with aggregates that cannot be read, by place.
    """

    payloads: list[bytes] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    sequences: list[str] = field(default_factory=list)
    subsequences: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    hash_keys: dict[int, int] = field(default_factory=dict)
    corrupt: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.payloads)

    def take(self, places: Iterable[int]) -> Records:
        """The records at these places, in this order."""
        at = list(places)
        return Records(
            [self.payloads[n] for n in at],
            [self.keys[n] for n in at],
            [self.sequences[n] for n in at],
            [self.subsequences[n] for n in at],
            [self.times[n] for n in at],
            {m: self.hash_keys[n] for m, n in enumerate(at) if n in self.hash_keys} if self.hash_keys else {},
            {m: self.corrupt[n] for m, n in enumerate(at) if n in self.corrupt} if self.corrupt else {},
        )

    def owned(self, keys: Keys, shard: Keys) -> Records:
        """The records that belong to a slice, of a shard that may belong to several."""
        if keys.first <= shard.first and shard.last <= keys.last:
            return self
        places = (place_of(key, shard, self.hash_keys.get(at)) for at, key in enumerate(self.keys))
        return self.take([at for at, place in enumerate(places) if place in keys])


def unpack(found: Iterable[Mapping[str, Any]], after: tuple[str, int] | None = None) -> Records:
    """The records of a call, those of aggregates one by one.

    Args:
        found: as boto3 gives them.
        after: sequence and subsequence of the last record that was taken; it and those before it are left out.
    """
    records = Records()
    for each in found:
        sequence, data = each["SequenceNumber"], each["Data"]
        first = after[1] + 1 if after is not None and after[0] == sequence else 0
        arrived = each["ApproximateArrivalTimestamp"]
        time = round(arrived.timestamp() * 1000) * 1000
        if is_aggregate(data):
            _unpack_aggregate(records, each["PartitionKey"], data, sequence, first, time)
        elif first == 0:
            _append(records, data, each["PartitionKey"], sequence, 0, time)
    return records


def raw_batch(source: str, records: Records, ingest_time: int) -> RawBatch:
    """Some records as a raw batch; aggregates that cannot be read are among its rejected.

    A position is a hash of 63 bits of the record's sequence number, which is too long for one, and of its place in its
    aggregate: the same whoever reads the record, and wherever reading began. The number itself is in the headers.

    Example:
        >>> records = Records([b"{}"], ["k"], ["4959"], [0], [7])
        >>> batch = raw_batch("events/shardId-000000000000", records, 0)
        >>> batch.keys, batch.headers, batch.positions.tolist()
        ([b'k'], [(('sequence_number', b'4959'), ('subsequence', b'0'))], [583730957421425893])
    """
    positions = positions_of(records)
    rejected = tuple(_corrupt(source, records, at, int(positions[at])) for at in records.corrupt)
    if records.corrupt:
        good = [at for at in range(len(records)) if at not in records.corrupt]
        records, positions = records.take(good), positions[good]
    pairs = zip(records.sequences, records.subsequences, strict=True)
    return RawBatch(
        source,
        ingest_time,
        positions,
        payloads=records.payloads,
        rejected=rejected,
        keys=[key.encode() for key in records.keys],
        headers=[(("sequence_number", s.encode()), ("subsequence", b"%d" % n)) for s, n in pairs],
        timestamps=np.asarray(records.times, np.int64),
    )


def positions_of(records: Records) -> Int64s:
    """The position of each record."""
    pairs = zip(records.sequences, records.subsequences, strict=True)
    names = pa.array([f"{sequence}:{subsequence}" for sequence, subsequence in pairs], pa.string())
    return (stable_hash(names) >> np.uint64(1)).astype(np.int64)


def _unpack_aggregate(records: Records, key: str, data: bytes, sequence: str, first: int, time: int) -> None:
    try:
        inner = user_records(data)
    except CorruptAggregateError as error:
        if first == 0:
            records.corrupt[len(records)] = str(error)
            _append(records, data, key, sequence, 0, time)
        return
    for at, user in enumerate(inner):
        if at < first:
            continue
        if user.hash_key is not None:
            records.hash_keys[len(records)] = user.hash_key
        _append(records, user.data, user.key, sequence, at, time)


def _append(records: Records, data: bytes, key: str, sequence: str, subsequence: int, time: int) -> None:
    records.payloads.append(data)
    records.keys.append(key)
    records.sequences.append(sequence)
    records.subsequences.append(subsequence)
    records.times.append(time)


def _corrupt(source: str, records: Records, at: int, position: int) -> DeadLetter:
    return DeadLetter(
        stage="read",
        reason="aggregate_corrupt",
        error=f"record {records.sequences[at]} begins as an aggregate of the KPL, but {records.corrupt[at]}",
        payload=safe_payload(records.payloads[at]),
        source=source,
        position=position,
    )
