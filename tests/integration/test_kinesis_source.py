"""Kinesis as a source, against two real servers: kinesalite, strict and fast, and kinesis-local, which knows more."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker

from io_connectors.kinesis.connect import READERS, api_of
from io_connectors.kinesis.progress import Progress, ProgressCoder, ProgressTracker
from io_connectors.kinesis.read import ReadSlice, Slice, cut_slices, first_progress
from io_connectors.kinesis.settings import ReadSettings, read_settings
from io_connectors.sources import SOURCES
from io_connectors.urls import parse_url
from io_connectors.watermarks import AdvancingWatermark
from runners.local import Kinesis
from tests.integration.source_conformance import SourceConformance, events, read

SHARDS = 3


@pytest.fixture(autouse=True)
def _no_readers_left() -> Iterator[None]:
    yield
    READERS.close()


@dataclass
class KinesisSubject:
    """A stream of its own."""

    server: Kinesis
    stream: str

    def url(self, **parameters: str) -> str:
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"kinesis://{self.stream}?region=us-east-1&endpoint={self.server.endpoint}&{query}"

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


@pytest.fixture
def subject(kinesis: Kinesis, monkeypatch: pytest.MonkeyPatch) -> KinesisSubject:
    for name, value in kinesis.environment.items():
        monkeypatch.setenv(name, value)
    return subject_on(kinesis)


class TestKinesisSource(SourceConformance):
    """What every source must stand."""
