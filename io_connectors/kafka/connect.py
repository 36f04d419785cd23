"""From settings to open connections, which the whole process shares."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from io_connectors.kafka.clients import (
    Ends,
    GroupCommitter,
    PartitionReader,
    RefusedError,
    TopicLooker,
    UnreachableError,
)
from io_connectors.kafka.seldom import Seldom
from io_connectors.kafka.settings import Cluster, ReadSettings
from io_connectors.pool import Pool

LOG = logging.getLogger(__name__)
READERS: Pool[PartitionReader] = Pool()
LOOKERS: Pool[TopicLooker] = Pool()
COMMITTERS: Pool[GroupCommitter] = Pool()


def open_reader(settings: ReadSettings, partition: int) -> PartitionReader:
    """A connection to one partition."""
    if settings.cluster.client == "confluent":
        from io_connectors.kafka.confluent import ConfluentReader

        return ConfluentReader(settings, partition)
    from io_connectors.kafka.kafka_python import KafkaPythonReader

    return KafkaPythonReader(settings, partition)


def open_looker(cluster: Cluster, isolation: str) -> TopicLooker:
    """A connection that asks about topics."""
    if cluster.client == "confluent":
        from io_connectors.kafka.confluent import ConfluentLooker

        return ConfluentLooker(cluster, isolation)
    from io_connectors.kafka.kafka_python import KafkaPythonLooker

    return KafkaPythonLooker(cluster, isolation)


def open_committer(settings: ReadSettings) -> GroupCommitter:
    """A connection that commits offsets in the name of the settings' group."""
    if settings.cluster.client == "confluent":
        from io_connectors.kafka.confluent import ConfluentCommitter

        return ConfluentCommitter(settings)
    from io_connectors.kafka.kafka_python import KafkaPythonCommitter

    return KafkaPythonCommitter(settings)


@contextmanager
def reader_of(settings: ReadSettings, partition: int, offset: int) -> Iterator[PartitionReader]:
    """A reader of a partition that stands at an offset; nobody else has it meanwhile."""
    key = (settings, partition)
    reader = READERS.take(key, lambda: open_reader(settings, partition))
    try:
        reader.seek(offset)
        yield reader
    except BaseException:
        reader.close()  # nobody knows what state it is in
        raise
    READERS.put(key, reader)


@contextmanager
def looker_of(cluster: Cluster, isolation: str) -> Iterator[TopicLooker]:
    """A connection to ask about topics; nobody else has it meanwhile."""
    key = (cluster, isolation)
    looker = LOOKERS.take(key, lambda: open_looker(cluster, isolation))
    try:
        yield looker
    finally:
        LOOKERS.put(key, looker)


@contextmanager
def committer_of(settings: ReadSettings) -> Iterator[GroupCommitter]:
    """A connection to commit offsets with; nobody else has it meanwhile."""
    committer = COMMITTERS.take(settings, lambda: open_committer(settings))
    try:
        yield committer
    except BaseException:
        committer.close()
        raise
    COMMITTERS.put(settings, committer)


class Known(NamedTuple):
    """What a partition holds, or held a moment ago.

    Attributes:
        asked: when the broker was asked, in microseconds since 1970.
        ends: what it said.
    """

    asked: int
    ends: Ends


class TopicEnds:
    """What the partitions of topics hold, asked of the brokers a few times a second for all partitions together.

    Args:
        every: seconds for which an answer, or that there was none, is good enough.
        clock: seconds that never go back.
        now: microseconds since 1970.
    """

    def __init__(
        self,
        every: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._every, self._clock, self._now = every, clock, now
        self._seldom = Seldom(LOG)
        self._lock = threading.Lock()
        self._known: dict[tuple[Cluster, str, str], tuple[float, int, list[Ends | None]]] = {}

    def of(self, settings: ReadSettings, partition: int) -> Known | None:
        """What a partition held not long ago; None when nobody answered."""
        key = (settings.cluster, settings.isolation, settings.topic)
        with self._lock:
            asked, asked_at, ends = self._known.get(key, (float("-inf"), 0, []))
            if self._clock() - asked > self._every or (ends and partition >= len(ends)):
                asked_at = self._now()
                ends = self._ask(settings, max(partition + 1, len(ends)))
                self._known[key] = (self._clock(), asked_at, ends)
                if not ends or None in ends:
                    self._seldom.warn(
                        "the brokers %s do not say what %s holds; who waits for records there goes on trying",
                        settings.cluster.brokers,
                        settings.topic,
                    )
        held = ends[partition] if partition < len(ends) else None
        return None if held is None else Known(asked_at, held)

    def _ask(self, settings: ReadSettings, partitions: int) -> list[Ends | None]:
        try:
            with looker_of(settings.cluster, settings.isolation) as looker:
                return looker.ends(settings.topic, partitions, seconds=0.5)
        except (UnreachableError, RefusedError):
            return []  # idle partitions do not advance meanwhile; what lasts the readers say


TOPIC_ENDS = TopicEnds()
