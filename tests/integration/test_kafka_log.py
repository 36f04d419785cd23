"""What a Kafka log may hold besides good records, and what it may have lost; with both clients."""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]  # it is there

from io_connectors.kafka import check
from io_connectors.kafka.check import check_source
from io_connectors.kafka.connect import LOOKERS, READERS, TOPIC_ENDS, looker_of
from io_connectors.kafka.partitions import FindPartitions, Part, PlanParts, plan
from io_connectors.kafka.read import _ReadPart
from io_connectors.kafka.settings import CLIENTS, KAFKA_SOURCE, ReadSettings, read_settings
from io_connectors.spans import ENDLESS, Span, SpanTracker
from io_connectors.urls import parse_url
from io_connectors.watermarks import AdvancingWatermark
from runners.local import Kafka, free_port
from tests.integration.kafka_topics import LEFT_SOCKETS
from transforms.errors import UserError
from transforms.raw_batch import RawBatch

pytestmark = pytest.mark.filterwarnings(LEFT_SOCKETS)
NEVER = int(MIN_TIMESTAMP.micros)


@pytest.fixture(autouse=True)
def _no_connections_left() -> Iterator[None]:
    yield
    READERS.close()
    LOOKERS.close()
    gc.collect()


@pytest.fixture(params=list(CLIENTS))
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Topic:
    """A topic of its own."""

    def __init__(self, kafka: Kafka, client: str, partitions: int = 1) -> None:
        self.kafka, self.client, self.name = kafka, client, f"log-{uuid4().hex}"
        kafka.create_topic(self.name, partitions)

    def settings(self, batch_rows: int = 1_000, **parameters: str) -> ReadSettings:
        query = "&".join(f"{name}={value}" for name, value in {"client": self.client, **parameters}.items())
        url = f"kafka://{self.kafka.bootstrap}/{self.name}?{query}"
        return read_settings(parse_url(url, {"kafka": KAFKA_SOURCE}), batch_rows)

    def produce(self, *values: bytes | None, partition: int = 0, **settings: object) -> None:
        producer = Producer({"bootstrap.servers": self.kafka.bootstrap, **settings})
        for value in values:
            producer.produce(self.name, value, b"k", partition=partition)
        assert producer.flush(30) == 0

    def delete_before(self, offset: int) -> None:
        admin = self.kafka.admin()
        (future,) = admin.delete_records([TopicPartition(self.name, 0, offset)]).values()
        assert future.result(30).low_watermark == offset

    def part(self, settings: ReadSettings) -> Part:
        """What there is to be read of partition 0."""
        with looker_of(settings.cluster, settings.isolation) as looker:
            parts = plan(looker, settings, ENDLESS, in_time=True)
        assert parts is not None
        return parts[0]


@pytest.fixture
def topic(kafka: Kafka, client: str) -> Topic:
    return Topic(kafka, client)


def read(settings: ReadSettings, part: Part, span: Span | None = None, seconds: float = 60.0) -> list[RawBatch]:
    """The batches of a span, turn after turn until it is done."""
    rest: Span | None = span or Span(part[2], part[3])
    found, deadline = [], time.monotonic() + seconds
    while rest is not None:
        assert time.monotonic() < deadline, f"still reading {rest}"
        tracker = ThreadsafeRestrictionTracker(SpanTracker(rest))
        turn = _ReadPart(settings).read(part, RestrictionTrackerView(tracker), AdvancingWatermark(NEVER))
        found += [element.value for element in turn]
        tracker.check_done()
        deferred = tracker.deferred_status()
        rest = deferred[0] if deferred else None
    return found


def payloads(batches: list[RawBatch]) -> list[bytes]:
    return [payload for batch in batches for payload in batch.payloads or ()]


def test_records_come_with_all_they_have(topic: Topic) -> None:
    """Offset, key, headers and the time at which they were produced."""
    producer = Producer({"bootstrap.servers": topic.kafka.bootstrap})
    producer.produce(topic.name, b"{}", b"card", timestamp=1_700_000_000_123, headers=[("trace", b"7"), ("none", None)])
    producer.produce(topic.name, b"[]", None, timestamp=1_700_000_000_456)
    assert producer.flush(30) == 0
    settings = topic.settings(until="latest")
    (batch,) = read(settings, topic.part(settings))
    assert (batch.source, batch.positions.tolist(), batch.payloads) == (f"{topic.name}-0", [0, 1], [b"{}", b"[]"])
    assert list(batch.keys or ()) == [b"card", None]
    assert list(batch.headers or ()) == [(("trace", b"7"), ("none", b"")), ()]
    assert batch.timestamps is not None
    assert batch.timestamps.tolist() == [1_700_000_000_123_000, 1_700_000_000_456_000]


def test_what_was_aborted_is_not_read(topic: Topic) -> None:
    """Records of transactions count once committed; the markers at the end of the log do not hold up its end."""
    producer = Producer({"bootstrap.servers": topic.kafka.bootstrap, "transactional.id": topic.name, "log_level": 0})
    producer.init_transactions(30)
    for value in (b"committed", b"aborted"):
        producer.begin_transaction()
        producer.produce(topic.name, value, partition=0)
        producer.flush(30)
        end = producer.commit_transaction if value == b"committed" else producer.abort_transaction
        end(30)
    settings = topic.settings(until="latest")
    part = topic.part(settings)
    assert part[3] == 4  # two records, two markers
    assert payloads(read(settings, part)) == [b"committed"]
    uncommitted = topic.settings(until="latest", isolation="read_uncommitted")
    assert payloads(read(uncommitted, topic.part(uncommitted))) == [b"committed", b"aborted"]


def test_an_open_transaction_is_not_waited_for(topic: Topic) -> None:
    """`until=latest` is as far as transactions are over when reading begins."""
    topic.produce(b"before")
    producer = Producer({"bootstrap.servers": topic.kafka.bootstrap, "transactional.id": topic.name, "log_level": 0})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic.name, b"open", partition=0)
    producer.flush(30)
    settings = topic.settings(until="latest")
    assert payloads(read(settings, topic.part(settings))) == [b"before"]
    producer.abort_transaction(30)


def test_a_tombstone_is_a_dead_letter(topic: Topic) -> None:
    """It has its place, its neighbours are read, and nothing is lost from the count."""
    topic.produce(b"a", None, b"c")
    settings = topic.settings(until="latest")
    (batch,) = read(settings, topic.part(settings))
    assert (batch.payloads, batch.positions.tolist(), len(batch)) == ([b"a", b"c"], [0, 2], 3)
    assert [(letter.reason, letter.position, letter.stage) for letter in batch.rejected] == [("no_value", 1, "read")]


def test_a_damaged_batch_is_a_dead_letter(topic: Topic) -> None:
    """A byte that changed on the broker's disk costs the records it was packed with, and those alone."""
    topic.produce(b"first", b"first too")
    topic.produce(*[b"second %d" % n for n in range(40)], **{"linger.ms": 100})
    topic.produce(b"third", b"third too")
    (log,) = (topic.kafka.directory / "data" / f"{topic.name}-0").glob("*.log")
    content = log.read_bytes()
    with log.open("r+b") as file:
        file.seek(content.index(b"second 17"))
        file.write(b"X")
    settings = topic.settings(until="latest")
    batches = read(settings, topic.part(settings))
    assert payloads(batches) == [b"first", b"first too", b"third", b"third too"]
    letters = [letter for batch in batches for letter in batch.rejected]
    assert {letter.reason for letter in letters} == {"damaged"}
    assert letters[0].position == 2
    lost = [int(count) for letter in letters for count in re.findall(r"(\d+) in all", letter.error)]
    assert sum(lost) == 40


def test_deleted_records_are_an_error_that_says_where(topic: Topic) -> None:
    """Going on from an offset that the broker has deleted names the partition, the offset and what there is."""
    topic.produce(*[b"%d" % n for n in range(20)])
    topic.delete_before(15)
    settings = topic.settings(until="latest")
    with pytest.raises(
        UserError, match=r"partition 0: offset 10 comes next, and the broker has 15 to 19: .*on_missing"
    ):
        read(settings, (topic.name, 0, 0, 20, ENDLESS), Span(10, 20))


def test_deleted_records_are_skipped_and_counted_when_asked(topic: Topic) -> None:
    """`on_missing=skip` goes on with what there is; a dead letter says which offsets are lost."""
    topic.produce(*[b"%d" % n for n in range(20)])
    topic.delete_before(15)
    settings = topic.settings(until="latest", on_missing="skip")
    batches = read(settings, (topic.name, 0, 0, 20, ENDLESS), Span(10, 20))
    assert payloads(batches) == [b"%d" % n for n in range(15, 20)]
    (letter,) = (letter for batch in batches for letter in batch.rejected)
    assert (letter.reason, letter.position) == ("offsets_lost", 10)
    assert "offsets 10 to 14 were deleted before they were read: 5 are skipped" in letter.error


def test_the_earliest_record_is_whichever_is_there(topic: Topic) -> None:
    """What is deleted between planning and reading from the earliest on was never promised."""
    topic.produce(*[b"%d" % n for n in range(20)])
    settings = topic.settings(until="latest")
    part = topic.part(settings)
    topic.delete_before(15)
    assert payloads(read(settings, part)) == [b"%d" % n for n in range(15, 20)]


def test_an_offset_behind_the_end_is_an_error_always(topic: Topic) -> None:
    """A log that was cut or made anew cannot be gone on with, nor skipped: nobody knows what was read of it."""
    topic.produce(b"a")
    settings = topic.settings(on_missing="skip")
    with pytest.raises(UserError, match=r"offset 50 comes next, and the broker has 0 to 0: the log was cut"):
        read(settings, (topic.name, 0, 0, ENDLESS, ENDLESS), Span(50))


def test_an_idle_partition_lets_time_pass(topic: Topic) -> None:
    """Once all is read the watermark follows the clock, less the delay; records from the future push nothing ahead."""
    producer = Producer({"bootstrap.servers": topic.kafka.bootstrap})
    producer.produce(topic.name, b"{}", timestamp=int(time.time() * 1000) + 3_600_000)
    assert producer.flush(30) == 0
    settings = topic.settings(watermark_delay="5s")
    watermark, span, deadline = AdvancingWatermark(NEVER), Span(0), time.monotonic() + 20
    while watermark.get_estimator_state() == NEVER or span.start == 0:
        assert time.monotonic() < deadline
        tracker = ThreadsafeRestrictionTracker(SpanTracker(span))
        view = RestrictionTrackerView(tracker)
        _ = list(_ReadPart(settings).read((topic.name, 0, 0, ENDLESS, ENDLESS), view, watermark))
        deferred = tracker.deferred_status()
        assert deferred is not None
        span = deferred[0]
    before = watermark.get_estimator_state()
    assert abs(before / 1e6 + 5 - time.time()) < 3
    time.sleep(1)
    for _ in range(3):
        tracker = ThreadsafeRestrictionTracker(SpanTracker(span))
        _ = list(
            _ReadPart(settings).read((topic.name, 0, 0, ENDLESS, ENDLESS), RestrictionTrackerView(tracker), watermark)
        )
    assert watermark.get_estimator_state() - before > 500_000


def test_max_records_waits_for_them_and_shares_evenly(kafka: Kafka, client: str) -> None:
    """A topic that has too few yet is looked at again; then each partition gives its share."""
    topic = Topic(kafka, client, partitions=3)
    settings = topic.settings(max_records="30")
    planning = PlanParts(settings, sleep=lambda _: None)

    def parts() -> list[Part]:
        tracker = ThreadsafeRestrictionTracker(SpanTracker(Span(0, 1)))
        return list(planning.process((topic.name, ENDLESS), RestrictionTrackerView(tracker)))

    topic.produce(*[b"x"] * 20, partition=0)
    assert parts() == []
    topic.produce(*[b"x"] * 4, partition=1)
    topic.produce(*[b"x"] * 20, partition=2)
    assert [part[2:4] for part in parts()] == [(0, 13), (0, 4), (0, 13)]


def test_new_partitions_are_found_and_read_whole(kafka: Kafka, client: str) -> None:
    """`start=latest` is about the partitions there are; what comes into a new one before it is found is read too."""
    topic = Topic(kafka, client)
    topic.produce(b"old")
    finding = FindPartitions(topic.settings(start="latest"))

    def look(known: Span) -> tuple[list[Part], Span]:
        tracker = ThreadsafeRestrictionTracker(SpanTracker(known))
        found = list(finding.look(topic.name, RestrictionTrackerView(tracker), AdvancingWatermark(NEVER)))
        deferred = tracker.deferred_status()
        assert deferred is not None
        return found, deferred[0]

    found, known = look(Span(0))
    assert found == [(topic.name, 0, 1, ENDLESS, ENDLESS)]
    assert look(known) == ([], known)
    admin = kafka.admin()
    (future,) = admin.create_partitions([NewPartitions(topic.name, 2)]).values()
    future.result(30)
    deadline = time.monotonic() + 20
    while not found or found[0][1] != 1:
        assert time.monotonic() < deadline
        found, known = look(known)
    assert (found, known) == ([(topic.name, 1, 0, ENDLESS, ENDLESS)], Span(2))


def test_a_time_is_found_in_every_partition(kafka: Kafka, client: str) -> None:
    """Offsets of a moment; where nothing came later, the end."""
    topic = Topic(kafka, client, partitions=2)
    topic.produce(b"early", partition=0)
    topic.produce(b"early", partition=1)
    time.sleep(0.05)
    moment = datetime.now(UTC).isoformat()
    time.sleep(0.05)
    topic.produce(b"late", partition=1)
    settings = topic.settings(start=f"timestamp:{moment.replace('+', '%2B')}", until="latest")
    with looker_of(settings.cluster, settings.isolation) as looker:
        parts = plan(looker, settings, ENDLESS, in_time=True)
    assert [part[2:4] for part in parts or ()] == [(1, 1), (1, 2)]


def test_no_broker_is_said_with_its_address(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In seconds, and with what to check."""
    monkeypatch.setattr(check, "CHECK_SECONDS", 2.5)
    address = f"127.0.0.1:{free_port()}"
    url = f"kafka://{address}/transactions?client={client}"
    started = time.monotonic()
    with pytest.raises(UserError, match=rf"no broker answered .*{address}.*refused.*check the address"):
        check_source(read_settings(parse_url(url, {"kafka": KAFKA_SOURCE}), 1))
    assert time.monotonic() - started < 12


def test_an_unknown_topic_is_said_with_one_that_is_like_it(topic: Topic) -> None:
    """A slip of the pen is told from a topic that is missing."""
    url = f"kafka://{topic.kafka.bootstrap}/transaction-event?client={topic.client}"
    with pytest.raises(
        UserError,
        match=r"no topic transaction-event, or no right to see it; it has .*; did you mean transaction-events\?",
    ):
        check_source(read_settings(parse_url(url, {"kafka": KAFKA_SOURCE}), 1))


def test_what_partitions_hold_is_asked_for_all_at_once(kafka: Kafka, client: str) -> None:
    """One answer serves the readers of all partitions of a process for a while."""
    topic = Topic(kafka, client, partitions=2)
    topic.produce(b"a", b"b", partition=1)
    settings = topic.settings()
    known = [TOPIC_ENDS.of(settings, partition) for partition in (1, 0, 1)]
    assert [one and one.ends.end for one in known] == [2, 0, 2]
    assert len({one and one.asked for one in known}) == 1
