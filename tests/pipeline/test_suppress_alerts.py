"""Suppression of alerts in a pipeline whose input ends: as the plain function says."""

from __future__ import annotations

import random
from typing import Any

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from transforms.alerts import Alert
from transforms.durations import SECOND
from transforms.suppress import SuppressAlerts, example_alert, suppress_all

WINDOW = 60 * SECOND


def drawn(count: int) -> list[Alert]:
    """Alerts of twenty cards and of none, over an hour, in no order."""
    choose = random.Random(11)  # noqa: S311 - chance, not secrecy
    cards = [None, *(f"c{n}" for n in range(20))]
    return [example_alert(f"a{n}", choose.randrange(3600 * SECOND), choose.choice(cards)) for n in range(count)]


def told(alerts: Any) -> Any:
    return alerts | beam.Map(lambda alert: (alert.alert_id, alert.suppressed))


def test_past_alerts_are_suppressed_as_the_plain_function_does_it() -> None:
    """In whatever order they come, and cut into whatever bundles; what is not sent is counted."""
    alerts = drawn(1_000)
    expected = suppress_all(alerts, WINDOW)
    assert 400 < len(expected) < 900
    pipeline = beam.Pipeline(FnApiRunner())
    sent = pipeline | beam.Create(alerts) | SuppressAlerts(WINDOW, ordering="event_time")
    assert_that(told(sent), equal_to([(alert.alert_id, alert.suppressed) for alert in expected]))
    result = pipeline.run()
    (counted,) = result.metrics().query(MetricsFilter().with_name("suppressed"))["counters"]
    assert counted.committed == len(alerts) - len(expected)


def test_under_arrival_alerts_in_order_are_suppressed_alike() -> None:
    """Nothing waits: each alert is sent or not by those before it."""
    alerts = sorted(drawn(300), key=lambda alert: alert.event_time)
    one_bundle = [alerts]
    with beam.Pipeline(FnApiRunner()) as pipeline:
        created = pipeline | beam.Create(one_bundle) | beam.FlatMap(lambda each: each).with_output_types(Alert)
        sent = created | SuppressAlerts(WINDOW)
        expected = [(alert.alert_id, alert.suppressed) for alert in suppress_all(alerts, WINDOW)]
        assert_that(told(sent), equal_to(expected))
