"""What a shard keeps in Beam's state: a log of all that was taken in, and how far it has come.

Most bundles of a stream bring a shard a row or two, and every request to the runner's state costs far more than that.
So what a bundle changes is one entry, appended to the bag `recent`: the marks as they are now, and the rows taken in.
The runner's cache on Python's side keeps that bag, because it was read, so the next bundle asks for nothing. Once
`recent` has many entries, or large ones, their rows move to the bag `log`, which nobody reads but an engine that
has to be built again.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

LOG_SLACK = 8192  # log rows beyond twice the live ones before it is rewritten
#: Entries, and bytes of rows, that `recent` has at most.
MOST_ENTRIES, MOST_BYTES = 64, 32_768

#: Matrices of fewer columns are written as they are: looking at them costs more than their bytes do.
FEW_COLUMNS = 256
_WIDE, _NARROW, _ROW = struct.Struct("<I"), struct.Struct("<II"), struct.Struct("<qHB")
_IS_NARROW = 1 << 31
#: How many bytes a number of so many bits takes.
_WIDTHS = (0, *[1] * 8, *[2] * 8, *[4] * 16, *[8] * 31)

Matrix = np.ndarray[Any, Any]


class Marks(msgspec.Struct, array_like=True):
    """How far a shard has come. Fields may be added at the end, never moved.

    Version 3 has narrow rows among its matrices; what version 2 wrote is read as well.
    """

    schema_version: int = 3
    frontier: int = -(2**63)  # rows before it have been taken, microseconds
    fire: int = 0  # when the flush timer is set to, microseconds; 0 for not set
    hold: int = 0
    newest: int = -(2**63)  # the newest event time taken
    log_rows: int = 0
    rewrite_at: int = LOG_SLACK
    version: bytes = b""  # a hash chained over everything written
    oldest: int = 0  # the oldest waiting row, microseconds rounded down to milliseconds; while `fire` is set
    held: bool = False  # whether the `hold` timer is set, to `hold`


class Entry(msgspec.Struct, array_like=True):
    """What one bundle changed. Fields may be added at the end, never moved."""

    marks: Marks
    rows: list[bytes]


class ShardLog:
    """One shard's log and marks, for as long as a call lasts; `save` writes what has changed.

    Args:
        recent: the bag of entries.
        log: the bag of rows that were entries once.

    Raises:
        ValueError: another release wrote the state, in another form.
    """

    def __init__(self, recent: Any, log: Any) -> None:
        self._recent, self._log = recent, log
        self._entries: list[bytes] = list(recent.read())
        self._fresh: list[bytes] = []
        self.marks = _decode(self._entries[-1]).marks if self._entries else Marks()

    def rows(self) -> Iterator[Matrix]:
        """All that was saved, in the order it was appended."""
        yield from map(unpack, self._log.read())
        for entry in self._entries:
            yield from map(unpack, _decode(entry).rows)

    def append(self, matrix: Matrix) -> None:
        """Rows that were taken in."""
        packed = pack(matrix)
        self._fresh.append(packed)
        self.marks.log_rows += matrix.shape[1]
        digest = hashlib.sha256(self.marks.version)  # processors have instructions for it: three times blake2b's pace
        digest.update(packed)
        self.marks.version = digest.digest()[:16]

    def replace(self, live: Matrix) -> None:
        """The log becomes what can still matter."""
        self._log.clear()
        self._recent.clear()
        self._entries, self._fresh, self.marks.log_rows = [], [], 0
        self.append(live)
        self.marks.rewrite_at = 2 * self.marks.log_rows + LOG_SLACK

    def save(self) -> None:
        """Write what has changed, as one more entry wherever that will do."""
        entry = msgspec.msgpack.encode(Entry(self.marks, self._fresh))
        if len(self._entries) < MOST_ENTRIES and sum(map(len, self._entries)) + len(entry) <= MOST_BYTES:
            self._recent.add(entry)
        else:
            for packed in [packed for each in self._entries for packed in _decode(each).rows] + self._fresh:
                self._log.add(packed)
            self._recent.clear()
            self._recent.add(msgspec.msgpack.encode(Entry(self.marks, [])))


def pack(matrix: Matrix) -> bytes:
    """A log matrix as bytes: its number of rows, then its values, little-endian; of many columns, in narrow rows.

    Most of what a log has is 0, or the same all along, or a time or an amount of not many digits. So each row of a
    narrow matrix says where its values begin, whether they are thousands, and how many bytes each of them has.
    """
    rows, columns = matrix.shape
    if columns < FEW_COLUMNS:
        return _WIDE.pack(rows) + np.ascontiguousarray(matrix, dtype="<i8").tobytes()
    heads, contents = [_NARROW.pack(rows | _IS_NARROW, columns)], []
    for row, least, most in zip(matrix, matrix.min(axis=1).tolist(), matrix.max(axis=1).tolist(), strict=True):
        if most - least > 0xFFFF_FFFF * 1000:
            heads.append(_ROW.pack(0, 1, 8))
            contents.append(np.ascontiguousarray(row, dtype="<i8").tobytes())
            continue
        steps, unit = row - least, 1
        if most - least > 0xFF and not (steps % 1000).any():
            steps, unit = steps // 1000, 1000
        width = _WIDTHS[((most - least) // unit).bit_length()]
        heads.append(_ROW.pack(least, unit, width))
        contents.append(steps.astype(f"<u{width}").tobytes() if width else b"")
    return b"".join([*heads, *contents])


def unpack(packed: bytes) -> Matrix:
    """The matrix that `pack` has packed."""
    (rows,) = _WIDE.unpack_from(packed)
    if not rows & _IS_NARROW:
        return np.frombuffer(packed, dtype="<i8", offset=_WIDE.size).reshape(rows, -1)
    rows, columns = rows ^ _IS_NARROW, _NARROW.unpack_from(packed)[1]
    matrix = np.empty((rows, columns), dtype=np.int64)
    at = _NARROW.size + rows * _ROW.size
    for row, (least, unit, width) in zip(matrix, _ROW.iter_unpack(packed[_NARROW.size : at]), strict=True):
        if width:
            row[:] = np.frombuffer(packed, dtype=f"<u{width}", count=columns, offset=at)
            row *= unit
            row += least
        else:
            row[:] = least
        at += columns * width
    return matrix


def _decode(written: bytes) -> Entry:
    entry = msgspec.msgpack.decode(written, type=Entry)
    if entry.marks.schema_version == 2:
        entry.marks.schema_version = 3
    if entry.marks.schema_version != Marks().schema_version:
        raise ValueError(
            f"state of version {entry.marks.schema_version} cannot be read by version {Marks().schema_version}: "
            "restore with the release that wrote it"
        )
    return entry
