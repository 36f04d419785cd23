"""How a warehouse of Redshift is reached: through AWS's Data API, or by a connection."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Any

from io_connectors.aws import client_of
from io_connectors.redshift.connector import (
    Connector,
    Endpoint,
    cluster_endpoint,
    connect,
    host_endpoint,
    workgroup_endpoint,
)
from io_connectors.redshift.data_api import DataApi
from io_connectors.redshift.database import Channel
from io_connectors.retry import Backoff
from io_connectors.sql.credentials import secret_credentials
from io_connectors.urls import ConnectorUrl

WAYS = ("data-api", "connector")
SSLMODES = ("disable", "verify-ca", "verify-full")


@dataclass(frozen=True)
class Warehouse:
    """How a warehouse is reached.

    Attributes:
        url: for the parameters of AWS.
        name: of the cluster, or of the workgroup where it is `serverless`.
        database: in it.
        way: one of `WAYS`.
        user, secret: as whom; without either as the user of our IAM identity.
        host, port: of a connection that asks AWS for neither.
        sslmode: of a connection, one of `SSLMODES`.
        timeout: after which a statement is given up, in seconds.
    """

    url: ConnectorUrl
    name: str
    serverless: bool
    database: str
    way: str
    user: str | None
    secret: str | None
    host: str | None
    port: int
    sslmode: str
    timeout: float

    def channel(self, backoff: Backoff) -> Channel:
        """A way to have statements run."""
        if self.way == "connector":
            return Connector(self.connect)
        return DataApi(client_of(self.url, "redshift-data"), self.where(), self.timeout, backoff)

    def where(self) -> dict[str, str]:
        """What tells the Data API the warehouse, the database and the user."""
        name = "WorkgroupName" if self.serverless else "ClusterIdentifier"
        known = {name: self.name, "Database": self.database, "DbUser": self.user, "SecretArn": self.secret}
        return {key: value for key, value in known.items() if value is not None}

    def connect(self) -> Any:
        """Open a connection, with credentials made for it."""
        return connect(self._endpoint(), self.database, self.sslmode, self.timeout)

    def _endpoint(self) -> Endpoint:
        aws = self.url.parameters
        secret = (
            secret_credentials(self.secret, self.user, aws.get("region"), aws.get("endpoint")) if self.secret else None
        )
        if self.host:
            return host_endpoint(self.host, self.port, self.user, secret)
        with closing(client_of(self.url, "redshift-serverless" if self.serverless else "redshift")) as client:
            if self.serverless:
                return workgroup_endpoint(client, self.name, self.database, secret)
            return cluster_endpoint(client, self.name, self.database, self.user, secret)
