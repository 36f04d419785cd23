"""From a source's URL to the transform that reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.pvalue import PBegin, PCollection

from io_connectors.files import FILE_URL, ReadFiles
from io_connectors.kafka.settings import KAFKA_SOURCE, read_settings
from io_connectors.kinesis.settings import KINESIS_SOURCE
from io_connectors.simulation import simulation_from_url
from io_connectors.simulator import SimulateTransactions
from io_connectors.urls import Scheme, parse_url
from transforms.raw_batch import RawBatch
from transforms.schema import Schema


@dataclass(frozen=True)
class Source:
    """A source that has been looked at and can be read.

    Attributes:
        read: root of a pipeline to `RawBatch`es.
        bounded: whether it ends.
        files: those that will be read; of a bucket that is watched the pattern that more will match.
        commit: where the source keeps the offsets of a group: told what was read and what every sink holds, it moves
            them on; see `io_connectors.kafka.commit`.
        leaves_off: whether it ends and its reader leaves off at times: what is read has to stand apart from the reader
            before it is put in order; see `ReadKafka`.
    """

    read: beam.PTransform[PBegin, PCollection[RawBatch]]
    bounded: bool
    files: tuple[str, ...] = ()
    commit: beam.PTransform[Any, Any] | None = None
    leaves_off: bool = False


class _Kind(NamedTuple):
    """One kind of source: what its URL takes, and what opens it (URL, schema, most records of a batch)."""

    scheme: Scheme
    open: Callable[[str, Schema, int], Source]


def _open_simulator(text: str, schema: Schema, batch_rows: int) -> Source:
    simulation, rate = simulation_from_url(text)
    return Source(SimulateTransactions(simulation, schema.name, rate, batch_rows), bounded=True)


def _open_files(text: str, schema: Schema, batch_rows: int) -> Source:
    read = ReadFiles(text, schema, batch_rows)
    return Source(read, bounded=True, files=tuple(dict.fromkeys(piece.path for piece in read.pieces)))


def _open_kafka(text: str, schema: Schema, batch_rows: int) -> Source:
    from io_connectors.kafka.check import check_source
    from io_connectors.kafka.commit import CommitOffsets
    from io_connectors.kafka.read import ReadKafka

    settings = read_settings(parse_url(text, SOURCES), batch_rows)
    check_source(settings)
    commit = CommitOffsets(settings) if settings.group else None
    return Source(ReadKafka(settings, apart=False), settings.bounded, commit=commit, leaves_off=settings.bounded)


def _open_kinesis(text: str, schema: Schema, batch_rows: int) -> Source:
    from io_connectors.kinesis.check import check_source
    from io_connectors.kinesis.read import ReadKinesis
    from io_connectors.kinesis.settings import read_settings

    settings = check_source(read_settings(parse_url(text, SOURCES), batch_rows))
    return Source(ReadKinesis(settings, apart=False), settings.bounded, leaves_off=settings.bounded)


def _open_s3(text: str, schema: Schema, batch_rows: int) -> Source:
    from io_connectors.s3.look import look
    from io_connectors.s3.read import ReadObjects
    from io_connectors.s3.settings import object_settings
    from io_connectors.s3.watch import WatchObjects

    settings = object_settings(parse_url(text, SOURCES), schema, batch_rows)
    found = look(settings)
    if settings.watch:
        return Source(WatchObjects(settings), settings.bounded, files=(str(settings.pattern),))
    return Source(ReadObjects(settings, found), bounded=True)


_KINDS = {
    "simulator": _Kind(Scheme(parameters=("customers", "terminals", "days", "seed", "rate")), _open_simulator),
    "file": _Kind(FILE_URL, _open_files),
    "kafka": _Kind(KAFKA_SOURCE, _open_kafka),
    "s3": _Kind(
        Scheme("bucket/pattern", ("format", "start", "watch", "max_duration", "watermark_delay", "region", "endpoint")),
        _open_s3,
    ),
    "kinesis": _Kind(KINESIS_SOURCE, _open_kinesis),
}
SOURCES = {name: kind.scheme for name, kind in _KINDS.items()}


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
    return _KINDS[url.scheme].open(text, schema, batch_rows)
