"""Read CSV: comma-separated, a header, quotes as RFC 4180 has them, UTF-8.

Arrow reads whole blocks of lines. A block that it cannot read line for line (a row with too many fields,
a quote left open, a line's end in a quoted field, broken UTF-8) is split by `io_connectors.csv_rows`
instead, which is slower and rejects broken rows alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv

from io_connectors.csv_rows import BrokenRow, split_line, split_rows
from io_connectors.text_lines import CorruptFileError, Lines, LongLine, read_lines
from transforms.dead_letters import DeadLetter, safe_payload
from transforms.decode_json import MAX_RECORD_BYTES, too_large_letter
from transforms.errors import UserError
from transforms.raw_batch import RawBatch
from transforms.schema import Schema
from transforms.validate import used_fields

Places = np.ndarray[Any, np.dtype[np.int64]]

_BOM = b"\xef\xbb\xbf"


def read_csv(
    path: str, compression: str, schema: Schema, batch_rows: int, clock: Callable[[], int]
) -> Iterator[RawBatch]:
    """The rows of a file as raw batches of binary columns; their positions are row numbers from 1.

    Only the fields that the schema names are kept. Blank lines are passed over. A file without a header
    has no rows.

    Args:
        path: the file, which names the source.
        compression: `.gz`, `.zst` or empty.
        schema: what names the fields.
        batch_rows: rows of a batch; one that begins with a row of several lines may be longer.
        clock: nanoseconds since 1970.

    Raises:
        CorruptFileError: after everything before the place where decompression fails.
        UserError: the header cannot be used.
    """
    reader = _CsvReader(path, schema, clock)
    try:
        for group in read_lines(path, compression, batch_rows, MAX_RECORD_BYTES):
            yield from reader.feed(group)
    except CorruptFileError:
        yield from reader.finish()
        raise
    yield from reader.finish()


def read_header(path: str, compression: str) -> list[str] | None:
    """The names in a file's first line that is not blank; None when there is none.

    Raises:
        CorruptFileError: it cannot be decompressed that far.
        UserError: the line is no header.
    """
    for group in read_lines(path, compression, 1, MAX_RECORD_BYTES):
        if isinstance(group, LongLine):
            raise UserError(f"{path}: the header is {group.length} bytes long; expected names separated by commas")
        line = group.text.removeprefix(_BOM).strip()
        if line:
            return _names(line, path)
    return None


def _names(line: bytes, path: str) -> list[str]:
    fields, is_open = split_line(line)
    try:
        names = [name.decode("utf-8") for name in fields]
    except UnicodeDecodeError:
        raise UserError(f"{path}: the header is not UTF-8 text; expected names separated by commas") from None
    if is_open:
        raise UserError(f"{path}: the header leaves a quote open: {safe_payload(line)[:200]}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path}: the header has {', '.join(map(repr, twice))} more than once; every name must differ")
    return names


class _CsvReader:
    """Turns groups of lines into raw batches."""

    def __init__(self, path: str, schema: Schema, clock: Callable[[], int]) -> None:
        self.path = path
        self.schema = schema
        self.clock = clock
        self.header: list[str] = []
        self.used: list[str] = []  # the header's names that the schema names too
        self.one_line: list[int] = []  # places of those that never hold a line's end
        self.left = b""  # lines that may be the beginning of a row that goes on
        self.row = 1  # the next row's number

    def feed(self, group: Lines | LongLine) -> Iterator[RawBatch]:
        """The rows that `group` completes."""
        if isinstance(group, Lines):
            yield from self._rows(self.left + group.text, final=False)
            return
        yield from self.finish()
        letter = too_large_letter(group.head, group.length, MAX_RECORD_BYTES, self.path, self.row)
        yield RawBatch(self.path, self.clock() // 1000, np.empty(0, np.int64), payloads=[], rejected=(letter,))
        self.row += 1

    def finish(self) -> Iterator[RawBatch]:
        """The rows in what is left, where nothing more belongs to them."""
        yield from self._rows(self.left, final=True)

    def _rows(self, text: bytes, final: bool) -> Iterator[RawBatch]:
        self.left = b""
        text = text if self.header else self._take_header(text)
        if not text:
            return
        columns = _read_block(text, self.header, self.used)
        if columns is not None:
            yield self._batch(columns, np.arange(columns.num_rows), [])
            return
        lines = text.split(b"\n")[:-1]
        split = split_rows(lines, len(self.header), self.one_line, final)
        self.left = b"".join(line + b"\n" for line in lines[len(lines) - split.left :])
        if len(split):
            arrays = [pa.array(split.column(self.header.index(name)), pa.binary()) for name in self.used]
            columns = pa.RecordBatch.from_arrays(arrays, names=self.used)
            yield self._batch(columns, np.array(split.places, dtype=np.int64), split.broken)

    def _batch(self, columns: pa.RecordBatch, places: Places, broken: Sequence[BrokenRow]) -> RawBatch:
        """The raw batch of the next rows, of which `places` are good, counted from 0."""
        rejected = tuple(
            DeadLetter(
                stage="parse",
                reason=row.reason,
                error=row.error,
                payload=safe_payload(row.text),
                source=self.path,
                position=self.row + row.place,
            )
            for row in broken
        )
        positions = self.row + places
        self.row += len(places) + len(broken)
        return RawBatch(self.path, self.clock() // 1000, positions, columns=columns, rejected=rejected)

    def _take_header(self, text: bytes) -> bytes:
        """Learn the names of the first line that is not blank; what follows it."""
        text = text.removeprefix(_BOM)
        while text and not self.header:
            line, _, text = text.partition(b"\n")
            if line and not line.isspace():
                self.header = _names(line.strip(), self.path)
        self.used = [name for name in used_fields(self.schema) if name in self.header]
        broken_by_no_line = {c.field for c in self.schema.columns.values() if c.type != "category"}
        self.one_line = [self.header.index(name) for name in self.used if name in broken_by_no_line]
        return text


def _read_block(text: bytes, header: list[str], used: list[str]) -> pa.RecordBatch | None:
    """Whole lines as binary columns, or None unless every line is certain to be one row."""
    if text.count(b"\r") != text.count(b"\r\n") or text.startswith(_BOM):
        return None
    if b'"' in text and split_line(text[text.rfind(b"\n", 0, -1) + 1 : -1])[1]:
        return None
    try:
        table = csv.read_csv(
            pa.py_buffer(text),
            csv.ReadOptions(column_names=header, use_threads=False, block_size=len(text) + 1),
            csv.ParseOptions(),
            csv.ConvertOptions(column_types=dict.fromkeys(used, pa.binary()), include_columns=used, check_utf8=False),
        )
    except pa.ArrowInvalid:
        return None
    # A quote left open swallows the lines up to the next one, and blank lines are no rows: then counts differ.
    if table.num_rows != text.count(b"\n"):
        return None
    return table.combine_chunks().to_batches()[0]
