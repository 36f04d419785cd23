"""Windows of event time as Beam has them, for functions that say themselves which window a value is of."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
from apache_beam.transforms.core import Windowing
from apache_beam.transforms.trigger import AccumulationMode, AfterCount, AfterProcessingTime, AfterWatermark
from apache_beam.transforms.window import FixedWindows, IntervalWindow, SlidingWindows
from apache_beam.utils.timestamp import Duration, Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from transforms.durations import SECOND
from transforms.window_counts import Windows


class IntoWindows(beam.ParDo):
    """A ParDo whose function puts its outputs into windows itself, with `in_window`.

    `beam.WindowInto` would give a partial count of a sliding window every window around its timestamp,
    also those it was not counted for.
    """

    def __init__(self, fn: beam.DoFn, output_type: Any, windowing: Windowing) -> None:
        beam.ParDo.__init__(self, fn)
        beam.ParDo.with_output_types(self, output_type)
        self.windowing = windowing

    def get_windowing(self, inputs: Any) -> Windowing:
        return self.windowing


def in_window(value: Any, start: int, size: int, timestamp: Timestamp) -> Any:
    """The element `value` in the window [start, start + size), as Beam takes it from a function's `process`."""
    window = IntervalWindow(Timestamp(micros=start), Timestamp(micros=start + size))
    return WindowedValue(value, timestamp, (window,))


def windowing(windows: Windows, allowed_lateness_us: int, early_us: int | None = None) -> Windowing:
    """The windows and when they fire: at the watermark, before that if asked to, and again for each late element.

    Args:
        windows: which.
        allowed_lateness_us: how long a closed window still takes late rows.
        early_us: how often an open window fires, in whole seconds of processing time; None for not at all.
    """
    size, every = Duration(micros=windows.size), Duration(micros=windows.every)
    early = AfterProcessingTime(early_us // SECOND) if early_us else None
    return Windowing(
        FixedWindows(size) if size == every else SlidingWindows(size, every),
        triggerfn=AfterWatermark(early=early, late=AfterCount(1)),
        accumulation_mode=AccumulationMode.ACCUMULATING,
        allowed_lateness=allowed_lateness_us / SECOND,
    )
