"""Where downloaded servers are kept: one directory for each name and version, complete or absent."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from runners.local.tools import say
from transforms.errors import UserError


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME`, or `~/.cache`, and below it what is ours."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "fraud-detection", "servers")


def installed(name: str, version: str, install: Callable[[Path], None], explain: str) -> Path:
    """The directory of a server's files, which `install` fills when it is not there yet.

    It is filled under another name and then renamed, so what has the name is whole; of two processes that
    want it at once the second waits for the first.

    Args:
        name: of the server.
        version: exactly one.
        install: fills the empty directory it is given, or raises.
        explain: said before it begins: what is fetched, how, and how long that takes.

    Raises:
        UserError: the cache cannot be written, or what `install` raises.
    """
    target = cache_directory() / f"{name}-{version}"
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f".{target.name}.lock")):
            if not target.is_dir():
                say(f"{name} {version}: {explain}")
                _fill(target, install)
    except OSError as error:
        raise UserError(
            f"cannot install {name} into {target}: {error.strerror or error}; "
            "make room there, or name another cache directory in XDG_CACHE_HOME"
        ) from error
    return target


def _fill(target: Path, install: Callable[[Path], None]) -> None:
    for left in target.parent.glob(f".{target.name}.new-*"):
        shutil.rmtree(left)  # by an installation that was killed: whoever holds the lock is alone
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))
    try:
        aside.chmod(0o755)
        install(aside)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # not there any more when all went well


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that a file stands for; it dies with the process.

    Raises:
        OSError: the file cannot be made.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
