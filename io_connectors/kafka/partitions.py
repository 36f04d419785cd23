"""Which partitions a topic has, and what of each is to be read."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import apache_beam as beam
from apache_beam.utils.timestamp import Duration

from io_connectors.kafka.clients import Ends, TopicLooker, UnreachableError
from io_connectors.kafka.connect import looker_of
from io_connectors.kafka.settings import ReadSettings
from io_connectors.moments import Moment
from io_connectors.spans import ENDLESS, Span, Spans, Turn, claim
from io_connectors.watermarks import ADVANCING, AdvancingWatermark

Found = TypeVar("Found")
LOG = logging.getLogger(__name__)
LOOK_SECONDS = 10.0
PLAN_SECONDS = 0.1

#: Topic, partition, first offset, offset behind the last (or `ENDLESS`), and when reading ends whatever was read, in
#: microseconds since 1970 (or `ENDLESS`). Runners use it as a key: plain text and numbers are the same bytes forever.
Part = tuple[str, int, int, int, int]


def begin(topic: str, max_duration: int | None, clock: Callable[[], int] = time.time_ns) -> tuple[str, int]:
    """A topic with the time at which reading it ends, in microseconds since 1970, when it begins now.

    Example:
        >>> begin("transactions", 5_000_000, clock=lambda: 1_000_000_000), begin("transactions", None)[1] == ENDLESS
        (('transactions', 6000000), True)
    """
    return topic, ENDLESS if max_duration is None else clock() // 1000 + max_duration


class _CountSpans(Spans):
    """Numbers of partitions that are known."""

    def initial_restriction(self, element: Any) -> Span:
        return Span(0)


_COUNTED = beam.DoFn.RestrictionParam(_CountSpans())


class FindPartitions(beam.DoFn):
    """Looks for partitions for ever, and gives each once, to be read for ever.

    The watermark runs ahead of the next look, so that looking never holds back what is read. Records that a new
    partition gets before it is found may be late by as much.

    Args:
        settings: of the source.
        now: microseconds since 1970.
    """

    def __init__(self, settings: ReadSettings, now: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self.settings = settings
        self.now = now

    @beam.DoFn.unbounded_per_element()  # type: ignore[untyped-decorator]  # Beam's own
    def process(
        self,
        element: tuple[str, int],
        tracker: Any = _COUNTED,
        watermark: Any = ADVANCING,
    ) -> Iterator[Part]:
        yield from self.look(element[0], tracker, watermark)

    def look(self, topic: str, tracker: Turn, watermark: AdvancingWatermark) -> Iterator[Part]:
        """The partitions that have come since the last look."""
        settings, known = self.settings, tracker.current_restriction().start
        try:
            with looker_of(settings.cluster, settings.isolation) as looker:
                count = looker.topics(LOOK_SECONDS).get(topic, 0)
                # What comes later is read from its beginning: `start` is about what there was.
                starts = [0] * count if known else _offsets(looker, topic, settings.start, count, [])
        except UnreachableError as error:
            LOG.warning("looking for partitions of %s: %s; will try again", topic, error)
            tracker.defer_remainder(Duration(1))
            return
        if count < known:
            LOG.warning("topic %s had %d partitions and has %d now: it was deleted, or made anew", topic, known, count)
        if claim(tracker, count) > known:
            yield from ((topic, at, starts[at], ENDLESS, ENDLESS) for at in range(known, count))
        watermark.advance(self.now() + settings.discover)
        tracker.defer_remainder(Duration(micros=settings.discover))


class _OneSpan(Spans):
    """One thing to do."""

    def initial_restriction(self, element: Any) -> Span:
        return Span(0, 1)


_ONCE = beam.DoFn.RestrictionParam(_OneSpan())


class PlanParts(beam.DoFn):
    """Gives the partitions that a topic has when reading begins, each with its end.

    A topic to read `max_records` of without `until` may have to get them first: it is looked at until it has.

    Args:
        settings: of the source.
        now: microseconds since 1970.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        settings: ReadSettings,
        now: Callable[[], int] = lambda: time.time_ns() // 1000,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings
        self.now, self.sleep = now, sleep

    def process(self, element: tuple[str, int], tracker: Any = _ONCE) -> Iterator[Part]:
        topic, deadline = element
        try:
            with looker_of(self.settings.cluster, self.settings.isolation) as looker:
                parts = plan(looker, self.settings, deadline, in_time=self.now() < deadline)
        except UnreachableError as error:
            if self.now() >= deadline:
                raise
            LOG.warning("looking for partitions of %s: %s; will try again", topic, error)
            parts = None
        if parts is None and self.now() < deadline:
            self.sleep(PLAN_SECONDS)  # not every runner waits as long as it is told to
            tracker.defer_remainder(Duration(PLAN_SECONDS))
        elif claim(tracker, 1):
            yield from parts or ()


def plan(looker: TopicLooker, settings: ReadSettings, deadline: int, in_time: bool) -> list[Part] | None:
    """What of each partition is to be read; None when the topic has not got enough yet."""
    topic = settings.topic
    count = looker.topics(LOOK_SECONDS).get(topic, 0)
    ends = _all(looker.ends(topic, count, LOOK_SECONDS), topic)
    starts = _offsets(looker, topic, settings.start, count, ends)
    if settings.until is not None:
        stops = _offsets(looker, topic, settings.until, count, ends)
    elif settings.max_records is not None:
        stops = [one.end for one in ends]
    else:
        stops = [ENDLESS] * count
    if settings.max_records is not None:
        sizes = [max(0, stop - start) for start, stop in zip(starts, stops, strict=True)]
        if settings.until is None and in_time and sum(sizes) < settings.max_records:
            return None
        shares = share_evenly(sizes, settings.max_records)
        stops = [start + share for start, share in zip(starts, shares, strict=True)]
    limit = deadline if in_time else ENDLESS  # too late for what is there: that is read all the same
    return [(topic, at, *span, limit) for at, span in enumerate(zip(starts, stops, strict=True))]


def share_evenly(sizes: Sequence[int], total: int) -> list[int]:
    """How much of each to take so that it is `total` in all, or everything: equal shares, as far as there is enough.

    Example:
        >>> share_evenly([10, 100, 100], 101), share_evenly([1, 2], 100)
        ([10, 45, 46], [1, 2])
    """
    shares, left = [0] * len(sizes), total
    for done, at in enumerate(sorted(range(len(sizes)), key=lambda at: sizes[at])):
        shares[at] = min(sizes[at], left // (len(sizes) - done))
        left -= shares[at]
    return shares


def _offsets(looker: TopicLooker, topic: str, moment: Moment, count: int, ends: Sequence[Ends]) -> list[int]:
    """Where a moment lies in each partition."""
    if moment.word == "timestamp":
        return _all(looker.offsets_at(topic, count, moment.millis, LOOK_SECONDS), topic)
    ends = ends or _all(looker.ends(topic, count, LOOK_SECONDS), topic)
    return [one.first if moment.word == "earliest" else one.end for one in ends]


def _all(found: Sequence[Found | None], topic: str) -> list[Found]:
    """What was asked of every partition.

    Raises:
        UnreachableError: a broker did not say.
    """
    known = [one for one in found if one is not None]
    if len(known) < len(found):
        silent = [str(partition) for partition, one in enumerate(found) if one is None]
        raise UnreachableError(f"no answer from the brokers of {topic}, partitions {', '.join(silent)}")
    return known
