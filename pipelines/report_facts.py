"""What a run came to, as its report has it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.pvalue import PCollection

from io_connectors.output_directory import OutputDirectory
from pipelines.monitor.report import Monitored, read_rows
from pipelines.plan import Plan
from pipelines.progress import Progress
from pipelines.setting_values import mask_secrets
from pipelines.summary import RunFacts
from transforms.calibration import WindowCalibration
from transforms.drift import ColumnDrift
from transforms.statistics import RunStatistics, RunStatisticsCoder


def run_facts(
    plan: Plan,
    output: OutputDirectory,
    statistics: RunStatistics,
    counters: Mapping[str, int],
    wall_seconds: float,
    progress: Progress,
) -> RunFacts:
    """The facts of a run that has ended.

    Args:
        plan: what it was to do.
        output: where its results are.
        statistics: of all its decisions.
        counters: as `transforms.tally` names them.
        wall_seconds: how long it took.
        progress: its course.
    """
    settings = plan.settings
    files = {
        "decisions": ", ".join(settings.output.sinks) or f"{output.decisions}{os.sep}*.parquet",
        "alerts": (", ".join(settings.output.alerts) or str(output.alerts)) if settings.alerts.enabled else "",
        "dead letters": settings.output.dead_letters or str(output.dead_letters),
        "windows": (settings.output.summaries or str(output.windows)) if settings.summary.enabled else "",
        "drift": (settings.output.drift or str(output.drift)) if plan.watched.reference else "",
        "calibration": (settings.output.calibration or str(output.calibration)) if plan.judged else "",
        "report": str(output.report),
        "figures": str(output.summary),
    }
    return RunFacts(
        statistics=statistics,
        source=mask_secrets(settings.input.source),
        schema=plan.schema.name,
        model_id=plan.manifest.model_id,
        thresholds=plan.thresholds,
        costs=plan.costs,
        ordering=plan.ordering,
        read=counters.get("read", 0),
        dead_letters=_by_reason(counters, "dead_letters"),
        refused_labels=_by_reason(counters, "refused_labels"),
        over_budget=counters.get("alerts.over_budget", 0),
        suppressed=counters.get("alerts.suppressed", 0),
        undelivered=_by_reason(counters, "undelivered"),
        wall_seconds=wall_seconds,
        throughput=progress.samples,
        files={what: where for what, where in files.items() if where},
        minor_digits=plan.manifest.feature_set.minor_digits,
        monitored=_monitored(plan, output, statistics),
    )


def _monitored(plan: Plan, output: OutputDirectory, statistics: RunStatistics) -> Monitored:
    """What the run wrote of its windows, as far as it lies in the output directory."""
    return Monitored(
        drift=read_rows(output.drift, ColumnDrift),
        calibration=read_rows(output.calibration, WindowCalibration),
        psi_alert=plan.watched.alarm.psi,
        full_from=(statistics.first_event_time or 0)
        + max(f.window + f.delay for f in plan.manifest.feature_set.features),
        why_not=plan.watched.why_not,
    )


def beam_counters(metrics: Any) -> dict[str, int]:
    """What `Count` counted, by name, and of dead letters by name and reason (`dead_letters.duplicate`)."""
    found: dict[str, int] = {}
    for counter in metrics.query(MetricsFilter())["counters"]:
        of = counter.key.metric
        name = of.name if of.namespace == "records" else f"{of.namespace}.{of.name}"
        found[name] = found.get(name, 0) + counter.result
    return found


def _by_reason(counters: Mapping[str, int], name: str) -> dict[str, int]:
    return {key.removeprefix(f"{name}."): count for key, count in counters.items() if key.startswith(f"{name}.")}


def keep_statistics(statistics: PCollection[RunStatistics], output: OutputDirectory) -> None:
    """See that the command finds a pipeline's statistics when it has ended."""
    _ = statistics | "KeepStatistics" >> beam.Map(partial(_keep, str(output.statistics.absolute())))


def kept_statistics(output: OutputDirectory) -> RunStatistics:
    """What `keep_statistics` kept, once."""
    statistics = RunStatisticsCoder().decode(output.statistics.read_bytes())
    output.statistics.unlink()
    return statistics


def _keep(path: str, statistics: RunStatistics) -> None:
    Path(f"{path}.tmp").write_bytes(RunStatisticsCoder().encode(statistics))
    os.replace(f"{path}.tmp", path)
