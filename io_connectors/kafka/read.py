"""Reading a topic: partitions as they are found, each by a splittable DoFn that a checkpoint can cut at any record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.pvalue import PBegin, PCollection
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Duration, Timestamp

from io_connectors.kafka.clients import Fetched
from io_connectors.kafka.connect import TOPIC_ENDS, TopicEnds, reader_of
from io_connectors.kafka.lost import poll
from io_connectors.kafka.partitions import FindPartitions, Part, PlanParts, begin
from io_connectors.kafka.records import raw_batch
from io_connectors.kafka.settings import ReadSettings
from io_connectors.spans import ENDLESS, Span, Spans, Turn, claim, is_done
from io_connectors.watermarks import ADVANCING, AdvancingWatermark, watermark_of
from transforms.raw_batch import RawBatch, Reach

#: Seconds a poll waits where there is nothing, and for which one partition is read before others get their turn. What
#: a bundle gives leaves a streaming runner when it closes, and partitions of one worker are read in turn, so these are
#: most of the source's latency.
POLL_SECONDS = 0.005
BUNDLE_SECONDS = 0.1
#: A turn ends before its time once a poll gives fewer records than this: the partition has caught up with its topic.
CAUGHT_UP = 1_000
#: Seconds that a partition is left alone after it gave nothing. On Flink this is 0: it waits in whole seconds.
IDLE_PAUSE = 0.05


class ReadKafka(beam.PTransform[PBegin, PCollection[RawBatch]]):
    """Read a topic's records as raw batches: `PBegin -> PCollection[RawBatch]`.

    A batch has records of one partition, its source is `topic-partition`, its positions are offsets, its time is that
    of its oldest record. The watermark comes from the timestamps of the records, which broker or producer set; event
    times in the payloads are none of its business, so a payload much older than its record is late for whatever is
    ordered by event time.

    Args:
        settings: what to read; an endless collection unless they name an end.
        apart: whether the batches of what ends stand apart from their reader. Beam's in-memory runner fires the timers
            of what is fused with a reader whenever it leaves off for a moment, and rows that are put in order would be
            late. Without it the pipeline has to see to that: `ParseTransactions` can, and has fewer bytes to move.
    """

    def __init__(self, settings: ReadSettings, apart: bool = True) -> None:
        super().__init__()
        self.settings = settings
        self.apart = apart

    def expand(self, root: PBegin) -> PCollection[RawBatch]:
        topics = root | "Topic" >> beam.Create([self.settings.topic], reshuffle=False)
        begun = topics | "Begin" >> beam.Map(begin, self.settings.max_duration).with_output_types(tuple[str, int])
        find = PlanParts(self.settings) if self.settings.bounded else FindPartitions(self.settings)
        read = _ReadPart(self.settings) if self.settings.bounded else _ReadOn(self.settings)
        parts = begun | "FindPartitions" >> beam.ParDo(find).with_output_types(Part)
        batches: PCollection[RawBatch] = parts | "ReadPartitions" >> beam.ParDo(read).with_output_types(RawBatch)
        return batches | "Apart" >> beam.Reshuffle() if self.settings.bounded and self.apart else batches


class _PartSpans(Spans):
    """What is to be read of a part is said by the part."""

    def initial_restriction(self, element: Part) -> Span:
        _, _, start, stop, _ = element
        return Span(start, max(start, stop))


_PARTS = beam.DoFn.RestrictionParam(_PartSpans())


class _ReadPart(beam.DoFn):
    """Reads one partition for a while, then lets the rest be taken up again.

    Args:
        settings: of the source.
        now: microseconds since 1970.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        settings: ReadSettings,
        now: Callable[[], int] = lambda: time.time_ns() // 1000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.now, self.clock = now, clock
        self.records = Metrics.counter("source.kafka", "records")
        self.missing = Metrics.counter("source.kafka", "missing")

    def process(self, element: Part, tracker: Any = _PARTS, watermark: Any = ADVANCING) -> Iterator[Any]:
        yield from self.read(element, tracker, watermark)

    def read(self, part: Part, tracker: Turn, watermark: AdvancingWatermark) -> Iterator[TimestampedValue[RawBatch]]:
        """The batches of one turn; the tracker knows how far it came."""
        topic, partition, _, _, deadline = part
        if topic != self.settings.topic:
            raise ValueError(
                f"what was restored reads topic {topic}, and --source names {self.settings.topic}: positions in one "
                "mean nothing in the other. Begin without a savepoint, at start=timestamp:MOMENT"
            )
        turn_ends = self.clock() + BUNDLE_SECONDS
        position = tracker.current_restriction().start
        if is_done(tracker, position):
            return
        with reader_of(self.settings, partition, position) as reader:
            while True:
                fetched = poll(reader, self.settings, part, position, POLL_SECONDS)
                first, position = position, claim(tracker, fetched.position)
                yield from self._batch(partition, fetched, Reach(part[2], first, position), watermark)
                if deadline <= self.now():
                    position = claim(tracker, ENDLESS)
                if is_done(tracker, position):
                    return
                if len(fetched) < min(CAUGHT_UP, self.settings.batch_rows) or self.clock() >= turn_ends:
                    break
        if not len(fetched):
            advance_idle(watermark, self.settings, partition, position, TOPIC_ENDS)
        tracker.defer_remainder(None if len(fetched) else Duration(IDLE_PAUSE))

    def _batch(
        self, partition: int, fetched: Fetched, reach: Reach, watermark: AdvancingWatermark
    ) -> Iterator[TimestampedValue[RawBatch]]:
        """What of a poll was claimed, at the time of its oldest record."""
        now, bound = self.now(), reach.stop
        # Only who commits offsets wants to know of those that hold no record.
        told = None if self.settings.group is None or reach.first == reach.stop else reach
        batch = raw_batch(f"{self.settings.topic}-{partition}", fetched, bound, now, told)
        if not len(batch) and told is None:
            return
        self.records.inc(len(batch.positions))
        self.missing.inc(sum(min(lost.stop, bound) - lost.first for lost in fetched.lost))
        times = fetched.timestamps[: int(np.searchsorted(fetched.offsets, bound))]
        times = times[times >= 0]
        oldest, newest = (int(times.min()), int(times.max())) if len(times) else (now, now)
        yield TimestampedValue(batch, Timestamp(micros=oldest - oldest % 1000))  # other runners keep milliseconds
        watermark.advance(watermark_of(newest, now, self.settings.watermark_delay))


class _ReadOn(_ReadPart):
    """The same without an end."""

    @beam.DoFn.unbounded_per_element()  # type: ignore[untyped-decorator]  # Beam's own
    def process(self, element: Part, tracker: Any = _PARTS, watermark: Any = ADVANCING) -> Iterator[Any]:
        yield from self.read(element, tracker, watermark)


def advance_idle(
    watermark: AdvancingWatermark, settings: ReadSettings, partition: int, position: int, ends: TopicEnds
) -> None:
    """Move the watermark of a partition that gave nothing, if the broker says that there was nothing more."""
    known = ends.of(settings, partition)
    if known is not None and position >= known.ends.end:
        watermark.advance(watermark_of(0, known.asked, settings.watermark_delay, caught_up=True))
