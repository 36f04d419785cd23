"""Kafka through confluent-kafka, which wraps the C library librdkafka."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec  # confluent_kafka.admin has it too, but mypy is not told

from io_connectors.kafka.clients import (
    CommitError,
    Damaged,
    Ends,
    Fetched,
    Int64s,
    OutOfRangeError,
    Refusal,
    RefusedError,
    UnreachableError,
)
from io_connectors.kafka.damage import end_of_damage
from io_connectors.kafka.security import login, msk_token
from io_connectors.kafka.settings import Cluster, ReadSettings

LOG = logging.getLogger(__name__)
_OUT_OF_RANGE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION)
_DAMAGED = (KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError.INVALID_MSG)
_REFUSED: dict[int, Refusal] = {
    KafkaError._AUTHENTICATION: "login",
    KafkaError.SASL_AUTHENTICATION_FAILED: "login",
    KafkaError.UNSUPPORTED_SASL_MECHANISM: "login",
    KafkaError._SSL: "certificate",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "right",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "right",
}
#: Seconds for which a client at work bears to be refused, and after which an old refusal is no part of a new one.
PATIENCE_SECONDS, FORGET_SECONDS = 30.0, 10.0
PROBE_SECONDS = 2.0
_SPEC: Any = OffsetSpec  # whose methods have no types
_MESSAGE: Any = Message  # its methods are mapped over messages: there are five calls for each
_NOTHING = np.empty(0, dtype=np.int64)


class Troubles:
    """What a client complains about while nobody waits for an answer; the library calls it from its own poll.

    A broker that is just being stopped or started may break off a handshake. So of a client that is at work a refusal
    counts once it has lasted; the library tries again every two seconds at least.

    Args:
        patience: for how many seconds it has to have lasted.
        tell: called with each complaint.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        patience: float = 0.0,
        tell: Callable[[KafkaError], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience, self._tell, self._clock = patience, tell, clock
        self._refused: RefusedError | None = None
        self._since = self._last = float("-inf")
        self._latest = ""

    def __call__(self, error: KafkaError) -> None:
        self._latest = error.str()
        if error.code() in _REFUSED:
            self._note(error)
        self._tell(error)

    def latest(self) -> str:
        """The last complaint."""
        return self._latest

    def raise_refusal(self) -> None:
        """Say that the brokers let nobody in, where they have not for long enough."""
        if self._refused is not None and self._last - self._since >= self._patience:
            refused, self._refused = self._refused, None
            raise refused

    def _note(self, error: KafkaError) -> None:
        now = self._clock()
        if now - self._last > FORGET_SECONDS:
            self._since = now
        self._last = now
        self._refused = RefusedError(error.str(), _REFUSED[error.code()])


def client_settings(cluster: Cluster, troubles: Troubles) -> dict[str, Any]:
    """What every client of a cluster is told, in librdkafka's own names.

    Raises:
        UserError: credentials are missing.
    """
    settings: dict[str, Any] = {
        "bootstrap.servers": cluster.brokers,
        "client.id": "fraud-detection",
        "security.protocol": cluster.security,
        "reconnect.backoff.max.ms": 2_000,
        # It would log every attempt to connect; what matters of it reaches `troubles`.
        "log_level": 2,
        "logger": LOG,
        "error_cb": troubles,
    }
    files = {"ca": cluster.ca, "certificate": cluster.certificate, "key": cluster.key}
    settings |= {f"ssl.{name}.location": path for name, path in files.items() if path is not None}
    if cluster.mechanism == "AWS_MSK_IAM":
        settings |= {"sasl.mechanism": "OAUTHBEARER", "oauth_cb": lambda _: msk_token(cluster)}
    elif cluster.mechanism is not None:
        username, password = login(cluster)
        settings |= {"sasl.mechanism": cluster.mechanism, "sasl.username": username, "sasl.password": password}
    return settings


class ConfluentReader:
    """See `PartitionReader`. The library fetches ahead in a thread of its own."""

    def __init__(self, settings: ReadSettings, partition: int) -> None:
        self._place = (settings.topic, partition)
        self._position = -1
        self._troubles = Troubles(PATIENCE_SECONDS)
        self._consumer = Consumer(
            {
                **client_settings(settings.cluster, self._troubles),
                "group.id": settings.group or "fraud-detection",  # the library wants one, used or not
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "isolation.level": settings.isolation,
                "check.crcs": True,
                "fetch.wait.max.ms": 100,
                "fetch.error.backoff.ms": 100,
                "queued.max.messages.kbytes": 16_384,
                "fetch.queue.backoff.ms": 10,  # once so much waits; by default it then sleeps a second
            }
        )

    def seek(self, offset: int) -> None:
        if offset != self._position:
            self._consumer.assign([TopicPartition(*self._place, offset)])
            self._position = offset

    def poll(self, most: int, seconds: float) -> Fetched:
        # The library waits out the time it is given for as many as it is asked for: what is there is taken at once,
        # and where there is nothing the first to come ends the wait.
        messages: Any = self._consumer.consume(most, 0)
        if not messages:
            messages = self._consumer.consume(1, seconds)
            if messages and most > 1:
                messages += self._consumer.consume(most - 1, 0)
        self._troubles.raise_refusal()
        damaged: list[Damaged] = []
        if any(map(_MESSAGE.error, messages)):
            messages = self._sort_out(messages, damaged)
        elif messages:
            self._position = messages[-1].offset() + 1
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
                self._position = message.offset() + 1
                continue
            code = error.code()
            if code == KafkaError._PARTITION_EOF:
                self._position = max(self._position, message.offset())
            elif code in _OUT_OF_RANGE:
                self._position = -1  # wherever it is sent now, it has to be told
                raise OutOfRangeError(error.str())
            elif code in _DAMAGED:
                damaged.append(self._skip_damage(error.str()))
                break  # what was fetched behind it is fetched again
            elif code in _REFUSED:
                raise RefusedError(error.str(), _REFUSED[code])
            else:
                LOG.warning("reading %s-%d: %s", *self._place, error.str())
        return records

    def _skip_damage(self, error: str) -> Damaged:
        first = self._position
        self.seek(end_of_damage(first, lambda offset: self._error_at(offset) == error))
        return Damaged(first, self._position, error)

    def _error_at(self, offset: int) -> str | None:
        """What is wrong with what an offset lies in; None when nothing is, or nobody can tell."""
        self._consumer.assign([TopicPartition(*self._place, offset)])
        self._position = -1
        message = self._consumer.poll(PROBE_SECONDS)
        error = None if message is None else message.error()
        return None if error is None else error.str()


def _fetched(messages: Sequence[Any], position: int, damaged: Sequence[Damaged]) -> Fetched:
    if not messages:
        return Fetched(_NOTHING, (), (), None, _NOTHING, position, damaged)
    headers, count = list(map(_MESSAGE.headers, messages)), len(messages)
    return Fetched(
        offsets=np.fromiter(map(_MESSAGE.offset, messages), np.int64, count),
        values=list(map(_MESSAGE.value, messages)),
        keys=list(map(_MESSAGE.key, messages)),
        headers=[tuple((n, v or b"") for n, v in h or ()) for h in headers] if any(headers) else None,
        timestamps=micros(np.fromiter((millis for _, millis in map(_MESSAGE.timestamp, messages)), np.int64, count)),
        position=position,
        damaged=damaged,
    )


def micros(millis: Int64s) -> Int64s:
    """Milliseconds as microseconds; -1, which stands for no time, stays."""
    return np.where(millis < 0, -1, millis * 1_000)


class ConfluentLooker:
    """See `TopicLooker`."""

    def __init__(self, cluster: Cluster, isolation: str) -> None:
        self._troubles = Troubles()
        self._isolation = (
            IsolationLevel.READ_COMMITTED if isolation == "read_committed" else IsolationLevel.READ_UNCOMMITTED
        )
        self._admin = AdminClient(client_settings(cluster, self._troubles))

    def topics(self, seconds: float) -> Mapping[str, int]:
        found = self._metadata(seconds).topics
        return {name: len(topic.partitions) for name, topic in found.items() if topic.error is None}

    def ends(self, topic: str, partitions: int, seconds: float) -> list[Ends | None]:
        firsts = self._offsets(topic, partitions, _SPEC.earliest(), seconds)
        lasts = self._offsets(topic, partitions, _SPEC.latest(), seconds)
        return [
            None if first is None or last is None else Ends(first, max(first, last))
            for first, last in zip(firsts, lasts, strict=True)
        ]

    def offsets_at(self, topic: str, partitions: int, millis: int, seconds: float) -> list[int | None]:
        found = self._offsets(topic, partitions, _SPEC.for_timestamp(millis), seconds)
        lasts = self._offsets(topic, partitions, _SPEC.latest(), seconds)
        return [
            last if offset is not None and offset < 0 else offset for offset, last in zip(found, lasts, strict=True)
        ]

    def close(self) -> None:
        """Nothing to do: the connections go with the object."""

    def _offsets(self, topic: str, partitions: int, spec: OffsetSpec, seconds: float) -> list[int | None]:
        places = {TopicPartition(topic, partition): spec for partition in range(partitions)}
        answers = self._admin.list_offsets(places, isolation_level=self._isolation, request_timeout=seconds)
        found: dict[int, int | None] = {}
        for place, answer in answers.items():
            try:
                found[place.partition] = answer.result().offset
            except KafkaException as error:
                LOG.debug("asking for offsets of %s: %s", place, error)
                found[place.partition] = None
        self._admin.poll(0)
        self._troubles.raise_refusal()
        return [found[partition] for partition in range(partitions)]

    def _metadata(self, seconds: float) -> Any:
        """What the brokers say of the cluster; asked again and again, since a refusal is only told in between."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self._admin.list_topics(timeout=min(0.5, seconds))
            except KafkaException as error:
                self._admin.poll(0)
                self._troubles.raise_refusal()
                if time.monotonic() >= deadline:
                    raise UnreachableError(self._troubles.latest() or error.args[0].str()) from error


class ConfluentCommitter:
    """See `GroupCommitter`."""

    def __init__(self, settings: ReadSettings) -> None:
        self._topic = settings.topic
        self._consumer = Consumer(
            {
                **client_settings(settings.cluster, Troubles()),
                "group.id": settings.group,
                "enable.auto.commit": False,
            }
        )

    def commit(self, offsets: Mapping[int, int]) -> None:
        places = [TopicPartition(self._topic, partition, offset) for partition, offset in offsets.items()]
        try:
            answers = self._consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            raise CommitError(error.args[0].str()) from error
        failed = [f"partition {each.partition}: {each.error}" for each in answers if each.error is not None]
        if failed:
            raise CommitError("; ".join(failed))

    def close(self) -> None:
        self._consumer.close()
