"""Reading a stream that is held in memory, turn by turn, with a clock that only sleepers move."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from io_connectors.kinesis.feeds import Failures, Feed, PolledShard
from io_connectors.kinesis.pace import Pace
from io_connectors.kinesis.progress import Progress, ProgressCoder, ProgressTracker
from io_connectors.kinesis.read import ReadSlice, Slice, first_progress, plan
from io_connectors.kinesis.reader import SliceReader
from io_connectors.kinesis.settings import ReadSettings
from io_connectors.kinesis.shards import Segment, Shard
from io_connectors.moments import Moment
from io_connectors.watermarks import AdvancingWatermark
from tests.kinesis_stream import NOW, StreamInMemory, aggregate, error, hash_key, payloads
from transforms.durations import DAY, SECOND
from transforms.errors import UserError


class Clock:
    """Seconds that pass only when someone sleeps."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += max(seconds, 0.001)


class Checkpointing(ProgressTracker):
    """A tracker as the runner hands it to a DoFn."""

    residual: Progress | None = None

    def defer_remainder(self, deferred_time: Any = None) -> None:
        split = self.try_split(0)
        self.residual = split[1] if split else None


class Reader:
    """What reads one slice: a restriction that lies in a checkpoint between any two turns."""

    def __init__(self, stream: StreamInMemory, element: Slice, settings: ReadSettings, clock: Clock) -> None:
        self.stream, self.element, self.settings, self.clock = stream, element, settings, clock
        self.checkpoint: bytes | None = ProgressCoder().encode(first_progress(element))
        self.batches: list[Any] = []
        self.missing = 0
        self.retried: list[Exception] = []
        self.watermark = AdvancingWatermark(0)
        self.pooled: SliceReader | None = None

    def turn(self, batches: int | None = None) -> None:
        """Read on from the checkpoint; after so many batches the runner gives the rest to somebody else."""
        if self.checkpoint is None:
            return
        tracker = Checkpointing(ProgressCoder().decode(self.checkpoint))
        do = ReadSlice(self.settings, self.reader_of, lambda: self.stream.now, self.clock, self.clock.sleep)
        for count, batch in enumerate(do.read(self.element, tracker, self.watermark), 1):
            self.batches.append(batch)
            if count == batches:
                tracker.defer_remainder()
        tracker.check_done()
        self.checkpoint = None if tracker.residual is None else ProgressCoder().encode(tracker.residual)

    def forget(self) -> None:
        """Go on in another process."""
        self.pooled = None

    @property
    def found(self) -> list[bytes]:
        return payloads(self.batches)

    @contextmanager
    def reader_of(self, settings: ReadSettings, element: Slice) -> Iterator[SliceReader]:
        self.pooled = self.pooled or self.open(element[2])
        yield self.pooled

    def open(self, start: int) -> SliceReader:
        api: Any = self.stream

        def failures() -> Failures:
            return Failures("events", self.retried.append, self.clock, lambda low, high: high)

        def open_feed(segment: Segment, shard: Shard) -> Feed:
            return PolledShard(api, segment, start, failures(), Pace(self.clock))

        def miss(count: int) -> None:
            self.missing += count

        now = lambda: self.stream.now  # noqa: E731 - a clock
        return SliceReader(api, open_feed, self.settings.skip_missing, miss, failures(), now, self.clock)


def readers(stream: StreamInMemory, settings: ReadSettings, clock: Clock | None = None) -> list[Reader]:
    """One for each slice there is to read now."""
    clock = clock or Clock()
    api: Any = stream
    return [Reader(stream, element, settings, clock) for element in plan(api, settings, lambda: stream.now)]


def read_all(reading: list[Reader], turns: int = 100) -> list[bytes]:
    """All that comes in so many turns, with seconds between them: nothing is too early."""
    for _ in range(turns):
        for reader in reading:
            reader.clock.sleep(5)
            reader.turn()
    return [payload for reader in reading for payload in reader.found]


SETTINGS = ReadSettings(StreamInMemory().stream, batch_rows=3)
LATEST = Moment("latest")


RESHARDINGS = st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.floats(0, 1)), max_size=4)


class Resharding(RuleBasedStateMachine):
    """A stream that is written, split and merged at will, while its slices are read, stopped and taken up again."""

    @initialize(shards=st.integers(1, 4), page=st.integers(1, 4), before=RESHARDINGS)
    def begin(self, shards: int, page: int, before: list[tuple[bool, int, float]]) -> None:
        self.stream = StreamInMemory(shards, page)
        self.sent: list[bytes] = []
        self.unordered: set[str] = set()
        for split, at, where in before:
            self.put(at)
            self.stream.split(at, where) if split else self.stream.merge(at)
        self.reading = readers(self.stream, SETTINGS)

    @rule(key=st.integers(0, 20))
    def put(self, key: int) -> None:
        self.sent.append(b"k%d/%d" % (key, len(self.sent)))
        self.stream.put(f"k{key}", self.sent[-1])

    @rule(key=st.integers(0, 20), place=st.integers(0, 7))
    def put_elsewhere(self, key: int, place: int) -> None:
        """With an explicit hash key."""
        self.sent.append(b"x%d/%d" % (key, len(self.sent)))
        self.stream.put(f"x{key}", self.sent[-1], place << 125)

    @rule(keys=st.lists(st.integers(0, 20), min_size=1, max_size=4))
    def put_together(self, keys: list[int]) -> None:
        """As the Kinesis Producer Library does: keys of one shard in one record."""
        (home,) = (held.keys for held in self.stream.open_shards() if hash_key(f"k{keys[0]}") in held.keys)
        inner = []
        for key in keys:
            if hash_key(f"k{key}") in home:
                self.sent.append(b"k%d/%d" % (key, len(self.sent)))
                inner.append((f"k{key}", self.sent[-1]))
        self.stream.put("a", aggregate(inner), hash_key(f"k{keys[0]}"))

    @rule(at=st.integers(0, 9), where=st.floats(0, 1))
    def split(self, at: int, where: float) -> None:
        if len(self.stream.held) < 40:
            self.stream.split(at, where)

    @rule(at=st.integers(0, 9))
    def merge(self, at: int) -> None:
        if len(self.stream.held) < 40:
            self.stream.merge(at)

    @rule(reader=st.integers(0, 9), batches=st.none() | st.integers(1, 3))
    def read(self, reader: int, batches: int | None) -> None:
        one = self.reading[reader % len(self.reading)]
        one.clock.sleep(1)  # more than all that has to be waited for
        one.turn(batches)

    @rule(reader=st.integers(0, 9))
    def fail(self, reader: int) -> None:
        """What a bundle gave is thrown away, and it is run again from the same checkpoint."""
        one = self.reading[reader % len(self.reading)]
        checkpoint, batches = one.checkpoint, list(one.batches)
        one.clock.sleep(1)
        one.turn()
        one.checkpoint, one.batches = checkpoint, batches

    @rule(reader=st.integers(0, 9))
    def move(self, reader: int) -> None:
        self.reading[reader % len(self.reading)].forget()

    @rule(count=st.integers(1, 3))
    def lag(self, count: int) -> None:
        """The newest shards are not listed, though they may have been before."""
        self.stream.hidden = min(count, len(self.stream.held) - len(self.reading))

    @rule(count=st.integers(1, 3))
    def give_nothing(self, count: int) -> None:
        self.stream.empty = count

    @rule()
    def expire_iterator(self) -> None:
        self.stream.errors.append(error("ExpiredIteratorException"))

    @rule()
    def throttle(self) -> None:
        self.stream.errors.append(error("ProvisionedThroughputExceededException"))

    @invariant()
    def keys_are_in_order_at_one_reader(self) -> None:
        """Of every key that was put by its hash."""
        owners: dict[bytes, int] = {}
        for at, reader in enumerate(self.reading):
            last: dict[bytes, int] = {}
            for payload in reader.found:
                key, _, number = payload.partition(b"/")
                if key.startswith(b"k"):
                    assert owners.setdefault(key, at) == at
                    assert last.get(key, -1) < int(number)
                    last[key] = int(number)

    @invariant()
    def checkpoints_are_small(self) -> None:
        """However often the stream was resharded: a segment for each shard that is read, or waits for its sibling."""
        for reader in self.reading:
            assert reader.checkpoint is not None
            assert len(ProgressCoder().decode(reader.checkpoint).segments) <= len(self.stream.held)

    def teardown(self) -> None:
        """Everything is read once."""
        if hasattr(self, "reading"):
            self.stream.hidden = self.stream.empty = 0
            found = read_all(self.reading, turns=150)
            assert sorted(found) == sorted(self.sent)
            self.keys_are_in_order_at_one_reader()


TestResharding = Resharding.TestCase
TestResharding.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_slice_cut_at_any_record_goes_on_there() -> None:
    """Also within an aggregate, in another process, and with batches of at most so many records."""
    stream = StreamInMemory()
    stream.put("a", aggregate([(f"k{n}", b"%d" % n) for n in range(10)]))
    (reader,) = readers(stream, SETTINGS)
    reader.turn(batches=1)
    assert reader.found == [b"0", b"1", b"2"]
    reader.forget()
    assert read_all([reader], 3) == [b"%d" % n for n in range(10)]
    assert max(len(batch.value) for batch in reader.batches) == 3


def test_positions_are_the_same_wherever_reading_began() -> None:
    """Ids may be made of them; the sequence numbers travel in headers."""
    stream = StreamInMemory()
    for n in range(3):
        stream.put("k", b"%d" % n)
    whole, late = readers(stream, SETTINGS)[0], readers(stream, replace(SETTINGS, start=after(stream, -1)))[0]
    read_all([whole, late], 2)
    everything, last = whole.batches[0].value, late.batches[0].value
    assert everything.source == "events/shardId-000000000000"
    assert len(set(everything.positions.tolist())) == 3
    assert last.payloads == [b"2"]
    assert last.positions[0] == everything.positions[2] >= 0
    assert dict(last.headers[0]) == {"sequence_number": b"%056d" % 3, "subsequence": b"0"}
    assert last.keys == [b"k"]
    assert last.timestamps.tolist() == [stream.now]


def after(stream: StreamInMemory, records: int) -> Moment:
    """The moment at which so many records more or less than now had arrived."""
    return Moment("timestamp", stream.now // 1000 + records + 1)


def test_an_aggregate_that_is_damaged_is_a_dead_letter() -> None:
    """Its neighbours are read; nothing is dropped."""
    stream = StreamInMemory()
    packed = bytearray(aggregate([("k", b"in it")]))
    packed[10] ^= 1
    for data in (b"before", bytes(packed), b"behind"):
        stream.put("k", data)
    (reader,) = readers(stream, SETTINGS)
    assert read_all([reader], 2) == [b"before", b"behind"]
    (letter,) = reader.batches[0].value.rejected
    assert (letter.stage, letter.reason) == ("read", "aggregate_corrupt")
    assert f"record {2:056d} begins as an aggregate of the KPL, but its MD5 does not match" in letter.error
    assert letter.position not in reader.batches[0].value.positions
    assert len(reader.batches[0].value) == 3


def test_reading_until_the_latest_ends_at_what_had_arrived() -> None:
    """What comes later is not read, though it comes before the end was reached; shards that were split are read on."""
    stream = StreamInMemory(2, page=2)
    sent = [b"%d" % n for n in range(20)]
    for n, data in enumerate(sent):
        stream.put(f"k{n}", data)
        if n == 9:
            stream.split(0, 0.5)
    reading = readers(stream, replace(SETTINGS, until=LATEST))
    for n in range(20):
        stream.put(f"k{n}", b"too late")
    stream.now += SECOND
    assert sorted(read_all(reading)) == sorted(sent)
    assert [reader.checkpoint for reader in reading] == [None] * len(reading)


def test_reading_until_a_moment_passes_over_what_arrived_later_and_was_stored_before() -> None:
    """Arrival times within a shard need not ascend."""
    stream = StreamInMemory()
    for data in (b"0", b"1", b"2"):
        stream.put("k", data)
    records = stream.held["shardId-000000000000"].records
    times = [record["ApproximateArrivalTimestamp"] for record in records]
    records[1]["ApproximateArrivalTimestamp"], records[2]["ApproximateArrivalTimestamp"] = times[2], times[1]
    (reader,) = readers(stream, replace(SETTINGS, until=Moment("timestamp", NOW // 1000 + 2)))
    stream.now += 10 * SECOND
    assert read_all([reader], 3) == [b"0", b"2"]
    assert reader.checkpoint is None


def test_an_empty_stream_ends_once_nothing_is_left() -> None:
    """A call that gives nothing does not yet say that there is nothing."""
    stream = StreamInMemory(2)
    stream.put("k", b"0")
    reading = readers(stream, replace(SETTINGS, until=LATEST))
    stream.now += SECOND
    stream.empty = 4
    assert read_all(reading, 6) == [b"0"]
    assert [reader.checkpoint for reader in reading] == [None, None]


def test_a_number_of_records_is_read_exactly() -> None:
    """By one reader, whatever the shards; records of aggregates count one by one."""
    stream = StreamInMemory(3)
    for n in range(10):
        stream.put(f"k{n}", aggregate([("a", b"%d" % n), ("b", b"b")]))
    (reader,) = readers(stream, replace(SETTINGS, max_records=7))
    assert len(read_all([reader], 5)) == 7
    assert reader.checkpoint is None


def test_a_duration_ends_reading() -> None:
    """Whatever there is still to read."""
    stream = StreamInMemory()
    (reader,) = readers(stream, replace(SETTINGS, max_duration=5 * SECOND))
    stream.put("k", b"0")
    reader.turn()
    assert reader.checkpoint is not None
    stream.now += 5 * SECOND
    reader.turn()
    assert reader.checkpoint is None
    assert reader.found == [b"0"]


def test_from_the_latest_on_only_what_comes_is_read() -> None:
    """From the moment when the slices were cut, though reading begins later."""
    stream = StreamInMemory(2)
    for n in range(5):
        stream.put(f"k{n}", b"old")
    stream.now += 1
    reading = readers(stream, replace(SETTINGS, start=LATEST))
    stream.put("k", b"new")
    stream.merge(0)
    stream.put("k", b"newer")
    assert read_all(reading, 5) == [b"new", b"newer"]


def test_the_watermark_is_that_of_the_shard_that_is_furthest_behind() -> None:
    """A shard at its tip is as far as the clock; one with records to read holds back the slice."""
    stream = StreamInMemory(page=1)
    (reader,) = readers(stream, replace(SETTINGS, watermark_delay=SECOND))
    for n in range(3):
        stream.put("k", b"%d" % n)
    first = stream.held["shardId-000000000000"].records[0]["ApproximateArrivalTimestamp"]
    reader.turn()
    assert reader.watermark.get_estimator_state() == round(first.timestamp() * 1e6) - SECOND
    read_all([reader], 5)
    assert reader.watermark.get_estimator_state() == stream.now - SECOND
    stream.split(0, 0.5)
    stream.now += 100 * SECOND
    held = stream.now
    reader.turn()
    assert reader.watermark.get_estimator_state() < held - 50 * SECOND, "the children have not been asked yet"
    read_all([reader], 3)
    assert reader.watermark.get_estimator_state() == held - SECOND


def test_a_parent_without_records_does_not_move_the_watermark_past_its_children() -> None:
    """Their records came when it was closed, which may be long ago."""
    stream = StreamInMemory()
    (reader,) = readers(stream, SETTINGS)
    stream.split(0, 0.5)
    stream.put("k", b"old")
    arrived = stream.now
    stream.now += 3600 * SECOND
    reader.turn()
    assert reader.watermark.get_estimator_state() <= arrived


def test_throttled_calls_are_made_again_later_and_later() -> None:
    """Nothing is lost, and each failure is counted."""
    stream = StreamInMemory()
    stream.put("k", b"0")
    stream.errors = [error("ProvisionedThroughputExceededException")] * 3
    clock = Clock()
    (reader,) = readers(stream, SETTINGS, clock)
    while not reader.found:
        reader.turn()
    assert len(reader.retried) == 3
    assert 0.2 + 0.4 + 0.8 <= clock.time < 3


def test_a_stream_out_of_reach_for_five_minutes_is_an_error() -> None:
    """The bundle fails, and the runner decides."""
    stream = StreamInMemory()
    stream.errors = [error("InternalFailure", status=500)] * 1_000
    (reader,) = readers(stream, SETTINGS)
    with pytest.raises(ClientError, match="InternalFailure"):
        read_all([reader], 100)
    assert reader.clock.time >= 300


def test_what_will_never_work_is_an_error_at_once() -> None:
    """A right that is missing does not come by itself."""
    stream = StreamInMemory()
    stream.errors = [error("AccessDeniedException")]
    with pytest.raises(ClientError, match="AccessDeniedException"):
        read_all(readers(stream, SETTINGS), 1)


def test_a_shard_is_asked_five_times_a_second_at_most() -> None:
    """That is what Kinesis allows all readers together."""
    stream = StreamInMemory(page=1)
    for n in range(100):
        stream.put("k", b"%d" % n)
    clock = Clock()
    (reader,) = readers(stream, SETTINGS, clock)
    while clock.time < 4:
        reader.turn()
    assert 19 <= len(reader.found) <= 21


def test_readers_of_one_shard_take_turns() -> None:
    """After a merge several slices may share a shard; none is left without its part, however often others ask."""
    pace = Pace(clock := Clock())
    readers_of_it = [object(), object(), object()]
    asked = [0, 0, 0]
    for _ in range(600):
        for at, reader in enumerate(readers_of_it):
            if pace.take(reader):
                asked[at] += 1
                pace.count(0)
        clock.sleep(0.01)
    assert max(asked) - min(asked) <= 1
    assert sum(asked) >= 29
    pace.leave(readers_of_it[0])
    before = sum(asked)
    for _ in range(300):  # one has left, and another asks no more
        clock.sleep(0.01)
        if pace.take(readers_of_it[2]):
            asked[2] += 1
            pace.count(0)
    assert sum(asked) - before >= 9


def test_two_megabytes_a_second_are_read_at_most() -> None:
    """Asking sooner would only be refused."""
    pace = Pace(clock := Clock())
    pace.count(6_000_000)
    assert pace.wait() == 3
    clock.sleep(2)
    assert pace.wait() == 1


def trimmed() -> tuple[StreamInMemory, Reader]:
    """A stream of which something was read before all there was left it, and more came."""
    stream = StreamInMemory(page=1)
    stream.put("k", b"0")
    stream.put("k", b"1")
    (reader,) = readers(stream, SETTINGS)
    reader.turn()
    reader.forget()
    return stream, reader


def test_records_that_were_trimmed_unread_are_an_error() -> None:
    """Silence would be a gap that nobody sees."""
    stream, reader = trimmed()
    stream.split(0, 0.5)
    stream.trim()
    stream.put("k", b"2")
    with pytest.raises(UserError, match=r"shardId-000000000000 is no longer in the stream.*on_missing=skip"):
        read_all([reader], 3)


def test_records_that_were_trimmed_may_be_passed_over() -> None:
    """When asked for; and are counted."""
    stream, reader = trimmed()
    reader.settings = replace(SETTINGS, skip_missing=True)
    stream.split(0, 0.5)
    stream.trim()
    stream.put("k", b"2")
    assert read_all([reader], 5) == [b"0", b"2"]
    assert reader.missing == 1


def test_generations_of_shards_that_came_and_went_are_missed() -> None:
    """The reader was done with the first; of the second it knows by the names of the parents of the third."""
    stream = StreamInMemory()
    stream.put("k", b"0")
    (reader,) = readers(stream, replace(SETTINGS, skip_missing=True))
    stream.split(0, 0.5)
    stream.hidden = 2
    reader.turn()
    reader.forget()
    stream.put("k", b"lost")
    stream.merge(0)
    stream.trim()
    stream.put("k", b"1")
    assert read_all([reader], 5) == [b"0", b"1"]
    assert reader.missing == 2


def test_a_shard_not_read_for_longer_than_records_are_held_is_missed() -> None:
    """What came and went meanwhile nobody tells. A shard that was at its tip all the time is not."""
    stream, reader = trimmed()
    stream.now += 2 * DAY
    with pytest.raises(UserError, match=r"shardId-000000000000 was last read 2d ago; the stream holds records for 1d"):
        read_all([reader], 3)


def test_a_quiet_shard_is_not_missed_however_old_its_last_record() -> None:
    """It was asked all the time, and had nothing."""
    stream, reader = trimmed()
    for _ in range(5):
        stream.now += DAY // 2
        read_all([reader], 3)
    reader.forget()
    stream.held["shardId-000000000000"].trimmed = 2
    stream.put("k", b"2")
    assert read_all([reader], 3) == [b"0", b"1", b"2"]


def test_a_position_of_another_stream_of_that_name_is_missed() -> None:
    """A stream that was deleted and made anew has shards of the same names."""
    stream, reader = trimmed()

    def iterator(segment: Segment, start: int) -> str:
        if segment.sequence:
            raise error("InvalidArgumentException", "it did not come from this stream")
        return f"{segment.shard}/0"

    stream.iterator = iterator  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"cannot be read on after record 0+1: .*did not come from this stream"):
        read_all([reader], 3)
    reader.settings, reader.pooled = replace(SETTINGS, skip_missing=True), None
    assert read_all([reader], 5) == [b"0", b"0", b"1"]
    assert reader.missing == 1


def test_a_checkpoint_of_another_version_is_refused() -> None:
    """Rather than read as something else."""
    encoded = ProgressCoder().encode(Progress(()))
    with pytest.raises(ValueError, match=r"coder version 2 cannot be read by version 1"):
        ProgressCoder().decode(b"\x02" + encoded[1:])


def test_checkpoints_are_the_same_bytes_in_every_release() -> None:
    """A savepoint outlives the release that wrote it: a change here needs a new version."""
    segment = Segment("shardId-000000000000", "0", "9", "495", 2, False, 7, False)
    encoded = ProgressCoder().encode(Progress((segment,), 5, True, False))
    assert encoded == b"\x01\x94\x91\x98\xb4shardId-000000000000\xa10\xa19\xa3495\x02\xc2\x07\xc2\x05\xc3\xc2"
    assert ProgressCoder().decode(encoded) == Progress((segment,), 5, True, False)
