"""Planning and reading with a broker that is made up: what a real one seldom does, or does too slowly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Duration
from hypothesis import given
from hypothesis import strategies as st

from io_connectors.kafka import connect, lost, partitions, read
from io_connectors.kafka.clients import Damaged, Ends, Fetched, OutOfRangeError, RefusedError, UnreachableError
from io_connectors.kafka.connect import TopicEnds
from io_connectors.kafka.damage import end_of_damage
from io_connectors.kafka.lost import skip
from io_connectors.kafka.partitions import FindPartitions, Part, PlanParts, plan, share_evenly
from io_connectors.kafka.read import _ReadPart
from io_connectors.kafka.records import raw_batch
from io_connectors.kafka.settings import Cluster, ReadSettings
from io_connectors.moments import Moment
from io_connectors.pool import IDLE_SECONDS, Pool
from io_connectors.spans import ENDLESS, Span, SpanTracker
from io_connectors.watermarks import AdvancingWatermark
from transforms.errors import UserError

SETTINGS = ReadSettings(Cluster("b:1"), "t", batch_rows=10)
NEVER = int(MIN_TIMESTAMP.micros)
NOW = 1_700_000_000_000_000


def fetched(offsets: range, position: int | None = None, time: int = NOW - 5) -> Fetched:
    count = len(offsets)
    values = [b"%d" % offset for offset in offsets]
    times = np.full(count, time, dtype=np.int64)
    position = offsets.stop if position is None else position
    return Fetched(np.array(offsets, np.int64), values, [None] * count, None, times, position)


class FakeReader:
    """Gives what it was told to give, and then nothing."""

    def __init__(self, *gives: Fetched | Exception) -> None:
        self.gives = list(gives)
        self.position = 0
        self.closed = 0
        self.sent_to: list[int] = []

    def seek(self, offset: int) -> None:
        self.sent_to.append(offset)
        self.position = offset

    def poll(self, most: int, seconds: float) -> Fetched:
        given = self.gives.pop(0) if self.gives else fetched(range(self.position, self.position))
        if isinstance(given, Exception):
            raise given
        self.position = given.position
        return given

    def close(self) -> None:
        self.closed += 1


class FakeLooker:
    """A cluster with one topic."""

    def __init__(self, *ends: Ends | None, at: Mapping[int, list[int]] | None = None, fails: bool = False) -> None:
        self.held = list(ends)
        self.at = at or {}
        self.fails = fails
        self.asked = 0

    def topics(self, seconds: float) -> Mapping[str, int]:
        if self.fails:
            raise UnreachableError("nobody there")
        return {"t": len(self.held)}

    def ends(self, topic: str, partitions: int, seconds: float) -> list[Ends | None]:
        self.asked += 1
        if self.fails:
            raise UnreachableError("nobody there")
        return self.held[:partitions]

    def offsets_at(self, topic: str, partitions: int, millis: int, seconds: float) -> list[int | None]:
        return list(self.at[millis])

    def close(self) -> None: ...


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Put a fake in the place of connections."""

    def use(fake: Any) -> None:
        @contextmanager
        def same(*given: Any) -> Iterator[Any]:
            if isinstance(fake, FakeReader):
                fake.seek(given[2])
            yield fake

        if isinstance(fake, FakeReader):
            monkeypatch.setattr(read, "reader_of", same)
        else:
            for module in (partitions, lost, connect):
                monkeypatch.setattr(module, "looker_of", same)

    return use


def turn(
    part: Part, span: Span, settings: ReadSettings = SETTINGS, now: int = NOW, clock: Callable[[], float] = lambda: 0.0
) -> tuple[list[Any], Any, int]:
    """One turn of reading: its elements, what is deferred, and the watermark."""
    tracker = ThreadsafeRestrictionTracker(SpanTracker(span))
    watermark = AdvancingWatermark(NEVER)
    reading = _ReadPart(settings, lambda: now, clock)
    elements = list(reading.read(part, RestrictionTrackerView(tracker), watermark))
    tracker.check_done()
    return elements, tracker.deferred_status(), watermark.get_estimator_state()


def test_a_turn_reads_on_while_there_is_more(use: Callable[[Any], None]) -> None:
    """Full polls follow each other; one that is not full ends the turn, and the rest is left."""
    use(FakeReader(fetched(range(10)), fetched(range(10, 20)), fetched(range(20, 23)), fetched(range(23, 33))))
    elements, deferred, watermark = turn(("t", 0, 0, ENDLESS, ENDLESS), Span(0))
    assert [len(element.value) for element in elements] == [10, 10, 3]
    assert deferred[0] == Span(23)
    assert watermark == NOW - 5 - SETTINGS.watermark_delay
    assert {element.timestamp.micros for element in elements} == {NOW - 1000}, "the oldest record's, in milliseconds"


def test_a_turn_is_over_when_others_have_waited(use: Callable[[Any], None]) -> None:
    """However much there is."""
    use(FakeReader(*[fetched(range(at, at + 10)) for at in range(0, 100, 10)]))
    seconds = iter(np.arange(0, 10, 0.03).tolist())
    elements, deferred, _ = turn(("t", 0, 0, ENDLESS, ENDLESS), Span(0), clock=lambda: next(seconds))
    assert len(elements) == 4
    assert deferred[0] == Span(40)


def test_nothing_behind_the_end_is_given(use: Callable[[Any], None]) -> None:
    """A poll that reaches past the end of the span is cut, and the span is done."""
    use(FakeReader(fetched(range(10), position=12)))
    elements, deferred, _ = turn(("t", 0, 0, 7, ENDLESS), Span(0, 7))
    assert [element.value.positions.tolist() for element in elements] == [list(range(7))]
    assert deferred is None


def test_gaps_at_the_end_end_the_span(use: Callable[[Any], None]) -> None:
    """Offsets that hold no record count once the reader has passed them."""
    use(FakeReader(fetched(range(3)), fetched(range(0), position=5)))
    elements, deferred, _ = turn(("t", 0, 0, 5, ENDLESS), Span(0, 5))
    assert (len(elements), deferred[0]) == (1, Span(3, 5))
    elements, deferred, _ = turn(("t", 0, 0, 5, ENDLESS), Span(3, 5))
    assert (elements, deferred) == ([], None)


def test_time_that_is_up_ends_everything(use: Callable[[Any], None]) -> None:
    """What was read in the last turn is given; the rest, endless as it is, is done."""
    use(FakeReader(fetched(range(10))))
    elements, deferred, _ = turn(("t", 0, 0, ENDLESS, NOW), Span(0))
    assert (len(elements), deferred) == (1, None)


def test_an_idle_partition_waits_a_moment(use: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left alone, and time passes for it as far as the broker says that there was nothing."""
    use(FakeReader())
    use(FakeLooker(Ends(0, 5)))
    monkeypatch.setattr(read, "TOPIC_ENDS", TopicEnds(now=lambda: NOW - 1))
    elements, deferred, watermark = turn(("t", 0, 0, ENDLESS, ENDLESS), Span(5))
    assert elements == []
    assert deferred[0] == Span(5)
    assert 0 < deferred[1] <= Duration(read.IDLE_PAUSE)
    assert watermark == NOW - 1 - SETTINGS.watermark_delay


@pytest.mark.parametrize("looker", [FakeLooker(Ends(0, 6)), FakeLooker(None)])
def test_time_stands_while_the_broker_has_more_or_is_silent(
    use: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch, looker: FakeLooker
) -> None:
    """Nobody knows then what is to come."""
    use(FakeReader())
    use(looker)
    monkeypatch.setattr(read, "TOPIC_ENDS", TopicEnds(now=lambda: NOW))
    assert turn(("t", 0, 0, ENDLESS, ENDLESS), Span(5))[2] == NEVER


def test_only_who_commits_is_told_of_offsets_without_records(use: Callable[[Any], None]) -> None:
    """With a group even a poll of nothing but markers of transactions becomes a batch."""
    group = ReadSettings(Cluster("b:1"), "t", batch_rows=10, group="g")
    for settings, expected in ((SETTINGS, []), (group, [(3, 4, 6)])):
        use(FakeReader(fetched(range(0), position=6)))
        elements, _, _ = turn(("t", 0, 3, 9, ENDLESS), Span(4, 9), settings)
        assert [element.value.reach for element in elements] == expected
        assert [len(element.value) for element in elements] == [0] * len(expected)


def test_a_refusal_says_what_to_check(use: Callable[[Any], None]) -> None:
    """In the middle of a run as at its start."""
    use(FakeReader(RefusedError("not you", "right")))
    with pytest.raises(UserError, match="kafka://b:1: not you; an access control list, or a policy, must allow it"):
        turn(("t", 0, 0, ENDLESS, ENDLESS), Span(0))


@pytest.mark.parametrize("looker", [FakeLooker(None), FakeLooker(Ends(0, 9)), FakeLooker(fails=True)])
def test_an_offset_that_may_be_there_is_asked_for_again(
    use: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch, looker: FakeLooker
) -> None:
    """A broker that is just starting may say out of range, and then nothing, or that all is well."""
    reader = FakeReader(OutOfRangeError("gone"))
    use(reader)
    use(looker)
    monkeypatch.setattr(read, "TOPIC_ENDS", TopicEnds(now=lambda: NOW))
    elements, deferred, _ = turn(("t", 0, 0, ENDLESS, ENDLESS), Span(5))
    assert (elements, deferred[0]) == ([], Span(5))
    assert reader.sent_to == [5, 5]


SKIPPING = ReadSettings(Cluster("b:1"), "t", skip_missing=True)
PART: Part = ("t", 0, 0, ENDLESS, ENDLESS)


@pytest.mark.parametrize(
    ("settings", "position", "held", "goes_on"),
    [
        (SETTINGS, 5, Ends(10, 20), None),
        (SKIPPING, 5, Ends(10, 20), 10),
        (SKIPPING, 25, Ends(10, 20), None),
        (SETTINGS, 15, Ends(10, 20), 15),
        (SETTINGS, 20, Ends(10, 20), 20),
        (SETTINGS, 0, Ends(10, 20), 10),
        (ReadSettings(Cluster("b:1"), "t", start=Moment("timestamp", 5)), 0, Ends(10, 20), None),
    ],
)
def test_where_reading_goes_on(settings: ReadSettings, position: int, held: Ends, goes_on: int | None) -> None:
    """Lost offsets are skipped when asked for, and at the very start from the earliest; never backwards."""
    found = skip(settings, PART, position, held)
    assert (None if found is None else found.position) == goes_on


@given(st.lists(st.integers(0, 1000), max_size=8), st.integers(1, 3000))
def test_shares_are_exact_and_even(sizes: list[int], total: int) -> None:
    """Together as many as asked for, or all; who gives less than another gives all it has."""
    shares = share_evenly(sizes, total)
    assert sum(shares) == min(total, sum(sizes))
    assert all(0 <= share <= size for share, size in zip(shares, sizes, strict=True))
    most = max(shares, default=0)
    assert all(share >= most - 1 or share == size for share, size in zip(shares, sizes, strict=True))


def planned(
    looker: FakeLooker, in_time: bool = True, deadline: int = NOW, **settings: Any
) -> list[tuple[int, ...]] | None:
    parts = plan(looker, ReadSettings(Cluster("b:1"), "t", **settings), deadline, in_time)
    return None if parts is None else [part[1:] for part in parts]


def test_plans() -> None:
    """Every start with every end: partition, first offset, the one behind the last, and when time is up."""
    looker = FakeLooker(Ends(5, 9), Ends(0, 4), at={7: [6, 4], 8: [8, 4]})
    latest = Moment("latest")
    assert planned(looker, until=latest) == [(0, 5, 9, NOW), (1, 0, 4, NOW)]
    assert planned(looker, start=latest) == [(0, 9, ENDLESS, NOW), (1, 4, ENDLESS, NOW)]
    assert planned(looker, start=Moment("timestamp", 7), until=Moment("timestamp", 8)) == [
        (0, 6, 8, NOW),
        (1, 4, 4, NOW),
    ]
    assert planned(looker, until=latest, max_records=5) == [(0, 5, 7, NOW), (1, 0, 3, NOW)]
    assert planned(looker, max_records=8) == [(0, 5, 9, NOW), (1, 0, 4, NOW)]
    assert planned(looker, max_records=9) is None, "they are waited for"
    assert planned(looker, max_records=9, in_time=False) == [(0, 5, 9, ENDLESS), (1, 0, 4, ENDLESS)]


def test_a_plan_waits_for_brokers(use: Callable[[Any], None]) -> None:
    """One that is silent is asked again."""
    looker = FakeLooker(Ends(0, 1), None)
    use(looker)
    slept: list[float] = []
    planning = PlanParts(ReadSettings(Cluster("b:1"), "t", until=Moment("latest")), lambda: NOW, slept.append)

    def parts() -> tuple[list[Part], Any]:
        tracker = ThreadsafeRestrictionTracker(SpanTracker(Span(0, 1)))
        found = list(planning.process(("t", ENDLESS), RestrictionTrackerView(tracker)))
        tracker.check_done()
        return found, tracker.deferred_status()

    found, deferred = parts()
    assert (found, deferred[0], slept) == ([], Span(0, 1), [partitions.PLAN_SECONDS])
    looker.held[1] = Ends(0, 2)
    found, deferred = parts()
    assert ([part[1:4] for part in found], deferred) == ([(0, 0, 1), (1, 0, 2)], None)


def test_a_look_that_fails_is_repeated(use: Callable[[Any], None]) -> None:
    """The partitions that are known stay known, and nothing is given twice."""
    looker = FakeLooker(Ends(0, 1))
    use(looker)
    finding = FindPartitions(SETTINGS, lambda: NOW)
    looker.fails = True
    tracker = ThreadsafeRestrictionTracker(SpanTracker(Span(1)))
    watermark = AdvancingWatermark(NEVER)
    assert list(finding.look("t", RestrictionTrackerView(tracker), watermark)) == []
    deferred = tracker.deferred_status()
    assert deferred is not None
    assert (deferred[0], watermark.get_estimator_state()) == (Span(1), NEVER)


def test_what_partitions_hold_is_asked_for_a_few_times_a_second(use: Callable[[Any], None]) -> None:
    """However many ask; a broker that is down is not asked at every turn either."""
    looker, seconds = FakeLooker(Ends(0, 1), Ends(0, 2)), [0.0]
    use(looker)
    ends = TopicEnds(every=0.25, clock=lambda: seconds[0], now=lambda: NOW)
    assert [ends.of(SETTINGS, 1), ends.of(SETTINGS, 0)] == [(NOW, Ends(0, 2)), (NOW, Ends(0, 1))]
    assert looker.asked == 1
    looker.fails = True
    assert ends.of(SETTINGS, 1) == (NOW, Ends(0, 2))
    seconds[0] = 0.3
    assert [ends.of(SETTINGS, 1), ends.of(SETTINGS, 1)] == [None, None]
    assert looker.asked == 2


@given(st.integers(0, 100), st.integers(1, 5000))
def test_damage_ends_where_it_ends(first: int, length: int) -> None:
    """Found in few attempts."""
    tried: list[int] = []

    def is_damaged(offset: int) -> bool:
        tried.append(offset)
        return offset < first + length

    assert end_of_damage(first, is_damaged) == first + length
    assert len(tried) <= 2 * length.bit_length() + 1


def test_damage_and_losses_are_cut_at_the_bound() -> None:
    """What lies behind it is somebody else's to count."""
    polled = Fetched(*fetched(range(0)).__dict__.values())
    damaged = Fetched(
        polled.offsets, (), (), None, polled.timestamps, 20, (Damaged(3, 9, "bad"), Damaged(12, 15, "bad"))
    )
    letters = raw_batch("t-0", damaged, 7, NOW).rejected
    assert [letter.error for letter in letters] == ["offsets 3 to 6, 4 in all, cannot be read: bad"]


def test_connections_are_shared_and_the_forgotten_closed() -> None:
    """Who takes one has it alone; one that nobody took for long is closed by whoever comes next."""
    seconds = [0.0]
    pool: Pool[FakeReader] = Pool(lambda: seconds[0])
    first = pool.take("a", FakeReader)
    second = pool.take("a", FakeReader)
    assert first is not second
    pool.put("a", first)
    assert pool.take("a", FakeReader) is first
    pool.put("a", first)
    pool.put("b", second)
    seconds[0] = IDLE_SECONDS + 1
    third = FakeReader()
    pool.put("c", third)
    assert (first.closed, second.closed, third.closed) == (1, 1, 0)
    assert pool.take("a", FakeReader) is not first
    pool.close()
    assert third.closed == 1


def test_a_reader_that_failed_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows what state it is in."""
    made: list[FakeReader] = []

    def make(settings: ReadSettings, partition: int) -> FakeReader:
        made.append(FakeReader())
        return made[-1]

    monkeypatch.setattr(connect, "READERS", Pool())
    monkeypatch.setattr(connect, "open_reader", make)
    with pytest.raises(ValueError, match="half-way"), connect.reader_of(SETTINGS, 0, 5):
        raise ValueError("half-way")
    with connect.reader_of(SETTINGS, 0, 7) as reader:
        assert reader is made[1]
    with connect.reader_of(SETTINGS, 0, 7) as reader:
        assert reader is made[1]
    assert (made[0].closed, made[1].closed, made[1].position) == (1, 0, 7)
