"""What replaying days and explaining a transaction share: the past is read again, and nothing is written that was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import PCollection

from pipelines.plan import Plan, make_plan
from pipelines.settings import Settings
from transforms.batch import TransactionBatch
from transforms.errors import UserError
from transforms.features import FeatureSet

Mask = np.ndarray[Any, np.dtype[np.bool_]]


def plan_the_past(settings: Settings) -> Plan:
    """What these settings mean for a source that is read again.

    Raises:
        UserError: as `make_plan` and `check_past`.
    """
    plan = make_plan(settings)
    check_past(plan)
    return plan


def check_past(plan: Plan) -> None:
    """Refuse a source that cannot be read again.

    Raises:
        UserError: it never ends, or commits what it reads for a group.
    """
    if not plan.bounded:
        raise UserError(
            "the past is read from sources that end; this one goes on for ever: give it an end, such as "
            "until=latest or until=timestamp:2026-01-31T00:00:00Z"
        )
    if plan.source.commit is not None:
        raise UserError(
            "--source names a group, whose offsets are those of the pipeline that decides: leave out group=, and say "
            "with start= where to begin"
        )


def reach(feature_set: FeatureSet) -> int:
    """How far before a transaction its features look: the longest window and its delay, in microseconds.

    Example:
        >>> from transforms.durations import format_duration
        >>> from transforms.features import load_feature_set
        >>> format_duration(reach(load_feature_set("handbook")))
        '37d'
    """
    return max((feature.window + feature.delay for feature in feature_set.features), default=0)


def between(batch: TransactionBatch, start: int, end: int) -> Mask:
    """Which rows have an event time from `start` up to, not including, `end`; microseconds."""
    times = batch.numpy("event_time")
    return np.asarray((times >= start) & (times < end))


class KeepRows(beam.PTransform[PCollection[TransactionBatch], PCollection[TransactionBatch]]):
    """Pass on the rows of each batch that are wanted.

    Args:
        wanted: which rows of a batch are; must be picklable, as a function of a module or a partial of one is.

    Example:
        >>> import apache_beam as beam
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> from apache_beam.testing.util import assert_that, equal_to
        >>> from transforms.batch import from_rows
        >>> batch = from_rows([{"transaction_id": f"t{n}", "event_time": n, "amount_minor": 1} for n in range(9)])
        >>> with TestPipeline() as pipeline:
        ...     kept = pipeline | beam.Create([batch]) | KeepRows(partial(between, start=3, end=5))
        ...     ids = kept | beam.FlatMap(lambda batch: batch.rows.column("transaction_id").to_pylist())
        ...     _ = assert_that(ids, equal_to(["t3", "t4"]))
    """

    def __init__(self, wanted: Callable[[TransactionBatch], Mask]) -> None:
        super().__init__()
        self.wanted = wanted

    def expand(self, pcoll: PCollection[TransactionBatch]) -> PCollection[TransactionBatch]:
        keep = beam.FlatMap(partial(_keep, self.wanted)).with_output_types(TransactionBatch)
        kept: PCollection[TransactionBatch] = pcoll | "Keep" >> keep
        return kept


def _keep(wanted: Callable[[TransactionBatch], Mask], batch: TransactionBatch) -> Iterator[TransactionBatch]:
    rows = wanted(batch)
    if rows.all():
        yield batch
    elif rows.any():
        yield batch.take(np.flatnonzero(rows))
