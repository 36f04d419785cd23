"""The sink of decisions that a `dynamodb:` URL names."""

from __future__ import annotations

from dataclasses import dataclass, field

from botocore.config import Config

from io_connectors.aws import client_of
from io_connectors.delivery import OnRetry
from io_connectors.dynamodb.calls import insert, replace
from io_connectors.dynamodb.table import Table, make_ready
from io_connectors.dynamodb.writer import ItemWriter
from io_connectors.retry import Backoff
from io_connectors.urls import ConnectorUrl

#: Rows that are there stay, or are written over.
EXISTING = ("keep", "replace")


@dataclass(frozen=True)
class DynamoDbSink:
    """Decisions as items, one a transaction, keyed by `transaction_id`.

    The URL is `dynamodb://table`, with `region` and `endpoint` as every AWS connector has them, and

    - `existing`: `keep` (the first write of a transaction stands) or `replace` (the last does);
    - `ttl`, such as `90d`: items get `expires_at`, that long after their event time, and DynamoDB removes them then;
    - `create=true`: the table is made when there is none, billed by request, with point-in-time recovery;
    - `capacity`: of a table that is made: `ondemand`, or read and write units such as `5:100`;
    - `concurrency`: calls at once from each writer, 8 unless given.

    Either way the same rows may be written any number of times, in any cuts. Permissions needed: DescribeTable,
    PutItem, and PartiQLInsert to keep, BatchWriteItem to replace; with `ttl` DescribeTimeToLive; to create
    also CreateTable, UpdateTimeToLive and UpdateContinuousBackups.

    Attributes:
        url: as parsed.
        table: what it says of the table.
        existing: likewise, one of `EXISTING`.
        ttl: likewise, in microseconds.
        concurrency: likewise.
        backoff: how often a call is made again.
    """

    url: ConnectorUrl
    table: Table
    existing: str = "keep"
    ttl: int | None = None
    concurrency: int = 8
    backoff: Backoff = field(default_factory=Backoff)

    def open(self, on_retry: OnRetry) -> ItemWriter:
        """Connect, and find the table fit or make it so.

        Raises:
            UserError: there is no such table, or not one like this.
        """
        # Items are made of types here and need not be checked for them again: that would take half of the time.
        config = Config(max_pool_connections=self.concurrency, parameter_validation=False)
        client = client_of(self.url, "dynamodb", config)
        try:
            make_ready(client, self.table, self.backoff, on_retry)
        except BaseException:
            client.close()
            raise
        keep = self.existing == "keep"
        call = insert if keep else replace
        return ItemWriter(client, self.table.name, call, keep, self.ttl, self.concurrency, self.backoff, on_retry)


def dynamodb_sink(url: ConnectorUrl) -> DynamoDbSink:
    """The sink a URL names.

    Raises:
        UserError: a parameter that cannot be, no name of a table, no region.

    Example:
        >>> dynamodb_sink(ConnectorUrl("dynamodb", "decisions", {"region": "eu-west-1", "ttl": "1d"})).ttl
        86400000000
    """
    ttl = url.duration("ttl", least=1_000_000)
    create = url.choice("create", ("true", "false"), default="false") == "true"
    table = Table(url.path, ttl is not None, create, url.parameters.get("capacity", "ondemand"))
    table.check()
    sink = DynamoDbSink(
        url, table, url.choice("existing", EXISTING, default="keep"), ttl, url.integer("concurrency", 8, least=1)
    )
    client_of(url, "dynamodb").close()  # a region that is nowhere to be found is known before anything is read
    return sink
