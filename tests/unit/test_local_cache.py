"""The cache of downloaded servers: what is there is whole, and is fetched once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runners.local.cache import cache_directory, installed
from transforms.errors import UserError

#: Installs for a second, and says when it begins.
SLOWLY = """
import sys, time
from pathlib import Path
from runners.local.cache import installed

def fill(directory: Path) -> None:
    print("begins", flush=True)
    (directory / "half").touch()
    time.sleep(1.0)
    (directory / "whole").touch()

print(sorted(path.name for path in installed("server", "1", fill, "").iterdir()), flush=True)
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def start() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SLOWLY], stdout=subprocess.PIPE, text=True)


def entries() -> list[str]:
    return sorted(path.name for path in cache_directory().iterdir() if not path.name.endswith(".lock"))


def test_an_installation_is_kept_under_its_name_and_version(tmp_path: Path) -> None:
    """What was installed is not installed again, and another version is another directory."""
    filled: list[Path] = []
    places = [installed("server", version, filled.append, "") for version in ("1", "1", "2")]
    assert places[0] == places[1] == tmp_path / "fraud-detection" / "servers" / "server-1"
    assert places[2].name == "server-2"
    assert len(filled) == 2


def test_two_at_once_install_once() -> None:
    """The second waits for the first and uses what it has installed."""
    both = [start(), start()]
    said = sorted(process.communicate()[0] for process in both)
    assert said == ["['half', 'whole']\n", "begins\n['half', 'whole']\n"]
    assert entries() == ["server-1"]


def test_a_killed_installation_leaves_nothing_that_counts() -> None:
    """What is half done is not taken for an installation, and the next one clears it away."""
    killed = start()
    assert killed.stdout is not None
    assert killed.stdout.readline() == "begins\n"
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert "server-1" not in entries()
    began = time.monotonic()
    assert installed("server", "1", lambda directory: (directory / "whole").touch(), "").is_dir()
    assert time.monotonic() - began < 5.0
    assert entries() == ["server-1"]


def test_an_installation_that_fails_is_told_and_leaves_nothing() -> None:
    """The error is the installer's, and nothing is left of what it had done."""

    def fail(directory: Path) -> None:
        (directory / "half").touch()
        raise UserError("the registry did not answer")

    with pytest.raises(UserError, match="the registry did not answer"):
        installed("server", "1", fail, "")
    assert entries() == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says where it was to go and which variable names another place."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot install server into .*/file/.*: Not a directory; .*XDG_CACHE_HOME"):
        installed("server", "1", lambda directory: None, "")
