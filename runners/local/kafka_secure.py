"""Kafka behind TLS, to which one has to say who one is: with a password, or as MSK's IAM access control wants it."""

from __future__ import annotations

import secrets
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from runners.local.aws_api import CREDENTIALS
from runners.local.certificates import certificates
from runners.local.jvm import compile_java
from runners.local.kafka import TOPIC, Kafka
from runners.local.ports import HOST, free_port
from runners.local.processes import Command

_VALIDATOR = Path(__file__).with_name("SignedUrlValidator.java")
_LOGIN = "org.apache.kafka.common.security"


@dataclass(frozen=True)
class SecureKafka(Kafka):
    """What brokers behind TLS have in common.

    Attributes:
        directory, port: as of every server.
    """

    #: SASL's name of how clients say who they are, and the URL's.
    mechanism: ClassVar[str]
    url_mechanism: ClassVar[str]

    @property
    def ca(self) -> Path:
        """The certificate of the authority that clients have to trust."""
        return self.directory / "certificates" / "ca.pem"

    @property
    def url(self) -> str:
        return f"kafka://{self.address}/{TOPIC}?security=sasl_ssl&mechanism={self.url_mechanism}&ca={self.ca}"

    def admin_address(self) -> str:
        return (self.directory / "administration").read_text("ascii")

    def _properties(self) -> list[str]:
        # Topics are created, and the broker speaks to itself, at a port of its own that wants no password.
        internal, controller = f"{HOST}:{free_port()}", f"{HOST}:{free_port()}"
        (self.directory / "administration").write_text(internal, "ascii")
        client = "listener.name.client"
        return [
            *self._common_properties(controller),
            f"listeners=CLIENT://{self.address},INTERNAL://{internal},CONTROLLER://{controller}",
            f"advertised.listeners=CLIENT://{self.address},INTERNAL://{internal}",
            "listener.security.protocol.map=CLIENT:SASL_SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name=INTERNAL",
            f"{client}.ssl.keystore.type=PEM",
            f"{client}.ssl.keystore.location={certificates(self.directory / 'certificates').server}",
            f"{client}.sasl.enabled.mechanisms={self.mechanism}",
            *(f"{client}.{self.mechanism.lower()}.{line}" for line in self._login()),
        ]

    @abstractmethod
    def _login(self) -> list[str]:
        """Settings of the mechanism."""


@dataclass(frozen=True)
class KafkaScram(SecureKafka):
    """A broker that wants the password of the user `fraud`: SASL_SSL with SCRAM-SHA-512.

    Attributes:
        directory, port: as of every server.
    """

    name: ClassVar[str] = "kafka-scram"
    default_port: ClassVar[int] = 9096
    mechanism: ClassVar[str] = "SCRAM-SHA-512"
    url_mechanism: ClassVar[str] = mechanism
    username: ClassVar[str] = "fraud"

    @property
    def password(self) -> str:
        """Of the user `fraud`."""
        return (self.directory / "password").read_text("ascii")

    @property
    def environment(self) -> Mapping[str, str]:
        return {"KAFKA_USERNAME": self.username, "KAFKA_PASSWORD": self.password}

    def _login(self) -> list[str]:
        return [f"sasl.jaas.config={_LOGIN}.scram.ScramLoginModule required;"]

    def _format_arguments(self) -> list[str]:
        path = self.directory / "password"
        path.touch(0o600)
        path.write_text(secrets.token_urlsafe(24), "ascii")
        return ["--add-scram", f"{self.mechanism}=[name={self.username},password={self.password}]"]


@dataclass(frozen=True)
class KafkaOauth(SecureKafka):
    """A broker that wants what MSK's IAM access control wants: SASL_SSL with OAUTHBEARER and a signed URL as token.

    Attributes:
        directory, port: as of every server.
    """

    name: ClassVar[str] = "kafka-oauth"
    default_port: ClassVar[int] = 9098
    mechanism: ClassVar[str] = "OAUTHBEARER"
    url_mechanism: ClassVar[str] = "AWS_MSK_IAM"

    @property
    def environment(self) -> Mapping[str, str]:
        return CREDENTIALS

    def install(self) -> Path:
        jars = super().install()
        compile_java(_VALIDATOR, jars)
        return jars

    def command(self, installation: Path) -> Command:
        command = super().command(installation)
        return Command(command.argv, command.directory, CREDENTIALS)

    def _classes(self, installation: Path) -> Path | None:
        return compile_java(_VALIDATOR, installation)

    def _login(self) -> list[str]:
        return [
            f"sasl.jaas.config={_LOGIN}.oauthbearer.OAuthBearerLoginModule required;",
            f"sasl.server.callback.handler.class={_VALIDATOR.stem}",
        ]
