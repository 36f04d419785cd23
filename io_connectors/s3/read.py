"""Read objects as the files they are."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import apache_beam as beam
import msgspec
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.pvalue import PBegin, PCollection

from io_connectors.files import FilePiece, check_file, file_of, read_piece
from io_connectors.s3.fetch import Fetcher, UnreadableObjectError
from io_connectors.s3.listing import Found
from io_connectors.s3.objects import s3_client
from io_connectors.s3.settings import ObjectSettings
from transforms.dead_letters import DeadLetter
from transforms.errors import UserError
from transforms.raw_batch import RawBatch

#: How objects travel from those who list them to those who read them: the fields of `Found`.
Element = tuple[str, str, int, int]


class ReadObjects(beam.PTransform[PBegin, PCollection[RawBatch]]):
    """Read objects that were listed: PBegin to PCollection of `RawBatch`.

    Each is read by one worker, from a copy on its disk; memory holds a batch. Positions are as of files, and the
    source is `s3://bucket/key`. An object that is corrupt gives all it has up to there, and one dead letter; one that
    cannot be read at all, because it was removed or is not what it should be, gives one dead letter.

    Args:
        settings: what the URL says.
        found: the objects.

    Raises:
        UserError: when it runs: an object was replaced after it had been listed.
    """

    def __init__(self, settings: ObjectSettings, found: list[Found]) -> None:
        super().__init__()
        self.settings = settings
        self.found = found

    def expand(self, begin: PBegin) -> PCollection[RawBatch]:
        elements = [tuple(each) for each in self.found]
        raw: PCollection[RawBatch] = (
            begin
            | "Objects" >> beam.Create(elements).with_output_types(Element)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(ReadObject(self.settings)).with_output_types(RawBatch)
        )
        return raw


class ReadObject(beam.DoFn):
    """Reads one object after another.

    Args:
        settings: what the URL says.
        clock: nanoseconds since 1970, for the time of ingest.
    """

    def __init__(self, settings: ObjectSettings, clock: Callable[[], int] = time.time_ns) -> None:
        self.settings = settings
        self.clock = clock
        self.read = Metrics.counter("source.s3", "objects")
        self.failed = Metrics.counter("source.s3", "failed")
        self.retried = Metrics.counter("source.s3", "retried")

    def setup(self) -> None:
        client = s3_client(self.settings.url)
        bucket = self.settings.pattern.bucket
        self.fetcher = Fetcher(client, bucket, self.settings.backoff, lambda error: self.retried.inc())

    def teardown(self) -> None:
        self.fetcher.client.close()

    def process(self, element: Element) -> Iterator[RawBatch]:
        found = Found(*element)
        name = self.settings.name_of(found)
        with tempfile.TemporaryDirectory(prefix="s3-") as directory:
            path = Path(directory, "object")
            try:
                pieces = self._pieces(found, name, path)
            except (UnreadableObjectError, UserError) as error:
                self.failed.inc()
                yield self._refused(name, error, path)
                return
            self.read.inc()
            for piece in pieces:
                for batch in read_piece(piece, self.settings.schema, self.settings.batch_rows, self.clock):
                    yield renamed(batch, str(path), name)

    def _pieces(self, found: Found, name: str, path: Path) -> list[FilePiece]:
        """What there is to read of an object, once it lies at `path`."""
        file = file_of(name, self.settings.format)
        try:
            self.fetcher.fetch(found, path)
        except UnreadableObjectError as error:
            if error.reason == "object_replaced" and self.settings.watch is None:
                raise ReplacedError(f"{name}: {error}; nothing of it is used: run again, when nobody writes") from error
            raise
        return check_file(file._replace(path=str(path)), self.settings.schema)

    def _refused(self, name: str, error: Exception, path: Path) -> RawBatch:
        letter = DeadLetter(
            stage="read",
            reason=error.reason if isinstance(error, UnreadableObjectError) else "object_unreadable",
            error=str(error).replace(str(path), name),
            payload="",
            source=name,
            position=1,
        )
        return RawBatch(name, self.clock() // 1000, np.empty(0, np.int64), payloads=[], rejected=(letter,))


class ReplacedError(RuntimeError):
    """What was listed is no more, and something else is there."""


def renamed(batch: RawBatch, path: str, name: str) -> RawBatch:
    """A batch of a copy of an object as one of the object.

    Example:
        >>> renamed(RawBatch("/tmp/object", 0, np.arange(1), payloads=[b"{}"]), "/tmp/object", "s3://fraud/a.jsonl").source
        's3://fraud/a.jsonl'
    """
    rejected = tuple(
        msgspec.structs.replace(letter, source=name, error=letter.error.replace(path, name))
        for letter in batch.rejected
    )
    return dataclasses.replace(batch, source=name, rejected=rejected)
