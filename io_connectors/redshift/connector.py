"""Statements through `redshift_connector`: a connection to the warehouse, made when it is needed."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import redshift_connector
from redshift_connector.error import Error as DriverError

from io_connectors.aws import error_code, is_transient
from io_connectors.redshift.faults import fault_of
from io_connectors.sql.credentials import Credentials
from io_connectors.sql.faults import Fault
from transforms.errors import UserError

Values = Mapping[str, str | int]

#: The client remembers every statement it has seen, and each batch has one of its own.
_MOST_TRANSACTIONS = 1_000
_REFUSED = ("authentication failed", "Server refuses SSL", "CERTIFICATE_VERIFY_FAILED", "no password was provided")


class Endpoint(NamedTuple):
    """Where a warehouse listens, and who we are to it."""

    host: str
    port: int
    credentials: Credentials


def cluster_endpoint(
    client: Any, cluster: str, database: str, user: str | None, secret: Credentials | None
) -> Endpoint:
    """The endpoint of a cluster, with temporary credentials unless a secret has some.

    Args:
        client: of boto3, `redshift`.
        cluster, database: their names.
        user: of the database; None: the one that stands for our IAM identity.
        secret: credentials that are there already.

    Raises:
        UserError: the cluster has no endpoint yet.
    """
    found = client.describe_clusters(ClusterIdentifier=cluster)["Clusters"][0].get("Endpoint")
    if not found or "Address" not in found:
        raise UserError(f"Redshift: cluster {cluster} has no endpoint; is it being made, or paused?")
    if secret is None:
        which = {"ClusterIdentifier": cluster, "DbName": database, "DurationSeconds": 900}
        given = (
            client.get_cluster_credentials(DbUser=user, AutoCreate=False, **which)
            if user
            else client.get_cluster_credentials_with_iam(**which)
        )
        secret = Credentials(given["DbUser"], given["DbPassword"])
    return Endpoint(found["Address"], found["Port"], secret)


def workgroup_endpoint(client: Any, workgroup: str, database: str, secret: Credentials | None) -> Endpoint:
    """The endpoint of a serverless workgroup; see `cluster_endpoint`.

    Args:
        client: of boto3, `redshift-serverless`.
        workgroup, database: their names.
        secret: credentials that are there already.
    """
    found = client.get_workgroup(workgroupName=workgroup)["workgroup"]["endpoint"]
    if secret is None:
        given = client.get_credentials(workgroupName=workgroup, dbName=database, durationSeconds=900)
        secret = Credentials(given["dbUser"], given["dbPassword"])
    return Endpoint(found["address"], found["port"], secret)


def host_endpoint(host: str, port: int, user: str | None, secret: Credentials | None) -> Endpoint:
    """An endpoint that is named outright; without a secret, user and password are those of PGUSER and PGPASSWORD.

    Raises:
        UserError: there is no user.
    """
    if secret is None:
        secret = Credentials(user or os.environ.get("PGUSER"), os.environ.get("PGPASSWORD"))
    if not secret.user:
        raise UserError("Redshift: host= needs the database's user: give user=, secret=, or set PGUSER")
    return Endpoint(host, port, secret)


def connect(endpoint: Endpoint, database: str, sslmode: str, timeout: float) -> Any:
    """Open a connection.

    Args:
        endpoint: where to, and as who.
        database: its name.
        sslmode: `disable`, `verify-ca` or `verify-full`.
        timeout: seconds after which the server gives up a statement, and a little later we the server.

    Raises:
        UserError: the server does not let us in.
        Exception: it is out of reach.
    """
    user, password = endpoint.credentials
    try:
        connection = redshift_connector.connect(
            host=endpoint.host,
            port=endpoint.port,
            database=database,
            user=user,
            password=password,
            ssl=sslmode != "disable",
            sslmode=None if sslmode == "disable" else sslmode,
            timeout=int(timeout) + 30,
            tcp_keepalive=True,
            application_name="fraud-detection",
            max_prepared_statements=0,  # tables of one name are made and dropped again: no plan outlives them
        )
    except Exception as error:
        words = _words(error)
        if any(known in words for known in _REFUSED):
            raise UserError(f"Redshift at {endpoint.host}: {words}") from error
        raise
    with connection.cursor() as cursor:
        cursor.execute(f"SET statement_timeout TO {int(timeout * 1000)}")
    connection.commit()
    return connection


@dataclass
class Connector:
    """Runs statements for the writer.

    Attributes:
        open: makes a connection.
    """

    open: Callable[[], Any]
    _connection: Any = None
    _transactions: int = 0

    def run(self, statements: Sequence[str], values: Values) -> None:
        """Run statements in one transaction.

        Args:
            statements: in their order.
            values: by the names that statements have in their place.

        Raises:
            Exception: one failed, or the connection was lost; nothing or all of it was done.
        """
        self._in_transaction(statements, values)

    def query(self, statement: str, values: Values) -> list[tuple[Any, ...]]:
        """What a query gives.

        Raises:
            Exception: as for `run`.
        """
        return [tuple(row) for row in self._in_transaction([statement], values)]

    def fault(self, error: Exception) -> Fault:
        """What an error of `run` or `query` means."""
        if isinstance(error, DriverError):
            state = _state(error)
            # Without a state it is the client who speaks, of a connection that is not there any more.
            return fault_of(state, _words(error)) if state else Fault.TRANSIENT
        if isinstance(error, (OSError, struct.error, EOFError)) or is_transient(error):
            return Fault.TRANSIENT
        return Fault.REFUSED if error_code(error) else Fault.FINAL

    def reason(self, error: Exception) -> tuple[str, str]:
        """A short code for an error, and the words of whoever made it."""
        return f"sqlstate_{_state(error)}" if _state(error) else "redshift_error", _words(error)

    def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        stream = connection._sock
        for close in (connection.close, stream.close):  # the driver leaves a connection open that the server has lost
            with suppress(DriverError, OSError):
                close()

    def _in_transaction(self, statements: Sequence[str], values: Values) -> Sequence[Any]:
        if self._connection is None or self._transactions >= _MOST_TRANSACTIONS:
            self.close()
            self._connection, self._transactions = self.open(), 0
        self._transactions += 1
        try:
            with self._connection.cursor() as cursor:
                cursor.paramstyle = "named"
                for statement in statements:
                    named = {name: value for name, value in values.items() if f":{name}" in statement}
                    cursor.execute(statement, named or None)
                rows = cursor.fetchall() if cursor.description else ()
            self._connection.commit()
        except BaseException:
            self.close()  # whatever was begun is rolled back with it
            raise
        return rows


def _state(error: Exception) -> str:
    """An error's SQLSTATE; empty when the server has not said so."""
    told = error.args[0] if error.args else None
    return str(told.get("C", "")) if isinstance(told, dict) else ""


def _words(error: Exception) -> str:
    told = error.args[0] if error.args else None
    return str(told.get("M", "")) if isinstance(told, dict) else str(error)
