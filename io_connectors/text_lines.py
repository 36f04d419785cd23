"""Text files in groups of whole lines, however long the file is and wherever it breaks."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import zstandard

from transforms.dead_letters import PAYLOAD_LIMIT

CHUNK = 1 << 20  # bytes read or decompressed at a time
GROUP_BYTES = 4 * CHUNK  # a group ends here, however few lines it has
LINE_HEAD = 4 * PAYLOAD_LIMIT  # bytes kept of a line that is too long

#: Compressed bytes decompressed at once: even the densest 4 KiB become no more than 130 MB.
_PIECE = 4096

#: By the end of a file's name: what decompresses one member of it.
DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    ".gz": lambda: zlib.decompressobj(wbits=31),  # 31: with a gzip header
    ".zst": lambda: zstandard.ZstdDecompressor().decompressobj(),
}


class CorruptFileError(Exception):
    """A file cannot be read to its end.

    Attributes:
        tail: the beginning of what came after the last record handed on, where that is known.
    """

    def __init__(self, why: str, tail: bytes = b"") -> None:
        super().__init__(why)
        self.tail = tail


@dataclass(frozen=True)
class Lines:
    """Whole lines, each with its end."""

    text: bytes


@dataclass(frozen=True)
class LongLine:
    """A line above the limit: its beginning, and how many bytes it had."""

    head: bytes
    length: int


def read_lines(path: str, compression: str, most_lines: int, max_line_bytes: int) -> Iterator[Lines | LongLine]:
    """The lines of a file, in order, in groups of at most `most_lines`.

    Memory holds one group and one chunk, never a line above the limit. The last line is given an end if
    it has none, unless the file is corrupt: then it may be cut short, and is no line.

    Args:
        path: the file.
        compression: a key of `DECOMPRESSORS`, or empty.
        most_lines: lines of a group.
        max_line_bytes: the longest line that is handed on, without its end.

    Raises:
        CorruptFileError: after all whole lines before the place where decompression fails.
        OSError: the file cannot be opened or read.
    """
    cutter = _LineCutter(most_lines, max_line_bytes)
    try:
        for chunk in _chunks(path, compression):
            yield from cutter.feed(chunk)
    except CorruptFileError as error:
        yield from cutter.finish(whole=False)
        raise CorruptFileError(str(error), cutter.rest[:LINE_HEAD]) from error
    yield from cutter.finish(whole=True)


def _chunks(path: str, compression: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        if compression:
            yield from _decompress(file, DECOMPRESSORS[compression])
            return
        while chunk := file.read(CHUNK):
            yield chunk


def _decompress(file: BinaryIO, new: Callable[[], Any]) -> Iterator[bytes]:
    """All members of a compressed file; everything that could be decompressed comes before the error."""
    member = None
    ready: list[bytes] = []
    broken = ""
    try:
        while piece := file.read(_PIECE):
            while piece:
                if member is None or member.eof:
                    piece = piece.lstrip(b"\0")  # archives pad with zeros
                    member = new() if piece else None
                if member is not None:
                    ready.append(member.decompress(piece))
                    piece = member.unused_data
            if sum(map(len, ready)) >= CHUNK:
                yield b"".join(ready)
                ready.clear()
        if member is not None and not member.eof:
            broken = "it ends in the middle of its compressed data"
    except (zlib.error, zstandard.ZstdError) as error:
        broken = str(error)
    yield b"".join(ready)
    if broken:
        raise CorruptFileError(broken)


class _LineCutter:
    """Cuts a stream of bytes into groups of lines."""

    def __init__(self, most_lines: int, max_line_bytes: int) -> None:
        self.most_lines = most_lines
        self.max_line_bytes = max_line_bytes
        self.rest = b""  # lines too few for a group, and the beginning of one more
        self.skipped: LongLine | None = None  # the line whose end is being looked for

    def feed(self, chunk: bytes) -> Iterator[Lines | LongLine]:
        """What `chunk` completes."""
        if self.skipped is not None:
            end = chunk.find(b"\n")
            length = self.skipped.length + (len(chunk) if end < 0 else end)
            self.skipped = LongLine(self.skipped.head, length)
            if end < 0:
                return
            yield self.skipped
            self.skipped, chunk = None, chunk[end + 1 :]
        text = self.rest + chunk
        starts = np.append(0, np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n")) + 1)
        lines = len(starts) - 1
        first = 0
        for at in np.flatnonzero(np.diff(starts) - 1 > self.max_line_bytes):
            yield from self._groups(text, starts[first : at + 1])
            line = text[starts[at] : starts[at + 1] - 1]
            yield LongLine(line[:LINE_HEAD], len(line))
            first = int(at) + 1
        unfinished = len(text) - int(starts[-1])
        keeps_on = unfinished <= self.max_line_bytes
        if keeps_on and starts[-1] - starts[first] < GROUP_BYTES:
            ready = first + (lines - first) // self.most_lines * self.most_lines
        else:
            ready = lines
        yield from self._groups(text, starts[first : ready + 1])
        self.rest = text[starts[ready] :]
        if not keeps_on:
            self.rest, self.skipped = b"", LongLine(self.rest[:LINE_HEAD], unfinished)

    def finish(self, whole: bool) -> Iterator[Lines | LongLine]:
        """What is left: the last lines, and the one that has no end where the file is `whole`."""
        if self.skipped is not None and whole:
            yield self.skipped
        end = self.rest.rfind(b"\n") + 1
        lines, last = self.rest[:end], self.rest[end:]
        if last and whole:
            lines, last = self.rest + b"\n", b""
        if lines:
            yield Lines(lines)
        self.rest = last

    def _groups(self, text: bytes, starts: Any) -> Iterator[Lines]:
        """The lines that begin at `starts`, less the last of them, which is where they end."""
        for first in range(0, len(starts) - 1, self.most_lines):
            end = min(first + self.most_lines, len(starts) - 1)
            yield Lines(text[starts[first] : starts[end]])
