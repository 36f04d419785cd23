"""What a worker reports of its bundles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.metrics import Metrics
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.worker.bundle_processor import BundleProcessor

from runners.flink.bundle_metrics import own_metrics


class Count(beam.DoFn):
    def process(self, element: int) -> Iterator[int]:
        Metrics.counter("test", "seen").inc()
        Metrics.distribution("test", "size").update(element)
        yield element


def test_metrics_of_the_pipeline_are_reported_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters and distributions arrive at the runner as ever; of Beam's own nothing is made."""
    reported: list[Any] = []

    def noted(bundle: Any) -> list[Any]:
        reported.extend(own_metrics(bundle))
        return own_metrics(bundle)

    monkeypatch.setattr(BundleProcessor, "monitoring_infos", noted)
    pipeline = beam.Pipeline(FnApiRunner())
    count: beam.DoFn = Count()  # type: ignore[no-untyped-call]  # Beam's DoFn has no typed constructor
    _ = pipeline | beam.Create([3, 4, 5]) | beam.ParDo(count)
    result = pipeline.run()
    result.wait_until_finish()
    found = result.metrics().query()
    assert {each.key.metric.name: each.committed for each in found["counters"]} == {"seen": 3}
    assert found["distributions"][0].committed.sum == 12
    assert {info.urn for info in reported} == {
        "beam:metric:user:sum_int64:v1",
        "beam:metric:user:distribution_int64:v1",
    }
