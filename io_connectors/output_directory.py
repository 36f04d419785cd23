"""The directory a run writes into: one run at a time, nothing of a previous run, nothing of anybody else."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

from transforms.errors import UserError

#: Its presence says that the directory is a run's output; its holder's lock, that the run goes on.
MARKER = ".fraud-run"


class OutputDirectory:
    """A directory that one run owns while the context lasts.

    Entering creates it when it is absent, and removes what a previous run left of the artefacts below.
    Other files are never touched. The lock dies with its process, so a killed run blocks no later one.

    Attributes:
        path: the directory.
        artefacts: all of the following.
        decisions: directory of Parquet files.
        alerts, dead_letters, windows, drift, calibration: JSON lines.
        shadow: directory of Parquet files.
        statistics: what the run's workers hand to its report.
        report: one self-contained HTML page.
        summary: the figures of the run as JSON.
        errors: what went wrong, if anything did, with tracebacks.

    Raises:
        UserError: on entering: the directory holds files but no run's marker, another run is writing
            into it, or it cannot be written.

    Example:
        >>> import tempfile
        >>> with OutputDirectory(tempfile.mkdtemp()) as output:
        ...     output.alerts.name
        'alerts.jsonl'
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.decisions = self.path / "decisions"
        self.alerts = self.path / "alerts.jsonl"
        self.dead_letters = self.path / "dead_letters.jsonl"
        self.windows = self.path / "windows.jsonl"
        self.drift = self.path / "drift.jsonl"
        self.calibration = self.path / "calibration.jsonl"
        self.shadow = self.path / "shadow"
        self.statistics = self.path / "statistics.bin"
        self.report = self.path / "report.html"
        self.summary = self.path / "summary.json"
        self.errors = self.path / "error.log"
        self.artefacts = (
            self.decisions,
            self.alerts,
            self.dead_letters,
            self.windows,
            self.drift,
            self.calibration,
            self.shadow,
            self.statistics,
            self.report,
            self.summary,
            self.errors,
        )
        self._lock: int | None = None

    def __enter__(self) -> Self:
        make_directory(self.path)
        self._refuse_strangers()
        self._lock = self._take_lock()
        try:
            self._remove_previous()
        except OSError as error:
            self._release()
            raise UserError(
                f"output directory {self.path}: cannot remove a previous run's {error.filename}: {error.strerror}"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _refuse_strangers(self) -> None:
        try:
            names = sorted(os.listdir(self.path))
        except OSError as error:
            raise UserError(f"output directory {self.path} cannot be read: {error.strerror}") from error
        if names and MARKER not in names:
            raise UserError(
                f"output directory {self.path} holds files that no run of this program wrote, such as {names[0]}; "
                "nothing was touched. Name an empty or a new directory"
            )

    def _take_lock(self) -> int:
        try:
            lock = os.open(self.path / MARKER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UserError(f"output directory {self.path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            raise UserError(
                f"output directory {self.path} is in use by another run (process {holder}); "
                "wait for it, stop it, or name another directory"
            ) from None
        except OSError as error:
            os.close(lock)
            raise UserError(f"output directory {self.path} cannot be locked: {error.strerror}") from error
        return lock

    def _remove_previous(self) -> None:
        for path in self.artefacts:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _release(self) -> None:
        if self._lock is not None:
            # Worker processes forked meanwhile hold copies of the descriptor: closing ours would not unlock.
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = None


def make_directory(path: Path) -> None:
    """Create `path` and its parents where they are absent.

    Raises:
        UserError: it cannot be created, or is no directory.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create directory {path}: {error.strerror}") from error
