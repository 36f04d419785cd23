"""Watch a bucket: a splittable DoFn that looks again and again, and gives each object once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import apache_beam as beam
from apache_beam.io.iobase import RestrictionProgress, RestrictionTracker
from apache_beam.metrics import Metrics
from apache_beam.pvalue import PBegin, PCollection
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Duration, Timestamp

from io_connectors.aws import is_transient
from io_connectors.s3.listing import Listing, list_objects
from io_connectors.s3.objects import s3_client
from io_connectors.s3.read import Element, ReadObject
from io_connectors.s3.seen import ENDLESS, Seen, SeenCoder
from io_connectors.s3.settings import ObjectSettings
from io_connectors.watermarks import ADVANCING, AdvancingWatermark
from transforms.durations import SECOND
from transforms.raw_batch import RawBatch

LOG = logging.getLogger(__name__)

#: A pattern, as text; only objects put since, in microseconds since 1970; whether those that are there are passed over;
#: and when watching ends, likewise, or `ENDLESS`.
Begun = tuple[str, int, bool, int]

#: Seconds for which one look is tried again before others get their turn.
_PATIENCE = 10.0
#: Seconds that a turn waits where a runner does not wait as long as it is told to.
_NAP = 0.5
#: Times of objects are whole seconds, rounded down: so much may an object be older than a look that did not see it.
_ROUNDING = 2 * SECOND


class WatchObjects(beam.PTransform[PBegin, PCollection[RawBatch]]):
    """Read the objects of a bucket as they come: PBegin to PCollection of `RawBatch`.

    As `ReadObjects`, but an object that was replaced before it could be read is a dead letter: what replaced it is
    read as well. What is there is looked through every `watch`, which costs a call for each thousand objects that
    begin as the pattern does. Batches have the time at which their object was put, and the watermark is the
    time of the last look, both less `watermark_delay`.

    Args:
        settings: what the URL says.
    """

    def __init__(self, settings: ObjectSettings) -> None:
        super().__init__()
        self.settings = settings

    def expand(self, begin: PBegin) -> PCollection[RawBatch]:
        watch = WatchUntil(self.settings) if self.settings.bounded else Watch(self.settings)
        raw: PCollection[RawBatch] = (
            begin
            | "Pattern" >> beam.Create([str(self.settings.pattern)], reshuffle=False)
            | "Begin" >> beam.Map(_begin, self.settings).with_output_types(Begun)
            | "Watch" >> beam.ParDo(watch).with_output_types(Element)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(ReadObject(self.settings)).with_output_types(RawBatch)
        )
        return raw


def _begin(pattern: str, settings: ObjectSettings) -> Begun:
    deadline = ENDLESS if settings.max_duration is None else time.time_ns() // 1000 + settings.max_duration
    return pattern, settings.start.millis * 1000, settings.start.word == "latest", deadline


class SeenTracker(RestrictionTracker):
    """Claims of looks: each claim is what has been seen by now. A checkpoint leaves the rest to whoever goes on.

    A watch is one thing to do: it is never split but where it stands.
    """

    def __init__(self, seen: Seen) -> None:
        self._seen = seen
        self._over = seen.over

    def current_restriction(self) -> Seen:
        return self._seen

    def try_claim(self, position: Seen) -> bool:
        if self._over:
            return False
        self._seen = position
        self._over = position.over
        return True

    def try_split(self, fraction_of_remainder: float) -> tuple[Seen, Seen] | None:
        if self._over or fraction_of_remainder > 0:
            return None
        rest, self._over = self._seen, True
        self._seen = rest._replace(over=True, versions=b"")
        return self._seen, rest

    def check_done(self) -> None:
        if not self._over:
            raise ValueError("watching ended without a checkpoint")

    def current_progress(self) -> RestrictionProgress:
        return RestrictionProgress(completed=1 if self._over else 0, remaining=0 if self._over else 1)

    def is_bounded(self) -> bool:
        return self._seen.over or self._seen.deadline != ENDLESS


class _SeenAtFirst(RestrictionProvider):
    """What has been seen when watching begins is said by the element."""

    def initial_restriction(self, element: Begun) -> Seen:
        _, since, skips, deadline = element
        return Seen(since, deadline=deadline, skips=skips)

    def create_tracker(self, restriction: Seen) -> SeenTracker:
        return SeenTracker(restriction)

    def restriction_coder(self) -> SeenCoder:
        return SeenCoder()

    def restriction_size(self, element: Begun, restriction: Seen) -> int:
        return 0 if restriction.over else 1


_SEEN = beam.DoFn.RestrictionParam(_SeenAtFirst())


class WatchUntil(beam.DoFn):
    """Looks at a bucket until a deadline, and once more then.

    Args:
        settings: what the URL says.
        now: microseconds since 1970.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        settings: ObjectSettings,
        now: Callable[[], int] = lambda: time.time_ns() // 1000,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings
        self.now, self.sleep = now, sleep
        self.retried = Metrics.counter("source.s3", "retried")
        self.client: Any = None

    def teardown(self) -> None:
        if self.client is not None:
            self.client.close()

    def process(self, element: Begun, tracker: Any = _SEEN, watermark: Any = ADVANCING) -> Iterator[Any]:
        yield from self.look(tracker, watermark)

    def look(self, tracker: Any, watermark: AdvancingWatermark) -> Iterator[TimestampedValue[Element]]:
        """What has come since the last look, if it is time for one."""
        seen: Seen = tracker.current_restriction()
        wait = min(seen.due, seen.deadline) - self.now()
        if wait > 0 and not seen.over:
            self.sleep(min(wait / SECOND, _NAP))
            tracker.defer_remainder(Duration(micros=max(0, wait - int(_NAP * SECOND))))
            return
        try:
            listing = self._list()
        except Exception as error:
            if not is_transient(error):
                raise
            LOG.warning("looking at %s: %s; will try again", self.settings.pattern, error)
            tracker.defer_remainder(Duration(1))
            return
        now, watch, delay = self.now(), self.settings.watch or 0, self.settings.watermark_delay
        after, new = seen.look(listing, now + watch, over=now >= seen.deadline)
        if not tracker.try_claim(after):
            return
        for found in new:
            yield TimestampedValue((*found,), Timestamp(micros=found.modified - delay))
        watermark.advance(listing.asked - _ROUNDING - delay)
        if not after.over:
            tracker.defer_remainder(Duration(micros=watch))

    def _list(self) -> Listing:
        if self.client is None:
            self.client = s3_client(self.settings.url)
        backoff = replace(self.settings.backoff, give_up_after=_PATIENCE)
        return list_objects(self.client, self.settings.pattern, backoff, lambda error: self.retried.inc())


class Watch(WatchUntil):
    """The same without an end."""

    @beam.DoFn.unbounded_per_element()  # type: ignore[untyped-decorator]  # Beam's own
    def process(self, element: Begun, tracker: Any = _SEEN, watermark: Any = ADVANCING) -> Iterator[Any]:
        yield from self.look(tracker, watermark)
