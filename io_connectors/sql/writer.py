"""Write batches into a table: find it fit, leave out what it never takes, and try again what failed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from io_connectors.delivery import OnRetry, Refused
from io_connectors.retry import Backoff
from io_connectors.sql.columns import KEY
from io_connectors.sql.dialects import Dialect
from io_connectors.sql.faults import Fault
from io_connectors.sql.layouts import Rows, rows_of
from io_connectors.sql.names import TableName
from io_connectors.sql.refusals import refuse
from io_connectors.sql.statements import Target, create_ledger, create_table
from io_connectors.sql.tables import Found, check_ledger, check_table, missing_table
from transforms.batch import TransactionBatch
from transforms.card_numbers import mask_card_numbers
from transforms.errors import UserError

Result = TypeVar("Result")

LOG = logging.getLogger(__name__)
_MOST_ERROR = 500  # characters of a database's own words that a dead letter keeps


class Database(Protocol):
    """A connection that is made when it is needed, and again when it was lost."""

    @property
    def dialect(self) -> Dialect:
        """How it is spoken to."""

    def columns(self, table: TableName) -> Sequence[Found]:
        """The columns of a table in their order; none when it is not there."""

    def has_unique_key(self, table: TableName) -> bool:
        """Whether the database itself keeps two rows of one transaction apart."""

    def execute(self, statements: Sequence[str]) -> None:
        """Run statements in one transaction."""

    def load(self, values: pa.RecordBatch, target: Target) -> None:
        """Write a batch in one transaction; when it returns, the batch is durable."""

    def fault(self, error: Exception) -> Fault:
        """What an error of one of the above means."""

    def reason(self, error: Exception) -> tuple[str, str]:
        """Why a row was refused: a short code, and the database's own words."""

    def close(self) -> None:
        """Let go of the connection."""


@dataclass(frozen=True)
class Table:
    """What a URL says of the table.

    Attributes:
        name: of it.
        layout: of its columns, one of `LAYOUTS`.
        existing: what becomes of rows that are there, one of `EXISTING`.
        create: whether it is created when it is not there.
    """

    name: TableName
    layout: str = "decisions"
    existing: str = "keep"
    create: bool = False


@dataclass(frozen=True)
class _Fit:
    """A table that was found to take batches of some columns, and how long its texts may be."""

    target: Target
    longest: dict[str, int]


@dataclass
class TableWriter:
    """A `BatchWriter` of one table."""

    database: Database
    table: Table
    backoff: Backoff
    on_retry: OnRetry
    _fits: dict[pa.Schema, _Fit] = field(default_factory=dict)

    def write(self, batch: TransactionBatch) -> list[Refused]:
        """Write a batch; those of its rows that can never be written are returned.

        Raises:
            UserError: the table is not there or does not fit, or the database does not let us in.
            Exception: the database is out of reach.
        """
        if len(batch) == 0:
            return []
        rows = rows_of(batch.rows, self.table.layout, self.database.dialect.json_lists)
        try:
            return self._write(rows)
        except Exception as error:
            self._fits.clear()  # the table may have been changed: the next attempt looks at it again
            if self.database.fault(error) is Fault.REFUSED:
                words = self.database.reason(error)[1]
                raise UserError(f"{self.database.dialect.name}: table {self.table.name.plain}: {words}") from error
            raise

    def close(self) -> None:
        """Let go of the connection."""
        self.database.close()

    def _write(self, rows: Rows) -> list[Refused]:
        fit = self._fits.get(rows.values.schema)
        if fit is None:
            fit = self._fits[rows.values.schema] = self._try(lambda: self._look(rows))
        refused = refuse(rows, fit.longest, self.database.dialect.counts_bytes)
        places = np.delete(np.arange(rows.values.num_rows), [each.at for each in refused])
        good = rows.values.take(pa.array(places)) if refused else rows.values
        return sorted([*refused, *self._load(good, places, fit.target)])

    def _load(self, values: pa.RecordBatch, places: np.ndarray[Any, Any], target: Target) -> list[Refused]:
        """Load rows, in halves when one of them spoils the whole; `places` are theirs in the batch."""
        if values.num_rows == 0:
            return []
        try:
            self._try(lambda: self.database.load(values, target))
        except Exception as error:
            if self.database.fault(error) is not Fault.DATA:
                raise
            if values.num_rows == 1:
                reason, words = self.database.reason(error)
                return [Refused(int(places[0]), reason, mask_card_numbers(words)[:_MOST_ERROR])]
        else:
            return []
        half = values.num_rows // 2
        return [
            *self._load(values.slice(0, half), places[:half], target),
            *self._load(values.slice(half), places[half:], target),
        ]

    def _look(self, rows: Rows) -> _Fit:
        """Find the table fit to take such rows, or create it where that is asked for."""
        database, name = self.database, self.table.name
        found, ledger = database.columns(name), database.columns(name.ledger)
        if self.table.create and not (found and ledger):
            self._create(rows, missing=not found)
            found, ledger = database.columns(name), database.columns(name.ledger)
        if not found:
            raise missing_table(database.dialect, name)
        target = self._target(rows, locked=not database.has_unique_key(name))
        check_table(target, found)
        check_ledger(target, ledger)
        return _Fit(target, {column.name: column.longest for column in found if column.longest is not None})

    def _create(self, rows: Rows, missing: bool) -> None:
        """Create the ledger, and the table where it is `missing`."""
        target, name = self._target(rows, locked=True), self.table.name
        statements = [create_table(target, distribution_key(rows.values))] if missing else []
        try:
            self.database.execute([*statements, create_ledger(target)])
        except Exception:
            if not (self.database.columns(name) and self.database.columns(name.ledger)):
                raise
            return  # another worker was quicker
        LOG.info("%s: created what was missing of %s and %s", target.dialect.name, name.plain, name.ledger.plain)

    def _target(self, rows: Rows, locked: bool) -> Target:
        return Target(self.database.dialect, self.table.name, rows.columns, self.table.existing, locked)

    def _try(self, action: Callable[[], Result]) -> Result:
        return self.backoff.call(action, lambda error: self.database.fault(error) is Fault.TRANSIENT, self.on_retry)


def distribution_key(values: pa.RecordBatch) -> str:
    """The column by which a database of many nodes spreads rows: the customer, where rows have one.

    Example:
        >>> distribution_key(pa.record_batch({"transaction_id": ["t1"], "customer_id": pa.nulls(1, pa.string())}))
        'transaction_id'
    """
    known = "customer_id" in values.schema.names and values.column("customer_id").null_count < values.num_rows
    return "customer_id" if known else KEY
