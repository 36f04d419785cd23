"""Writing to a topic: messages, or decisions as messages.

A message's key is its id, so a reader knows a repetition by its key, and a topic that is compacted keeps one of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from io_connectors.decision_json import decision_messages
from io_connectors.delivery import BatchWriter, MessageWriter, OnRetry, Refused
from io_connectors.kafka.check import check_topic
from io_connectors.kafka.producers import KafkaWriter
from io_connectors.kafka.settings import WriteSettings, write_settings
from io_connectors.urls import ConnectorUrl
from transforms.batch import TransactionBatch

_PIECE_ROWS = 10_000  # columns of text that fit the processor's cache are twice as fast


@dataclass(frozen=True)
class KafkaSink:
    """See `MessageSink`.

    Attributes:
        settings: where to.
    """

    settings: WriteSettings

    def open(self, on_retry: OnRetry) -> MessageWriter:
        return KafkaWriter(self.settings, on_retry)


@dataclass(frozen=True)
class KafkaDecisionSink:
    """See `BatchSink`: a message for every decision.

    Attributes:
        settings: where to.
    """

    settings: WriteSettings

    def open(self, on_retry: OnRetry) -> BatchWriter:
        return _DecisionWriter(KafkaSink(self.settings).open(on_retry))


class _DecisionWriter:
    def __init__(self, writer: MessageWriter) -> None:
        self._writer = writer

    def write(self, batch: TransactionBatch) -> Sequence[Refused]:
        pieces = map(decision_messages, batch.pieces(_PIECE_ROWS))
        return self._writer.write([message for piece in pieces for message in piece])

    def close(self) -> None:
        self._writer.close()


def kafka_sink(url: ConnectorUrl) -> KafkaSink:
    """The sink of messages that a URL names.

    Raises:
        UserError: something in the URL is wrong, no broker answers, or there is no such topic.
    """
    return KafkaSink(_checked(url))


def kafka_decision_sink(url: ConnectorUrl) -> KafkaDecisionSink:
    """The sink of decisions that a URL names; it raises as `kafka_sink`."""
    return KafkaDecisionSink(_checked(url))


def _checked(url: ConnectorUrl) -> WriteSettings:
    settings = write_settings(url)
    check_topic(settings.cluster, settings.topic)
    return settings
