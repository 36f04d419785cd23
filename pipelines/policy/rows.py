"""Decided transactions with their labels, as policies are chosen and measured on."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from numpy.typing import NDArray

from io_connectors.json_lines import WriteJsonLines
from io_connectors.parquet_files import WriteParquet
from io_connectors.sources import open_source
from pipelines.say import complain
from transforms.batch import EVENT_TIME, TransactionBatch
from transforms.dead_letters import DeadLetter
from transforms.durations import DAY
from transforms.errors import UserError
from transforms.labels import ReadLabels, attach_labels
from transforms.schema import load_schema


@dataclass(frozen=True, eq=False)
class PolicyRows:
    """Labelled decisions in order of event time.

    Attributes:
        batch: all their columns, for the conditions of segments.
        times: int64 microseconds, shape (rows,).
        scores: float64 (rows,).
        labels: int8, 1 for fraud, (rows,).
        amounts: int64 minor units, (rows,).
        cards: int64, a number for each customer, -1 for none, (rows,).
    """

    batch: TransactionBatch
    times: NDArray[np.int64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int8]
    amounts: NDArray[np.int64]
    cards: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.times)

    @property
    def days(self) -> int:
        """From the first to the last day that has any."""
        return int(self.times[-1] // DAY - self.times[0] // DAY) + 1

    def between(self, start: int, end: int) -> PolicyRows:
        """The rows of [start, end), in microseconds."""
        first, last = np.searchsorted(self.times, [start, end]).tolist()
        part = slice(first, last)
        return PolicyRows(
            self.batch.slice(first, last - first),
            self.times[part],
            self.scores[part],
            self.labels[part],
            self.amounts[part],
            self.cards[part],
        )


def policy_rows(decisions: pa.Table) -> PolicyRows:
    """The rows of a table of decisions whose label is known; of a transaction's several rows the first.

    Raises:
        UserError: no row has a label.
    """
    table = decisions.filter(pc.is_valid(decisions["is_fraud"]))
    if not table.num_rows:
        raise UserError(f"none of {decisions.num_rows} decisions has a label; give --labels URL")
    table = table.sort_by([("event_time", "ascending"), ("transaction_id", "ascending")]).combine_chunks()
    ids = table["transaction_id"].combine_chunks()
    if len(ids) > 1:
        repeated = pc.equal(ids[1:], ids[:-1])
        table = table.filter(pa.concat_arrays([pa.array([True]), pc.invert(repeated)])).combine_chunks()
    batch = TransactionBatch(table.to_batches()[0])
    cards = batch.rows.column("customer_id").dictionary_encode().indices.cast(pa.int64())
    return PolicyRows(
        batch=batch,
        times=batch.numpy("event_time"),
        scores=batch.numpy("score"),
        labels=batch.numpy("is_fraud"),
        amounts=batch.numpy("amount_minor"),
        cards=np.asarray(pc.fill_null(cards, -1)),
    )


def with_labels(decisions: pa.Table, url: str, schema: str, delay: int) -> pa.Table:
    """The decisions with the labels of a source in place of those they carry; see `transforms.labels.AttachLabels`.

    How many of the source's records are no labels, and what is wrong with one of them, is said on standard error.

    Raises:
        UserError: the source does not exist, has no end, or holds no label.
    """
    fields = load_schema(schema)
    source = open_source(url, fields, 65_536, "--labels")
    if not source.bounded:
        raise UserError(f"--labels {url} has no end; give until= or a file")
    with tempfile.TemporaryDirectory() as directory:
        good, refused = Path(directory, "good"), Path(directory, "refused.jsonl")
        with beam.Pipeline(FnApiRunner()) as root:
            read = root | "ReadLabels" >> ReadLabels(source.read, fields, delay)
            _ = read.batches | "Good" >> WriteParquet(str(good))
            _ = read.dead_letters | "Refused" >> WriteJsonLines(str(refused), DeadLetter.to_json)
        letters = refused.read_bytes().splitlines() if refused.is_file() else []
        why = f"; {len(letters)} records are none, such as: {json.loads(letters[0])['error']}" if letters else ""
        try:
            labels = pq.read_table(good, columns=["transaction_id", "is_fraud", "label_arrival"])
        except (OSError, pa.ArrowInvalid) as error:
            raise UserError(f"--labels {url}: not one label of schema {fields.name} could be read{why}") from error
        if letters:
            complain(f"--labels {url}: {labels.num_rows} labels{why}")
    told = TransactionBatch(labels.combine_chunks().to_batches()[0])
    batch = TransactionBatch(decisions.combine_chunks().to_batches()[0])
    if batch.rows.schema.field("event_time").type != EVENT_TIME:
        raise UserError("event_time of the decisions is not a time in UTC; give what a run of this pipeline wrote")
    return pa.Table.from_batches([attach_labels(batch, told).rows])
