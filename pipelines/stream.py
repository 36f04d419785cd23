"""Run a pipeline that has no end until somebody stops it, by Ctrl-C or by a request to terminate."""

from __future__ import annotations

import atexit
import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TextIO

import apache_beam as beam
from apache_beam.runners.runner import PipelineResult, PipelineState

_LOGGER = logging.getLogger(__name__)

#: The exit code of what Ctrl-C ended, as shells have it.
INTERRUPTED = 130


@contextmanager
def terminable() -> Iterator[None]:
    """Inside, a request to terminate (SIGTERM) is an interrupt, as Ctrl-C is: results are written before the end."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    with _handling(signal.SIGTERM, interrupt):
        yield


def run_until_stopped(pipeline: beam.Pipeline) -> tuple[PipelineResult, str]:
    """Run `pipeline`; its result, and the state it ended in, which is `DONE` when it was stopped.

    After a stop `sys.stderr` stays where errors are logged; `human_stderr` is what people see.

    Raises:
        Exception: the pipeline failed.
    """
    with _handling(signal.SIGINT, signal.SIG_IGN):
        # What the runner starts takes over how signals are handled. Ctrl-C goes to every process of the terminal, and
        # a runner that dies of it before its workers have been stopped makes an orderly stop look like a failure.
        result = pipeline.run()
    ended: list[Any] = []

    def wait() -> None:
        try:
            ended.append(result.wait_until_finish())
        except Exception as error:
            ended.append(error)

    waiting = threading.Thread(target=wait, name="pipeline", daemon=True)
    sys.stderr = _Logged(sys.stderr)
    waiting.start()
    try:
        while waiting.is_alive():
            waiting.join(0.5)
    except KeyboardInterrupt:
        _stop(result, waiting)
        return result, PipelineState.DONE
    sys.stderr = human_stderr()
    if isinstance(ended[0], Exception):
        raise ended[0]
    return result, str(ended[0])


class _Logged(io.TextIOBase):
    """Takes what Beam's workers print when a bundle fails, tracebacks of many lines, to where errors are logged.

    After a stop it stays: threads whose connections were closed go on printing for a while.
    """

    def __init__(self, instead_of: TextIO) -> None:
        self.instead_of = instead_of

    def write(self, text: str) -> int:
        if text.strip():
            _LOGGER.error("%s", text.rstrip())
        return len(text)


def human_stderr() -> TextIO:
    """Standard error as people see it, also while what workers print there goes to the log."""
    return sys.stderr.instead_of if isinstance(sys.stderr, _Logged) else sys.stderr


def _stop(result: PipelineResult, waiting: threading.Thread) -> None:
    """Cancel the pipeline. Its threads find their connections closed, which says nothing to whoever stopped it."""
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    _LOGGER.setLevel(logging.CRITICAL)
    try:
        result.cancel()
    except Exception as error:
        _LOGGER.debug("the pipeline was gone before it could be cancelled: %s", error)
    waiting.join(10)


def end_now(code: int) -> NoReturn:
    """End this process: threads that still wait for a server neither hold it up nor have anything more to say."""
    sys.stdout.flush()
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it stays open for as long as the process lives
    atexit._run_exitfuncs()  # what the runner started is ended there
    os._exit(code)


@contextmanager
def _handling(number: signal.Signals, handler: Any) -> Iterator[None]:
    """Handle a signal so for a while; outside the main thread, which alone gets signals, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
