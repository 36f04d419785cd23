"""From a sink's URL to the transform that writes there."""

from __future__ import annotations

from typing import Any, Protocol

import apache_beam as beam
from apache_beam.pvalue import PCollection

from io_connectors.json_lines import WriteJsonLines
from io_connectors.parquet_files import WriteParquet
from io_connectors.urls import Scheme, parse_url
from transforms.batch import TransactionBatch

DECISION_SINKS = {"file": Scheme("a directory", ("rows_per_file",))}
RECORD_SINKS = {"file": Scheme("a file")}


class Record(Protocol):
    """What a record sink writes: alerts, dead letters, summaries."""

    def to_json(self) -> bytes:
        """One line of JSON."""


def decision_sink(text: str, setting: str = "--sink") -> beam.PTransform[PCollection[TransactionBatch], Any]:
    """Where decisions go: `file:DIRECTORY` for Parquet files.

    Raises:
        UserError: an unknown scheme or parameter, or a directory that cannot be written.
    """
    url = parse_url(text, DECISION_SINKS, setting)
    return WriteParquet(url.path, rows_per_file=url.integer("rows_per_file", default=1 << 20, least=1))


def record_sink(text: str, setting: str) -> beam.PTransform[PCollection[Any], Any]:
    """Where single records go: `file:PATH` for JSON lines, each the record's `to_json`.

    Raises:
        UserError: an unknown scheme or parameter, or a file that cannot be written.
    """
    url = parse_url(text, RECORD_SINKS, setting)
    return WriteJsonLines(url.path, _to_json)


def _to_json(record: Record) -> bytes:
    return record.to_json()
