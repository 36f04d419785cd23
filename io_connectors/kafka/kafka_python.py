"""Kafka through kafka-python, which is written in Python and so runs wherever Python does."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import (
    AuthorizationError,
    CorruptRecordError,
    KafkaError,
    LogTruncationError,
    OffsetOutOfRangeError,
    SaslAuthenticationFailedError,
)
from kafka.net.sasl.oauth import AbstractTokenProvider

from io_connectors.kafka.clients import (
    CommitError,
    Damaged,
    Ends,
    Fetched,
    OutOfRangeError,
    RefusedError,
    UnreachableError,
)
from io_connectors.kafka.damage import end_of_damage
from io_connectors.kafka.diagnose import diagnose
from io_connectors.kafka.security import login, msk_token
from io_connectors.kafka.settings import Cluster, ReadSettings

LIBRARY_LOG = logging.getLogger("kafka")
if LIBRARY_LOG.level == logging.NOTSET:
    LIBRARY_LOG.setLevel(logging.CRITICAL)  # it logs every attempt to connect; what matters of it is raised
REFUSED = (SaslAuthenticationFailedError, AuthorizationError)
_CONNECT_SECONDS = 5.0
PROBE_SECONDS = 2.0


class _MskTokens(AbstractTokenProvider):  # type: ignore[misc]  # the library has no types
    """A token for each connection that is made."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__()
        self._cluster = cluster

    def token(self) -> str:
        return msk_token(self._cluster).text


def client_settings(cluster: Cluster) -> dict[str, Any]:
    """What every client of a cluster is told, in kafka-python's own names.

    Raises:
        UserError: credentials are missing.
    """
    settings: dict[str, Any] = {
        "bootstrap_servers": cluster.brokers.split(","),
        "client_id": "fraud-detection",
        "security_protocol": cluster.security.upper(),
        "reconnect_backoff_max_ms": 2_000,
        "metrics_enabled": False,
        "ssl_cafile": cluster.ca,
        "ssl_certfile": cluster.certificate,
        "ssl_keyfile": cluster.key,
    }
    if cluster.mechanism == "AWS_MSK_IAM":
        settings |= {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": _MskTokens(cluster)}
    elif cluster.mechanism is not None:
        username, password = login(cluster)
        settings |= {
            "sasl_mechanism": cluster.mechanism,
            "sasl_plain_username": username,
            "sasl_plain_password": password,
        }
    return settings


def _consumer(cluster: Cluster, isolation: str, seconds: float) -> Any:
    """A consumer that is connected.

    Raises:
        UnreachableError: no broker answered in time.
        RefusedError: they let nobody in.
    """
    try:
        return KafkaConsumer(
            **client_settings(cluster),
            bootstrap_timeout_ms=int(seconds * 1000),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level=isolation,
            check_crcs=True,
            fetch_max_wait_ms=100,
            fetch_max_bytes=16 << 20,
            max_partition_fetch_bytes=4 << 20,
            allow_auto_create_topics=False,
        )
    except REFUSED as error:
        raise refusal(error) from error
    except KafkaError as error:
        raise diagnose(cluster, str(error)) from error


def _unanswered(error: KafkaError) -> RefusedError | UnreachableError:
    return refusal(error) if isinstance(error, REFUSED) else UnreachableError(str(error))


def refusal(error: KafkaError) -> RefusedError:
    """The library's errors of this kind as ours."""
    return RefusedError(str(error), "login" if isinstance(error, SaslAuthenticationFailedError) else "right")


class KafkaPythonReader:
    """See `PartitionReader`."""

    def __init__(self, settings: ReadSettings, partition: int) -> None:
        self._settings = settings
        self._place = TopicPartition(settings.topic, partition)
        self._position = -1
        self._consumer: Any = None

    def seek(self, offset: int) -> None:
        if offset != self._position:
            self._position = offset
            if self._consumer is not None:
                self._consumer.seek(self._place, offset)

    def poll(self, most: int, seconds: float) -> Fetched:
        records: list[Any] = []
        damaged: list[Damaged] = []
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not records:
            if not self._connect():
                break
            try:
                records += self._consumer.poll(int(left * 1000) + 1, most).get(self._place, ())
                self._position = self._consumer.position(self._place, timeout_ms=0)
            except CorruptRecordError as error:
                damaged.append(self._skip_damage(str(error)))
            except (OffsetOutOfRangeError, LogTruncationError) as error:
                self._position = -1  # wherever it is sent now, it has to be told
                raise OutOfRangeError(str(error)) from error
            except REFUSED as error:
                raise refusal(error) from error
            except KafkaError as error:
                if not error.retriable:
                    raise
                break  # the library tries again by itself, and whoever polls comes again
        return _fetched(records, self._position, damaged)

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()

    def _skip_damage(self, error: str) -> Damaged:
        first = self._position
        self.seek(end_of_damage(first, lambda offset: self._error_at(offset) == error))
        return Damaged(first, self._position, error)

    def _error_at(self, offset: int) -> str | None:
        """What is wrong with what an offset lies in; None when nothing is, or nobody can tell."""
        self._consumer.seek(self._place, offset)
        self._position = -1
        try:
            self._consumer.poll(int(PROBE_SECONDS * 1000), 1)
        except KafkaError as error:
            return str(error)
        return None

    def _connect(self) -> bool:
        """Have a consumer; whether there is one. Later the library connects again by itself."""
        if self._consumer is None:
            try:
                self._consumer = _consumer(self._settings.cluster, self._settings.isolation, _CONNECT_SECONDS)
            except UnreachableError:
                return False  # whoever polls comes again
            self._consumer.assign([self._place])
            self._consumer.seek(self._place, self._position)
        return True


def _fetched(records: Sequence[Any], position: int, damaged: Sequence[Damaged]) -> Fetched:
    headers = [record.headers for record in records]
    millis = np.array([r.timestamp for r in records], np.int64)
    return Fetched(
        offsets=np.array([r.offset for r in records], np.int64),
        values=[r.value for r in records],
        keys=[r.key for r in records],
        headers=[tuple((n, v or b"") for n, v in h or ()) for h in headers] if any(headers) else None,
        timestamps=np.where(millis < 0, -1, millis * 1_000),
        position=position,
        damaged=damaged,
    )


class KafkaPythonLooker:
    """See `TopicLooker`."""

    def __init__(self, cluster: Cluster, isolation: str) -> None:
        self._cluster, self._isolation = cluster, isolation
        self._consumer: Any = None

    def topics(self, seconds: float) -> Mapping[str, int]:
        consumer = self._connected(seconds)
        try:
            return {name: len(consumer.partitions_for_topic(name) or ()) for name in consumer.topics()}
        except KafkaError as error:
            raise _unanswered(error) from error

    def ends(self, topic: str, partitions: int, seconds: float) -> list[Ends | None]:
        consumer, places = self._connected(seconds), _places(topic, partitions)
        try:
            firsts = consumer.beginning_offsets(places, timeout_ms=int(seconds * 1000))
            lasts = consumer.end_offsets(places, timeout_ms=int(seconds * 1000))
        except KafkaError as error:
            raise _unanswered(error) from error
        return [Ends(firsts[place], max(firsts[place], lasts[place])) for place in places]

    def offsets_at(self, topic: str, partitions: int, millis: int, seconds: float) -> list[int | None]:
        consumer, places = self._connected(seconds), _places(topic, partitions)
        try:
            found = consumer.offsets_for_times(dict.fromkeys(places, millis), timeout_ms=int(seconds * 1000))
            lasts = consumer.end_offsets(places, timeout_ms=int(seconds * 1000))
        except KafkaError as error:
            raise _unanswered(error) from error
        return [lasts[place] if found[place] is None else found[place].offset for place in places]

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()

    def _connected(self, seconds: float) -> Any:
        if self._consumer is None:
            self._consumer = _consumer(self._cluster, self._isolation, seconds)
        return self._consumer


class KafkaPythonCommitter:
    """See `GroupCommitter`."""

    def __init__(self, settings: ReadSettings) -> None:
        self._settings = settings
        self._consumer: Any = None

    def commit(self, offsets: Mapping[int, int]) -> None:
        topic = self._settings.topic
        places = {TopicPartition(topic, at): OffsetAndMetadata(offset, "", -1) for at, offset in offsets.items()}
        try:
            if self._consumer is None:
                group = {"group_id": self._settings.group, "enable_auto_commit": False}
                self._consumer = KafkaConsumer(**client_settings(self._settings.cluster), **group)
            self._consumer.commit(places, timeout_ms=int(_CONNECT_SECONDS * 1000))
        except KafkaError as error:
            raise CommitError(str(error)) from error

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close(autocommit=False)


def _places(topic: str, partitions: int) -> list[Any]:
    return [TopicPartition(topic, partition) for partition in range(partitions)]
