"""How far a stream has come, judged by the times its broker gave the records.

The policy is that of Beam's own Kafka source: nothing is expected to come that is older than the newest record seen,
less a delay; and who has nothing left to read is as far as the clock, less the delay. A record from the future, which
a wrong clock can make, counts as of now: it must not make all that follows late.
"""

from __future__ import annotations

from typing import Any

import apache_beam as beam
from apache_beam.coders import Coder, VarIntCoder
from apache_beam.io.iobase import WatermarkEstimator
from apache_beam.transforms.core import WatermarkEstimatorProvider
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Timestamp


def watermark_of(newest: int, now: int, delay: int, caught_up: bool = False) -> int:
    """The watermark that records give, in microseconds since 1970.

    Args:
        newest: time of the newest record read, microseconds since 1970.
        now: the clock, in the same unit; when `caught_up`, as of asking the broker whether there was more.
        delay: microseconds that a record may come after a newer one.
        caught_up: whether all that the broker had was read.

    Example:
        >>> watermark_of(newest=5_000, now=9_000, delay=1_000), watermark_of(newest=99_000, now=9_000, delay=1_000)
        (4000, 8000)
        >>> watermark_of(newest=5_000, now=9_000, delay=1_000, caught_up=True)
        8000
    """
    return (now if caught_up else min(newest, now)) - delay


class AdvancingWatermark(WatermarkEstimator):
    """A watermark that whoever reads moves forward. What would move it back is passed over.

    Its state is a plain number of microseconds since 1970.
    """

    def __init__(self, micros: int) -> None:
        self._micros = micros

    def advance(self, micros: int) -> None:
        """Let nothing older than this be expected from now on."""
        self._micros = max(self._micros, micros)

    def observe_timestamp(self, timestamp: Timestamp) -> None:
        """A batch has the time of its oldest record, which says nothing of what is to come."""

    def current_watermark(self) -> Timestamp:
        return Timestamp(micros=self._micros)

    def get_estimator_state(self) -> int:
        return self._micros


class _AdvancingWatermarks(WatermarkEstimatorProvider):
    """Gives each element an `AdvancingWatermark` that begins before all time."""

    def initial_estimator_state(self, element: Any, restriction: Any) -> int:
        return int(MIN_TIMESTAMP.micros)

    def create_watermark_estimator(self, estimator_state: int) -> AdvancingWatermark:
        return AdvancingWatermark(estimator_state)

    def estimator_state_coder(self) -> Coder:
        return VarIntCoder()


#: What a splittable DoFn's `process` takes as the default of an argument, to be given an `AdvancingWatermark` there.
ADVANCING = beam.DoFn.WatermarkEstimatorParam(_AdvancingWatermarks())
