"""From settings to what is open, which the whole process shares."""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from apache_beam.metrics import Metrics

from io_connectors.kinesis.api import KinesisApi
from io_connectors.kinesis.fan_out import SubscribedShard
from io_connectors.kinesis.feeds import Failures, Feed, PolledShard
from io_connectors.kinesis.pace import pace_of
from io_connectors.kinesis.reader import SliceReader
from io_connectors.kinesis.settings import ReadSettings, Stream
from io_connectors.kinesis.shards import Keys, Segment, Shard
from io_connectors.pool import Pool

READERS: Pool[SliceReader] = Pool()
_APIS: dict[Stream, KinesisApi] = {}
_LOCK = threading.Lock()

_RETRIED = Metrics.counter("source.kinesis", "retried")
_MISSING = Metrics.counter("source.kinesis", "missing")


def api_of(stream: Stream) -> KinesisApi:
    """A stream's calls; boto3's clients may be used by many threads."""
    with _LOCK:
        if stream not in _APIS:
            api = KinesisApi(stream, lambda: time.time_ns() // 1000)
            atexit.register(api.close)
            _APIS[stream] = api
        return _APIS[stream]


@contextmanager
def reader_of(settings: ReadSettings, element: tuple[str, str, int, int, int, int]) -> Iterator[SliceReader]:
    """A reader of a slice; nobody else has it meanwhile."""
    key = (settings, element)
    keys = Keys(int(element[0]), int(element[1]))
    reader = READERS.take(key, lambda: open_reader(settings, keys, element[2]))
    try:
        yield reader
    except BaseException:
        reader.close()  # nobody knows what state it is in
        raise
    READERS.put(key, reader)


def open_reader(settings: ReadSettings, keys: Keys, start: int) -> SliceReader:
    """A reader of a slice.

    Args:
        settings: of the source.
        keys: of the slice.
        start: see `KinesisApi.iterator`.
    """
    stream, api = settings.stream, api_of(settings.stream)

    def failures(what: str) -> Failures:
        return Failures(f"kinesis://{stream.name}{what}", lambda error: _RETRIED.inc())

    def open_feed(segment: Segment, shard: Shard) -> Feed:
        # A consumer has one subscription a shard: that of the slice in which the shard begins.
        if settings.consumer is not None and shard.keys.first in keys:
            return SubscribedShard(api, settings.consumer, segment, start, failures(f" {shard.id}"))
        return PolledShard(api, segment, start, failures(f" {shard.id}"), pace_of(stream, shard.id))

    return SliceReader(api, open_feed, settings.skip_missing, _MISSING.inc, failures(""))
