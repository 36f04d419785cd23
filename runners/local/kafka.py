"""Apache Kafka: one broker that is its own controller."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from runners.local.cache import installed
from runners.local.jvm import fetch_jars, java
from runners.local.ports import HOST, free_port
from runners.local.processes import Command
from runners.local.server import Server
from runners.local.tools import run_program
from runners.local.versions import KAFKA, KAFKA_LOGGING
from transforms.errors import UserError

CLUSTER_ID = "ZnJhdWQtZGV0ZWN0aW9uLQ"  # any 16 bytes in base64 will do
#: Kafka, and what its messages get to its log through.
_ARTIFACTS = (f"org.apache.kafka:kafka_2.13:{KAFKA}", f"org.apache.logging.log4j:log4j-slf4j-impl:{KAFKA_LOGGING}")
TOPIC, PARTITIONS = "transaction-events", 3
_SHOWN_WITHIN = 30.0  # seconds

#: One broker keeps one copy of everything, nobody waits for others to join a group, and a broker that was killed is
#: soon believed to be dead: before that it may not come back.
_SETTINGS = """
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
offsets.topic.replication.factor=1
offsets.topic.num.partitions=5
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=5
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
auto.create.topics.enable=false
"""

#: Without a configuration Kafka's logging says nothing but errors.
_LOGGING = """
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c{1}: %m%n
rootLogger.level = WARN
rootLogger.appenderRef.console.ref = console
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = INFO
"""


def _is_shown(admin: AdminClient, topic: str) -> bool:
    shown = admin.list_topics(topic, timeout=10.0).topics[topic]
    return shown.error is None and all(each.leader >= 0 for each in shown.partitions.values())


@dataclass(frozen=True)
class Kafka(Server):
    """A Kafka broker without encryption or authentication, with the topic `transaction-events` of 3 partitions.

    Attributes:
        directory, port: as of every server.
    """

    name: ClassVar[str] = "kafka"
    default_port: ClassVar[int] = 9092

    @property
    def bootstrap(self) -> str:
        """What clients call bootstrap servers."""
        return self.address

    @property
    def url(self) -> str:
        """Of the topic of transactions, as the pipeline takes it."""
        return f"kafka://{self.address}/{TOPIC}"

    @property
    def urls(self) -> Sequence[tuple[str, str]]:
        return [("--source", self.url)]

    def install(self) -> Path:
        return fetch_jars_of_kafka()

    def command(self, installation: Path) -> Command:
        properties = self.directory / "server.properties"
        properties.write_text(_SETTINGS + "\n".join(self._properties()) + "\n", "utf-8")
        properties.chmod(0o600)  # those with authentication hold passwords
        logging = self.directory / "log4j2.properties"
        logging.write_text(_LOGGING, "utf-8")
        if not (self.directory / "data" / "meta.properties").exists():
            self._format(installation, properties)
        # It runs for minutes: the second compiler would use more of them than it ever gave back.
        flags = [f"-Dlog4j2.configurationFile={logging}", "-XX:TieredStopAtLevel=1"]
        argv = java(
            installation, "kafka.Kafka", str(properties), heap="512m", extra=self._classes(installation), flags=flags
        )
        return Command(argv, self.directory)

    def answers(self) -> bool:
        try:
            return bool(self.admin().list_topics(timeout=2.0).brokers)
        except KafkaException:
            return False  # not yet: it is asked again

    def prepare(self) -> None:
        self.create_topic(TOPIC, PARTITIONS)

    def create_topic(self, topic: str, partitions: int, settings: Mapping[str, str] | None = None) -> None:
        """Create a topic, unless it is there.

        Args:
            topic: its name.
            partitions: how many.
            settings: Kafka's own, such as `{"retention.ms": "1000"}`.

        Raises:
            KafkaException: the broker refused.
            UserError: it took the topic and does not show it.
        """
        new = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=dict(settings or {}))
        admin = self.admin()  # kept: a client that is gone answers nothing
        (future,) = admin.create_topics([new]).values()
        try:
            future.result(30.0)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        # The controller has it; the broker, which clients ask, hears of it a moment later.
        deadline = time.monotonic() + _SHOWN_WITHIN
        while not _is_shown(admin, topic):
            if time.monotonic() > deadline:
                raise UserError(
                    f"{self.name}: topic {topic} was created, and is not to be seen {_SHOWN_WITHIN:.0f} s later"
                )
            time.sleep(0.02)

    def admin(self) -> AdminClient:
        """A client that may do everything."""
        return AdminClient({"bootstrap.servers": self.admin_address(), "log_level": 0})

    def admin_address(self) -> str:
        """Where nobody is asked who they are."""
        return self.address

    def _properties(self) -> list[str]:
        """What depends on the ports and the directory."""
        controller = f"{HOST}:{free_port()}"
        return [
            *self._common_properties(controller),
            f"listeners=CLIENT://{self.address},CONTROLLER://{controller}",
            f"advertised.listeners=CLIENT://{self.address}",
            "listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name=CLIENT",
        ]

    def _common_properties(self, controller: str) -> list[str]:
        """The controller's port, any that is free, matters to nobody but the broker itself."""
        return [f"controller.quorum.voters=1@{controller}", f"log.dirs={self.directory / 'data'}"]

    def _classes(self, installation: Path) -> Path | None:
        """A directory with classes that the broker needs on top of its own."""
        return None

    def _format(self, installation: Path, properties: Path) -> None:
        """Give the data directory its identity, which Kafka wants before it starts for the first time."""
        argv = java(installation, "kafka.tools.StorageTool", "format", *self._format_arguments(), heap="128m")
        run_program([*argv, "-t", CLUSTER_ID, "-c", properties], f"preparing {self.directory / 'data'}")

    def _format_arguments(self) -> list[str]:
        return []


def fetch_jars_of_kafka() -> Path:
    """Where Kafka's jars are, once they have been fetched.

    Raises:
        UserError: Java or Maven are missing, or Maven failed.
    """
    return installed(
        "kafka",
        KAFKA,
        lambda directory: fetch_jars(_ARTIFACTS, directory),
        "fetching it with Maven, 43 MB",
    )
