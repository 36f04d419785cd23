"""Sending through confluent-kafka."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from io_connectors.delivery import Message, OnRetry
from io_connectors.kafka.confluent import PATIENCE_SECONDS, Troubles, client_settings
from io_connectors.kafka.producers import GIVE_UP_AFTER, Failed
from io_connectors.kafka.settings import WriteSettings

_FOR_GOOD = (
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_MSG,
    KafkaError.INVALID_RECORD,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.POLICY_VIOLATION,
)
_SERVE_EVERY = 1_000  # messages: the library calls back from its own poll


class ConfluentProducer:
    """See `Producer`."""

    def __init__(self, settings: WriteSettings, on_retry: OnRetry) -> None:
        self._topic = settings.topic
        self._troubles = Troubles(PATIENCE_SECONDS, lambda error: on_retry(KafkaException(error)))
        self._failed: list[tuple[KafkaError, bytes, bytes]] = []
        self._producer = confluent_kafka.Producer(
            {
                **client_settings(settings.cluster, self._troubles),
                "enable.idempotence": True,
                "partitioner": "murmur2_random",  # Kafka's own: a key goes where other clients put it too
                "compression.type": settings.compression,
                "linger.ms": 5,
                "message.timeout.ms": GIVE_UP_AFTER * 1000,
                "queue.buffering.max.messages": 200_000,
                "queue.buffering.max.kbytes": 131_072,
                "on_delivery": self._on_failure,
                "delivery.report.only.error": True,
            }
        )

    def send(self, messages: Sequence[Message]) -> list[Failed]:
        self._failed.clear()
        failed: list[Failed] = []
        produce, topic = self._producer.produce, self._topic
        for first in range(0, len(messages), _SERVE_EVERY):
            self._producer.poll(0)
            for at, message in enumerate(messages[first : first + _SERVE_EVERY], first):
                try:
                    if not message.attributes:  # as nearly all: a call and a list less, a quarter of the cost
                        produce(topic, message.body, message.id)
                        continue
                except (BufferError, KafkaException):  # once more below, which tells what it means
                    pass
                failed += self._queue(at, message)
        while self._producer.flush(0.5):
            self._troubles.raise_refusal()
        self._troubles.raise_refusal()
        return failed + self._placed(messages)

    def close(self) -> None:
        self._producer.purge()
        self._producer.flush(1.0)

    def _queue(self, at: int, message: Message) -> list[Failed]:
        """Hand a message over however long it takes; if it cannot be sent, that."""
        # That there are no headers must not be said: an empty list of them doubles the cost of a message.
        headers = [(name, text.encode()) for name, text in message.attributes]
        more: Any = {"headers": headers} if headers else {}
        while True:
            try:
                self._producer.produce(self._topic, message.body, message.id, **more)
                return []
            except BufferError:  # the library holds as much as it may: wait for the broker
                self._producer.poll(0.1)
                self._troubles.raise_refusal()
            except KafkaException as error:
                return [Failed(at, error, error.args[0].code() in _FOR_GOOD)]

    def _on_failure(self, error: KafkaError, message: Any) -> None:
        self._troubles(error)
        self._failed.append((error, message.key(), message.value()))

    def _placed(self, messages: Sequence[Message]) -> list[Failed]:
        """What failed, by its places: the library tells of a message what is in it."""
        if not self._failed:
            return []
        why = {(key, value): error for error, key, value in self._failed}
        errors = ((at, why.get((message.id.encode(), message.body))) for at, message in enumerate(messages))
        return [Failed(at, KafkaException(e), e.code() in _FOR_GOOD) for at, e in errors if e is not None]
