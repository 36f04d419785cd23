"""What every local server has in common: a directory, a port, and a life that can be ended and resumed."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import msgspec

from runners.local.cache import locked
from runners.local.processes import Command, Process, start
from runners.local.tools import last_lines, say
from transforms.errors import UserError

HOST = "127.0.0.1"
RECORD, LOG_FILE, LOCK = "process.json", "server.log", ".lock"


class Record(msgspec.Struct, frozen=True):
    """What is written down about a server that was started, for those who come later."""

    name: str
    port: int
    pid: int
    started: str
    stop_signal: int

    @property
    def process(self) -> Process:
        """The process that was started."""
        return Process(self.pid, self.started)


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
        aside = self.directory / f".{RECORD}"
        aside.write_bytes(msgspec.json.encode(record))
        aside.replace(self.directory / RECORD)
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
        if is_listening(self.port) or not _can_be_had(self.port):
            raise UserError(
                f"port {self.port} of {HOST}, which {self.name} would listen on, is taken; "
                f"stop what has it, or choose another port: --port {self.name}=PORT"
            )


def stop_recorded(directory: Path) -> Record | None:
    """Stop the server whose record a directory holds, whichever it is, and remove the record.

    Returns:
        What was running, or None when nothing was.
    """
    if not (directory / RECORD).exists():
        return None
    with locked(directory / LOCK):
        record = read_record(directory)
        if record is None:
            return None
        alive = record.process.is_alive()
        if not record.process.stop(signal.Signals(record.stop_signal)):
            say(f"{record.name} did not end when asked to and was killed")
        forget(directory)
    return record if alive else None


def stop_all(directory: Path) -> list[Record]:
    """Stop every server that was started in a directory below this one.

    Returns:
        Those that were running.
    """
    stopped = [stop_recorded(path.parent) for path in sorted(directory.glob(f"*/{RECORD}"))]
    return [record for record in stopped if record is not None]


def read_record(directory: Path) -> Record | None:
    """What is known of the server in a directory; None when none was started there, or it was stopped.

    Raises:
        UserError: the record cannot be read.
    """
    path = directory / RECORD
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}; end that server by hand and remove the file") from error


def forget(directory: Path) -> None:
    """Remove the record of a server that runs no more."""
    (directory / RECORD).unlink(missing_ok=True)


def purge(directory: Path) -> None:
    """Remove all that a stopped server has left."""
    shutil.rmtree(directory)


def is_listening(port: int) -> bool:
    """Whether something accepts connections at a port of the loopback interface."""
    with contextlib.closing(socket.socket()) as client:
        client.settimeout(1.0)
        return client.connect_ex((HOST, port)) == 0


def _can_be_had(port: int) -> bool:
    with contextlib.closing(socket.socket()) as server:
        # What a server that was just killed leaves behind in the kernel does not count.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port of the loopback interface that nobody has at the moment."""
    with contextlib.closing(socket.socket()) as server:
        server.bind((HOST, 0))
        port: int = server.getsockname()[1]
        return port


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create directory {directory}: {error.strerror}") from error
