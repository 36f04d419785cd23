"""Real-time card-fraud detection: the pipeline, and the command that runs it.

    source -> read -> parse -> deduplicate -> enrich -> score -> decide -> decision sinks
                        |           |            |        |         |-> raise alerts -> alert sinks
                        |           |            |        |         |-> summarise windows, monitor, statistics
                        |           |            |        |         |-> score candidates -> shadow sink
                        `-----------`------------`--------`-> dead letters

`python -m pipelines.fraud --help` says how to run it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import apache_beam as beam
from apache_beam.pvalue import PCollection

from pipelines.plan import Plan
from pipelines.stream import INTERRUPTED, end_now
from transforms.alerts import Alert, RaiseAlerts
from transforms.batch import TransactionBatch
from transforms.budget import LimitAlerts
from transforms.dead_letters import DeadLetter
from transforms.decide import DecideTransactions
from transforms.deduplicate import Deduplicate
from transforms.enrich import EnrichTransactions
from transforms.labels import AttachLabels, ReadLabels
from transforms.monitor import ColumnDrift, MonitorCalibration, MonitorDrift, WindowCalibration
from transforms.parse import ParseTransactions
from transforms.raw_batch import RawBatch
from transforms.score import ScoreTransactions, SharedModel
from transforms.shadow import ScoreShadows
from transforms.statistics import ComputeStatistics, RunStatistics
from transforms.summarize import SummarizeWindows, WindowSummary
from transforms.suppress import SuppressAlerts
from transforms.tally_rows import Count


@dataclass(frozen=True)
class FraudOutputs:
    """Everything the pipeline produces; each may be written, or built upon.

    Attributes:
        raw: what was read, as it was read.
        decisions: batches with features, score, decision and reasons.
        alerts: one for each transaction that was not approved, less those suppressed or over the budget; None where
            none are wanted.
        dead_letters: every record that got no decision, so that read = decisions + dead letters; and every
            record of the label source that is no label.
        summaries: counts, amounts and score quantiles of windows of event time; None likewise.
        statistics: one value over the whole run; with labels, how good the decisions were. None for a run that
            has no end; its summaries tell how it goes.
        drift: how far features and scores of windows are from the model's training; None: nothing to compare with.
        calibration: scores of windows against their labels; None for a run that has no end or no labels.
        shadows: what candidates made of the decided batches; None without candidates.
    """

    raw: PCollection[RawBatch]
    decisions: PCollection[TransactionBatch]
    alerts: PCollection[Alert] | None
    dead_letters: PCollection[DeadLetter]
    summaries: PCollection[WindowSummary] | None
    statistics: PCollection[RunStatistics] | None
    drift: PCollection[ColumnDrift] | None = None
    calibration: PCollection[WindowCalibration] | None = None
    shadows: PCollection[TransactionBatch] | None = None


def build(root: Any, plan: Plan) -> FraudOutputs:
    """Put the pipeline together on `root`, a `beam.Pipeline`."""
    keyed: dict[str, Any] = {
        "shards": plan.settings.pipeline.shards,
        "ordering": plan.ordering,
        "allowed_lateness": plan.allowed_lateness,
        "batch_rows": plan.settings.pipeline.batch_rows,
    }
    model, watched = SharedModel(plan.model_uri, plan.model.public_key, plan.model.follow), plan.watched
    labels = None
    if plan.labels:
        read, apart = plan.labels.read, plan.labels.leaves_off
        labels = root | "ReadLabels" >> ReadLabels(read, plan.schema, plan.label_delay, apart)

    raw = root | "Read" >> plan.source.read | "CountRead" >> Count("read")
    parsed = raw | "Parse" >> ParseTransactions(plan.schema, apart=plan.source.leaves_off)
    unique = None
    if plan.settings.pipeline.deduplicate:
        unique = parsed.batches | "Deduplicate" >> Deduplicate(plan.deduplicate_window, **keyed)
    enriched = (unique or parsed).batches | "Enrich" >> EnrichTransactions(
        plan.manifest.feature_set, labels=labels.batches if labels else None, **keyed
    )
    scored = enriched.batches | "Score" >> ScoreTransactions(model, plan.settings.pipeline.batch_rows)
    decisions = (
        scored.batches
        | "Decide" >> DecideTransactions(model, plan.policy, plan.rules, plan.segments, plan.settings.policy.reasons)
        | "CountScored" >> Count("scored")
    )
    shadows = decisions | "Shadow" >> ScoreShadows(plan.shadows, plan.patience) if plan.shadows else None
    dead_letters = (
        [stage.dead_letters for stage in (parsed, unique, enriched, scored) if stage]
        | "GatherDeadLetters" >> beam.Flatten(pipeline=root)
        | "CountDeadLetters" >> Count("dead_letters")
    )
    if labels:
        refused = labels.dead_letters | "CountRefusedLabels" >> Count("refused_labels")
        dead_letters = (dead_letters, refused) | "WithRefusedLabels" >> beam.Flatten()
    drift = statistics = calibration = summaries = None
    if plan.settings.summary.enabled:
        summaries = decisions | "SummarizeWindows" >> SummarizeWindows(
            plan.summary_window, plan.summary_every, plan.summary_lateness, plan.summary_early
        )
    if watched.reference:
        drift = decisions | "MonitorDrift" >> MonitorDrift(watched.reference, watched.windows, watched.alarm)
    if plan.bounded:
        judged = decisions | "AttachLabels" >> AttachLabels(labels.batches) if labels else decisions
        statistics = judged | "ComputeStatistics" >> ComputeStatistics(plan.manifest.feature_names)
        if plan.judged:
            calibration = judged | "MonitorCalibration" >> MonitorCalibration(watched.windows)
    return FraudOutputs(
        raw=raw,
        decisions=decisions,
        alerts=_alerts(decisions, plan) if plan.settings.alerts.enabled else None,
        dead_letters=dead_letters,
        summaries=summaries,
        drift=drift,
        calibration=calibration,
        statistics=statistics,
        shadows=shadows,
    )


def _alerts(decisions: PCollection[TransactionBatch], plan: Plan) -> PCollection[Alert]:
    alerts: PCollection[Alert] = decisions | "RaiseAlerts" >> RaiseAlerts() | "CountAlerts" >> Count("alerts")
    if plan.suppress_window:
        alerts = alerts | "SuppressAlerts" >> SuppressAlerts(plan.suppress_window, ordering=plan.ordering)
    if plan.settings.alerts.cards_a_day:
        alerts = alerts | "LimitAlerts" >> LimitAlerts(plan.settings.alerts.cards_a_day, plan.ordering)
    return alerts


def main(argv: Sequence[str] | None = None) -> int:
    """The command; see `pipelines.run`, which a pipeline of one's own does not need."""
    from pipelines.run import main as run

    return run(argv)


def command() -> NoReturn:
    """The command as a process of its own."""
    code = main()
    if code == INTERRUPTED:
        end_now(code)
    sys.exit(code)


if __name__ == "__main__":
    command()
