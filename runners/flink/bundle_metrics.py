"""What a worker reports of each bundle: the pipeline's own metrics.

Beam adds how many elements of what size went through each collection, and the milliseconds of each transform: a
hundred messages of protocol buffers a bundle, which nobody reads on Flink and which cost a stream with short bundles
a fifth of its worker's time. The milliseconds are sampled by a thread that is started for each bundle and waited for
at its end, in its sleep: another tenth.
"""

from __future__ import annotations

import threading
from typing import Any

from apache_beam.runners.worker import statesampler
from apache_beam.runners.worker.bundle_processor import BundleProcessor


def report_own_metrics() -> None:
    """Have this process's bundles report metrics of the pipeline only, and sample no others."""
    BundleProcessor.monitoring_infos = own_metrics  # type: ignore[method-assign, assignment]  # on purpose
    statesampler.StateSampler.start = _track  # type: ignore[method-assign, assignment]
    statesampler.StateSampler.stop_if_still_running = _untrack  # type: ignore[method-assign, assignment]


def _track(sampler: statesampler.StateSampler) -> None:
    """Metrics are counted where the bundle is, as ever."""
    sampler.tracked_thread = threading.current_thread()
    statesampler.set_current_tracker(sampler)


def _untrack(sampler: statesampler.StateSampler) -> None:
    statesampler.set_current_tracker(None)


def own_metrics(bundle: Any) -> list[Any]:
    """The metrics that the DoFns of a bundle have counted, as Beam's runners take them."""
    found: dict[Any, Any] = {}
    for transform, operation in bundle.ops.items():
        found |= operation.user_monitoring_infos(transform)
    return list(found.values())
