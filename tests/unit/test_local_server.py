"""The life of a local server, on one that is up at once: Python's own."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runners.local.ports import HOST, free_port, is_listening
from runners.local.records import RECORD, read_record, stop_all, stop_recorded
from tests.file_server import Files
from transforms.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Files]:
    server = Files(tmp_path / "files", free_port())
    yield server
    server.stop()


def test_a_server_is_started_once(server: Files) -> None:
    """To start one that runs changes nothing, whoever does it."""
    server.start()
    first = read_record(server.directory)
    Files(server.directory, server.port).start()
    assert read_record(server.directory) == first
    assert server.is_running()


def test_a_stopped_server_leaves_no_record(server: Files) -> None:
    """It is gone, its port is free, and what it had in its directory is there."""
    (server.start().directory / "content").touch()
    server.stop()
    server.stop()
    assert not server.is_running()
    assert not is_listening(server.port)
    assert not (server.directory / RECORD).exists()
    assert (server.directory / "content").exists()


def test_a_killed_server_is_started_again_at_its_port(server: Files) -> None:
    """Its record stays, so that it is known to be missing; it comes back as another process."""
    server.start().kill()
    dead = read_record(server.directory)
    assert dead is not None
    assert not server.is_running()
    server.start()
    alive = read_record(server.directory)
    assert alive is not None
    assert alive.pid != dead.pid
    assert alive.port == dead.port


def test_a_record_of_an_earlier_boot_is_of_no_process(server: Files) -> None:
    """A record that names a process of ours, but another start, is neither taken for running nor ended."""
    server.start()
    path = server.directory / RECORD
    good = path.read_bytes()
    record = read_record(server.directory)
    assert record is not None
    path.write_bytes(good.replace(record.started.encode(), b"another time"))
    assert not server.is_running()
    assert stop_recorded(server.directory) is None
    assert is_listening(server.port)
    path.write_bytes(good)


def test_a_taken_port_is_named(server: Files) -> None:
    """Nothing is started; the error says which port, for which server, and how to choose another."""
    with socket.socket() as other:
        other.bind((HOST, server.port))
        other.listen()
        with pytest.raises(UserError, match=rf"port {server.port} of {HOST}.* is taken; .*--port files=PORT"):
            server.start()
    assert not (server.directory / RECORD).exists()


def test_a_running_server_does_not_move(server: Files) -> None:
    """Asked for at another port it is an error, not a second server on the same data."""
    server.start()
    with pytest.raises(UserError, match=rf"files already runs on port {server.port}, not "):
        Files(server.directory, free_port()).start()


def test_a_server_that_dies_while_it_starts_is_quoted(server: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the last lines of its log, and the next start finds no record."""
    monkeypatch.setattr(Files, "code", "raise SystemExit('no room for the data')")
    with pytest.raises(UserError, match=r"files died while it started; .*server\.log:\n    no room for the data"):
        server.start()
    assert read_record(server.directory) is None


def test_a_server_that_does_not_answer_is_stopped(server: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience ends; the error says where nobody answered and what the log has."""
    monkeypatch.setattr(Files, "code", "import time; print('thinking', flush=True); time.sleep(60)")
    with pytest.raises(UserError, match=rf"gave no answer at {server.address} for 2 s; (.|\n)*    thinking"):
        server.start()
    assert not server.is_running()


def test_a_program_that_cannot_be_run_is_named(server: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose program is gone is an error of the user's machine."""
    monkeypatch.setattr(Files, "install", lambda self: Path("/nowhere/python"))
    with pytest.raises(UserError, match="files cannot be started: No such file or directory: /nowhere/python"):
        server.start()


def test_two_starts_at_once_start_one_server(tmp_path: Path) -> None:
    """Two processes that start the same server get the same one."""
    port = free_port()
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.file_server import Files\n"
        "from runners.local.server import read_record\n"
        "print(read_record(Files(Path(sys.argv[1]), int(sys.argv[2])).start().directory).pid)"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "files"), str(port)]
    both = [subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    pids = {process.communicate()[0] for process in both}
    assert len(pids) == 1
    assert [record.name for record in stop_all(tmp_path)] == ["files"]
    assert not is_listening(port)


def test_a_record_that_is_damaged_is_named(server: Files) -> None:
    """It is an error, with its path, rather than a second server."""
    server.directory.mkdir()
    (server.directory / RECORD).write_text("{")
    with pytest.raises(UserError, match=r"process\.json cannot be read: "):
        server.start()
    (server.directory / RECORD).unlink()


def test_what_it_said_before_is_kept_once(server: Files) -> None:
    """A start begins a new log and keeps the one before."""
    server.start()
    server.stop()
    before = server.log.read_text()
    server.start()
    assert server.log.with_suffix(".previous.log").read_text() == before
