"""Kafka through confluent-kafka, which wraps the C library librdkafka."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from io_connectors.kafka.clients import Damaged, Ends, Fetched, OutOfRangeError, UnreachableError
from io_connectors.kafka.settings import Cluster, ReadSettings

LOG = logging.getLogger(__name__)
_OUT_OF_RANGE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION)
_DAMAGED = (KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError.INVALID_MSG)
_NOTHING = np.empty(0, dtype=np.int64)


def client_settings(cluster: Cluster) -> dict[str, Any]:
    """What every client of a cluster is told, in librdkafka's own names."""
    return {
        "bootstrap.servers": cluster.brokers,
        "client.id": "fraud-detection",
        "logger": LOG,
        "reconnect.backoff.max.ms": 2_000,
    }


class ConfluentReader:
    """See `PartitionReader`. The library fetches ahead in a thread of its own."""

    def __init__(self, settings: ReadSettings, partition: int) -> None:
        self._place = (settings.topic, partition)
        self._position = -1
        self._consumer = Consumer(
            {
                **client_settings(settings.cluster),
                "group.id": settings.group or "fraud-detection",  # the library wants one, used or not
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "isolation.level": settings.isolation,
                "check.crcs": True,
                "fetch.wait.max.ms": 100,
                "queued.max.messages.kbytes": 16_384,
                "fetch.message.max.bytes": 1_048_576,
            }
        )

    def seek(self, offset: int) -> None:
        if offset != self._position:
            self._consumer.assign([TopicPartition(*self._place, offset)])
            self._position = offset

    def poll(self, most: int, seconds: float) -> Fetched:
        messages: Sequence[Any] = self._consumer.consume(most, seconds)
        damaged: list[Damaged] = []
        if any(message.error() is not None for message in messages):
            messages = self._sort_out(messages, damaged)
        if messages:
            self._position = max(self._position, messages[-1].offset() + 1)
        return _fetched(messages, self._position, damaged)

    def close(self) -> None:
        self._consumer.close()

    def _sort_out(self, messages: Sequence[Any], damaged: list[Damaged]) -> list[Any]:
        """The records among what the library gave; what else it says is heeded."""
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
                continue
            code = error.code()
            if code == KafkaError._PARTITION_EOF:
                self._position = max(self._position, message.offset())
            elif code in _OUT_OF_RANGE:
                raise OutOfRangeError(error.str())
            elif code in _DAMAGED:
                damaged.append(Damaged(message.offset(), error.str()))
            else:
                LOG.warning("reading %s-%d: %s", *self._place, error.str())
        return records


def _fetched(messages: Sequence[Any], position: int, damaged: Sequence[Damaged]) -> Fetched:
    if not messages:
        return Fetched(_NOTHING, (), (), None, _NOTHING, position, damaged)
    headers = [message.headers() for message in messages]
    return Fetched(
        offsets=np.fromiter((m.offset() for m in messages), np.int64, len(messages)),
        values=[m.value() for m in messages],
        keys=[m.key() for m in messages],
        headers=[tuple((n, v or b"") for n, v in h or ()) for h in headers] if any(headers) else None,
        timestamps=_micros(np.fromiter((m.timestamp()[1] for m in messages), np.int64, len(messages))),
        position=position,
        damaged=damaged,
    )


def _micros(millis: np.ndarray[Any, np.dtype[np.int64]]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.where(millis < 0, -1, millis * 1_000)


class ConfluentLooker:
    """See `TopicLooker`."""

    def __init__(self, cluster: Cluster, isolation: str) -> None:
        self._cluster = cluster
        self._isolation = (
            IsolationLevel.READ_COMMITTED if isolation == "read_committed" else IsolationLevel.READ_UNCOMMITTED
        )
        self._admin = AdminClient(client_settings(cluster))

    def topics(self, seconds: float) -> Mapping[str, int]:
        try:
            found = self._admin.list_topics(timeout=seconds).topics
        except KafkaException as error:
            raise UnreachableError(error.args[0].str()) from error
        return {name: len(topic.partitions) for name, topic in found.items()}

    def ends(self, topic: str, partitions: int, seconds: float) -> list[Ends]:
        firsts = self._offsets(topic, partitions, OffsetSpec.earliest(), seconds)
        lasts = self._offsets(topic, partitions, OffsetSpec.latest(), seconds)
        return [Ends(first, max(first, last)) for first, last in zip(firsts, lasts, strict=True)]

    def offsets_at(self, topic: str, partitions: int, millis: int, seconds: float) -> list[int]:
        found = self._offsets(topic, partitions, OffsetSpec.for_timestamp(millis), seconds)
        lasts = self._offsets(topic, partitions, OffsetSpec.latest(), seconds)
        return [last if offset < 0 else offset for offset, last in zip(found, lasts, strict=True)]

    def close(self) -> None:
        """Nothing to do: the connections go with the object."""

    def _offsets(self, topic: str, partitions: int, spec: OffsetSpec, seconds: float) -> list[int]:
        places = {TopicPartition(topic, partition): spec for partition in range(partitions)}
        answers = self._admin.list_offsets(places, isolation_level=self._isolation, request_timeout=seconds)
        try:
            found = {place.partition: answer.result(seconds).offset for place, answer in answers.items()}
        except KafkaException as error:
            raise UnreachableError(error.args[0].str()) from error
        return [found[partition] for partition in range(partitions)]
