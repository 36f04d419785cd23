"""What a worker reports of each bundle: the pipeline's own metrics.

Beam adds how many elements of what size went through each collection, and the milliseconds of each transform: a
hundred messages of protocol buffers a bundle, which nobody reads on Flink and which cost a stream with short bundles
a fifth of its worker's time.
"""

from __future__ import annotations

from typing import Any

from apache_beam.runners.worker.bundle_processor import BundleProcessor


def report_own_metrics() -> None:
    """Have this process's bundles report metrics of the pipeline only."""
    BundleProcessor.monitoring_infos = own_metrics  # type: ignore[method-assign, assignment]  # on purpose


def own_metrics(bundle: Any) -> list[Any]:
    """The metrics that the DoFns of a bundle have counted, as Beam's runners take them."""
    found: dict[Any, Any] = {}
    for transform, operation in bundle.ops.items():
        found |= operation.user_monitoring_infos(transform)
    return list(found.values())
