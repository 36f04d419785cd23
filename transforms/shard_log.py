"""What a shard keeps in Beam's state: a log of all that was taken in, and how far it has come.

Most bundles of a stream bring a shard a row or two, and every request to the runner's state costs far more than that.
So what a bundle changes is one entry, appended to the bag `recent`: the marks as they are now, and the rows taken in.
The runner's cache on Python's side keeps that bag, because it was read, so the next bundle asks for nothing. Once
`recent` has many entries, or large ones, their rows move to the bag `log`, which nobody reads but an engine that
has to be built again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import msgspec

from transforms.packing import Matrix, pack, unpack

LOG_SLACK = 8192  # log rows beyond twice the live ones before it is rewritten
#: Entries, and bytes of rows, that `recent` has at most.
MOST_ENTRIES, MOST_BYTES = 64, 32_768


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
