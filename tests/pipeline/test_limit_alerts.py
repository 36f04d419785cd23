"""The alert budget in Beam: what a stream sends depends on the alerts, not on how they came."""

from __future__ import annotations

from pathlib import Path

import apache_beam as beam
import msgspec
import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing import test_pipeline, test_stream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import TimestampedValue

from tests.command import run_command
from transforms.alerts import Alert
from transforms.budget import LimitAlerts, limit_all
from transforms.durations import DAY, HOUR
from transforms.suppress import example_alert


def some_alerts() -> list[Alert]:
    rng = np.random.default_rng(7)
    return [
        msgspec.structs.replace(
            example_alert(f"a{at}", at * 2 * HOUR, f"c{rng.integers(30)}"), score=round(float(rng.random()), 3)
        )
        for at in range(60)
    ]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_stream_in_event_order_spends_as_if_all_were_known(seed: int) -> None:
    """Alerts of a day in any order, the watermark at the end of each: what passes is what passes in memory."""
    alerts = some_alerts()
    events = test_stream.TestStream(coder=beam.coders.registry.get_coder(Alert)).advance_watermark_to(0)
    for day in range(5):
        today = [(at * 2 * HOUR, alert) for at, alert in enumerate(alerts) if at * 2 * HOUR // DAY == day]
        for place in np.random.default_rng(seed).permutation(len(today)).tolist():
            time, alert = today[place]
            events.add_elements([TimestampedValue(alert, time / 1_000_000)])
        events.advance_watermark_to((day + 1) * DAY / 1_000_000)
    events.advance_watermark_to_infinity()
    with test_pipeline.TestPipeline(options=PipelineOptions([], streaming=True)) as pipeline:
        sent = pipeline | events | LimitAlerts(3, ordering="event_time")
        expected = [alert.alert_id for alert in limit_all(alerts, 3)]
        assert_that(sent | beam.Map(lambda alert: alert.alert_id), equal_to(expected))
    assert 0 < len(expected) < len(alerts)


def test_a_run_sends_alerts_on_so_many_cards_a_day(tmp_path: Path) -> None:
    """On no day more, decisions as they were, and what was held back is counted."""
    source = "simulator:?customers=300&terminals=600&days=12&seed=3"
    settings = ("--set", "alerts.cards_a_day=1", "--set", "policy.review=0.001")
    run = run_command(tmp_path / "output", "--source", source, *settings)
    by_day: dict[str, set[str]] = {}
    for alert in run.alerts:
        by_day.setdefault(alert["event_time"][:10], set()).add(alert["customer_id"])
    assert {len(cards) for cards in by_day.values()} == {1}
    figures = run.summary
    assert figures["over_budget"] == figures["reviewed"] + figures["declined"] - len(run.alerts) > 0
    assert "over the day's budget" in run.stdout
