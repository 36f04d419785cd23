"""What a shard has next, sent as it comes: enhanced fan-out, for a consumer that is registered with the stream.

A subscription lasts five minutes, and is then made anew from the last record. Each consumer has one a shard, so of the
slices that share a shard after a merge one subscribes, and the others call GetRecords.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any, NamedTuple

from botocore.exceptions import ConnectionClosedError
from urllib3.exceptions import HTTPError

from io_connectors.kinesis.api import KinesisApi, Subscription
from io_connectors.kinesis.feeds import Cursor, Failures, Page, unknown_position
from io_connectors.kinesis.shards import Segment

#: Events that wait for somebody to take them; then the connection is not read, and Kinesis waits.
MOST_WAITING = 4
#: Seconds after which it is worth looking again.
LOOK_AGAIN = 0.02


class _Event(NamedTuple):
    """An event, and when it came, microseconds since 1970 by the server's clock."""

    content: dict[str, Any]
    came: int


class _Ended(NamedTuple):
    """The subscription has ended, as they do, or with an error."""

    error: Exception | None


class SubscribedShard:
    """A `Feed` that a subscription fills.

    Args:
        api: of the stream.
        consumer: ARN of the consumer.
        segment, start, failures: as for `PolledShard`.
        now: microseconds since 1970.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        api: KinesisApi,
        consumer: str,
        segment: Segment,
        start: int,
        failures: Failures,
        now: Callable[[], int] = lambda: time.time_ns() // 1000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api, self._consumer, self._start = api, consumer, start
        self._cursor, self._failures = Cursor(segment), failures
        self._now, self._clock = now, clock
        self._listening: _Listening | None = None
        self._subscribe_at = float("-inf")

    def poll(self) -> Page | None:
        if self._listening is None:
            if self._clock() < self._subscribe_at:
                return None
            self._listening = _Listening(self._subscribe, self._now)
        found = self._listening.take()
        if isinstance(found, _Event):
            self._failures.none()
            return self._page(found)
        if isinstance(found, _Ended):
            self._listening = None
            if found.error is not None:
                self._subscribe_at = self._clock() + self._wait_after(found.error)
        return None

    def wait(self) -> float:
        if self._listening is None:
            return max(0.0, self._subscribe_at - self._clock())
        return LOOK_AGAIN if self._listening.is_empty() else 0.0

    def close(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def _subscribe(self) -> Subscription:
        return self._api.subscribe(self._consumer, self._cursor.segment, self._start)

    def _wait_after(self, error: Exception) -> float:
        """Seconds until another attempt; raises when there is none to make."""
        unknown = unknown_position(error)
        if unknown is not None:
            raise unknown from error
        if isinstance(error, HTTPError):  # what events are read from is urllib3's, whose errors botocore lets through
            error = ConnectionClosedError(endpoint_url=self._api.client.meta.endpoint_url, error=error)
        return self._failures.add(error)

    def _page(self, event: _Event) -> Page:
        content = event.content
        end = bool(content.get("ChildShards"))
        records = self._cursor.take(content["Records"])
        caught_up = not content["Records"] and content["MillisBehindLatest"] == 0 and not end
        return Page(records, end, event.came if caught_up else max(records.times, default=0))


class _Listening:
    """A thread that hands on what a subscription sends.

    Args:
        subscribe: begins it.
        now: microseconds since 1970.
    """

    def __init__(self, subscribe: Callable[[], Subscription], now: Callable[[], int]) -> None:
        self._subscribe, self._now = subscribe, now
        self._waiting: queue.Queue[_Event | _Ended] = queue.Queue(MOST_WAITING)
        self._closed = threading.Event()
        threading.Thread(target=self._listen, daemon=True, name="kinesis-subscription").start()

    def take(self) -> _Event | _Ended | None:
        """What comes next, if there is something."""
        try:
            return self._waiting.get_nowait()
        except queue.Empty:
            return None

    def is_empty(self) -> bool:
        """Whether there is nothing now."""
        return self._waiting.empty()

    def close(self) -> None:
        """Have no more. The thread may be reading: it lets go of the connection after the next event, in seconds."""
        self._closed.set()

    def _listen(self) -> None:
        error: Exception | None = None
        try:
            events, shift = self._subscribe()
            with closing(events):
                for event in events:
                    self._put(_Event(event["SubscribeToShardEvent"], self._now() + shift))
                    if self._closed.is_set():
                        break
        except Exception as failure:
            error = failure  # judged by the thread that polls
        self._put(_Ended(error))

    def _put(self, item: _Event | _Ended) -> None:
        while not self._closed.is_set():
            with suppress(queue.Full):
                return self._waiting.put(item, timeout=0.5)
