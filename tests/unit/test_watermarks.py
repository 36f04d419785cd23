"""The watermark of a stream, by the policy of Beam's own Kafka source."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
from apache_beam.coders import VarIntCoder
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Timestamp

from io_connectors.watermarks import ADVANCING, AdvancingWatermark, watermark_of


def test_a_watermark_never_goes_back() -> None:
    """Old records that come late leave it where it is."""
    watermark = AdvancingWatermark(5_000)
    for micros, expected in ((7_000, 7_000), (6_000, 7_000), (9_000, 9_000)):
        watermark.advance(micros)
        assert watermark.current_watermark() == Timestamp(micros=expected)


def test_its_state_is_a_plain_number() -> None:
    """Which survives a savepoint: a watermark made of it goes on where the other stood."""
    provider: Any = ADVANCING.watermark_estimator_provider
    state = provider.initial_estimator_state(None, None)
    assert state == MIN_TIMESTAMP.micros
    coder = provider.estimator_state_coder()
    assert isinstance(coder, VarIntCoder)
    watermark = provider.create_watermark_estimator(coder.decode(coder.encode(state)))
    assert watermark.current_watermark() == MIN_TIMESTAMP
    watermark.advance(-5)
    again = provider.create_watermark_estimator(coder.decode(coder.encode(watermark.get_estimator_state())))
    assert again.current_watermark() == Timestamp(micros=-5)


def test_a_record_from_the_future_counts_as_of_now() -> None:
    """A wrong clock must not make all that follows late."""
    assert watermark_of(newest=10**15, now=1_000, delay=100) == 900


def test_beam_takes_it_as_an_argument() -> None:
    """The constant is what a DoFn's process wants as a default."""
    assert isinstance(ADVANCING, type(beam.DoFn.WatermarkEstimatorParam(ADVANCING.watermark_estimator_provider)))
