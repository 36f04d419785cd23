"""What is written down about a server that was started, for those who come later."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import msgspec

from runners.local.cache import locked
from runners.local.processes import Process
from runners.local.tools import say
from transforms.errors import UserError

RECORD, LOCK = "process.json", ".lock"


class Record(msgspec.Struct, frozen=True):
    """A server that was started: which, where, as which process, and the signal that ends it as it should."""

    name: str
    port: int
    pid: int
    started: str
    stop_signal: int

    @property
    def process(self) -> Process:
        """The process that was started."""
        return Process(self.pid, self.started)


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


def write_record(directory: Path, record: Record) -> None:
    """Write down that a server was started in a directory."""
    aside = directory / f".{RECORD}"
    aside.write_bytes(msgspec.json.encode(record))
    aside.replace(directory / RECORD)


def forget(directory: Path) -> None:
    """Remove the record of a server that runs no more."""
    (directory / RECORD).unlink(missing_ok=True)


def purge(directory: Path) -> None:
    """Remove all that a stopped server has left."""
    shutil.rmtree(directory)
