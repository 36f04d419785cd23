"""The progress display and the counters it reads."""

from __future__ import annotations

import io
import os
import termios
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from select import select

import pytest

from pipelines.progress import MOST_SAMPLES, Progress, ThroughputSample
from transforms import tally

COUNTS = {"read": 1000, "scored": 600, "alerts": 4, "dead_letters": 1, "watermark_us": 1_533_038_400_000_000}


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _empty_tally() -> Iterator[None]:
    tally.reset()
    yield
    tally.reset()


def test_a_live_line_is_redrawn_in_place_and_ends_on_its_own_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look replaces the line; leaving ends it with a line break, so the next output starts afresh."""
    monkeypatch.setenv("TERM", "xterm")
    stream, clock = Terminal(), Clock()
    with Progress(every=1000, stream=stream, clock=clock, snapshot=lambda: COUNTS) as progress:
        clock.now += 2
        progress.look()
        clock.now += 2
    first, second = stream.getvalue().split("\r\x1b[2K")[1:]
    assert first.startswith("00:02  read 1,000 (500/s)  scored 600 (300/s)  alerts 4  dead letters 1")
    assert second.startswith("00:04  read 1,000")
    assert second.endswith("\n")


def test_a_live_line_never_wraps() -> None:
    """On a narrow terminal the line is cut: one that wrapped could not be redrawn in place."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 20))
    with os.fdopen(slave, "w") as terminal:
        Progress("terminal", stream=terminal, snapshot=lambda: COUNTS).look()
        shown = ""
        while select([master], [], [], 0.2)[0]:  # one read gives no more than a terminal's buffer holds
            shown += os.read(master, 65536).decode()
    os.close(master)
    assert len(shown.removeprefix("\r\x1b[2K")) == 19


@pytest.mark.parametrize(("term", "stream"), [("xterm", io.StringIO()), ("dumb", Terminal())])
def test_without_a_capable_terminal_there_are_plain_lines(
    term: str, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file, a pipe and a dumb terminal get whole lines without control characters, 5 seconds apart or more."""
    monkeypatch.setenv("TERM", term)
    clock = Clock()
    with Progress(every=1000, stream=stream, clock=clock, snapshot=lambda: COUNTS) as progress:
        for _ in range(12):
            clock.now += 1
            progress.look()
    lines = stream.getvalue().splitlines()
    assert [line[:5] for line in lines] == ["00:05", "00:10", "00:12"]
    assert stream.getvalue().replace("\n", "").isprintable()


def test_off_writes_nothing_and_still_records_the_course() -> None:
    """A quiet run says nothing, and its report still shows throughput."""
    stream, clock = io.StringIO(), Clock()
    with Progress("off", every=1000, stream=stream, clock=clock, snapshot=lambda: COUNTS) as progress:
        clock.now += 3
    assert stream.getvalue() == ""
    assert progress.samples == (ThroughputSample(0.0, 0, 0), ThroughputSample(3.0, 1000, 600))


def test_rates_are_of_the_last_seconds() -> None:
    """A run that stands still shows no speed, however fast it began."""
    stream, clock, counts = io.StringIO(), Clock(), {"read": 0}
    progress = Progress("plain", stream=stream, clock=clock, snapshot=lambda: counts)
    for second in range(1, 31):
        clock.now += 1
        counts["read"] = min(second, 10) * 100
        progress.look()
    assert "read 500 (100/s)" in stream.getvalue().splitlines()[0]
    assert "read 1,000 (0/s)" in stream.getvalue().splitlines()[-1]


def interrupted(progress: Progress) -> None:
    with progress:
        time.sleep(0.05)
        raise KeyboardInterrupt


def test_an_error_or_ctrl_c_passes_through_a_display_that_cleans_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a real terminal an interrupt ends the thread and the line, and the terminal's modes are as before."""
    monkeypatch.setenv("TERM", "xterm")
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as terminal:
        before = termios.tcgetattr(terminal)
        threads = threading.active_count()
        with pytest.raises(KeyboardInterrupt):
            interrupted(Progress(every=0.005, stream=terminal))
        assert threading.active_count() == threads
        assert termios.tcgetattr(terminal) == before
        shown = ""
        while select([master], [], [], 0.2)[0]:  # one read gives no more than a terminal's buffer holds
            shown += os.read(master, 65536).decode()
    os.close(master)
    assert shown.count("\r\x1b[2K") > 2
    assert shown.endswith("\r\n")
    assert "\x1b" not in shown.replace("\x1b[2K", "")


def test_a_reader_that_went_away_does_not_stop_the_run() -> None:
    """A closed stream ends the display, not the pipeline."""
    stream = io.StringIO()
    with Progress("plain", every=1000, stream=stream, snapshot=lambda: COUNTS) as progress:
        stream.close()
        progress.look(last=True)
    assert len(progress.samples) == 3


def test_standard_error_is_used_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    """Progress goes to standard error, so that standard output has the summary alone."""
    with Progress("plain", every=1000):
        pass
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("00:00  read 0")


def test_the_course_of_a_long_run_stays_small_and_whole() -> None:
    """However long a run, its course has a bounded number of samples, evenly spread from start to end."""
    clock = Clock()
    progress = Progress("off", clock=clock, snapshot=lambda: {"read": int(clock.now)})
    for _ in range(10_000):
        clock.now += 1
        progress.look()
    clock.now += 1
    progress.look(last=True)
    seconds = [sample.seconds for sample in progress.samples]
    assert len(seconds) <= MOST_SAMPLES
    assert (seconds[0], seconds[-1]) == (0, 10_001)
    gaps = {b - a for a, b in pairwise(seconds[:-1])}
    assert len(gaps) == 1


def test_counters_lose_nothing_between_threads() -> None:
    """Workers' threads add to the same counters at once, and every addition counts."""

    def work(worker: int) -> None:
        for step in range(2000):
            tally.add("read", 2)
            tally.highest("watermark_us", worker * 10_000 + step)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.snapshot() == {"read": 16_000, "watermark_us": 31_999}


def test_a_snapshot_does_not_move() -> None:
    """What was read stays as it was when counting goes on."""
    tally.add("alerts")
    seen = tally.snapshot()
    tally.add("alerts")
    assert seen == {"alerts": 1}
