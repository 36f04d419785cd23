"""What the tests of Kafka share: a broker behind a proxy, and all that a topic holds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from confluent_kafka import Consumer, KafkaError, TopicPartition

from runners.local import Kafka, free_port
from tests.integration.faults import TcpFaultProxy

#: Attempts of kafka-python to connect that fail leave their sockets to the garbage collector.
LEFT_SOCKETS = "ignore:.*<(socket.socket|ssl.SSLSocket):pytest.PytestUnraisableExceptionWarning"


@dataclass(frozen=True)
class ProxiedKafka(Kafka):
    """A broker that sends its clients to an address that is not its own.

    Attributes:
        advertised: that address.
    """

    name: ClassVar[str] = "kafka-proxied"
    advertised: str = ""

    def _properties(self) -> list[str]:
        ours, theirs = (
            f"advertised.listeners=CLIENT://{self.address}",
            f"advertised.listeners=CLIENT://{self.advertised}",
        )
        return [theirs if line == ours else line for line in super()._properties()]


@contextmanager
def proxied(directory: Path) -> Iterator[tuple[ProxiedKafka, TcpFaultProxy]]:
    """A broker that is only spoken to through a proxy."""
    port = free_port()
    with TcpFaultProxy("127.0.0.1", port) as proxy:
        kafka = ProxiedKafka(directory, port, "{}:{}".format(*proxy.address)).start()
        try:
            yield kafka, proxy
        finally:
            kafka.stop()


def held(bootstrap: str, topic: str, partitions: int) -> list[Any]:
    """Every committed message of a topic, in the order of each partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "tests",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    found: list[Any] = []
    ended: set[int | None] = set()
    deadline = time.monotonic() + 30
    while len(ended) < partitions:
        assert time.monotonic() < deadline, f"the end of {topic} was not reached"
        for message in consumer.consume(10_000, 0.1):
            error = message.error()
            if error is None:
                found.append(message)
            else:
                assert error.code() == KafkaError._PARTITION_EOF
                ended.add(message.partition())
    consumer.close()
    return found
