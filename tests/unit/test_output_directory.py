"""The output directory: whose files it removes, whom it lets in, what a killed run leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from io_connectors.output_directory import MARKER, OutputDirectory
from transforms.errors import UserError

HOLDER = """
import sys, time
from io_connectors.output_directory import OutputDirectory
with OutputDirectory(sys.argv[1]) as output:
    output.alerts.write_text("{}")
    print("in", flush=True)
    time.sleep(60)
"""

FORKING = """
import os, sys
from io_connectors.output_directory import OutputDirectory
with OutputDirectory(sys.argv[1]):
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(write)
        os.read(read, 1)  # until the parent is gone
        os._exit(0)
with OutputDirectory(sys.argv[1]):
    pass
"""


@contextmanager
def running(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that owns `directory`."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(directory)], stdout=subprocess.PIPE)
    try:
        assert process.stdout
        assert process.stdout.readline() == b"in\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def without_privileges(directory: str) -> Iterator[None]:
    """The administrator may write anywhere: act as the directory's owner, somebody else, meanwhile."""
    user = os.geteuid()
    if user == 0:
        os.chown(directory, 65534, -1)
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_an_absent_directory_is_created_with_its_parents(tmp_path: Path) -> None:
    """The first run needs no preparation."""
    with OutputDirectory(tmp_path / "a" / "b") as output:
        assert output.path.is_dir()
        assert output.decisions == tmp_path / "a" / "b" / "decisions"


def test_a_second_run_removes_the_first_runs_artefacts_and_nothing_else(tmp_path: Path) -> None:
    """Files of the previous run go; a user's notes beside them stay."""
    with OutputDirectory(tmp_path) as first:
        first.decisions.mkdir()
        (first.decisions / "part-1.parquet").write_text("old")
        for path in (first.alerts, first.dead_letters, first.windows, first.statistics, first.report, first.summary):
            path.write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    with OutputDirectory(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [MARKER, "notes.txt"]


def test_a_link_named_like_an_artefact_is_removed_and_its_target_kept(tmp_path: Path) -> None:
    """Following a link could delete what lies elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious.parquet").write_text("mine")
    with OutputDirectory(tmp_path / "output") as first:
        first.decisions.symlink_to(elsewhere)
    with OutputDirectory(tmp_path / "output") as second:
        assert not second.decisions.is_symlink()
    assert (elsewhere / "precious.parquet").read_text() == "mine"


def test_a_directory_of_somebody_elses_files_is_refused_untouched(tmp_path: Path) -> None:
    """Without the marker nothing is removed, not even files named like artefacts."""
    (tmp_path / "alerts.jsonl").write_text("not ours")
    with (
        pytest.raises(UserError, match=r"no run of this program wrote, such as alerts\.jsonl"),
        OutputDirectory(tmp_path),
    ):
        pass
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("alerts.jsonl", "not ours")]


def test_two_runs_at_once_are_refused_with_the_others_process(tmp_path: Path) -> None:
    """The second run learns who is in, and leaves the first one's files alone."""
    with (
        running(tmp_path) as other,
        pytest.raises(UserError, match=rf"in use by another run \(process {other.pid}\)"),
        OutputDirectory(tmp_path),
    ):
        pass
    assert (tmp_path / "alerts.jsonl").read_text() == "{}"


def test_a_killed_run_blocks_no_later_one(tmp_path: Path) -> None:
    """SIGKILL leaves a marker without a lock: the next run enters and clears up."""
    with running(tmp_path):
        pass
    with OutputDirectory(tmp_path) as output:
        assert not output.alerts.exists()
        assert (tmp_path / MARKER).read_text() == f"{os.getpid()}\n"


def test_a_forked_worker_does_not_keep_the_directory(tmp_path: Path) -> None:
    """A process forked during the run may outlive it without holding the directory."""
    subprocess.run([sys.executable, "-c", FORKING, str(tmp_path)], check=True, timeout=30)


def test_a_directory_that_cannot_be_created_is_a_user_error(tmp_path: Path) -> None:
    """A file in the way is named with the directory that was asked for."""
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"cannot create directory .*/file/output"),
        OutputDirectory(tmp_path / "file/output"),
    ):
        pass


@pytest.mark.parametrize(("mode", "message"), [(0o500, "cannot be written"), (0o300, "cannot be read")])
def test_a_directory_without_permission_is_a_user_error(mode: int, message: str) -> None:
    """Read-only and unreadable directories are told apart before the run starts."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, mode)
        with without_privileges(directory), pytest.raises(UserError, match=message), OutputDirectory(directory):
            pass
