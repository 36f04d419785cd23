"""The element that flows through the pipeline: a micro-batch of transactions in columns.

One Arrow record batch carries many transactions, so that a shuffle, a model call or a write is paid
per batch and not per row. Every stage adds columns to the right; none changes the ones to its left.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.utils.timestamp import Timestamp

EVENT_TIME = pa.timestamp("us", tz="UTC")

#: Columns every parsed batch starts with, in this order. A schema's own columns (categories and
#: numbers) follow them, then the features, then what scoring and deciding add.
CANONICAL_FIELDS: tuple[pa.Field, ...] = (
    pa.field("transaction_id", pa.string(), nullable=False),
    pa.field("event_time", EVENT_TIME, nullable=False),
    pa.field("customer_id", pa.string()),
    pa.field("terminal_id", pa.string()),
    pa.field("amount_minor", pa.int64(), nullable=False),  # integer minor units: cents, pence
    pa.field("is_fraud", pa.int8()),  # the label the record carries, null while unknown
    pa.field("late", pa.bool_(), nullable=False),
    # Where a row came from. Dead letters name it; decisions do not keep it, because it depends on
    # how the input was cut into files.
    pa.field("source", pa.dictionary(pa.int32(), pa.string()), nullable=False),
    pa.field("position", pa.int64(), nullable=False),
    pa.field("ingest_time", EVENT_TIME, nullable=False),
)
PROVENANCE_COLUMNS: tuple[str, ...] = ("source", "position", "ingest_time")


@dataclass(frozen=True, eq=False)
class TransactionBatch:
    """Some transactions in columns.

    Attributes:
        rows: the Arrow record batch. Its first columns are `CANONICAL_FIELDS`.

    Example:
        >>> batch = from_rows([{"transaction_id": "t1", "event_time": 1_000_000, "amount_minor": 5716}])
        >>> len(batch), batch.numpy("amount_minor").tolist()
        (1, [5716])
    """

    rows: pa.RecordBatch

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TransactionBatch) and self.rows.equals(other.rows)

    __hash__ = None  # type: ignore[assignment]  # a batch is data, never a key

    def numpy(self, column: str) -> np.ndarray[Any, Any]:
        """A column without nulls as a NumPy array: times as int64 microseconds, numbers as they are."""
        values = self.rows.column(column)
        if pa.types.is_timestamp(values.type):
            values = values.view(pa.int64())
        return np.asarray(values.to_numpy(zero_copy_only=False))

    def take(self, indices: np.ndarray[Any, Any]) -> TransactionBatch:
        """The rows at `indices`, in that order."""
        return TransactionBatch(self.rows.take(pa.array(indices)))

    def slice(self, offset: int, length: int | None = None) -> TransactionBatch:
        """A view of `length` rows from `offset`; nothing is copied."""
        return TransactionBatch(self.rows.slice(offset, length))

    def with_columns(self, columns: Mapping[str, pa.Array]) -> TransactionBatch:
        """This batch with `columns` set: a new name goes to the right, a known one is replaced."""
        rows, names = self.rows, self.rows.schema.names
        for name, values in columns.items():
            if name in names:
                rows = rows.set_column(names.index(name), pa.field(name, values.type), values)
            else:
                rows = rows.append_column(pa.field(name, values.type), values)
        return TransactionBatch(rows)

    def without_columns(self, names: Iterable[str]) -> TransactionBatch:
        """This batch less the columns in `names`; a name it does not have is passed over."""
        drop = set(names)
        keep = [name for name in self.rows.schema.names if name not in drop]
        return TransactionBatch(self.rows.select(keep))

    def feature_matrix(self, names: Iterable[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The columns `names` as a float64 matrix of shape (rows, features), in that order."""
        columns = [self.numpy(name) for name in names]
        matrix = np.empty((len(self), len(columns)), dtype=np.float64)
        for at, column in enumerate(columns):
            matrix[:, at] = column
        return matrix

    def plain(self) -> TransactionBatch:
        """This batch with dictionary columns decoded: Arrow sends dictionaries apart from the batch."""
        rows = self.rows
        if not any(pa.types.is_dictionary(kind) for kind in rows.schema.types):
            return self
        arrays = [c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for c in rows.columns]
        return TransactionBatch(pa.RecordBatch.from_arrays(arrays, names=rows.schema.names))

    def pieces(self, most_rows: int) -> Iterator[TransactionBatch]:
        """This batch cut into views of at most `most_rows` rows."""
        for offset in range(0, len(self), most_rows):
            yield self.slice(offset, most_rows)


def concat_batches(batches: Iterable[TransactionBatch]) -> TransactionBatch:
    """One batch with the rows of all; there must be at least one and their columns must agree.

    Example:
        >>> batch = from_rows([{"transaction_id": "t1", "event_time": 0, "amount_minor": 1}])
        >>> stored = TransactionBatchCoder().decode(TransactionBatchCoder().encode(batch))
        >>> len(concat_batches([batch, stored]))
        2
    """
    pending = list(batches)
    if len(pending) == 1:
        return pending[0]
    rows = [batch.rows for batch in pending]
    if any(not each.schema.equals(rows[0].schema) for each in rows):  # some have been through the coder, some not yet
        rows = [batch.plain().rows for batch in pending]
    return TransactionBatch(pa.concat_batches(rows))


def from_rows(rows: Iterable[Mapping[str, Any]], extra: Mapping[str, pa.DataType] | None = None) -> TransactionBatch:
    """A batch from row mappings, for tests and small programs: what is absent is filled in.

    Args:
        rows: mappings with `transaction_id`, `event_time` (microseconds since 1970 or a datetime)
            and `amount_minor`; other canonical columns may be left out.
        extra: further columns and their Arrow types.
    """
    fields = [*CANONICAL_FIELDS, *(pa.field(name, kind) for name, kind in (extra or {}).items())]
    blank = {"late": False, "source": "memory", "ingest_time": 0}
    filled = [{"position": at, **blank, **row} for at, row in enumerate(rows)]
    arrays = [pa.array([row.get(field.name) for row in filled], field.type) for field in fields]
    return TransactionBatch(pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)))


def to_rows(batch: TransactionBatch) -> list[dict[str, Any]]:
    """The rows of a batch as dictionaries: the slow, convenient view for extensions and tests."""
    rows: list[dict[str, Any]] = batch.rows.to_pylist()
    return rows


def earliest(batch: TransactionBatch) -> Timestamp:
    """The Beam timestamp of a batch: its earliest event time (of labels: arrival), floored to the millisecond.

    The watermark promises that nothing older follows, so a batch must never claim to be newer than
    its oldest row. Runners outside Python keep milliseconds, hence the floor.
    """
    first = int(batch.numpy("label_arrival" if "label_arrival" in batch.rows.schema.names else "event_time").min())
    return Timestamp(micros=first - first % 1000)


@lru_cache(maxsize=256)
def _schema_from(encoded: bytes) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(encoded))


class TransactionBatchCoder(beam.coders.Coder):
    """Arrow's own wire format: a version byte, the schema's length, the schema, the columns.

    Schemas are parsed once per process; reading a batch makes views into the received bytes. Columns of
    `COMPRESS_FROM` bytes and more are compressed, version 2, with their length before them: half of a transaction is
    ids and repeated words, and a byte that passes a JVM is copied a dozen times.
    """

    VERSION = 1
    VERSION_COMPRESSED = 2
    #: Bytes. Below it a call of the compressor costs what it saves.
    COMPRESS_FROM = 16_384

    def encode(self, value: TransactionBatch) -> bytes:
        rows = value.plain().rows
        schema = rows.schema.serialize()  # costs less than to find it in a cache: a schema's hash is slow
        columns = rows.serialize()
        head = schema.size.to_bytes(4, "big")
        if columns.size < self.COMPRESS_FROM:
            return b"".join((bytes([self.VERSION]), head, schema, columns))
        length = columns.size.to_bytes(4, "big")
        return b"".join((bytes([self.VERSION_COMPRESSED]), head, schema, length, pa.compress(columns, "zstd")))

    def decode(self, encoded: bytes) -> TransactionBatch:
        if encoded[0] not in (self.VERSION, self.VERSION_COMPRESSED):
            raise ValueError(
                f"a transaction batch of coder version {encoded[0]} cannot be read by version "
                f"{self.VERSION_COMPRESSED}: restore with the release that wrote it"
            )
        view = memoryview(encoded)
        end = 5 + int.from_bytes(view[1:5], "big")
        schema = _schema_from(bytes(view[5:end]))
        columns = pa.py_buffer(view[end:])
        if encoded[0] == self.VERSION_COMPRESSED:
            columns = pa.decompress(columns[4:], int.from_bytes(columns[:4], "big"), "zstd")
        return TransactionBatch(pa.ipc.read_record_batch(columns, schema))

    def estimate_size(self, value: TransactionBatch) -> int:
        """Bytes of the columns: Beam asks for metrics and caches, and would encode the batch to find out."""
        return int(value.rows.nbytes)

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> type[TransactionBatch]:
        return TransactionBatch


beam.coders.registry.register_coder(TransactionBatch, TransactionBatchCoder)
