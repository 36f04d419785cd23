"""What a shard has next: asked for with GetRecords, no oftener than Kinesis allows."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from io_connectors.aws import error_code
from io_connectors.kinesis.api import Answer, KinesisApi, may_pass
from io_connectors.kinesis.pace import Pace
from io_connectors.kinesis.records import Records, unpack
from io_connectors.kinesis.shards import Segment

LOG = logging.getLogger(__name__)

#: Seconds for which calls may fail, one after the other, before reading is given up.
PATIENCE = 300.0
#: Seconds after which it is worth asking again where it is not known better.
BRIEFLY = 0.01
#: Seconds: bounds of the waits after a failure.
FIRST_WAIT, LONGEST_WAIT = 0.2, 5.0


class Page(NamedTuple):
    """What a shard gave.

    Attributes:
        records: in order; there may be none.
        end: whether the shard has been read to its end.
        seen: what arrived up to here has been read, microseconds since 1970; 0: nobody knows.
    """

    records: Records
    end: bool
    seen: int


class UnknownPositionError(Exception):
    """The shard does not know the sequence number from which it is to be read on, or is not there any more."""


class Feed(Protocol):
    """A shard that is being read. One thread at a time uses it."""

    def poll(self) -> Page | None:
        """What comes next, or None when there is nothing yet.

        Raises:
            UnknownPositionError: reading cannot go on where it stood.
            Exception: calls have failed for too long, or will never succeed.
        """

    def wait(self) -> float:
        """Seconds after which it is worth polling again."""

    def close(self) -> None:
        """Let go of what is held."""


class Failures:
    """Failed calls in a row: how long to wait after each, and when to give up.

    Args:
        what: is being read, for the log.
        on_retry: told of each error that is followed by another attempt.
        clock: seconds that never go back.
        uniform: a number between two others.
    """

    def __init__(
        self,
        what: str,
        on_retry: Callable[[Exception], None],
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._what, self._on_retry, self._clock, self._uniform = what, on_retry, clock, uniform
        self._count = 0
        self._since = 0.0

    def none(self) -> None:
        """A call has succeeded."""
        self._count = 0

    def add(self, error: Exception) -> float:
        """Seconds to wait before the call is made again.

        Raises:
            Exception: the error itself: it will not pass, or has not for five minutes.
        """
        self._since = self._clock() if self._count == 0 else self._since
        if not may_pass(error) or self._clock() - self._since > PATIENCE:
            raise error
        self._on_retry(error)
        bound = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(self._count, 30))
        self._count += 1
        if self._count & (self._count - 1) == 0 and self._count > 2:  # the 4th, the 8th, ...: not every one of them
            LOG.warning("reading %s: %s; %d attempts so far, will try again", self._what, error, self._count)
        return self._uniform(bound / 2, bound)


class Cursor:
    """How far a shard has been asked for, which may be further than what of it was handed out.

    Args:
        segment: with the shard, and where in it to go on.
    """

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self._after = (segment.sequence, segment.subsequence) if segment.sequence else None

    def take(self, found: list[dict[str, Any]]) -> Records:
        """What is new in the records of a call."""
        records = unpack(found, self._after)
        if found:
            last = found[-1]["SequenceNumber"]
            inner = records.subsequences[-1] if len(records) and records.sequences[-1] == last else 0
            before = self._after[1] if self._after is not None and self._after[0] == last else 0
            self._after = (last, max(inner, before))
            self.segment = Segment(self.segment.shard, "", "", sequence=last)
        return records


class PolledShard:
    """A `Feed` that calls GetRecords.

    Args:
        api: of the stream.
        segment: with the shard, and where in it to go on.
        start: where reading starts in shards of which nothing has been read; see `KinesisApi.iterator`.
        failures: counts those of this shard.
        pace: of this shard.
    """

    def __init__(self, api: KinesisApi, segment: Segment, start: int, failures: Failures, pace: Pace) -> None:
        self._api, self._cursor, self._start = api, Cursor(segment), start
        self._failures, self._pace = failures, pace
        self._iterator: str | None = None

    def poll(self) -> Page | None:
        if not self._pace.take(self):
            return None
        try:
            answer = self._ask()
        except Exception as error:
            if error_code(error) == "ExpiredIteratorException":
                self._iterator = None  # they last five minutes; the place they stood for is known
            else:
                self._pace.hold(self._failures.add(error))
            return None
        self._failures.none()
        self._pace.count(sum(len(each["Data"]) for each in answer.records))
        self._iterator = answer.next
        records, end = self._cursor.take(answer.records), answer.next is None
        # Of a shard that has ended this says nothing: the records of those that follow it may have come long ago.
        caught_up = not answer.records and answer.behind == 0 and not end
        return Page(records, end, answer.served if caught_up else max(records.times, default=0))

    def wait(self) -> float:
        return self._pace.wait() or BRIEFLY

    def close(self) -> None:
        """Only a turn is given up: connections belong to the process."""
        self._pace.leave(self)

    def _ask(self) -> Answer:
        if self._iterator is None:
            try:
                self._iterator = self._api.iterator(self._cursor.segment, self._start)
            except Exception as error:
                raise unknown_position(error) or error from error
        return self._api.records(self._iterator)


def unknown_position(error: Exception) -> UnknownPositionError | None:
    """What an error means that says that reading cannot begin where it was to."""
    unknown = error_code(error) in ("InvalidArgumentException", "ResourceNotFoundException")
    return UnknownPositionError(str(error)) if unknown else None
