"""The reader of one slice: its shards as their turn comes, a piece at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from io_connectors.kinesis.api import KinesisApi
from io_connectors.kinesis.feeds import Failures, Feed, Page, UnknownPositionError
from io_connectors.kinesis.progress import Progress
from io_connectors.kinesis.records import Records
from io_connectors.kinesis.shards import Keys, Segment, Segments, Shard, finish, give_up, lost, start_shards, unlisted
from transforms.durations import DAY, SECOND, format_duration
from transforms.errors import UserError

#: Seconds between two looks for the shards that follow one that has ended.
LOOK_SECONDS = 1.0
#: Arrival times within a shard need not ascend; so much later than the end of reading, nothing before it will come.
DISORDER = SECOND


class Piece(NamedTuple):
    """Some records of a segment's shard.

    Attributes:
        records: in order, also those of other slices.
        end: whether the shard has been read to its end with them.
        seen: as of `Page`.
    """

    records: Records
    end: bool
    seen: int


@dataclass
class _Buffered:
    """A shard's feed, and what of its last page has not been handed out.

    Attributes:
        feed: the shard.
        position: sequence and subsequence of the last record handed out.
        page, offset: the rest of the page begins there.
    """

    feed: Feed
    position: tuple[str, int]
    page: Page | None = None
    offset: int = 0

    def next(self, most: int) -> Piece | None:
        """At most so many records; None when there is nothing yet."""
        page = self.page or self.feed.poll()
        if page is None:
            return None
        rest = len(page.records) - self.offset
        if rest <= most and self.offset == 0:
            records = page.records
        else:
            records = page.records.take(range(self.offset, self.offset + min(most, rest)))
        self.page, self.offset = (page, self.offset + most) if rest > most else (None, 0)
        if len(records):
            self.position = (records.sequences[-1], records.subsequences[-1])
        whole = self.page is None
        return Piece(records, page.end and whole, page.seen if whole else max(records.times))


class SliceReader:
    """Reads one slice. What it holds is only a short cut: everything can be had again from a `Progress`.

    Args:
        api: of the stream.
        open_feed: a feed for a segment, given the shard.
        skip_missing: whether records that the stream no longer holds are passed over.
        on_missing: told how many shards had such records.
        failures: counts those of listing the shards.
        now: microseconds since 1970.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        api: KinesisApi,
        open_feed: Callable[[Segment, Shard], Feed],
        skip_missing: bool,
        on_missing: Callable[[int], None],
        failures: Failures,
        now: Callable[[], int] = lambda: time.time_ns() // 1000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._open_feed = api, open_feed
        self._skip_missing, self._on_missing = skip_missing, on_missing
        self._failures, self._now, self._clock = failures, now, clock
        self._shards: dict[str, Shard] = {}
        self._look_at = float("-inf")
        self._waiting: list[Segment] = []
        self._gone: set[str] = set()
        self._feeds: dict[str, _Buffered] = {}

    def look(self, segments: Segments) -> Segments:
        """The segments once every shard whose turn has come has been started.

        Raises:
            UserError: the stream no longer holds shards that were to be read.
        """
        waiting = [s for s in segments if s.done]
        known = all(s.shard in self._shards for s in segments if s.shard and not s.over)
        if known and waiting != self._waiting:  # a shard has ended: what follows it may be known already
            self._waiting = waiting
            started = self._start(segments)
            if started != segments:
                return started
        if (known and not waiting) or self._clock() < self._look_at:
            return segments
        self._look_at = self._clock() + LOOK_SECONDS
        try:
            shards = self._api.shards()
            stale = not all(self._is_gone(name) for name in unlisted(segments, shards))
        except Exception as error:
            self._look_at = self._clock() + self._failures.add(error)
            return segments
        self._failures.none()
        if stale:
            return segments
        self._shards = shards
        missed = lost(segments, shards)
        if missed:
            self._miss(missed, "is no longer in the stream")
            segments = give_up(segments, shards)
        return self._start(segments)

    def next(self, segment: Segment, most: int) -> tuple[Shard, Piece] | None:
        """A segment's shard and at most so many records of it; None when there is nothing yet, or it is unknown.

        Raises:
            UserError: the stream no longer holds records that were to be read.
        """
        shard = self._shards.get(segment.shard)
        if shard is None:
            return None
        held = self._feeds.get(segment.shard)
        if held is None or held.position != (segment.sequence, segment.subsequence):
            held = self._open(segment, shard)
        try:
            piece = held.next(most)
        except UnknownPositionError as error:
            self._miss([segment.shard], f"cannot be read on after record {segment.sequence or 'none'}: {error}")
            held = self._open(msgspec.structs.replace(segment, sequence="", subsequence=0), shard)
            held.position = (segment.sequence, segment.subsequence)
            return None
        return None if piece is None else (shard, piece)

    def wait(self, segments: Segments) -> float:
        """Seconds after which some segment may have something."""
        waits = [self._wait_for(segment) for segment in segments if not segment.over]
        return max(0.0, min(waits, default=0.0))

    def close(self) -> None:
        """Let go of the shards."""
        for held in self._feeds.values():
            held.feed.close()
        self._feeds = {}

    def _start(self, segments: Segments) -> Segments:
        """The segments once shards whose turn has come have been started; of those that are done nothing is held."""
        for shard in self._feeds.keys() - {s.shard for s in segments if not s.done}:
            self._feeds.pop(shard).feed.close()
        return start_shards(segments, self._shards)

    def _is_gone(self, shard: str) -> bool:
        """Whether a shard that a listing leaves out is no longer there, or the listing is older than the shard."""
        if shard not in self._gone and not self._api.has(shard):
            self._gone.add(shard)
        return shard in self._gone

    def _wait_for(self, segment: Segment) -> float:
        if segment.done or segment.shard not in self._shards:
            return self._look_at - self._clock()
        held = self._feeds.get(segment.shard)
        return 0.0 if held is None or held.page else held.feed.wait()

    def _open(self, segment: Segment, shard: Shard) -> _Buffered:
        if segment.shard in self._feeds:
            self._feeds.pop(segment.shard).feed.close()
        self._check_age(segment)
        feed = self._open_feed(segment, shard)
        held = self._feeds[segment.shard] = _Buffered(feed, (segment.sequence, segment.subsequence))
        return held

    def _check_age(self, segment: Segment) -> None:
        """Records are held for a time, a day at least; what came and went meanwhile nobody tells."""
        age = self._now() - segment.seen if segment.seen else 0
        if age > DAY and age > (retention := self._api.retention()):
            what = f"was last read {format_duration(age - age % SECOND)} ago; the stream holds records for"
            self._miss([segment.shard], f"{what} {format_duration(retention)}")

    def _miss(self, shards: list[str], what: str) -> None:
        if not self._skip_missing:
            raise UserError(
                f"kinesis://{self._api.stream.name}: {', '.join(shards)} {what}: records may be lost; "
                "on_missing=skip in the URL goes on with what there is, and counts"
            )
        self._on_missing(len(shards))


def advance(
    progress: Progress, segment: Segment, shard: Shard, piece: Piece, keys: Keys, until: int
) -> tuple[Progress, Records]:
    """How far a slice has come with a piece, and the piece's records that are this slice's to give.

    Args:
        progress: without the piece.
        segment: the piece's; one of the progress.
        shard: the segment's.
        piece: what was read.
        keys: of the slice.
        until: what arrives later is not read, microseconds since 1970.
    """
    moved = msgspec.structs.replace(segment, seen=max(segment.seen, min(piece.seen, until)))
    if len(piece.records):
        last, inner = piece.records.sequences[-1], piece.records.subsequences[-1]
        moved = msgspec.structs.replace(moved, sequence=last, subsequence=inner)
    caught_up = not len(piece.records) and piece.seen > until
    if caught_up or piece.seen > until + DISORDER:
        moved = msgspec.structs.replace(moved, over=True)
    segments = tuple(moved if s is segment else s for s in progress.segments)
    if piece.end and not moved.over:
        segments = finish(segments, segment.shard)

    records = piece.records.owned(keys, shard.keys)
    if records.times and max(records.times) > until:
        records = records.take([at for at, time in enumerate(records.times) if time <= until])
    over, left = all(s.over for s in segments), progress.left
    if left >= 0:
        records = records if len(records) <= left else records.take(range(left))
        left -= len(records)
        over = over or left == 0
    return msgspec.structs.replace(progress, segments=segments, left=left, over=over), records
