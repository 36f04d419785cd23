"""Suppression of alerts on a runner that streams: state and timers as time passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_stream import TestStream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import TimestampedValue

from transforms.alerts import Alert
from transforms.durations import SECOND
from transforms.suppress import SuppressAlerts, example_alert

WINDOW = 60 * SECOND


def streaming(prism: Path) -> PipelineOptions:
    return PipelineOptions([f"--prism_location={prism}", "--environment_type=LOOPBACK"], streaming=True)


def told(alerts: Any) -> Any:
    return alerts | beam.Map(lambda alert: (alert.alert_id, alert.suppressed))


def at(name: str, second: int, card: str = "c") -> TimestampedValue[Alert]:
    return TimestampedValue(example_alert(name, second * SECOND, card), second)


@pytest.mark.parametrize(("ordering", "first"), [("event_time", "a"), ("arrival", "b")])
def test_alerts_of_a_stream_are_suppressed_as_time_passes(prism: Path, ordering: Any, first: str) -> None:
    """Under `event_time` the earliest of a window is sent though it came last; under `arrival` the first to come is."""
    script = TestStream()
    script.add_elements([at("b", 30)])
    script.advance_watermark_to(5)
    script.add_elements([at("a", 10)])
    script.advance_watermark_to(40)
    script.add_elements([at("c", 65), at("x", 65, "other")])
    script.advance_watermark_to(200)
    script.add_elements([at("d", 300)])
    script.advance_watermark_to_infinity()
    with beam.Pipeline("PrismRunner", streaming(prism)) as pipeline:
        sent = pipeline | script.with_output_types(Alert) | SuppressAlerts(WINDOW, ordering=ordering)
        assert_that(told(sent), equal_to([(first, 0), ("x", 0), ("d", 2)]))


def test_the_state_of_a_card_is_dropped_on_event_time(prism: Path) -> None:
    """Once the watermark has passed window and memory, a late alert of the card finds nothing and is sent."""
    script = TestStream()
    script.add_elements([at("a", 100)])
    script.advance_watermark_to(150)
    script.add_elements([at("b", 110), at("x", 150, "other")])  # late, and within the window
    script.advance_watermark_to(300)
    script.add_elements([at("c", 120)])  # as late as can be: all is forgotten
    script.advance_watermark_to_infinity()
    with beam.Pipeline("PrismRunner", streaming(prism)) as pipeline:
        sent = pipeline | script.with_output_types(Alert) | SuppressAlerts(WINDOW, remember=10 * SECOND)
        assert_that(told(sent), equal_to([("a", 0), ("x", 0), ("c", 0)]))
