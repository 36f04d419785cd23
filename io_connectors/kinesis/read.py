"""Reading a stream: slices of its hash keys, each by a splittable DoFn that a checkpoint can cut at any record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import apache_beam as beam
import msgspec
from apache_beam.coders import Coder
from apache_beam.metrics import Metrics
from apache_beam.pvalue import PBegin, PCollection
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Duration, Timestamp

from io_connectors.kinesis.api import EARLIEST, KinesisApi, may_pass
from io_connectors.kinesis.connect import api_of, reader_of
from io_connectors.kinesis.progress import Progress, ProgressCoder, ProgressTracker
from io_connectors.kinesis.reader import SliceReader, advance
from io_connectors.kinesis.records import Records, raw_batch
from io_connectors.kinesis.settings import ReadSettings
from io_connectors.kinesis.shards import HASH_KEYS, Keys, slices_of, unread
from io_connectors.retry import Backoff
from io_connectors.watermarks import ADVANCING, AdvancingWatermark, watermark_of
from transforms.raw_batch import RawBatch

#: Seconds for which one slice is read before others get their turn, and for which one that has nothing holds its own.
BUNDLE_SECONDS = 0.1
IDLE_SECONDS = 0.05
ENDLESS = (1 << 63) - 1

#: First and last hash key in decimal; start (or `EARLIEST`), time after which what arrives is not read (or `ENDLESS`),
#: time at which reading ends whatever was read (or `ENDLESS`), all in microseconds since 1970; most records (or -1).
#: Runners use it as a key: plain text and numbers are the same bytes forever.
Slice = tuple[str, str, int, int, int, int]


class Claims(Protocol):
    """What a DoFn may do with a tracker."""

    def current_restriction(self) -> Progress: ...
    def try_claim(self, position: Progress) -> bool: ...
    def defer_remainder(self, deferred_time: Any = None) -> None: ...


class ReadKinesis(beam.PTransform[PBegin, PCollection[RawBatch]]):
    """Read a stream's records as raw batches: `PBegin -> PCollection[RawBatch]`.

    A batch has records of one shard, its source is `stream/shard`, its time is that of its oldest record; its positions
    are said in `records.raw_batch`. There is one reader for each shard that is open when reading starts, and records of
    one partition key stay in order whatever becomes of the shards. The watermark comes from arrival times; the event
    times in the payloads are none of its business, so a payload much older than its record is late for what is ordered
    by event time.

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
        read = ReadSlice(self.settings) if self.settings.bounded else ReadSliceOn(self.settings)
        stream = root | "Stream" >> beam.Create([self.settings.stream.name], reshuffle=False)
        slices = stream | "CutSlices" >> beam.FlatMap(cut_slices, self.settings).with_output_types(Slice)
        batches: PCollection[RawBatch] = slices | "ReadSlices" >> beam.ParDo(read).with_output_types(RawBatch)
        return batches | "Apart" >> beam.Reshuffle() if self.settings.bounded and self.apart else batches


def cut_slices(stream: str, settings: ReadSettings) -> list[Slice]:
    """The slices of a stream, as of now. Where records are counted one reader has them all: it can count them."""
    return plan(api_of(settings.stream), settings, lambda: time.time_ns() // 1000)


def plan(api: KinesisApi, settings: ReadSettings, now: Callable[[], int]) -> list[Slice]:
    """What each reader is to read.

    Args:
        api: of the stream.
        settings: of the source.
        now: microseconds since 1970.
    """
    shards, moments = Backoff().call(api.shards_at, may_pass)
    start = {"earliest": EARLIEST, "latest": moments.earliest}.get(settings.start.word, settings.start.millis * 1000)
    until = ENDLESS
    if settings.until is not None:
        until = moments.latest if settings.until.word == "latest" else settings.until.millis * 1000
    deadline = ENDLESS if settings.max_duration is None else now() + settings.max_duration
    slices = slices_of(shards) if settings.max_records is None else [Keys(0, HASH_KEYS - 1)]
    most = -1 if settings.max_records is None else settings.max_records
    return [(str(keys.first), str(keys.last), start, until, deadline, most) for keys in slices]


def first_progress(element: Slice) -> Progress:
    """How far a slice has come before anything is read."""
    first, last, _, until, deadline, most = element
    bounded = until != ENDLESS or deadline != ENDLESS or most >= 0
    return Progress(unread(Keys(int(first), int(last))), most, bounded)


class _Progresses(RestrictionProvider):
    """How far a slice has come, as its restriction."""

    def initial_restriction(self, element: Slice) -> Progress:
        return first_progress(element)

    def create_tracker(self, restriction: Progress) -> ProgressTracker:
        return ProgressTracker(restriction)

    def restriction_coder(self) -> Coder:
        return ProgressCoder()

    def restriction_size(self, element: Slice, restriction: Progress) -> int:
        return 1


_SLICES = beam.DoFn.RestrictionParam(_Progresses())


class ReadSlice(beam.DoFn):
    """Reads one slice for a while, then lets the rest be taken up again.

    Args:
        settings: of the source.
        reader_of: see `connect.reader_of`.
        now: microseconds since 1970.
        clock: seconds that never go back.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        settings: ReadSettings,
        reader_of: Callable[[ReadSettings, Slice], AbstractContextManager[SliceReader]] = reader_of,
        now: Callable[[], int] = lambda: time.time_ns() // 1000,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings, self.reader_of = settings, reader_of
        self.now, self.clock, self.sleep = now, clock, sleep
        self.records = Metrics.counter("source.kinesis", "records")

    def process(self, element: Slice, tracker: Any = _SLICES, watermark: Any = ADVANCING) -> Iterator[Any]:
        yield from self.read(element, tracker, watermark)

    def read(
        self, element: Slice, tracker: Claims, watermark: AdvancingWatermark
    ) -> Iterator[TimestampedValue[RawBatch]]:
        """The batches of one turn; the tracker knows how far it came."""
        end = self.clock() + BUNDLE_SECONDS
        with self.reader_of(self.settings, element) as reader:
            while not tracker.current_restriction().over:
                before = tracker.current_restriction()
                yield from self._round(reader, element, tracker)
                progress = tracker.current_restriction()
                if element[4] <= self.now():
                    tracker.try_claim(msgspec.structs.replace(progress, over=True))
                elif not progress.over:
                    self._advance(watermark, progress)
                    if progress == before or self.clock() >= end:
                        self._leave(reader, tracker, idle=progress == before)
                        return

    def _round(self, reader: SliceReader, element: Slice, tracker: Claims) -> Iterator[TimestampedValue[RawBatch]]:
        """What each shard has, once."""
        first, last, _, until, _, _ = element
        keys = Keys(int(first), int(last))
        progress = tracker.current_restriction()
        segments = reader.look(progress.segments)
        if segments != progress.segments:
            progress = msgspec.structs.replace(progress, segments=segments)
            if not tracker.try_claim(progress):
                return
        for segment in segments:
            found = None if segment.done or segment.over else reader.next(segment, self.settings.batch_rows)
            if found is None:
                continue
            progress, records = advance(progress, segment, *found, keys, until)
            if not tracker.try_claim(progress):
                return
            if len(records):
                yield self._batch(segment.shard, records)
            if progress.over:
                return

    def _batch(self, shard: str, records: Records) -> TimestampedValue[RawBatch]:
        """Some records, at the time of the oldest."""
        self.records.inc(len(records))
        oldest = min(records.times)
        batch = raw_batch(f"{self.settings.stream.name}/{shard}", records, self.now())
        return TimestampedValue(batch, Timestamp(micros=oldest - oldest % 1000))

    def _advance(self, watermark: AdvancingWatermark, progress: Progress) -> None:
        """Nothing older is to come than what every part of the slice has been read up to."""
        seen = min(s.seen for s in progress.segments if not s.over)
        if seen:
            watermark.advance(watermark_of(seen, self.now(), self.settings.watermark_delay))

    def _leave(self, reader: SliceReader, tracker: Claims, idle: bool) -> None:
        """Let others have their turn; a runner that does not wait must not ask all the time, so some is waited here."""
        wait = reader.wait(tracker.current_restriction().segments) if idle else 0.0
        self.sleep(min(wait, IDLE_SECONDS))
        tracker.defer_remainder(Duration(max(0.0, wait - IDLE_SECONDS)))


class ReadSliceOn(ReadSlice):
    """The same without an end."""

    @beam.DoFn.unbounded_per_element()  # type: ignore[untyped-decorator]  # Beam's own
    def process(self, element: Slice, tracker: Any = _SLICES, watermark: Any = ADVANCING) -> Iterator[Any]:
        yield from self.read(element, tracker, watermark)
