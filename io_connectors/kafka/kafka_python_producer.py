"""Sending through kafka-python."""

from __future__ import annotations

from collections.abc import Sequence
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
from io_connectors.kafka.clients import RefusedError, UnreachableError
from io_connectors.kafka.kafka_python import REFUSED, client_settings
from io_connectors.kafka.producers import GIVE_UP_AFTER, Failed
from io_connectors.kafka.settings import WriteSettings

_FOR_GOOD = (MessageSizeTooLargeError, InvalidRecordError, PolicyViolationError, RecordListTooLargeError)


class KafkaPythonProducer:
    """See `Producer`. What it does again by itself it keeps to itself: `on_retry` is not called."""

    def __init__(self, settings: WriteSettings, on_retry: OnRetry) -> None:
        self._topic = settings.topic
        compression = None if settings.compression == "none" else settings.compression
        try:
            self._producer: Any = KafkaProducer(
                **client_settings(settings.cluster),
                enable_idempotence=True,
                acks="all",
                compression_type=compression,
                linger_ms=5,
                batch_size=1 << 18,
                delivery_timeout_ms=GIVE_UP_AFTER * 1000,
                bootstrap_timeout_ms=10_000,
                allow_auto_create_topics=False,
            )
        except REFUSED as error:
            raise RefusedError(str(error)) from error
        except KafkaError as error:
            raise UnreachableError(str(error)) from error

    def send(self, messages: Sequence[Message]) -> list[Failed]:
        waiting, failed = [], []
        for at, message in enumerate(messages):
            headers = [(name, value.encode()) for name, value in message.attributes]
            try:
                waiting.append((at, self._producer.send(self._topic, message.body, message.id.encode(), headers)))
            except MessageSizeTooLargeError as error:
                failed.append(Failed(at, error, True))
        self._producer.flush()
        for at, future in waiting:
            if future.exception is not None:
                failed.append(Failed(at, future.exception, isinstance(future.exception, _FOR_GOOD)))
        return failed

    def close(self) -> None:
        self._producer.close(timeout=1.0)
