"""Append elements to a file of JSON lines that may be followed (`tail -f`) while it grows."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam

from io_connectors.delivery import Delivered, Written, at_the_end, deliver, written_as
from io_connectors.output_directory import make_directory
from transforms.errors import UserError

#: Bytes collected before they are appended.
CHUNK = 1 << 20


class WriteJsonLines(beam.PTransform[beam.PCollection[Any], Delivered]):
    """Append each element to one file, a line each: PCollection of anything to `Delivered`.

    Workers on one machine may append to the same file at once: only whole lines ever appear. Lines are
    on disk when their bundle ends. A bundle that is retried may append its lines again, so a reader that
    counts must do it by an id in the line.

    Args:
        path: the file; it is created, with its directories, when the pipeline is built.
        to_json: an element as one line of JSON, without the line's end.

    Raises:
        UserError: when the pipeline is built: the file cannot be written.

    Example:
        >>> import tempfile, msgspec
        >>> path = tempfile.mkdtemp() + "/alerts.jsonl"
        >>> with beam.Pipeline() as pipeline:
        ...     _ = pipeline | beam.Create([{"id": "a1"}]) | WriteJsonLines(path, msgspec.json.encode)
        >>> Path(path).read_bytes().splitlines()
        [b'{"id":"a1"}']
    """

    def __init__(self, path: str | Path, to_json: Callable[[Any], bytes]) -> None:
        super().__init__()
        self.path = str(path)
        self.to_json = to_json

    def expand(self, pcoll: beam.PCollection[Any]) -> Delivered:
        make_directory(Path(self.path).parent)
        try:
            append_lines(self.path, b"")
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error
        return deliver(pcoll, _Append(self.path, self.to_json))


class _Append(beam.DoFn):
    """Collects lines and appends them a chunk at a time."""

    def __init__(self, path: str, to_json: Callable[[Any], bytes]) -> None:
        self.path = path
        self.to_json = to_json

    def start_bundle(self) -> None:
        self.lines: list[bytes] = []
        self.size = 0
        self.sources: list[Written] = []

    def process(self, element: Any) -> Iterator[Any]:
        line = self.to_json(element)
        if b"\n" in line:
            raise ValueError(f"to_json of {self.path} gave more than one line for a {type(element).__name__}")
        self.lines.append(line)
        self.sources += written_as(element)
        self.size += len(line) + 1
        if self.size >= CHUNK:
            self._append()
        yield from ()

    def finish_bundle(self) -> Iterator[Any]:
        if self.lines:
            self._append()
        for written in self.sources:
            yield at_the_end(written)

    def _append(self) -> None:
        append_lines(self.path, b"\n".join(self.lines) + b"\n")
        self.lines, self.size = [], 0


def append_lines(path: str | Path, lines: bytes) -> None:
    """Append whole lines to a file, on disk when this returns; all of them or, on an error, none.

    The part of a line that a killed process left at the file's end is removed first.

    Args:
        path: the file, created when absent.
        lines: any number of lines, each with its end.

    Raises:
        OSError: the file cannot be written, or the disk is full.
    """
    file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        # A kill or a full disk may cut a write short; the lock lets it be mended before anybody else appends.
        fcntl.flock(file, fcntl.LOCK_EX)
        end = _mend(file)
        try:
            left = memoryview(lines)
            while left:
                left = left[os.write(file, left) :]
            os.fsync(file)
        except OSError:
            os.ftruncate(file, end)
            raise
    finally:
        os.close(file)


def _mend(file: int) -> int:
    """Deal with a last line that has no end; the file's size after that.

    The beginning of a JSON object was cut off by a kill, and is removed. Anything else is somebody's
    whole line, and is ended.
    """
    size = os.fstat(file).st_size
    if size == 0 or os.pread(file, 1, size - 1) == b"\n":
        return size
    last = _last_line(file, size)
    if last.startswith(b"{") and not _is_json(last):
        os.ftruncate(file, size - len(last))
        return size - len(last)
    os.write(file, b"\n")
    return size + 1


def _last_line(file: int, size: int) -> bytes:
    tail = b""
    while len(tail) < size and b"\n" not in tail:
        length = min(CHUNK, size - len(tail))
        tail = os.pread(file, length, size - len(tail) - length) + tail
    return tail[tail.rfind(b"\n") + 1 :]


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
