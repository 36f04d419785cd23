"""Sending messages through either client."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from io_connectors.delivery import Message, OnRetry, Refused, UndeliveredError
from io_connectors.kafka.clients import RefusedError, UnreachableError
from io_connectors.kafka.security import how_to_get_in
from io_connectors.kafka.seldom import Seldom
from io_connectors.kafka.settings import WriteSettings
from io_connectors.retry import Backoff
from transforms.errors import UserError

LOG = logging.getLogger(__name__)
#: Seconds for which a client tries by itself to deliver a message.
GIVE_UP_AFTER = 120


class Failed(NamedTuple):
    """A message that was not delivered.

    Attributes:
        at: its place among what was sent.
        error: why not.
        for_good: whether the broker refuses it, or a message that was packed together with it.
    """

    at: int
    error: Exception
    for_good: bool


class Producer(Protocol):
    """An open connection that sends, each message once however often the network fails (an idempotent producer)."""

    def send(self, messages: Sequence[Message]) -> list[Failed]:
        """Deliver messages to the topic; returns when every replica in sync has them, with those that failed.

        Raises:
            RefusedError: the brokers let nobody in.
        """

    def close(self) -> None:
        """Let go of the connection, and of what it could not deliver."""


def open_producer(settings: WriteSettings, on_retry: OnRetry) -> Producer:
    """A connection that sends to the topic of the settings.

    Raises:
        UserError: credentials are missing.
        UnreachableError, RefusedError: no broker answers, or it lets nobody in.
    """
    if settings.cluster.client == "confluent":
        from io_connectors.kafka.confluent_producer import ConfluentProducer

        return ConfluentProducer(settings, on_retry)
    from io_connectors.kafka.kafka_python_producer import KafkaPythonProducer

    return KafkaPythonProducer(settings, on_retry)


class GaveUpError(Exception):
    """A client has given up on some messages; another attempt may do better."""


class KafkaWriter:
    """See `MessageWriter`.

    Args:
        settings: where to.
        on_retry: as of `MessageSink.open`.
        backoff: between attempts, each with a connection of its own.
    """

    def __init__(self, settings: WriteSettings, on_retry: OnRetry, backoff: Backoff | None = None) -> None:
        self._settings = settings
        self._tell = on_retry
        self._backoff = backoff or Backoff()
        self._seldom = Seldom(LOG)
        self._producer: Producer | None = None

    def write(self, messages: Sequence[Message]) -> Sequence[Refused]:
        try:
            return self._backoff.call(lambda: self._attempt(messages), _may_pass, self._on_retry)
        except (GaveUpError, UnreachableError) as error:
            # Some may have arrived; which, nobody can tell, and readers know a repetition by its key.
            undelivered = [Refused(at, "kafka_unavailable", str(error)) for at in range(len(messages))]
            raise UndeliveredError(undelivered) from error

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close()

    def _on_retry(self, error: Exception) -> None:
        self._tell(error)
        self._seldom.warn(
            "writing to %s of %s: %s; will try again", self._settings.topic, self._settings.cluster.brokers, error
        )

    def _attempt(self, messages: Sequence[Message]) -> list[Refused]:
        try:
            if self._producer is None:
                self._producer = open_producer(self._settings, self._on_retry)
            return send(self._producer, messages)
        except RefusedError as error:
            self.close()
            cluster = self._settings.cluster
            raise UserError(f"kafka://{cluster.brokers}: {error}; {how_to_get_in(cluster, error.what)}") from error
        except Exception:
            self.close()  # what is still in it would be sent beside what is sent again
            raise


def _may_pass(error: Exception) -> bool:
    return isinstance(error, GaveUpError | UnreachableError)


def send(producer: Producer, messages: Sequence[Message]) -> list[Refused]:
    """Send messages; those that are refused together are sent again one by one, to find out which it is.

    Raises:
        GaveUpError: the client has given up.
    """
    refused: list[Refused] = []
    for failed in _refusals(producer.send(messages)):
        alone = _refusals(producer.send([messages[failed.at]]))
        refused += [Refused(failed.at, "refused_by_broker", f"the broker refuses it: {one.error}") for one in alone]
    return refused


def _refusals(failures: list[Failed]) -> list[Failed]:
    """Failures, all of them for good."""
    for failed in failures:
        if not failed.for_good:
            raise GaveUpError(f"{len(failures)} messages were not delivered: {failed.error}") from failed.error
    return failures
