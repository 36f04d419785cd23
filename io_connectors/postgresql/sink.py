"""The sink of decisions that a `postgresql:` URL names."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import psycopg

from io_connectors.delivery import OnRetry
from io_connectors.postgresql.server import Connection, PostgresqlDatabase
from io_connectors.retry import Backoff
from io_connectors.sql.credentials import Credentials, is_loopback, secret_credentials
from io_connectors.sql.dialects import POSTGRESQL
from io_connectors.sql.layouts import LAYOUTS
from io_connectors.sql.names import table_name
from io_connectors.sql.statements import EXISTING
from io_connectors.sql.writer import Table, TableWriter
from io_connectors.urls import ConnectorUrl
from transforms.errors import UserError

FORM = "postgresql://user@host:port/database/schema/table"
SSLMODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
_URL = re.compile(
    r"(?:(?P<user>[^@/]+)@)?(?:\[(?P<ipv6>[0-9a-fA-F:.]+)\]|(?P<host>[^:@/\[\]]+))(?::(?P<port>\d{1,5}))?"
    r"/(?P<database>[^/]+)/(?P<schema>[^/]+)/(?P<table>[^/]+)"
)
_DEFAULT_PORT = 5432
_LEAST_VERSION = 150_000  # the first with MERGE
_MINUTE = 60_000_000  # microseconds
#: What is said of a connection that was refused for good. Only the text tells it from a server that is away.
_REFUSALS = (
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",  # a role, a database, a file with certificates
    "permission denied",
    "certificate",
    "does not support SSL",
)
#: A connection whose other side is gone without a word is found dead within a minute.
_KEEPALIVES: dict[str, Any] = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


@dataclass(frozen=True)
class Server:
    """How a server is reached.

    Attributes:
        host, port, database: where.
        user: as whom; None: as the secret or the environment (PGUSER) says.
        sslmode: as libpq knows it; `sslrootcert` is a file with the certificates that are trusted.
        secret: a secret of AWS Secrets Manager with user name and password.
        iam: whether the password is a token of AWS, made for each connection.
        region, endpoint: of AWS, as for `io_connectors.aws.client`.
        statement_timeout: after which the server gives up a statement, in microseconds.
    """

    host: str
    port: int
    database: str
    user: str | None
    sslmode: str
    sslrootcert: str | None = None
    secret: str | None = None
    iam: bool = False
    region: str | None = None
    endpoint: str | None = None
    statement_timeout: int = _MINUTE

    def connect(self) -> Connection:
        """Open a connection.

        Raises:
            UserError: the server does not let us in, or is too old.
            psycopg.OperationalError: it is out of reach.
        """
        user, password = self._credentials()
        try:
            connection = psycopg.connect(
                host=self.host,
                port=self.port,
                dbname=self.database,
                user=user,
                password=password,
                sslmode=self.sslmode,
                sslrootcert=self.sslrootcert,
                connect_timeout=10,
                application_name="fraud-detection",
                autocommit=True,
                prepare_threshold=None,  # the plan of a small batch would be kept for large ones
                **_KEEPALIVES,
            )
        except psycopg.OperationalError as error:
            if any(words in str(error) for words in _REFUSALS):
                raise UserError(f"PostgreSQL at {self.host}: {str(error).strip()}; {_HELP}") from error
            raise
        if connection.info.server_version < _LEAST_VERSION:
            version = connection.info.parameter_status("server_version")
            connection.close()
            raise UserError(f"PostgreSQL at {self.host} is {version}; MERGE needs version 15 or later")
        self._set_up(connection)
        return connection

    def _set_up(self, connection: Connection) -> None:
        """What a pooler would refuse among the parameters of a connection is said afterwards."""
        settings = {
            "statement_timeout": f"{self.statement_timeout // 1000}ms",
            "idle_in_transaction_session_timeout": "60s",
            "TimeZone": "UTC",
            "jit": "off",  # statements of milliseconds are not worth compiling
        }
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, false)", [name, value])

    def _credentials(self) -> Credentials:
        if self.secret:
            return secret_credentials(self.secret, self.user, self.region, self.endpoint)
        return Credentials(self.user, self.token() if self.iam else None)

    def token(self) -> str:
        """A password that AWS takes for a quarter of an hour.

        Raises:
            UserError: no region is known.
        """
        from io_connectors.aws import client

        rds = client("rds", self.region, self.endpoint)
        try:
            token: str = rds.generate_db_auth_token(self.host, self.port, self.user)
        finally:
            rds.close()
        return token


_HELP = (
    "passwords are taken from PGPASSWORD, from the file that PGPASSFILE names, or with secret= or iam=true from AWS; "
    "encryption is set with sslmode= and sslrootcert="
)


@dataclass(frozen=True)
class PostgresqlSink:
    """Decisions as rows of a table of PostgreSQL 15 or later, RDS and Aurora among them, one a transaction.

    The URL is `postgresql://user@host:port/database/schema/table`, with

    - `create=true`: the table and its ledger are created when they are not there;
    - `existing`: `keep` (the first write of a transaction stands) or `replace` (the last does);
    - `layout`: `decisions` (all columns) or `kaggle` (`time`, `v1` to `v28`, `amount`, `class`, `transaction_id`);
    - `sslmode` and `sslrootcert` as libpq knows them: unless told otherwise `verify-full` where `sslrootcert` is
      given, `prefer` on this machine, and `require` elsewhere;
    - `secret`: ARN of a secret of AWS Secrets Manager, or `iam=true` for RDS's own tokens; `region` and `endpoint`
      are AWS's. Without either the password is libpq's affair (PGPASSWORD, PGPASSFILE);
    - `statement_timeout`, such as `60s`.

    Attributes:
        server: how it is reached.
        table: where rows go.
        backoff: how often a transaction is tried again.
    """

    server: Server
    table: Table
    backoff: Backoff = field(default_factory=Backoff)

    def open(self, on_retry: OnRetry) -> TableWriter:
        """A writer; it connects when it is given the first batch."""
        return TableWriter(PostgresqlDatabase(self.server.connect), self.table, self.backoff, on_retry)


def postgresql_sink(url: ConnectorUrl) -> PostgresqlSink:
    """The sink a URL names.

    Raises:
        UserError: a part of it cannot be.

    Example:
        >>> postgresql_sink(ConnectorUrl("postgresql", "fraud@db.example.com/fraud/public/decisions")).server.sslmode
        'require'
    """
    match = _URL.fullmatch(url.path)
    if not match:
        raise UserError(f"{url}: write {FORM}; user@ and :port may be left out")
    table = Table(
        table_name(match["schema"], match["table"], POSTGRESQL.longest_name),
        url.choice("layout", tuple(LAYOUTS), default="decisions"),
        url.choice("existing", EXISTING, default="keep"),
        url.choice("create", ("true", "false"), default="false") == "true",
    )
    host = match["ipv6"] or match["host"]
    root = url.parameters.get("sslrootcert")
    safest = "verify-full" if root else "prefer" if is_loopback(host) else "require"
    server = Server(
        host=host,
        port=int(match["port"] or _DEFAULT_PORT),
        database=unquote(match["database"]),
        user=unquote(match["user"]) if match["user"] else None,
        sslmode=url.choice("sslmode", SSLMODES, default=safest),
        sslrootcert=root,
        secret=url.parameters.get("secret"),
        iam=url.choice("iam", ("true", "false"), default="false") == "true",
        region=url.parameters.get("region"),
        endpoint=url.parameters.get("endpoint"),
        statement_timeout=url.duration("statement_timeout", _MINUTE, least=1_000_000) or _MINUTE,
    )
    _check_credentials(url, server)
    return PostgresqlSink(server, table)


def _check_credentials(url: ConnectorUrl, server: Server) -> None:
    if not 0 < server.port < 65_536:
        raise UserError(f"{url}: there is no port {server.port}")
    if server.secret and server.iam:
        raise UserError(f"{url}: secret= and iam=true are two ways to get a password; give one")
    if not server.iam:
        return
    if server.user is None:
        raise UserError(f"{url}: iam=true needs the database's user: {FORM}?iam=true")
    if server.sslmode in ("disable", "prefer"):
        raise UserError(f"{url}: iam=true sends a token, which must be encrypted: sslmode=require or stricter")
    server.token()  # a region that is nowhere to be found is known before anything is read
