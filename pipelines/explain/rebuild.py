"""A transaction and its features out of the log, reading into memory only what can matter to it.

A history is one entity's: a customer's features depend on the rows of that customer, a terminal's on those of that
terminal. So of all rows only those that share an entity with the transaction are taken in, by the same transforms as
ever, and only from as far back as features look.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from io_connectors.parquet_files import WriteParquet
from io_connectors.sources import open_source
from pipelines.past import KeepRows, Mask, between, reach
from pipelines.plan import Plan
from pipelines.progress import Progress
from runners.presets import pipeline_options
from transforms import tally
from transforms.batch import PROVENANCE_COLUMNS, TransactionBatch
from transforms.deduplicate import Deduplicate
from transforms.durations import SECOND, parse_duration
from transforms.enrich import EnrichTransactions
from transforms.errors import UserError
from transforms.history import NEVER
from transforms.labels import ReadLabels
from transforms.parse import ParseTransactions
from transforms.tally_rows import Count


@dataclass(frozen=True)
class Rebuilt:
    """A transaction as the pipeline would score it.

    Attributes:
        row: a batch of one row, with its features.
        past: how many rows of its entities were taken in, the transaction's own among them.
    """

    row: TransactionBatch
    past: int


def rebuild(plan: Plan, transaction_id: str) -> Rebuilt:
    """Find a transaction, and compute its features.

    The source is read three times: for the transaction, for the past of its entities, and for earlier rows whose ids
    are used in that past again, which would be duplicates in it.

    Raises:
        UserError: the source has no such transaction, or several.
    """
    found = find(plan, transaction_id)
    time = int(found.numpy("event_time")[0])
    warm = time - reach(plan.manifest.feature_set)
    entities = {name: found.rows.column(name)[0].as_py() for name in plan.manifest.feature_set.entities}
    past = found
    if entities:
        mine = partial(_of_entities, entities=entities, start=warm, end=time + 1)
        past = read_rows(plan, mine) or found
    rows = past
    if plan.deduplicate_window:
        ids, since = past.rows.column("transaction_id"), warm - plan.deduplicate_window
        rows = read_rows(plan, partial(_of_ids, ids=ids, start=since, end=time + 1)) or past
    return Rebuilt(_featured(plan, rows, entities, transaction_id, time), len(past))


def find(plan: Plan, transaction_id: str) -> TransactionBatch:
    """The one row of a transaction; one that the log repeats as it is counts once.

    Raises:
        UserError: there is none, or there are several.
    """
    found = read_rows(plan, partial(_of_ids, ids=pa.array([transaction_id], pa.string())))
    source = plan.settings.input.source
    if found is None:
        raise UserError(
            f"transaction {transaction_id!r} is not in {source}, or what is there of it is no transaction of schema "
            f"{plan.schema.name}"
        )
    content = found.without_columns([*PROVENANCE_COLUMNS, "is_fraud"]).rows
    different = [at for at in range(len(content)) if not content.slice(at, 1).equals(content.slice(0, 1))]
    if different:
        times = ", ".join(sorted(set(content.column("event_time").cast(pa.string()).to_pylist())))
        raise UserError(
            f"transaction {transaction_id!r} is {len(content)} times in {source}, and not the same (of {times}): name "
            " files, or start= and until=, that hold one of them"
        )
    return found.slice(0, 1)


def read_rows(plan: Plan, wanted: Callable[[TransactionBatch], Mask]) -> TransactionBatch | None:
    """The rows of the source that are wanted, with where they came from; None where there are none."""
    # A transform that reads belongs to one pipeline: each time the source is opened anew.
    source = open_source(plan.settings.input.source, plan.schema, plan.settings.pipeline.batch_rows)

    def wire(root: Any) -> Any:
        parsed = root | "Read" >> source.read | "CountRead" >> Count("read") | ParseTransactions(plan.schema)
        return parsed.batches | KeepRows(wanted)

    return _run(plan, wire)


def _featured(
    plan: Plan, rows: TransactionBatch, entities: Mapping[str, str], transaction_id: str, time: int
) -> TransactionBatch:
    """The row of a transaction among `rows`, with its features."""
    keyed: dict[str, Any] = {"shards": 1, "ordering": "event_time"}
    wanted = partial(_of_ids, ids=pa.array([transaction_id], pa.string()), start=time, end=time + 1)

    def wire(root: Any) -> Any:
        batches = root | "Rows" >> beam.Create([rows])
        if plan.deduplicate_window:
            batches = (batches | Deduplicate(plan.deduplicate_window, **keyed)).batches
        labels = None
        if plan.labels:
            told = root | ReadLabels(plan.labels.read, plan.schema, plan.label_delay, plan.labels.leaves_off)
            labels = told.batches | "KeepLabels" >> KeepRows(partial(_of_entities, entities=entities))
        enriched = batches | EnrichTransactions(plan.manifest.feature_set, labels=labels, **keyed)
        return enriched.batches | "KeepRow" >> KeepRows(wanted)

    row = _run(plan, wire)
    if row is None:
        raise UserError("the transaction got no features: its id was decided on before, in another transaction")
    return row


def _run(plan: Plan, wire: Callable[[Any], Any]) -> TransactionBatch | None:
    """What a pipeline gives, as one batch."""
    with tempfile.TemporaryDirectory(prefix="explain-") as directory, _progress(plan):
        with beam.Pipeline(options=pipeline_options("DirectRunner", [], bounded=True)) as root:
            _ = wire(root) | "Gather" >> WriteParquet(directory, drop=())
        files = sorted(Path(directory).glob("part-*.parquet"))
        table = pa.concat_tables([pq.read_table(file) for file in files]).combine_chunks() if files else None
    return None if table is None else TransactionBatch(table.to_batches()[0])


@contextmanager
def _progress(plan: Plan) -> Iterator[None]:
    tally.reset()
    settings = plan.settings.progress
    with Progress(settings.mode, parse_duration(settings.every) / SECOND):
        yield


def _of_ids(batch: TransactionBatch, ids: pa.Array, start: int = 0, end: int = NEVER) -> Mask:
    """Which rows have one of the ids, and an event time from `start` up to, not including, `end`."""
    known = np.asarray(pc.is_in(batch.rows.column("transaction_id"), value_set=ids))
    return np.asarray(known & between(batch, start, end))


def _of_entities(batch: TransactionBatch, entities: Mapping[str, str], start: int = 0, end: int = NEVER) -> Mask:
    """Which rows share an entity, and lie in that time."""
    shared = np.zeros(len(batch), dtype=np.bool_)
    for name, value in entities.items():
        shared |= np.asarray(pc.fill_null(pc.equal(batch.rows.column(name), value), False))
    return np.asarray(shared & between(batch, start, end))
