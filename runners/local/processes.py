"""Processes that outlive the one that started them, and are known again by later ones."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runners.local.tools import as_user

#: Our own children. A dead child stays in the table of processes until its parent asks for it.
_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}
PAUSE = 0.02


@dataclass(frozen=True)
class Command:
    """How a server is started.

    Attributes:
        argv: the program and its arguments.
        directory: it runs in.
        environment: variables on top of ours.
        user: as whom it runs, when not as us.
    """

    argv: tuple[str, ...]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None


@dataclass(frozen=True)
class Process:
    """A process, by pid and by when it started: a pid alone may be another's by now.

    Attributes:
        pid: its number.
        started: an opaque word that no other process of the same number has.
    """

    pid: int
    started: str

    def is_alive(self) -> bool:
        """Whether it still runs."""
        child = _CHILDREN.get(self.pid)
        if child is not None and child.poll() is not None:
            del _CHILDREN[self.pid]
        return _start_of(self.pid) == self.started

    def kill(self) -> None:
        """End it at once, as a crash would, and what it had started; wait till it is gone."""
        self._signal(signal.SIGKILL)
        self._wait(patience=10.0)
        self._end_group()

    def stop(self, how: signal.Signals, patience: float = 20.0) -> bool:
        """Ask it to end, and end it when it does not, and what it had started; False when it had to be killed.

        Args:
            how: the signal that means "end, please" to it.
            patience: seconds it has for that.
        """
        self._signal(how)
        if self._wait(patience):
            self._end_group()
            return True
        self.kill()
        return False

    def _signal(self, how: signal.Signals) -> None:
        if self.is_alive():
            os.kill(self.pid, how)

    def _wait(self, patience: float) -> bool:
        deadline = time.monotonic() + patience
        while self.is_alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(PAUSE)
        return True

    def _end_group(self) -> None:
        """End what it had started: the group goes by its number for as long as one of them lives."""
        if _start_of(self.pid) is not None:
            return  # the number is another's by now, and so would be the group
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # nobody is left
        except PermissionError:
            return  # macOS says so of a group of which only the dead are left


def start(command: Command, log: Path) -> Process:
    """Start a process that goes on after this one has ended.

    Args:
        command: what to start.
        log: the file that gets all it says, after what is there.

    Raises:
        OSError: it cannot be started.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603 - argv is ours
            command.argv,
            cwd=command.directory,
            env={**os.environ, **command.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in the terminal that started it is not meant for it
            **as_user(command.user),
        )
    _CHILDREN[child.pid] = child
    return Process(child.pid, _start_of(child.pid) or "already over")


def descendants(pid: int) -> list[int]:
    """The processes that one has started, and those that they have; on Linux only."""
    found = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):  # a process is the child of the thread that started it
        with contextlib.suppress(FileNotFoundError):
            for child in map(int, thread.read_text("ascii").split()):
                found += [child, *descendants(child)]
    return found


def reap() -> None:
    """Take note of our own children that somebody else has ended, so that nothing is left of them."""
    for pid in [pid for pid, child in _CHILDREN.items() if child.poll() is not None]:
        del _CHILDREN[pid]


def _start_of(pid: int) -> str | None:
    """When the process that has a number now was started, or None when nothing alive has it."""
    return _start_on_linux(pid) if sys.platform == "linux" else _start_by_ps(pid)


def _start_on_linux(pid: int) -> str | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        threads = len(os.listdir(f"/proc/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = text.rpartition(") ")[2].split()  # the name before it may hold blanks and brackets
    # A process whose first thread is over keeps its ports until the last thread is.
    return None if state in "ZX" and threads <= 1 else f"{boot}:{fields[18]}"


def _start_by_ps(pid: int) -> str | None:
    argv = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    result = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603 - argv is ours
    state, _, started = result.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else " ".join(started.split())
