"""What the tests of Kinesis as a source share: a stream on a real server, and checkpoints as runners take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker

from io_connectors.kinesis.connect import READERS
from io_connectors.kinesis.progress import Progress, ProgressCoder, ProgressTracker
from io_connectors.kinesis.read import ReadSlice, Slice, cut_slices, first_progress
from io_connectors.kinesis.settings import ReadSettings, read_settings
from io_connectors.sources import SOURCES, Source
from io_connectors.urls import parse_url
from io_connectors.watermarks import AdvancingWatermark
from runners.local import Kinesis
from transforms.batch import TransactionBatch
from transforms.deduplicate import Deduplicate
from transforms.parse import ParseTransactions
from transforms.raw_batch import RawBatch
from transforms.schema import load_schema

SHARDS = 3


@dataclass
class KinesisSubject:
    """A stream of its own.

    Attributes:
        server: it is on.
        stream: its name.
        endpoint: where readers go, where that is not the server itself.
    """

    server: Kinesis
    stream: str
    endpoint: str = ""

    def url(self, **parameters: str) -> str:
        given = {"region": "us-east-1", "endpoint": self.endpoint or self.server.endpoint, **parameters}
        return f"kinesis://{self.stream}?" + "&".join(f"{name}={value}" for name, value in given.items())

    def settings(self, batch_rows: int = 1_000, **parameters: str) -> ReadSettings:
        return read_settings(parse_url(self.url(**parameters), SOURCES), batch_rows)

    def produce(self, payloads: Sequence[bytes]) -> None:
        self.put([(f"key-{at}", payload) for at, payload in enumerate(payloads)])

    def put(self, records: Sequence[tuple[str, bytes]]) -> None:
        """(key, data) records, in calls of 500."""
        client = self.server.client()
        for at in range(0, len(records), 500):
            batch = [{"PartitionKey": key, "Data": data} for key, data in records[at : at + 500]]
            assert client.put_records(StreamName=self.stream, Records=batch)["FailedRecordCount"] == 0
        client.close()

    def restart(self) -> None:
        self.server.kill()
        self.server.start()

    def read_with_checkpoints(self, records: int) -> list[bytes]:
        settings = self.settings(records, start="earliest", until="latest")
        found: list[bytes] = []
        for element in cut_slices(self.stream, settings):
            checkpoint: bytes | None = ProgressCoder().encode(first_progress(element))
            while checkpoint is not None:
                checkpoint = one_turn(settings, element, ProgressCoder().decode(checkpoint), found)
        return found


_BATCHES: dict[str, list[Any]] = {}


def read_batches(source: Source) -> list[RawBatch]:
    """The batches of a source that ends, read on the in-memory runner."""
    run = uuid4().hex
    _BATCHES[run] = []
    with beam.Pipeline(FnApiRunner()) as pipeline:
        _ = pipeline | source.read | beam.Map(_collect, run)
    return _BATCHES.pop(run)


def read_in_order(source: Source) -> list[TransactionBatch]:
    """The transactions of a source that ends, in the order of their event times."""
    run = uuid4().hex
    _BATCHES[run] = []
    with beam.Pipeline(FnApiRunner()) as pipeline:
        parsed = pipeline | source.read | ParseTransactions(load_schema("transaction-events"), apart=source.leaves_off)
        _ = (parsed.batches | Deduplicate(shards=2)).batches | beam.Map(_collect, run)
    return _BATCHES.pop(run)


def _collect(batch: Any, run: str) -> None:
    _BATCHES[run].append(batch)


def one_turn(settings: ReadSettings, element: Slice, progress: Progress, found: list[bytes]) -> bytes | None:
    """Read as a runner does that takes a checkpoint in the middle of a turn; gives what is left, as bytes."""
    tracker = ThreadsafeRestrictionTracker(ProgressTracker(progress))
    rest: Progress | None = None
    for batch in ReadSlice(settings).read(element, RestrictionTrackerView(tracker), AdvancingWatermark(0)):
        found += batch.value.payloads or []
        split = tracker.try_split(0)
        rest = split[1] if split else rest
    tracker.check_done()
    deferred = tracker.deferred_status()
    if rest is not None:
        READERS.close()
    rest = rest or (deferred[0] if deferred else None)
    return None if rest is None else ProgressCoder().encode(rest)


def subject_on(server: Kinesis, shards: int = SHARDS) -> KinesisSubject:
    stream = f"source-{uuid4().hex}"
    server.create_stream(stream, shards)
    return KinesisSubject(server, stream)
