"""When a run goes wrong: the whole story in a file, and one line of it for the terminal."""

from __future__ import annotations

import logging
import sys
import tempfile
import traceback
from pathlib import Path
from types import TracebackType
from typing import Self

from transforms.card_numbers import mask_card_numbers


class ErrorLog(logging.Handler):
    r"""A file for warnings, errors and their tracebacks, from entering a `with` block to leaving it.

    Beam logs an exception with its traceback and then raises it, traceback and all: on a terminal that buries
    the one line that matters. So nothing that is logged meanwhile goes to standard error. The file is made
    when there is something to write; card numbers in it are masked. Where it cannot be written, because its
    directory is gone, the system's temporary directory takes it; and where that is full, standard error.

    Attributes:
        path: the file.

    Example:
        >>> path = Path(tempfile.mkdtemp(), "error.log")
        >>> with ErrorLog(path):
        ...     logging.getLogger("bank").warning("no answer for card 4111 1111 1111 1111")
        >>> path.read_text().partition(" WARNING ")[2]
        'bank: no answer for card ************1111\n'
    """

    def __init__(self, path: Path) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self.path = path
        self._aside: list[logging.Handler] = []

    def __enter__(self) -> Self:
        root = logging.getLogger()
        self._aside = [handler for handler in root.handlers if getattr(handler, "stream", None) is sys.stderr]
        for handler in self._aside:
            root.removeHandler(handler)
        root.addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        root = logging.getLogger()
        root.removeHandler(self)
        for handler in self._aside:
            root.addHandler(handler)

    def emit(self, record: logging.LogRecord) -> None:
        """Append one record."""
        text = mask_card_numbers(self.format(record)) + "\n"
        try:
            try:
                _append(self.path, text)
            except OSError:
                self.path = Path(tempfile.mkdtemp(prefix="fraud-"), self.path.name)
                _append(self.path, text)
        except OSError:
            sys.stderr.write(text)


def _append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)


def in_one_line(error: BaseException) -> str:
    r"""What an exception says: the last line, since the text of one that crossed Beam may be a whole traceback.

    Example:
        >>> in_one_line(OSError("no space left")), in_one_line(RuntimeError("Traceback:\n  ...\nKeyError: 'a'"))
        ('OSError: no space left', "KeyError: 'a'")
    """
    lines = "".join(traceback.format_exception_only(error)).strip().splitlines()
    return lines[-1].removeprefix("RuntimeError: ")  # into which Beam wraps what it cannot copy


def is_interrupt(error: BaseException | None) -> bool:
    """Whether an exception came of Ctrl-C; Beam wraps even that like any other."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__ or error.__context__
    return False
