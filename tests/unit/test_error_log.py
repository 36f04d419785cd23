"""The log of a run that goes wrong: where it is, what it holds, and what stays off the terminal."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from pipelines.error_log import ErrorLog, in_one_line, is_interrupt

LOGGER = logging.getLogger("some.library")


def test_no_file_without_anything_to_say(tmp_path: Path) -> None:
    """Where nothing is logged but information, no file appears."""
    with ErrorLog(tmp_path / "error.log"):
        LOGGER.info("all is well")
    assert list(tmp_path.iterdir()) == []


def test_what_is_logged_stays_off_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A handler that would write to standard error is silent meanwhile and there again afterwards."""
    terminal = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(terminal)
    try:
        with ErrorLog(tmp_path / "error.log") as log:
            LOGGER.error("meanwhile")
        LOGGER.error("afterwards")
    finally:
        logging.getLogger().removeHandler(terminal)
    assert capsys.readouterr().err == "afterwards\n"
    assert "some.library: meanwhile" in log.path.read_text("utf-8")


def test_tracebacks_are_whole_and_card_numbers_are_not(tmp_path: Path) -> None:
    """An exception is logged with its traceback; a card number in its text is masked."""
    with ErrorLog(tmp_path / "error.log") as log:
        try:
            raise ValueError("no amount: 4111 1111 1111 1111")
        except ValueError:
            LOGGER.exception("failed")
    text = log.path.read_text("utf-8")
    assert "Traceback (most recent call last)" in text
    assert text.endswith("ValueError: no amount: ************1111\n")


def test_a_directory_that_is_gone_loses_nothing(tmp_path: Path) -> None:
    """The log then lies in a directory of the system's, which only its owner can read, and `path` says where."""
    with ErrorLog(tmp_path / "gone" / "error.log") as log:
        LOGGER.error("first")
        LOGGER.error("second")
    assert log.path.parent != tmp_path / "gone"
    assert [line.rsplit(" ", 1)[1] for line in log.path.read_text("utf-8").splitlines()] == ["first", "second"]
    assert log.path.parent.stat().st_mode & 0o077 == 0


def test_with_no_place_left_the_terminal_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When the temporary directory cannot be written either, the log goes to standard error."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with ErrorLog(tmp_path / "gone" / "error.log"):
        LOGGER.error("at last")
    assert capsys.readouterr().err.endswith("some.library: at last\n")


def fail_as_beam_does() -> None:
    try:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise RuntimeError("KeyboardInterrupt [while running 'Step']")  # noqa: B904  # it names no cause
    except RuntimeError as error:
        raise OSError("bundle failed") from error


def test_an_interrupt_is_known_however_it_is_wrapped() -> None:
    """Ctrl-C is found behind any chain of causes and contexts, and nothing else is taken for it."""
    with pytest.raises(OSError, match="bundle failed") as caught:
        fail_as_beam_does()
    assert is_interrupt(caught.value)
    assert not is_interrupt(RuntimeError("KeyboardInterrupt"))
    assert not is_interrupt(None)


def test_one_line_of_any_exception() -> None:
    """The last line is what went wrong, whatever comes before it and whether there is any text at all."""
    assert in_one_line(ValueError("a\n\nb\n")) == "b"
    assert in_one_line(KeyError()) == "KeyError"
    assert in_one_line(RuntimeError("OSError: full [while running 'Write']")) == "OSError: full [while running 'Write']"
