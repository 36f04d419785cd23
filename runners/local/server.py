"""What every local server has in common: a directory, a port, and a life that can be ended and resumed."""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from runners.local.cache import locked
from runners.local.ports import HOST, can_be_had, is_listening
from runners.local.processes import Command, Process, start
from runners.local.records import LOCK, Record, forget, read_record, stop_recorded, write_record
from runners.local.tools import last_lines
from transforms.errors import UserError

LOG_FILE = "server.log"


@dataclass(frozen=True)
class Server(ABC):
    """A real server on the loopback interface of this machine.

    It runs apart from the process that starts it, keeps all that it has in one directory, and may be started,
    stopped and killed any number of times: its port and its data stay the same.

    Attributes:
        directory: of its data, its log and the record of its process.
        port: it listens on; `free_port()` finds one that nobody has.
    """

    directory: Path
    port: int

    name: ClassVar[str]
    default_port: ClassVar[int]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    patience: ClassVar[float] = 120.0

    def __post_init__(self) -> None:
        # Servers run in their directories: what they are told must not depend on where we are.
        object.__setattr__(self, "directory", self.directory.absolute())

    @abstractmethod
    def install(self) -> Path:
        """Fetch what is not there yet and say where it is.

        Raises:
            UserError: something of the machine is missing, or a registry did not answer.
        """

    @abstractmethod
    def command(self, installation: Path) -> Command:
        """How it is started; writes its configuration and whatever its directory must hold at first."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it does what it is there for, now."""

    @property
    @abstractmethod
    def urls(self) -> Sequence[tuple[str, str]]:
        """Flags of the pipeline, each with a URL it may be given for this server."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that its clients need to find it and to be let in."""
        return {}

    def prepare(self) -> None:  # noqa: B027 - many need nothing
        """Create what a user would otherwise have to create first; may be called any number of times."""

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """The file with what it said since it was started."""
        return self.directory / LOG_FILE

    def start(self) -> Self:
        """Have it running and ready; nothing happens when it is.

        Raises:
            UserError: its port is taken, a program that it needs is missing, or it died or did not answer.
        """
        _make_directory(self.directory)
        with locked(self.directory / LOCK):
            record = read_record(self.directory)
            if record is not None and record.process.is_alive():
                self._refuse_another_port(record)
                process = record.process
            else:
                if record is not None:
                    record.process.kill()  # it is dead, but what it had started may not be
                process = self._launch()
            self._wait_until_ready(process)
            self.prepare()
        return self

    def stop(self) -> None:
        """End it as its users should, and wait till it is gone; nothing happens when it is."""
        stop_recorded(self.directory)

    def kill(self) -> None:
        """End it as a crash would, and wait till it is gone. Its record stays: `start` brings it back."""
        record = read_record(self.directory)
        if record is not None:
            record.process.kill()

    def is_running(self) -> bool:
        """Whether its process is alive."""
        record = read_record(self.directory)
        return record is not None and record.process.is_alive()

    def _launch(self) -> Process:
        installation = self.install()
        self._refuse_taken_port()
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".previous.log"))
        try:
            process = start(self.command(installation), self.log)
        except OSError as error:
            raise UserError(f"{self.name} cannot be started: {error.strerror}: {error.filename}") from error
        record = Record(self.name, self.port, process.pid, process.started, self.stop_signal)
        write_record(self.directory, record)
        return process

    def _wait_until_ready(self, process: Process) -> None:
        deadline = time.monotonic() + self.patience
        while not (is_listening(self.port) and self.answers()):
            if not process.is_alive():
                forget(self.directory)
                raise UserError(f"{self.name} died while it started; {self._end_of_log()}")
            if time.monotonic() > deadline:
                process.stop(self.stop_signal)
                forget(self.directory)
                raise UserError(
                    f"{self.name} gave no answer at {self.address} for {self.patience:.0f} s; {self._end_of_log()}"
                )
            time.sleep(0.05)

    def _end_of_log(self) -> str:
        text = self.log.read_text("utf-8", errors="replace") if self.log.exists() else ""
        return f"the last lines of {self.log}:\n{last_lines(text)}" if text.strip() else f"{self.log} is empty"

    def _refuse_another_port(self, record: Record) -> None:
        if record.port != self.port:
            raise UserError(
                f"{self.name} already runs on port {record.port}, not {self.port}; stop it first to move it"
            )

    def _refuse_taken_port(self) -> None:
        if is_listening(self.port) or not can_be_had(self.port):
            raise UserError(
                f"port {self.port} of {HOST}, which {self.name} would listen on, is taken; "
                f"stop what has it, or choose another port: --port {self.name}=PORT"
            )


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create directory {directory}: {error.strerror}") from error
