"""Appending lines: whole lines only, whoever else appends, is killed, or runs out of disk."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from io_connectors.json_lines import append_lines

APPENDERS = """
import os, sys
from io_connectors.json_lines import append_lines
name = "a" if os.fork() else "b"
for chunk in range(40):
    line = '{"by": "%s", "chunk": %d, "fill": "%s"}\\n' % (name, chunk, name * (1 + chunk * 200))
    append_lines(sys.argv[1], line.encode() * 20)
if name == "a":
    assert os.wait()[1] == 0
"""


def test_lines_are_appended_to_what_is_there(tmp_path: Path) -> None:
    """An existing file grows; nothing of it is lost."""
    path = tmp_path / "a.jsonl"
    append_lines(path, b'{"a":1}\n')
    append_lines(path, b'{"a":2}\n{"a":3}\n')
    assert path.read_bytes() == b'{"a":1}\n{"a":2}\n{"a":3}\n'


def test_two_processes_appending_at_once_leave_only_whole_lines(tmp_path: Path) -> None:
    """Every line of both is there once, in its writer's order, and parses."""
    path = tmp_path / "a.jsonl"
    subprocess.run([sys.executable, "-c", APPENDERS, str(path)], check=True, timeout=60)
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    for name in "ab":
        mine = [line["chunk"] for line in lines if line["by"] == name]
        assert mine == [chunk for chunk in range(40) for _ in range(20)]


@pytest.mark.parametrize("length", [9, 3_000_000])
def test_a_line_cut_off_by_a_kill_is_removed_by_the_next_append(tmp_path: Path, length: int) -> None:
    """The part belongs to a bundle that will be run again; glued to the next line it would spoil both."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a":1}\n' + b'{"a":"' + b"x" * length)
    append_lines(path, b'{"a":2}\n')
    assert path.read_bytes() == b'{"a":1}\n{"a":2}\n'


@pytest.mark.parametrize("last", [b'{"a":1}', b"a note of the user's"])
def test_a_last_line_without_an_end_is_kept(tmp_path: Path, last: bytes) -> None:
    """A file written by hand may lack the last line's end: it is added, and nothing is removed."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(last)
    append_lines(path, b'{"a":2}\n')
    assert path.read_bytes() == last + b'\n{"a":2}\n'


def test_an_append_that_fails_half_way_leaves_nothing_of_itself(tmp_path: Path) -> None:
    """When the file may not grow any further, the error is raised and the file is as it was."""
    path = tmp_path / "a.jsonl"
    append_lines(path, b'{"a":1}\n')
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            append_lines(path, b'{"a":2}\n' * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b'{"a":1}\n'


def test_an_error_leaves_no_open_file(tmp_path: Path) -> None:
    """A worker that retries for days must not run out of descriptors."""
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        with pytest.raises(IsADirectoryError):
            append_lines(tmp_path, b"{}\n")
        append_lines(tmp_path / "a.jsonl", b"{}\n")
    assert len(os.listdir("/dev/fd")) == before
