"""The training matrix: the serving pipeline up to its features, written to a table."""

from __future__ import annotations

import tempfile
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from io_connectors.parquet_files import WriteParquet
from io_connectors.sources import open_source
from pipelines.plan import check_columns
from transforms.deduplicate import Deduplicate
from transforms.enrich import EnrichTransactions
from transforms.errors import UserError
from transforms.features import FeatureSet, check_label_delay
from transforms.labels import AttachLabels, ReadLabels
from transforms.parse import ParseTransactions
from transforms.schema import load_schema


def build_matrix(
    source: str,
    schema: str,
    feature_set: FeatureSet,
    label_delay_us: int,
    labels: str | None = None,
    shards: int = 4,
    batch_rows: int = 65_536,
) -> pa.Table:
    """Every transaction of a source with its features and label, in event-time order.

    It runs the same transforms as serving does, so that what is trained on is what will be served.

    Args:
        source: URL of transactions that end.
        schema: name or file of their schema.
        feature_set: what to compute.
        label_delay_us: how long after a transaction its label is known.
        labels: URL of a label source; what it says replaces what the transactions carry.

    Returns:
        The canonical columns, the schema's own, and the features.

    Raises:
        UserError: something named does not exist or does not go together, or no record was good.
    """
    fields = load_schema(schema)
    check_columns(feature_set, fields, f"feature set {feature_set.name}")
    if labels is None:
        check_label_delay(feature_set, label_delay_us)
    opened = open_source(source, fields, batch_rows)
    told = open_source(labels, fields, batch_rows, "--labels") if labels else None
    with tempfile.TemporaryDirectory() as directory:
        with beam.Pipeline(FnApiRunner()) as root:
            known = None
            if told:
                known = root | "ReadLabels" >> ReadLabels(told.read, fields, label_delay_us, told.leaves_off)
            enriched = (
                (root | "Read" >> opened.read | "Parse" >> ParseTransactions(fields, apart=opened.leaves_off)).batches
                | "Deduplicate" >> Deduplicate(shards=shards, batch_rows=batch_rows)
            ).batches | "Enrich" >> EnrichTransactions(
                feature_set, shards, labels=known.batches if known else None, batch_rows=batch_rows
            )
            rows = enriched.batches
            if known:
                rows = rows | "AttachLabels" >> AttachLabels(known.batches, shards)
            _ = rows | "Write" >> WriteParquet(directory)
        if not any(Path(directory).glob("part-*.parquet")):
            raise UserError(f"{source}: not one record of schema {fields.name} could be read")
        table = pq.read_table(directory)
    return table.sort_by([("event_time", "ascending"), ("transaction_id", "ascending")])
