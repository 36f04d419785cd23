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
        columns: of the messages; see `decision_messages`.
    """

    settings: WriteSettings
    columns: tuple[str, ...] | None = None

    def open(self, on_retry: OnRetry) -> BatchWriter:
        return _DecisionWriter(KafkaSink(self.settings).open(on_retry), self.columns)


class _DecisionWriter:
    def __init__(self, writer: MessageWriter, columns: tuple[str, ...] | None) -> None:
        self._writer, self._columns = writer, columns

    def write(self, batch: TransactionBatch) -> Sequence[Refused]:
        return self._writer.write(decision_messages(batch, self._columns))

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
    return KafkaDecisionSink(_checked(url), url.names("columns"))


def _checked(url: ConnectorUrl) -> WriteSettings:
    settings = write_settings(url)
    check_topic(settings.cluster, settings.topic)
    return settings
