from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest

from io_connectors.retry import Backoff
from io_connectors.sql.dialects import POSTGRESQL, Dialect
from io_connectors.sql.faults import Fault
from io_connectors.sql.names import TableName
from io_connectors.sql.statements import Target
from io_connectors.sql.tables import Found
from io_connectors.sql.writer import Table, TableWriter
from transforms.batch import TransactionBatch, from_rows
from transforms.errors import UserError

COLUMNS = [
    Found("transaction_id", "text", None, False),
    Found("event_time", "timestamp with time zone", None, False),
    Found("customer_id", "character varying", 5, False),
    Found("terminal_id", "text", None, False),
    Found("amount_minor", "bigint", None, False),
    Found("is_fraud", "smallint", None, False),
    Found("late", "boolean", None, False),
]
LEDGER = [Found("batch_id", "text", None, True), Found("rows", "bigint", None, True)]
TABLE = TableName("public", "decisions")


class AwayError(Exception):
    """It will be back."""


class SpoiltError(Exception):
    """Some row is not taken."""


class DeniedError(Exception):
    """We may not."""


@dataclass
class Memory:
    """A database that takes all ids but some, and fails first as often as it is told."""

    bad: Sequence[str] = ()
    failures: list[Exception] = field(default_factory=list)
    tables: dict[TableName, list[Found]] = field(default_factory=lambda: {TABLE: COLUMNS, TABLE.ledger: LEDGER})
    held: list[str] = field(default_factory=list)
    loads: int = 0
    looks: int = 0
    executed: list[str] = field(default_factory=list)

    @property
    def dialect(self) -> Dialect:
        return POSTGRESQL

    def columns(self, table: TableName) -> list[Found]:
        self.looks += 1
        return self.tables.get(table, [])

    def has_unique_key(self, table: TableName) -> bool:
        return True

    def execute(self, statements: Sequence[str]) -> None:
        self.executed += statements
        if self.failures:
            raise self.failures.pop(0)
        self.tables = {TABLE: COLUMNS, TABLE.ledger: LEDGER}

    def load(self, values: pa.RecordBatch, target: Target) -> None:
        self.loads += 1
        if self.failures:
            raise self.failures.pop(0)
        ids = values.column("transaction_id").to_pylist()
        if set(ids) & set(self.bad):
            raise SpoiltError("card 4111111111111111 is not taken")
        self.held += ids

    def fault(self, error: Exception) -> Fault:
        faults = {AwayError: Fault.TRANSIENT, SpoiltError: Fault.DATA, DeniedError: Fault.REFUSED}
        return faults.get(type(error), Fault.FINAL)

    def reason(self, error: Exception) -> tuple[str, str]:
        return "spoilt", str(error)

    def close(self) -> None:
        """Nothing is held."""


def writer_of(database: Memory, retries: list[Exception] | None = None, create: bool = False) -> TableWriter:
    on_retry = (retries if retries is not None else []).append
    return TableWriter(database, Table(TABLE, create=create), Backoff(sleep=lambda seconds: None), on_retry)


def batch_of(ids: Sequence[str], customer: str = "c") -> TransactionBatch:
    return from_rows({"transaction_id": i, "event_time": 0, "amount_minor": 1, "customer_id": customer} for i in ids)


def test_spoilt_rows_are_found_by_halves() -> None:
    """In about as many attempts for each as the batch can be halved, and with card numbers masked."""
    ids = [str(n) for n in range(1024)]
    database = Memory(bad=["3", "700"])
    refused = writer_of(database).write(batch_of(ids))
    assert [(each.at, each.reason) for each in refused] == [(3, "spoilt"), (700, "spoilt")]
    assert refused[0].error == "card ************1111 is not taken"
    assert sorted(database.held, key=int) == [i for i in ids if i not in database.bad]
    assert database.loads <= 2 * 2 * 10 + 1


def test_rows_refused_before_and_by_the_database_keep_their_places() -> None:
    """The places are those in the batch that was given, whatever was left out before."""
    database = Memory(bad=["d"])
    batch = batch_of(["a\0", "b", "c\0", "d", "e"])
    assert [(each.at, each.reason) for each in writer_of(database).write(batch)] == [
        (0, "nul_character"),
        (2, "nul_character"),
        (3, "spoilt"),
    ]
    assert database.held == ["b", "e"]


def test_nothing_is_sent_of_a_batch_that_is_all_bad() -> None:
    """Nor of one that is empty."""
    database = Memory()
    assert len(writer_of(database).write(batch_of(["a\0", "b\0"]))) == 2
    assert writer_of(database).write(batch_of([])) == []
    assert database.loads == 0


def test_the_length_of_text_is_looked_up_in_the_table() -> None:
    """Where its column has a limit."""
    refused = writer_of(Memory()).write(batch_of(["a"], customer="sixsix"))
    assert refused[0].reason == "text_too_long"


def test_what_may_go_away_is_tried_again_and_told() -> None:
    """And what will not is raised."""
    retries: list[Exception] = []
    database = Memory(failures=[AwayError(), AwayError()])
    assert writer_of(database, retries).write(batch_of(["a"])) == []
    assert (len(retries), database.held) == (2, ["a"])
    with pytest.raises(ZeroDivisionError):
        writer_of(Memory(failures=[ZeroDivisionError()])).write(batch_of(["a"]))


def test_a_table_is_looked_at_once_for_each_set_of_columns() -> None:
    """And again after something went wrong: somebody may have changed it."""
    database = Memory()
    writer = writer_of(database)
    for _ in range(3):
        writer.write(batch_of(["a"]))
    assert database.looks == 2  # the table and its ledger
    database.failures = [DeniedError("permission denied for table decisions")]
    with pytest.raises(UserError, match=r"PostgreSQL: table public\.decisions: permission denied"):
        writer.write(batch_of(["b"]))
    writer.write(batch_of(["b"]))
    assert database.looks == 4


def test_what_is_missing_is_created_when_asked_for() -> None:
    """The table and the ledger, or the ledger alone; without being asked nothing is."""
    database = Memory(tables={})
    writer_of(database, create=True).write(batch_of(["a"]))
    assert [statement.split(" (")[0] for statement in database.executed] == [
        'CREATE TABLE IF NOT EXISTS "public"."decisions"',
        'CREATE TABLE IF NOT EXISTS "public"."decisions_batches"',
    ]
    database = Memory(tables={TABLE: COLUMNS})
    writer_of(database, create=True).write(batch_of(["a"]))
    assert len(database.executed) == 1
    with pytest.raises(UserError, match="Add create=true"):
        writer_of(Memory(tables={})).write(batch_of(["a"]))


def test_a_worker_that_creates_too_late_goes_on() -> None:
    """Another one has created the tables meanwhile; if none has, the error stands."""

    class Slow(Memory):
        def execute(self, statements: Sequence[str]) -> None:
            self.tables = {TABLE: COLUMNS, TABLE.ledger: LEDGER}
            raise SpoiltError("duplicate key value violates unique constraint of the catalogue")

    assert writer_of(Slow(tables={}), create=True).write(batch_of(["a"])) == []
    with pytest.raises(ZeroDivisionError):
        writer_of(Memory(tables={}, failures=[ZeroDivisionError()]), create=True).write(batch_of(["a"]))


def test_a_batch_of_many_columns_is_written_in_one_load() -> None:
    """Halving is for batches that are spoilt."""
    database = Memory()
    writer_of(database).write(batch_of([str(n) for n in np.arange(5_000)]))
    assert database.loads == 1
