"""Files as a source: CSV, JSON lines and Parquet behind `file:` URLs."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from glob import glob
from itertools import accumulate
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.pvalue import PBegin

from io_connectors.csv_files import read_csv, read_header
from io_connectors.json_files import read_json_lines
from io_connectors.text_lines import DECOMPRESSORS, CorruptFileError, Lines, read_lines
from io_connectors.urls import Scheme, parse_url
from transforms.dead_letters import DeadLetter, safe_payload
from transforms.decode_json import MAX_RECORD_BYTES
from transforms.errors import UserError, did_you_mean
from transforms.raw_batch import RawBatch
from transforms.schema import Schema
from transforms.validate import check_fields, used_fields

FILE_URL = Scheme("a file or a pattern such as data/*.csv", ("format",))
_ARRAY = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*(\{|$)")

FORMATS = {"csv": "csv", "jsonl": "jsonl", "ndjson": "jsonl", "json": "jsonl", "parquet": "parquet"}


class FilePiece(NamedTuple):
    """What one worker reads at a time.

    Attributes:
        path: the file, as the pattern matched it.
        format: `csv`, `jsonl` or `parquet`.
        compression: `.gz`, `.zst` or empty.
        row_group: of a Parquet file; else 0.
        first_row: the number of its first row, from 1.
    """

    path: str
    format: str
    compression: str = ""
    row_group: int = 0
    first_row: int = 1


class ReadFiles(beam.PTransform[PBegin, beam.PCollection[RawBatch]]):
    r"""Read all files that a pattern matches: PBegin to PCollection of `RawBatch`.

    Files are found, and their beginnings checked, when this is made. Workers read them in
    parallel, Parquet by row groups, and hold a batch at a time. Positions count rows from 1; of JSON
    lines they are line numbers. A file that turns out to be corrupt gives all it has up to there, and
    one dead letter that names the place.

    Args:
        pattern: a `file:` URL or a bare path, with `*`, `**` and `?` as the shell has them. The format
            is told by the name (`.csv`, `.jsonl`, `.ndjson`, `.json`, `.parquet`; the first four also
            with `.gz` or `.zst`), or by `?format=` at the end.
        schema: the fields to read.
        batch_rows: rows of a batch, at most.
        clock: nanoseconds since 1970, for the time of ingest.

    Raises:
        UserError: when this is made: no such file, or one that cannot be read with this schema.

    Example:
        >>> import tempfile
        >>> import apache_beam as beam
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> from io_connectors.files import ReadFiles
        >>> from transforms.schema import load_schema
        >>> path = tempfile.mkdtemp() + "/day.csv"
        >>> with open(path, "w") as file:
        ...     _ = file.write("TRANSACTION_ID,TX_DATETIME,CUSTOMER_ID,TERMINAL_ID,TX_AMOUNT\n"
        ...                    "0,2018-04-01 00:00:31,596,3156,57.16\n")
        >>> with TestPipeline() as pipeline:
        ...     raw = pipeline | ReadFiles(path, load_schema("handbook"))
        ...     _ = raw | beam.Map(lambda batch: print(len(batch), batch.columns["TX_AMOUNT"].to_pylist()))
        1 [b'57.16']
    """

    def __init__(
        self, pattern: str, schema: Schema, batch_rows: int = 16_384, clock: Callable[[], int] = time.time_ns
    ) -> None:
        super().__init__()
        self.pieces = check_files(pattern, schema)
        self.schema = schema
        self.batch_rows = batch_rows
        self.clock = clock

    def expand(self, begin: PBegin) -> beam.PCollection[RawBatch]:
        pieces = [tuple(piece) for piece in self.pieces]
        raw: beam.PCollection[RawBatch] = (
            begin
            | "Pieces" >> beam.Create(pieces).with_output_types(tuple[str, str, str, int, int])
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(_Read(self.schema, self.batch_rows, self.clock)).with_output_types(RawBatch)
        )
        return raw


class _Read(beam.DoFn):
    def __init__(self, schema: Schema, batch_rows: int, clock: Callable[[], int]) -> None:
        self.schema = schema
        self.batch_rows = batch_rows
        self.clock = clock

    def process(self, element: tuple[str, str, str, int, int]) -> Iterator[RawBatch]:
        return read_piece(FilePiece(*element), self.schema, self.batch_rows, self.clock)


def check_files(pattern: str, schema: Schema) -> list[FilePiece]:
    """Find the files of a pattern and look at their beginnings.

    Empty files, and CSV files with nothing but a header, are no mistake: they hold no records.

    Args:
        pattern: as for `ReadFiles`.
        schema: the fields that they must have.

    Returns:
        What there is to read, in the order of the files' names.

    Raises:
        UserError: nothing matches, a format is unknown, a file cannot be opened or decompressed, a
            Parquet footer is corrupt, or a file lacks a field that the schema needs.
    """
    url = parse_url(pattern, {"file": FILE_URL}, "source")
    pieces: list[FilePiece] = []
    for file in [file_of(path, url.parameters.get("format")) for path in _find(url.path)]:
        try:
            pieces += check_file(file, schema)
        except OSError as error:
            raise UserError(f"{file.path}: cannot be read: {error.strerror or error}") from error
    return pieces


def check_file(file: FilePiece, schema: Schema) -> list[FilePiece]:
    """Look at the beginning of one file.

    Args:
        file: as `file_of` gives it.
        schema: the fields that it must have.

    Returns:
        What there is to read of it, which may be nothing.

    Raises:
        UserError: the file is not what it should be.
        OSError: it cannot be opened or read, which is not the file's fault.
    """
    path = file.path
    try:
        return _check(file, schema)
    except CorruptFileError as error:
        raise UserError(f"{path}: cannot be decompressed: {error}; is it complete?") from error
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise UserError(f"{path}: is no readable Parquet file: {error}; is it complete?") from error


def read_piece(piece: FilePiece, schema: Schema, batch_rows: int, clock: Callable[[], int]) -> Iterator[RawBatch]:
    """The raw batches of one piece; if it is corrupt, a last one holds a dead letter that says where.

    Args:
        piece: one of `check_files`.
        schema: the fields to read.
        batch_rows: rows of a batch, at most.
        clock: nanoseconds since 1970.

    Raises:
        OSError: the file cannot be opened or read.
    """
    position = piece.first_row
    try:
        for batch in _read(piece, schema, batch_rows, clock):
            yield batch
            last = [*batch.positions[-1:], *(letter.position for letter in batch.rejected[-1:])]
            position = int(max(last, default=position - 1)) + 1
    except CorruptFileError as error:
        letter = DeadLetter(
            stage="read",
            reason="file_corrupt",
            error=f"cannot be read from here on: {error}",
            payload=safe_payload(error.tail),
            source=piece.path,
            position=position,
        )
        yield RawBatch(piece.path, clock() // 1000, np.empty(0, np.int64), payloads=[], rejected=(letter,))


def _read(piece: FilePiece, schema: Schema, batch_rows: int, clock: Callable[[], int]) -> Iterator[RawBatch]:
    if piece.format == "csv":
        return read_csv(piece.path, piece.compression, schema, batch_rows, clock)
    if piece.format == "jsonl":
        return read_json_lines(piece.path, piece.compression, batch_rows, clock)
    return _read_row_group(piece, schema, batch_rows, clock)


def _read_row_group(piece: FilePiece, schema: Schema, batch_rows: int, clock: Callable[[], int]) -> Iterator[RawBatch]:
    row = piece.first_row
    try:
        with pq.ParquetFile(piece.path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            used = [field for field in used_fields(schema) if field in names]
            for columns in file.iter_batches(batch_rows, row_groups=[piece.row_group], columns=used):
                positions = np.arange(row, row + columns.num_rows)
                yield RawBatch(piece.path, clock() // 1000, positions, columns=columns)
                row += columns.num_rows
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # the disk's fault, not the file's: worth another attempt
        raise CorruptFileError(f"row group {piece.row_group}: {error}") from error


def _find(path: str) -> list[str]:
    if os.path.isdir(path):
        raise UserError(f"source {path} is a directory; say which files, such as {os.path.join(path, '*.parquet')}")
    if os.path.lexists(path):
        return [path]
    found = sorted(name for name in glob(path, recursive=True) if not os.path.isdir(name))
    if not found:
        folder = os.path.dirname(path) or "."
        near = os.listdir(folder) if os.path.isdir(folder) else []
        where = f"looked in {os.path.abspath(folder)}" if near else f"{os.path.abspath(folder)} does not exist"
        raise UserError(f"source {path}: no file of that name{did_you_mean(os.path.basename(path), near)} ({where})")
    return found


def file_of(path: str, chosen: str | None) -> FilePiece:
    """The whole of a file, with its format and compression.

    Args:
        path: the file, or what it is called elsewhere.
        chosen: its format, where its name does not tell.

    Raises:
        UserError: the format is unknown.
    """
    stem, extension = os.path.splitext(path)
    compression = extension.lower() if extension.lower() in DECOMPRESSORS else ""
    if compression:
        extension = os.path.splitext(stem)[1]
    name = (chosen or extension.removeprefix(".")).lower()
    if name not in FORMATS:
        hint = did_you_mean(name, FORMATS)
        raise UserError(
            f"{path}: unknown format {name!r}; known are {', '.join(FORMATS)}{hint} "
            "(name it with ?format= where the file's name does not)"
        )
    if compression and FORMATS[name] == "parquet":
        raise UserError(f"{path}: Parquet is compressed within; decompress the file first")
    return FilePiece(path, FORMATS[name], compression)


def _check(piece: FilePiece, schema: Schema) -> list[FilePiece]:
    """The pieces of one file, once its beginning has been found readable."""
    status = os.stat(piece.path)
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{piece.path}: is a pipe or a device; expected a file, which workers can read in parts")
    if status.st_size == 0:
        return []
    if piece.format == "parquet":
        return _row_groups(piece, schema)
    if piece.format == "csv":
        header = read_header(piece.path, piece.compression)
        if header is None:
            return []
        check_fields(header, schema, piece.path)
        return [piece]
    first = next(read_lines(piece.path, piece.compression, 1, MAX_RECORD_BYTES), None)
    if first is None:
        return []
    if _ARRAY.match(first.text if isinstance(first, Lines) else first.head):
        raise UserError(f"{piece.path}: holds a JSON array; expected one object a line (jq -c '.[]' makes that)")
    return [piece]


def _row_groups(piece: FilePiece, schema: Schema) -> list[FilePiece]:
    with pq.ParquetFile(piece.path) as file:
        names = file.schema_arrow.names
        check_fields(names, schema, piece.path)
        twice = sorted({name for name in names if names.count(name) > 1} & set(used_fields(schema)))
        if twice:
            raise UserError(f"{piece.path}: has {', '.join(twice)} more than once; every name must differ")
        rows = [file.metadata.row_group(at).num_rows for at in range(file.metadata.num_row_groups)]
    firsts = accumulate(rows, initial=1)
    return [piece._replace(row_group=at, first_row=first) for at, first in zip(range(len(rows)), firsts, strict=False)]
