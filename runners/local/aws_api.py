"""What servers that speak AWS's protocols have in common: an endpoint, made-up credentials, boto3 clients."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from runners.local.server import Server

REGION = "us-east-1"
#: Known to everybody, and good for nothing but servers that only this machine can reach.
ACCESS_KEY, SECRET_KEY = "local", "local-secret"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
}


@dataclass(frozen=True)
class AwsServer(Server):
    """A server that stands in for services of AWS.

    Attributes:
        directory, port: as of every server.
    """

    #: boto3's names of what it serves.
    services: ClassVar[tuple[str, ...]]

    @property
    def endpoint(self) -> str:
        """What clients call the endpoint URL."""
        return f"http://{self.address}"

    @property
    def environment(self) -> Mapping[str, str]:
        """Credentials, region, and for each service its endpoint: all that AWS's tools and SDKs need."""
        endpoints = {f"AWS_ENDPOINT_URL_{name.upper()}": self.endpoint for name in self.services}
        return {**CREDENTIALS, **endpoints}

    def client(self, service: str = "", **settings: Any) -> Any:
        """A boto3 client that retries nothing.

        Args:
            service: one of `services`; the first, when not given.
            settings: botocore's own, on top of that.
        """
        once = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=60)
        return boto3.session.Session().client(
            service or self.services[0],
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=once.merge(Config(**settings)),
        )

    def answers(self) -> bool:
        try:
            self.ask()
        except (BotoCoreError, ClientError):
            return False  # not yet: it is asked again
        return True

    @abstractmethod
    def ask(self) -> object:
        """Make a call that only works once the server does."""
