"""From a source's URL to the transform that reads it."""

from __future__ import annotations

from dataclasses import dataclass

import apache_beam as beam
from apache_beam.pvalue import PBegin, PCollection

from io_connectors.files import ReadFiles
from io_connectors.simulation import simulation_from_url
from io_connectors.simulator import SimulateTransactions
from io_connectors.urls import Scheme, parse_url
from transforms.raw_batch import RawBatch
from transforms.schema import Schema

SOURCES = {
    "simulator": Scheme(parameters=("customers", "terminals", "days", "seed", "rate")),
    "file": Scheme("a file or a pattern such as data/*.parquet", ("format",)),
}


@dataclass(frozen=True)
class Source:
    """A source that has been looked at and can be read.

    Attributes:
        read: root of a pipeline to `RawBatch`es.
        bounded: whether it ends.
        files: those that will be read.
    """

    read: beam.PTransform[PBegin, PCollection[RawBatch]]
    bounded: bool
    files: tuple[str, ...] = ()


def open_source(text: str, schema: Schema, batch_rows: int, setting: str = "--source") -> Source:
    """The source a URL names.

    Args:
        text: `simulator:?days=30`, `file:PATTERN`, or a bare path.
        schema: its fields; what a source can say of a mismatch before it is read, it says here.
        batch_rows: the most records in a batch.
        setting: where the URL was given, for messages.

    Raises:
        UserError: an unknown scheme or parameter, no such file, a file that is not what it should be.
    """
    url = parse_url(text, SOURCES, setting)
    if url.scheme == "simulator":
        simulation, rate = simulation_from_url(text)
        return Source(SimulateTransactions(simulation, schema.name, rate, batch_rows), bounded=True)
    read = ReadFiles(text, schema, batch_rows)
    return Source(read, bounded=True, files=tuple(dict.fromkeys(piece.path for piece in read.pieces)))
