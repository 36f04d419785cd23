"""Write batches as Parquet files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from io_connectors.delivery import Delivered, Written, at_the_end, deliver, written_of
from io_connectors.output_directory import make_directory
from transforms.batch import PROVENANCE_COLUMNS, TransactionBatch
from transforms.errors import UserError
from transforms.hashing import stable_hash

#: Readers skip whole row groups by their statistics; a writer holds one in memory.
ROWS_PER_GROUP = 131_072


class WriteParquet(beam.PTransform[beam.PCollection[TransactionBatch], Delivered]):
    """Write batches into `part-*.parquet` files of a directory: PCollection of `TransactionBatch` to `Delivered`.

    Each bundle writes files of its own, under names a reader's `part-*.parquet` does not match until the
    bundle is complete. A file's name tells its earliest event time and a digest of its transactions, scores and
    decisions, so a bundle that is run again replaces its own files. Where a runner cuts the rows into other
    bundles on recovery, rows may come twice: `transaction_id` tells them apart. A worker that is killed may
    leave a hidden `.part-*.tmp` behind, which is safe to delete.

    Args:
        directory: where the files go; it is created when the pipeline is built.
        drop: columns that are not written.
        rows_per_file: a file ends with the batch that reaches it.

    Raises:
        UserError: when the pipeline is built: the directory cannot be written.

    Example:
        >>> import tempfile
        >>> from transforms.batch import from_rows
        >>> batch = from_rows([{"transaction_id": "t1", "event_time": 1_522_540_800_000_000, "amount_minor": 5716}])
        >>> directory = tempfile.mkdtemp()
        >>> with beam.Pipeline() as pipeline:
        ...     _ = pipeline | beam.Create([batch]) | WriteParquet(directory)
        >>> [name[:21] for name in os.listdir(directory)]
        ['part-20180401T000000-']
    """

    def __init__(
        self, directory: str | Path, drop: Iterable[str] = PROVENANCE_COLUMNS, rows_per_file: int = 1 << 20
    ) -> None:
        super().__init__()
        self.directory = str(directory)
        self.drop = tuple(drop)
        self.rows_per_file = rows_per_file

    def expand(self, pcoll: beam.PCollection[TransactionBatch]) -> Delivered:
        _check_writable(Path(self.directory))
        return deliver(pcoll, _Write(self.directory, self.drop, self.rows_per_file))


def _check_writable(directory: Path) -> None:
    make_directory(directory)
    probe = _temporary_file(directory)
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write into directory {directory}: {error.strerror}") from error


class _Write(beam.DoFn):
    def __init__(self, directory: str, drop: tuple[str, ...], rows_per_file: int) -> None:
        self.drop = drop
        self.files = ParquetFiles(Path(directory), rows_per_file)

    def start_bundle(self) -> None:
        self.files.discard()  # a bundle that failed on this instance left its files open
        self.sources: list[Written] = []

    def process(self, element: TransactionBatch) -> Iterator[Any]:
        self.files.add(element.without_columns(self.drop).rows)
        self.sources += written_of(element)
        yield from ()

    def finish_bundle(self) -> Iterator[Any]:
        self.files.commit()
        for written in self.sources:
            yield at_the_end(written)

    def teardown(self) -> None:
        self.files.discard()


class ParquetFiles:
    """The files of one bundle: rows go in, and at the end all files appear or none does.

    Holds at most one row group in memory.
    """

    def __init__(self, directory: Path, rows_per_file: int = 1 << 20) -> None:
        self._directory = directory
        self._rows_per_file = rows_per_file
        self._open: _PartFile | None = None
        self._closed: list[_PartFile] = []

    def add(self, rows: pa.RecordBatch) -> None:
        """Write `rows`; they need the columns `transaction_id` and `event_time`."""
        if rows.num_rows == 0:
            return
        if self._open and not self._open.schema.equals(rows.schema):
            self._close()
        if self._open is None:
            self._open = _PartFile(_temporary_file(self._directory), rows.schema, self._rows_per_file)
        self._open.add(rows)
        if self._open.rows >= self._rows_per_file:
            self._close()

    def commit(self) -> list[Path]:
        """Put every file on disk under its final name; those names."""
        self._close()
        names = [part.path.replace(self._directory / part.name()) for part in self._closed]
        self._closed = []
        if names:
            _sync(self._directory)
        return names

    def discard(self) -> None:
        """Remove what was not committed."""
        parts = [*self._closed, self._open] if self._open else self._closed
        self._open, self._closed = None, []
        for part in parts:
            part.discard()

    def _close(self) -> None:
        if self._open:
            self._open.close()
            self._closed.append(self._open)
            self._open = None


class _PartFile:
    """One file being written under a temporary name, and what its final name needs."""

    def __init__(self, path: Path, schema: pa.Schema, rows_per_file: int) -> None:
        self.path = path
        self.schema = schema
        self.rows = 0
        self._group_rows = min(ROWS_PER_GROUP, rows_per_file)
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._earliest = sys.maxsize
        self._digest = hashlib.blake2b(digest_size=8)
        # Dictionaries are for text that repeats. On numbers they cost three times the time and save nothing.
        dictionaries = [name for field in schema for name in _repetitive_text(field.name, field.type)]
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=dictionaries)

    def add(self, rows: pa.RecordBatch) -> None:
        self._pending.append(rows)
        self._pending_rows += rows.num_rows
        self.rows += rows.num_rows
        self._earliest = min(self._earliest, pc.min(rows.column("event_time")).cast(pa.int64()).as_py())
        self._digest.update(_fingerprints(rows))
        if self._pending_rows >= self._group_rows:
            self._write_pending()

    def close(self) -> None:
        self._write_pending()
        self._writer.close()
        _sync(self.path)

    def discard(self) -> None:
        with suppress(OSError):  # a disk that is full may refuse the footer of a file nobody will read
            self._writer.close()
        self.path.unlink(missing_ok=True)

    def name(self) -> str:
        """`part-<earliest event time, UTC>-<16 hexadecimal digits of its rows>.parquet`."""
        earliest = datetime.fromtimestamp(self._earliest // 1_000_000, UTC)
        return f"part-{earliest:%Y%m%dT%H%M%S}-{self._digest.hexdigest()}.parquet"

    def _write_pending(self) -> None:
        if self._pending:
            self._writer.write_table(pa.Table.from_batches(self._pending), row_group_size=self._pending_rows)
            self._pending, self._pending_rows = [], 0


def _fingerprints(rows: pa.RecordBatch) -> bytes:
    """Some bytes a row of its id, score and decision, so that how rows were cut into batches leaves no trace."""
    words = [stable_hash(rows.column("transaction_id"))]
    if "score" in rows.schema.names:
        words.append(rows.column("score").cast(pa.float64()).to_numpy(zero_copy_only=False).view(np.uint64))
    if "decision" in rows.schema.names:
        words.append(stable_hash(rows.column("decision")))
    if "champion_score" in rows.schema.names:  # of candidates: a transaction has a row for each
        words.append(stable_hash(rows.column("model_id")))
    return np.stack(words, axis=1).tobytes()


def _repetitive_text(path: str, kind: pa.DataType) -> list[str]:
    """The Parquet paths of text in a column; none for ids of transactions, which never repeat."""
    if pa.types.is_list(kind):
        return _repetitive_text(f"{path}.list.element", kind.value_type)
    text = kind.value_type if pa.types.is_dictionary(kind) else kind
    return [path] if pa.types.is_string(text) and path != "transaction_id" else []


def _temporary_file(directory: Path) -> Path:
    return directory / f".part-{uuid.uuid4().hex}.tmp"


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
