"""What a source hands on: records as they were read, before anything is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
import msgspec
import numpy as np
import pyarrow as pa

from transforms.dead_letters import DeadLetter

Headers = tuple[tuple[str, bytes], ...]


class Reach(NamedTuple):
    """Which positions of its source a batch accounts for, those among them that hold no record.

    Attributes:
        begin: where reading of the source began.
        first, stop: from here to before there.
    """

    begin: int
    first: int
    stop: int


@dataclass(frozen=True, eq=False)
class RawBatch:
    """Some raw records of one source, either as bytes (JSON) or as columns (CSV, Parquet).

    Attributes:
        source: where they were read: a file's name, or a topic and partition.
        ingest_time: when, in microseconds since 1970.
        positions: int64 array, the place of each record in its source (row number, offset).
        payloads: one bytes object a record, each a JSON object; None when `columns` is given.
        columns: Arrow columns named as the source names them, text or typed; None when `payloads` is given.
        rejected: records the reader itself could not make sense of.
        keys: each record's key, where the source has keys; None where it has none.
        headers: each record's headers, where the source has headers and a record of the batch some.
        timestamps: int64 array, when the source took each record in, in microseconds since 1970; None where it
            does not say.
        reach: which positions it accounts for, where somebody wants to know how far all of them have come.

    Exactly one of `payloads` and `columns` is given, and it is as long as `positions`.
    """

    source: str
    ingest_time: int
    positions: np.ndarray[Any, np.dtype[np.int64]]
    payloads: list[bytes] | None = None
    columns: pa.RecordBatch | None = None
    rejected: tuple[DeadLetter, ...] = ()
    keys: Sequence[bytes | None] | None = None
    headers: Sequence[Headers] | None = None
    timestamps: np.ndarray[Any, np.dtype[np.int64]] | None = None
    reach: Reach | None = None

    def __len__(self) -> int:
        return len(self.positions) + len(self.rejected)


class _Wire(msgspec.Struct, array_like=True):
    """A batch as bytes. Fields may be added at the end, never moved."""

    version: int
    source: str
    ingest_time: int
    positions: bytes
    payloads: list[bytes] | None
    columns: bytes | None
    rejected: tuple[DeadLetter, ...]
    keys: Sequence[bytes | None] | None
    headers: Sequence[Headers] | None
    timestamps: bytes | None
    reach: Reach | None = None


class RawBatchCoder(beam.coders.Coder):
    """MessagePack behind a version number; columns in Arrow's stream format.

    Example:
        >>> raw = RawBatch("topic-0", 7, np.arange(2), payloads=[b"{}", b"[]"], keys=[b"k", None])
        >>> again = RawBatchCoder().decode(RawBatchCoder().encode(raw))
        >>> again.source, again.positions.tolist(), again.payloads, again.keys
        ('topic-0', [0, 1], [b'{}', b'[]'], [b'k', None])
    """

    VERSION = 1

    def encode(self, value: RawBatch) -> bytes:
        return msgspec.msgpack.encode(
            _Wire(
                self.VERSION,
                value.source,
                value.ingest_time,
                _packed(value.positions),
                value.payloads,
                None if value.columns is None else _stream(value.columns),
                value.rejected,
                value.keys,
                value.headers,
                None if value.timestamps is None else _packed(value.timestamps),
                value.reach,
            )
        )

    def decode(self, encoded: bytes) -> RawBatch:
        wire = msgspec.msgpack.decode(encoded, type=_Wire)
        if wire.version != self.VERSION:
            raise ValueError(
                f"a raw batch of coder version {wire.version} cannot be read by version {self.VERSION}: "
                "restore with the release that wrote it"
            )
        return RawBatch(
            wire.source,
            wire.ingest_time,
            _unpacked(wire.positions),
            payloads=wire.payloads,
            columns=None if wire.columns is None else pa.ipc.open_stream(wire.columns).read_next_batch(),
            rejected=wire.rejected,
            keys=wire.keys,
            headers=wire.headers,
            timestamps=None if wire.timestamps is None else _unpacked(wire.timestamps),
            reach=wire.reach,
        )

    def estimate_size(self, value: RawBatch) -> int:
        """Bytes of the records: Beam asks for its metrics, and would encode the batch to find out."""
        return sum(map(len, value.payloads or ())) + (0 if value.columns is None else int(value.columns.nbytes))

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> type[RawBatch]:
        return RawBatch


def _packed(values: np.ndarray[Any, Any]) -> bytes:
    return np.ascontiguousarray(values, dtype="<i8").tobytes()


def _unpacked(packed: bytes) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.frombuffer(packed, dtype="<i8")


def _stream(columns: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, columns.schema) as writer:
        writer.write_batch(columns)
    return bytes(sink.getvalue())


beam.coders.registry.register_coder(RawBatch, RawBatchCoder)
