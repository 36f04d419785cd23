"""Decide on past transactions again: the pipeline up to its decisions, and nothing that comes after them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.pvalue import PCollection

from pipelines.past import KeepRows, Mask, between
from pipelines.plan import Plan
from pipelines.replay.period import Period
from transforms.batch import TransactionBatch
from transforms.dead_letters import DeadLetter
from transforms.decide import DecideTransactions
from transforms.deduplicate import Deduplicate
from transforms.enrich import EnrichTransactions
from transforms.labels import AttachLabels, Labels, ReadLabels
from transforms.parse import ParseTransactions
from transforms.score import ScoreTransactions, SharedModel
from transforms.tally_rows import Count

#: What the source's event times are counted under: a distribution, of which the ends tell what the source spans.
SPAN = ("replay", "event_time")


@dataclass(frozen=True)
class Replayed:
    """What `replay` gives: the decisions on the transactions of the period, and what got none."""

    decisions: PCollection[TransactionBatch]
    dead_letters: PCollection[DeadLetter]


def replay(root: Any, plan: Plan, period: Period, known_by: int) -> Replayed:
    """Read the transactions of a period and of the past its features need, and decide on those of the period.

    The transforms are those of `pipelines.fraud.build`, in the order of event time, so a transaction gets what it got
    there, or would have got. `is_fraud` of what comes out is the label that was known, where labels are a stream.

    Args:
        root: a `beam.Pipeline`.
        plan: what decides; its sinks are not looked at.
        period: which transactions.
        known_by: labels that arrived later are for no evaluation, in microseconds since 1970.
    """
    keyed: dict[str, Any] = {
        "shards": plan.settings.pipeline.shards,
        "ordering": "event_time",
        "batch_rows": plan.settings.pipeline.batch_rows,
    }
    model = SharedModel(plan.model_uri, plan.model.public_key)
    labels = None
    if plan.labels:
        read, apart = plan.labels.read, plan.labels.leaves_off
        labels = root | "ReadLabels" >> ReadLabels(read, plan.schema, plan.label_delay, apart)

    parsed = (
        root
        | "Read" >> plan.source.read
        | "CountRead" >> Count("read")
        | "Parse" >> ParseTransactions(plan.schema, apart=plan.source.leaves_off)
    )
    batches = parsed.batches | "KeepWhatMatters" >> KeepRows(partial(_between_counted, period.first, period.end))
    dead_letters = [parsed.dead_letters]
    if plan.deduplicate_window:
        unique = batches | "Deduplicate" >> Deduplicate(plan.deduplicate_window, **keyed)
        batches = unique.batches | "KeepWarm" >> KeepRows(partial(between, start=period.warm, end=period.end))
        dead_letters.append(unique.dead_letters)
    told = labels.batches if labels else None
    enriched = batches | "Enrich" >> EnrichTransactions(plan.manifest.feature_set, labels=told, **keyed)
    wanted = enriched.batches | "KeepPeriod" >> KeepRows(partial(between, start=period.start, end=period.end))
    scored = wanted | "Score" >> ScoreTransactions(model, plan.settings.pipeline.batch_rows)
    decided = scored.batches | "Decide" >> DecideTransactions(model, plan.thresholds, plan.rules, plan.segments)
    decided = decided | "CountScored" >> Count("scored")
    dead_letters += [enriched.dead_letters, scored.dead_letters]
    return Replayed(
        decisions=_labelled(decided, labels, known_by) if labels else decided,
        dead_letters=dead_letters | beam.Flatten(pipeline=root) | "CountDeadLetters" >> Count("dead_letters"),
    )


def _between_counted(start: int, end: int, batch: TransactionBatch) -> Mask:
    """`between`, and what the source spans is noted."""
    times = batch.numpy("event_time")
    span = Metrics.distribution(*SPAN)
    span.update(int(times.min()))
    span.update(int(times.max()))
    return between(batch, start, end)


def _labelled(decided: PCollection[TransactionBatch], labels: Labels, known_by: int) -> PCollection[TransactionBatch]:
    known = labels.batches | "KeepKnownLabels" >> KeepRows(partial(_arrived, known_by))
    attached: PCollection[TransactionBatch] = decided | "AttachLabels" >> AttachLabels(known)
    return attached


def _arrived(known_by: int, labels: TransactionBatch) -> Mask:
    return np.asarray(labels.numpy("label_arrival") <= known_by)
