"""CPU time and memory of a process and of all that it has started, the dead among them."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from runners.local.processes import descendants

_LOOK_EVERY, _WEIGH_EVERY = 0.1, 2.0  # seconds; to weigh a process's memory takes the kernel milliseconds


class TreeUsage:
    """A thread that looks at a tree of processes for as long as the context lasts.

    Args:
        pid: of the tree's root.

    Attributes:
        peak_bytes: the most memory that all took at once; what processes share counts once.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.peak_bytes = 0
        self._ticks: dict[int, int] = {}
        self._over, self._looking = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        self._look()
        return sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK")

    def _run(self) -> None:
        looks = 0
        while not self._over.wait(_LOOK_EVERY):
            pids = self._look()
            if looks % round(_WEIGH_EVERY / _LOOK_EVERY) == 0:
                self.peak_bytes = max(self.peak_bytes, sum(map(_weight, pids)))
            looks += 1

    def _look(self) -> list[int]:
        with self._looking:
            pids = [self.pid, *descendants(self.pid)]
            for pid in pids:
                ticks = _ticks_of(pid)
                if ticks is not None:
                    self._ticks[pid] = ticks
            return pids


def _ticks_of(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace").rpartition(") ")[2].split()
    except OSError:
        return None
    return int(fields[11]) + int(fields[12])


def _weight(pid: int) -> int:
    """Its share of memory, in bytes: what two processes have in common counts half for each."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
