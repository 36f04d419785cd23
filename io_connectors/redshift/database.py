"""Redshift as the writer of tables knows a database: a batch goes to S3, and from there in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from io_connectors.redshift.staging import Staging, copy_statement
from io_connectors.sql.dialects import REDSHIFT, Dialect
from io_connectors.sql.faults import Fault
from io_connectors.sql.names import TableName
from io_connectors.sql.statements import Target
from io_connectors.sql.tables import Found


class Channel(Protocol):
    """A way to have statements run: the Data API, or a connection."""

    def run(self, statements: Sequence[str], values: Mapping[str, str | int]) -> None:
        """Run statements in one transaction."""

    def query(self, statement: str, values: Mapping[str, str | int]) -> list[tuple[Any, ...]]:
        """What a query gives."""

    def fault(self, error: Exception) -> Fault:
        """What an error means."""

    def reason(self, error: Exception) -> tuple[str, str]:
        """A short code for an error, and the words of whoever made it."""

    def close(self) -> None:
        """Let go of it."""


@dataclass
class RedshiftDatabase:
    """A `Database` of the writer.

    Attributes:
        channel: runs statements.
        staging: where batches lie in S3.
        role: that Redshift takes on to read them.
    """

    channel: Channel
    staging: Staging
    role: str

    @property
    def dialect(self) -> Dialect:
        """Redshift's."""
        return REDSHIFT

    def columns(self, table: TableName) -> list[Found]:
        """See `Database`."""
        rows = self.channel.query(REDSHIFT.catalogue, {"schema": table.schema, "table": table.name})
        return [Found(str(row[0]), str(row[1]), None if row[2] is None else int(row[2]), bool(row[3])) for row in rows]

    def has_unique_key(self, table: TableName) -> bool:
        """Never: Redshift knows of keys, and does not see to them. Writers have to wait for each other."""
        return False

    def execute(self, statements: Sequence[str]) -> None:
        """See `Database`."""
        self.channel.run(statements, {})

    def load(self, values: pa.RecordBatch, target: Target) -> None:
        """See `Database`."""
        staged = self.staging.put(values)
        statements = [*target.before, copy_statement(target, staged.manifest, self.role), *target.after]
        self.channel.run(statements, {"batch_id": staged.batch_id, "rows": values.num_rows})

    def fault(self, error: Exception) -> Fault:
        """See `Database`."""
        return self.channel.fault(error)

    def reason(self, error: Exception) -> tuple[str, str]:
        """See `Database`."""
        return self.channel.reason(error)

    def close(self) -> None:
        """See `Database`."""
        self.channel.close()
        self.staging.putter.client.close()
