"""The sink of decisions that a `redshift:` URL names."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from io_connectors.aws import client_of
from io_connectors.delivery import OnRetry
from io_connectors.redshift.database import RedshiftDatabase
from io_connectors.redshift.staging import Staging, is_plain_prefix, is_role
from io_connectors.redshift.warehouse import SSLMODES, WAYS, Warehouse
from io_connectors.retry import Backoff
from io_connectors.s3.objects import Location, Putter, parse_location, s3_client
from io_connectors.sql.credentials import is_loopback
from io_connectors.sql.dialects import REDSHIFT
from io_connectors.sql.layouts import LAYOUTS
from io_connectors.sql.names import table_name
from io_connectors.sql.statements import EXISTING
from io_connectors.sql.writer import Table, TableWriter
from io_connectors.urls import ConnectorUrl
from transforms.errors import UserError

FORM = "redshift://cluster/database/schema/table?staging=s3://bucket/prefix&role=arn:aws:iam::ACCOUNT:role/NAME"
_URL = re.compile(
    r"(?P<name>[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?)/(?P<database>[^/]+)/(?P<schema>[^/]+)/(?P<table>[^/]+)"
)
_DEFAULT_PORT = 5439
_QUARTER = 900_000_000  # of an hour, in microseconds


@dataclass(frozen=True)
class RedshiftSink:
    """Decisions as rows of a table of Redshift, one a transaction.

    The URL is `redshift://cluster/database/schema/table`, with

    - `staging=s3://bucket/prefix`: where batches lie for COPY; the bucket must be in Redshift's own region. Objects
      stay there: give the prefix an expiry of some days;
    - `role`: ARN of the role that Redshift takes on to read them, or `default`;
    - `serverless=true`: the first name is a workgroup's;
    - `via`: `data-api` (calls of AWS, which need no way into the network) or `connector` (a connection);
    - `user`, or `secret` (ARN of a secret of AWS Secrets Manager): as whom; without either as the database user of our
      own IAM identity;
    - `host`, `port` and `sslmode` (`verify-full` unless told otherwise) of a connection to a named host;
    - `region` and `endpoint` as every AWS connector has them; `create`, `existing` and `layout` as for `postgresql:`;
    - `statement_timeout`, such as `15m`.

    A batch costs seconds whatever it holds, so batches should be large.

    Attributes:
        warehouse: how it is reached.
        table: where rows go.
        staging: where batches lie in S3.
        role: see above.
        backoff: how often a transaction is tried again.
    """

    warehouse: Warehouse
    table: Table
    staging: Location
    role: str
    backoff: Backoff = field(default_factory=Backoff)

    def open(self, on_retry: OnRetry) -> TableWriter:
        """A writer; a connection is made when it is given the first batch."""
        putter = Putter(s3_client(self.warehouse.url), None, self.backoff, on_retry)
        channel = self.warehouse.channel(self.backoff)
        database = RedshiftDatabase(channel, Staging(self.staging, putter), self.role)
        return TableWriter(database, self.table, self.backoff, on_retry)


def redshift_sink(url: ConnectorUrl) -> RedshiftSink:
    """The sink a URL names.

    Raises:
        UserError: a part of it cannot be, or is missing.

    Example:
        >>> role = "arn:aws:iam::123456789012:role/load"
        >>> parameters = {"staging": "s3://fraud/staging", "role": role, "region": "eu-west-1"}
        >>> redshift_sink(ConnectorUrl("redshift", "warehouse/dev/public/decisions", parameters)).warehouse.way
        'data-api'
    """
    match = _URL.fullmatch(url.path)
    if not match:
        raise UserError(f"{url}: write {FORM}")
    table = Table(
        table_name(match["schema"], match["table"], REDSHIFT.longest_name),
        url.choice("layout", tuple(LAYOUTS), default="decisions"),
        url.choice("existing", EXISTING, default="keep"),
        url.choice("create", ("true", "false"), default="false") == "true",
    )
    host = url.parameters.get("host")
    loopback = host is not None and is_loopback(host)
    warehouse = Warehouse(
        url=url,
        name=match["name"],
        serverless=url.choice("serverless", ("true", "false"), default="false") == "true",
        database=unquote(match["database"]),
        way=url.choice("via", WAYS, default="data-api"),
        user=url.parameters.get("user"),
        secret=url.parameters.get("secret"),
        host=host,
        port=url.integer("port", _DEFAULT_PORT, least=1),
        sslmode=url.choice("sslmode", SSLMODES, default="disable" if loopback else "verify-full"),
        timeout=(url.duration("statement_timeout", _QUARTER, least=1_000_000) or _QUARTER) / 1e6,
    )
    sink = RedshiftSink(warehouse, table, _staging_of(url), _role_of(url))
    _check_warehouse(warehouse)
    s3_client(url).close()  # an endpoint that is none is known before anything is read
    return sink


def _staging_of(url: ConnectorUrl) -> Location:
    text = url.parameters.get("staging", "")
    if not text.startswith("s3://"):
        raise UserError(f"{url}: staging must be s3://bucket/prefix, where batches lie for COPY; found {text!r}")
    location = parse_location(text.removeprefix("s3://"))
    if not is_plain_prefix(location.prefix):
        raise UserError(f"{url}: the prefix in staging may have letters, digits and any of !_.*()/=+-; found {text!r}")
    return location


def _role_of(url: ConnectorUrl) -> str:
    role = url.parameters.get("role", "")
    if not is_role(role):
        raise UserError(
            f"{url}: role must be the ARN of the role that Redshift takes on to read from S3, "
            f"arn:aws:iam::ACCOUNT:role/NAME, or default; found {role!r}"
        )
    return role


def _check_warehouse(warehouse: Warehouse) -> None:
    url = warehouse.url
    if warehouse.way == "data-api":
        for name in ("host", "port", "sslmode"):
            if name in url.parameters:
                raise UserError(f"{url}: {name}= is of a connection: add via=connector, or leave it out")
        client_of(url, "redshift-data").close()  # a region that is nowhere to be found is known now
    elif not warehouse.host:
        for name in ("port",):
            if name in url.parameters:
                raise UserError(f"{url}: {name}= goes with host=; AWS knows it otherwise")
        client_of(url, "redshift").close()
    elif warehouse.sslmode == "disable" and not is_loopback(warehouse.host):
        raise UserError(f"{url}: sslmode=disable would send passwords and decisions as they are over a network")
    if warehouse.user and warehouse.secret:
        raise UserError(f"{url}: a secret names its user; give user= or secret=, not both")
    if warehouse.user and warehouse.serverless and not warehouse.host:
        raise UserError(f"{url}: a workgroup knows its users by their IAM identity or a secret; leave user= out")
