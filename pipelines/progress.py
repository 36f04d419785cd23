"""What a run says of itself while it runs: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Literal, NamedTuple, TextIO

from pipelines.formats import moment
from transforms import tally

Mode = Literal["auto", "terminal", "plain", "off"]

PLAIN_SECONDS = 5.0  # a log is not to fill up with progress
RATE_SECONDS = 5.0  # rates are of the last few seconds
MOST_SAMPLES = 600


class ThroughputSample(NamedTuple):
    """How far a run was, `seconds` after its start: transactions read and scored so far."""

    seconds: float
    read: int
    scored: int


class Progress:
    """Shows the counters of `transforms.tally` from a thread, from entering a `with` block to leaving it.

    A live line is redrawn in place; nothing else of the terminal is touched, so whatever ends the run, an
    error, Ctrl-C or a kill, leaves a terminal that works. Counters of workers in other processes are not
    seen: their runner has its own displays.

    Args:
        mode: `terminal` for the live line, `plain` for lines, `off` for neither, `auto` to look at `stream`.
        every: seconds between two looks at the counters. Plain lines come 5 seconds apart or more.
        stream: where to write; standard error when not given, so that output can be piped.
        clock: seconds of a clock that never goes back.
        snapshot: gives the counters.
    """

    def __init__(
        self,
        mode: Mode = "auto",
        every: float = 1.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        snapshot: Callable[[], Mapping[str, int]] = tally.snapshot,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._mode = _choose(self._stream) if mode == "auto" else mode
        self._every = every
        self._clock = clock
        self._snapshot = snapshot
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._started = clock()
        self._samples = [ThroughputSample(0.0, 0, 0)]
        self._last_line = 0.0
        self._stride = 1
        self._looks = 0
        self._recent = list(self._samples)

    @property
    def samples(self) -> tuple[ThroughputSample, ...]:
        """The run's course so far: at most `MOST_SAMPLES`, thinned out evenly as it gets long."""
        return tuple(self._samples)

    def __enter__(self) -> Progress:
        self._started = self._clock()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.look(last=True)

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self.look()

    def look(self, last: bool = False) -> None:
        """Take a sample and show it; `last` ends the live line and keeps the sample in any case."""
        counts = self._snapshot()
        sample = ThroughputSample(self._clock() - self._started, counts.get("read", 0), counts.get("scored", 0))
        self._keep(sample, last)
        line = progress_line(counts, self._recent[0], sample)
        if self._mode == "terminal":
            # The last column stays free: some terminals wrap when it is written to.
            self._write(f"\r\x1b[2K{line[: _columns(self._stream) - 1]}" + ("\n" if last else ""))
        elif self._mode == "plain" and (last or sample.seconds - self._last_line >= PLAIN_SECONDS):
            self._last_line = sample.seconds
            self._write(line + "\n")

    def _keep(self, sample: ThroughputSample, last: bool) -> None:
        self._looks += 1
        if len(self._samples) >= MOST_SAMPLES:
            self._samples = self._samples[::2]
            self._stride *= 2
        if last or self._looks % self._stride == 0:
            self._samples.append(sample)
        self._recent.append(sample)
        while len(self._recent) > 2 and self._recent[1].seconds <= sample.seconds - RATE_SECONDS:
            self._recent.pop(0)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._mode = "off"  # nobody is reading any more, which is no reason to stop the run


def progress_line(counts: Mapping[str, int], earlier: ThroughputSample, now: ThroughputSample) -> str:
    """The line that says where a run is.

    Args:
        counts: as `transforms.tally` has them.
        earlier: the sample that rates are measured from.
        now: this moment's sample.

    Example:
        >>> counts = {"read": 3000, "scored": 2000, "alerts": 7, "watermark_us": 1_533_038_400_000_000}
        >>> progress_line(counts, ThroughputSample(0.0, 0, 0), ThroughputSample(2.0, 3000, 2000))
        '00:02  read 3,000 (1,500/s)  scored 2,000 (1,000/s)  alerts 7  dead letters 0  watermark 2018-07-31 12:00'
    """
    minutes, seconds = divmod(int(now.seconds), 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"
    passed = now.seconds - earlier.seconds
    rates = [f"{(b - a) / passed:,.0f}/s" if passed > 0 else "-/s" for a, b in zip(earlier[1:], now[1:], strict=True)]
    watermark = counts.get("watermark_us")
    parts = [
        clock,
        f"read {now.read:,} ({rates[0]})",
        f"scored {now.scored:,} ({rates[1]})",
        f"alerts {counts.get('alerts', 0):,}",
        f"dead letters {counts.get('dead_letters', 0):,}",
        f"watermark {'-' if watermark is None else moment(watermark)}",
    ]
    return "  ".join(parts)


def _choose(stream: TextIO) -> Mode:
    capable = os.environ.get("TERM", "dumb") != "dumb"
    return "terminal" if capable and stream.isatty() else "plain"


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):  # what says it is a terminal need not have a size
        return 80
