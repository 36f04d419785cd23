"""`python -m runners.local`: what it prints, and what it refuses with which words."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runners.local import command
from runners.local.command import SERVERS, main, server_class
from runners.local.ports import free_port
from runners.local.processes import Process
from runners.local.records import read_record, stop_all
from tests.file_server import Files
from transforms.errors import UserError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for servers, of which `kafka` is one that needs no Kafka."""

    class Named(Files):
        name = "kafka"

    monkeypatch.setattr(command, "server_class", lambda name: Named)
    yield tmp_path
    stop_all(tmp_path)


def run(capsys: pytest.CaptureFixture[str], place: Path, *argv: str) -> tuple[int, str, str]:
    code = main([argv[0], "--directory", str(place), *argv[1:]])
    return code, *capsys.readouterr()


def test_every_server_can_be_had_by_its_name() -> None:
    """The names on the command line are the servers' own, and no two have the same port."""
    classes = {name: server_class(name) for name in SERVERS}
    assert {name: kind.name for name, kind in classes.items()} == {name: name for name in SERVERS}
    assert len({kind.default_port for kind in classes.values()}) == len(classes)


def test_a_server_goes_up_and_down(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Up prints where it is and its URL, once more changes nothing, status sees it, down ends it, purge clears it."""
    port = free_port()
    code, out, _ = run(capsys, place, "up", "kafka", "--port", f"kafka={port}")
    assert code == 0
    assert out.startswith(f"kafka         127.0.0.1:{port:<8}ready in ")
    assert out.endswith(f"\n\n--source http://127.0.0.1:{port}/\n")
    assert "was running" in run(capsys, place, "up", "kafka")[1]
    assert f"127.0.0.1:{port:<8}runs as process " in run(capsys, place, "status")[1]
    assert run(capsys, place, "down")[1] == "kafka         stopped\n"
    assert run(capsys, place, "status")[1] == f"no server was started in {place}\n"
    assert run(capsys, place, "down", "kafka", "--purge")[1] == "kafka         was not running, data removed\n"
    assert list(place.iterdir()) == []


def test_a_killed_server_is_noticed_and_brought_back(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status says that it died and what to do; that brings it back at the port it had."""
    run(capsys, place, "up", "kafka", "--port", f"kafka={free_port()}")
    record = read_record(place / "kafka")
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    while Process(record.pid, record.started).is_alive():
        pass
    assert "died; `up kafka` brings it back" in run(capsys, place, "status")[1]
    assert f"127.0.0.1:{record.port:<8}ready in " in run(capsys, place, "up", "kafka")[1]


def test_logs_are_the_end_of_what_it_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So many lines, and the last ones."""
    run(capsys, place, "up", "kafka", "--port", "kafka=0")
    (place / "kafka" / "server.log").write_text("one\ntwo\nthree\n")
    assert run(capsys, place, "logs", "kafka", "--lines", "2")[1] == "two\nthree\n"


def test_logs_of_a_server_that_was_never_started_are_not_there(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error says where they were looked for."""
    code, _, err = run(capsys, place, "logs", "kafka")
    assert code == 2
    assert err.startswith(f"error: kafka has no log at {place / 'kafka' / 'server.log'}: ")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["up", "kafak"], "there is no server 'kafak'; did you mean kafka?"),
        (["up", "mysql"], f"there is no server 'mysql'; choose among {', '.join(SERVERS)}"),
        (["up", "kafka", "--port", "9092"], "'9092' is not of the form NAME=PORT"),
        (["up", "kafka", "--port", "kafka=70000"], "'kafka=70000' is not of the form NAME=PORT, with a port up to"),
        (["up"], "the following arguments are required: NAME"),
        ([], "the following arguments are required: COMMAND"),
    ],
)
def test_what_makes_no_sense_is_refused(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and words that say what was found and what would do."""
    with pytest.raises(SystemExit) as refused:
        main(argv)
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_a_port_for_a_server_that_is_not_started_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It would have no effect, so it must be a mistake."""
    code, _, err = run(capsys, place, "up", "kafka", "--port", "s3=1")
    assert (code, err) == (2, "error: --port s3=1: s3 is not among the servers to start\n")


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("kafka", "java"),
        ("kafka-oauth", "java"),
        ("dynamodb", "java"),
        ("kinesis", "node"),
        ("kinesis-local", "node"),
        ("s3", "go"),
        ("postgres", "PostgreSQL server"),
    ],
)
def test_a_program_that_is_missing_is_named(
    name: str, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine without it the error names the program and how to get it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("runners.local.postgres._PLACES", ())
    kind = server_class(name)
    with pytest.raises(UserError, match=rf"needs (the )?{program}\b.* apt install .*, or brew install "):
        kind(tmp_path / name, free_port()).start()
