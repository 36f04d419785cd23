"""What every streaming source must stand; see `sink_conformance`."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol
from uuid import uuid4

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from io_connectors.sources import open_source
from tests.integration.sink_conformance import ImpossibleError
from transforms.batch import TransactionBatch
from transforms.dead_letters import DeadLetter
from transforms.parse import ParseTransactions
from transforms.raw_batch import RawBatch
from transforms.schema import load_schema

BATCH_ROWS = 1_000
SCHEMA = load_schema("transaction-events")

_COLLECTED: dict[str, list[bytes]] = {}
_COLLECTED_LETTERS: dict[str, list[DeadLetter]] = {}


class SourceSubject(Protocol):
    """A stream on a real server, empty at first."""

    def url(self, **parameters: str) -> str:
        """The source's URL with these parameters."""

    def produce(self, payloads: Sequence[bytes]) -> None:
        """Append records, spread over the partitions; returns when they are durable."""

    def restart(self) -> None:
        """Kill the server as with kill -9 and start it again on the same data; returns when it answers."""

    def read_with_checkpoints(self, records: int) -> list[bytes]:
        """Read all, going on with a new reader after about so many records, from the checkpoint's encoded form."""


def events(count: int, first: int = 0) -> list[bytes]:
    """Transactions as JSON."""
    return [
        b'{"transaction_id":"t%d","user_id":"u%d","amount":%d.50,"timestamp":"2026-01-01T00:%02d:%02dZ"}'
        % (n, n % 97, n % 500, n // 60 % 60, n % 60)
        for n in range(first, first + count)
    ]


def read(url: str, batch_rows: int = BATCH_ROWS) -> list[bytes]:
    """The payloads of a source that ends, read on the in-memory runner."""
    run = uuid4().hex
    _COLLECTED[run] = []
    with beam.Pipeline(FnApiRunner()) as pipeline:
        _ = pipeline | open_source(url, SCHEMA, batch_rows).read | beam.Map(_collect, run, batch_rows)
    return _COLLECTED.pop(run)


# Functions of the module, which Beam pickles by their names: a closure would take a copy of what it collects into.
def _collect(raw: RawBatch, run: str, batch_rows: int) -> None:
    assert raw.payloads is not None
    assert len(raw.payloads) == len(raw.positions) <= batch_rows
    _COLLECTED[run].extend(raw.payloads)


def _collect_ids(batch: TransactionBatch, run: str) -> None:
    _COLLECTED[run].extend(map(str.encode, batch.rows.column("transaction_id").to_pylist()))


def _collect_letter(letter: DeadLetter, run: str) -> None:
    _COLLECTED_LETTERS[run].append(letter)


class SourceConformance:
    """Every streaming source passes these."""

    def test_from_the_earliest_until_the_latest_everything_is_read_once(self, subject: SourceSubject) -> None:
        """Sets of records are equal, none twice; the read ends by itself."""
        sent = events(2_500)
        subject.produce(sent)
        assert Counter(read(subject.url(start="earliest", until="latest"))) == Counter(sent)

    def test_an_empty_stream_gives_nothing_and_ends(self, subject: SourceSubject) -> None:
        """No records are no mistake."""
        assert read(subject.url(start="earliest", until="latest")) == []

    def test_from_a_moment_on_only_later_records_are_read(self, subject: SourceSubject) -> None:
        """A timestamp splits the stream by when the server took records in."""
        subject.produce(events(100))
        time.sleep(1.1)
        moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        time.sleep(0.2)
        subject.produce(events(150, first=100))
        found = read(subject.url(start=f"timestamp:{moment}", until="latest"))
        assert Counter(found) == Counter(events(150, first=100))

    def test_until_a_moment_only_earlier_records_are_read(self, subject: SourceSubject) -> None:
        """The same timestamp as an end gives the other part."""
        subject.produce(events(100))
        time.sleep(0.2)
        moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        time.sleep(1.1)
        subject.produce(events(150, first=100))
        found = read(subject.url(start="earliest", until=f"timestamp:{moment}"))
        assert Counter(found) == Counter(events(100))

    def test_from_the_latest_for_a_while_what_comes_meanwhile_is_read(self, subject: SourceSubject) -> None:
        """Old records are not; a duration ends the read."""
        subject.produce(events(50))
        coming = events(400, first=50)

        def produce() -> None:
            time.sleep(4)
            subject.produce(coming)

        producing = threading.Thread(target=produce)
        producing.start()
        found = read(subject.url(start="latest", max_duration="10s"))
        producing.join()
        assert Counter(found) == Counter(coming)

    def test_a_number_of_records_ends_the_read(self, subject: SourceSubject) -> None:
        """Exactly so many are read, each once."""
        sent = events(1_000)
        subject.produce(sent)
        found = Counter(read(subject.url(start="earliest", until="latest", max_records="300")))
        assert sum(found.values()) == 300
        assert found <= Counter(sent)

    def test_reading_goes_on_from_a_checkpoint(self, subject: SourceSubject) -> None:
        """A reader that is stopped and started again, many times, skips nothing and repeats nothing."""
        sent = events(3_000)
        subject.produce(sent)
        assert Counter(subject.read_with_checkpoints(400)) == Counter(sent)

    def test_a_poison_record_blocks_nobody(self, subject: SourceSubject) -> None:
        """Read equals good plus dead: records that are no JSON become dead letters that name their place."""
        good = events(200)
        bad = [b"\xff\xfe", b"{", b"null", b"[" * 5_000]
        subject.produce([*good[:100], *bad, *good[100:]])
        run = uuid4().hex
        _COLLECTED[run], _COLLECTED_LETTERS[run] = [], []
        with beam.Pipeline(FnApiRunner()) as pipeline:
            source = open_source(subject.url(start="earliest", until="latest"), SCHEMA, BATCH_ROWS)
            parsed = pipeline | source.read | ParseTransactions(SCHEMA)
            _ = parsed.batches | "Good" >> beam.Map(_collect_ids, run)
            _ = parsed.dead_letters | "Bad" >> beam.Map(_collect_letter, run)
        assert sorted(_COLLECTED.pop(run)) == sorted(b"t%d" % n for n in range(200))
        letters = _COLLECTED_LETTERS.pop(run)
        assert len(letters) == len(bad)
        assert len({(letter.source, letter.position) for letter in letters}) == len(bad)

    def test_a_hundred_thousand_records_are_read_once(self, subject: SourceSubject) -> None:
        """What holds for a few holds for many."""
        sent = events(100_000)
        subject.produce(sent)
        assert Counter(read(subject.url(start="earliest", until="latest"), 16_384)) == Counter(sent)

    def test_a_server_killed_in_the_middle_loses_nothing(self, subject: SourceSubject) -> None:
        """Reading goes on when the server is back."""
        sent = events(20_000)
        subject.produce(sent)
        found: list[bytes] = []
        reading = threading.Thread(target=lambda: found.extend(read(subject.url(start="earliest", max_duration="20s"))))
        reading.start()
        time.sleep(1)
        try:
            subject.restart()
        except ImpossibleError as error:
            reading.join()
            pytest.skip(f"no such fault: {error}")
        reading.join(90)
        assert Counter(found) == Counter(sent)
