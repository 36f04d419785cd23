"""Sending through kafka-python."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from kafka import KafkaProducer
from kafka.errors import (
    InvalidRecordError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
)

from io_connectors.delivery import Message, OnRetry
from io_connectors.kafka.diagnose import diagnose
from io_connectors.kafka.kafka_python import REFUSED, client_settings, refusal
from io_connectors.kafka.producers import GIVE_UP_AFTER, Failed
from io_connectors.kafka.settings import WriteSettings

_FOR_GOOD = (MessageSizeTooLargeError, InvalidRecordError, PolicyViolationError, RecordListTooLargeError)


CONNECT_MILLIS = 60_000  # a broker that is being started again is waited for


class KafkaPythonProducer:
    """See `Producer`. What it does again by itself it keeps to itself: `on_retry` is not called."""

    def __init__(self, settings: WriteSettings, on_retry: OnRetry) -> None:
        self._settings = settings
        self._producer: Any = _connect(settings)

    def send(self, messages: Sequence[Message]) -> list[Failed]:
        if self._producer is None:
            self._producer = _connect(self._settings)
        waiting, failed = [], []
        for at, message in enumerate(messages):
            headers = [(name, value.encode()) for name, value in message.attributes]
            key = message.id.encode()
            try:
                waiting.append((at, self._producer.send(self._settings.topic, message.body, key, headers)))
            except MessageSizeTooLargeError as error:
                failed.append(Failed(at, error, True))
        for at, future in waiting:  # flush() would not do: it loses patience with batches that had to be split
            try:
                future.get()
            except REFUSED as error:
                raise refusal(error) from error
            except KafkaError as error:
                failed.append(Failed(at, error, isinstance(error, _FOR_GOOD)))
        if failed:
            self.close()  # once the broker has refused something, an idempotent producer fails all that comes after
        return failed

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaError):  # raised when it still holds messages, which are given up here
                producer.close(timeout=1.0)


def _connect(settings: WriteSettings) -> Any:
    try:
        return KafkaProducer(
            **client_settings(settings.cluster),
            enable_idempotence=True,
            acks="all",
            compression_type=None if settings.compression == "none" else settings.compression,
            linger_ms=5,
            batch_size=1 << 18,
            delivery_timeout_ms=GIVE_UP_AFTER * 1000,
            bootstrap_timeout_ms=CONNECT_MILLIS,
            allow_auto_create_topics=False,
        )
    except REFUSED as error:
        raise refusal(error) from error
    except KafkaError as error:
        raise diagnose(settings.cluster, str(error)) from error
