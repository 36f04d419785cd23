"""The statements of the one transaction that writes a batch, and those that create its tables."""

# ruff: noqa: S608 - names are checked and quoted, values are bound
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from io_connectors.sql.columns import KEY, PLACE, Column
from io_connectors.sql.dialects import Dialect
from io_connectors.sql.names import TableName, quoted

#: Rows that are there stay, or are written over.
EXISTING = ("keep", "replace")


@dataclass(frozen=True)
class Target:
    """Where batches of some columns go.

    Attributes:
        dialect: of the database.
        table: that is merged into; its ledger is `table.ledger`.
        columns: of a batch.
        existing: one of `EXISTING`.
        locked: whether writers wait for each other. Without it a unique index on the key must keep rows apart:
            of two writers of one row the second fails, tries again, and then finds the row there.
    """

    dialect: Dialect
    table: TableName
    columns: tuple[Column, ...]
    existing: str
    locked: bool

    @cached_property
    def stage(self) -> str:
        """The staging table, quoted. Its name depends on its columns, which a session may have several of."""
        return quoted(f"staged_{blake2b(repr(self.columns).encode(), digest_size=8).hexdigest()}")

    @property
    def staged_columns(self) -> str:
        """The staging table's columns in their order."""
        return _names([*(column.name for column in self.columns), PLACE])

    @cached_property
    def before(self) -> Sequence[str]:
        """What precedes the load: the lock, first so that all after it sees what the last writer did, and the stage."""
        dialect = self.dialect
        declared = [f"{quoted(column.name)} {dialect.staged[column.kind]}" for column in self.columns]
        stage = f"{self.stage} ({', '.join([*declared, f'{quoted(PLACE)} integer'])})"
        return [
            *([dialect.lock.format(self.table)] if self.locked else []),
            f"CREATE TEMPORARY TABLE IF NOT EXISTS {stage} ON COMMIT DELETE ROWS"
            if dialect.stage_lives
            else f"CREATE TEMPORARY TABLE {stage}",
        ]

    @cached_property
    def after(self) -> Sequence[str]:
        """What follows the load. Two values are bound: `batch_id` and `rows`."""
        keep = self.existing == "keep"
        return [
            *([self._remove_known_batch()] if keep else []),
            self._remove_duplicates(),
            *([self._remove_present()] if keep and not self.dialect.keeps_in_merge else []),
            *([] if self.locked else [_USE_INDEX]),
            self._merge(),
            self._record(),
            *([] if self.dialect.stage_lives else [f"DROP TABLE {self.stage}"]),
        ]

    def _remove_known_batch(self) -> str:
        """A batch that the ledger holds is passed over, unless someone has emptied the table since."""
        ledger, table, key = self.table.ledger, self.table, quoted(KEY)
        return (
            f"DELETE FROM {self.stage} USING {ledger}, {table} "
            f'WHERE {quoted(ledger.name)}."batch_id" = {self.dialect.value("batch_id")} '
            f"AND {quoted(table.name)}.{key} = (SELECT MIN({key}) FROM {self.stage})"
        )

    def _remove_duplicates(self) -> str:
        """Of several rows of one transaction that one stays which would if each came in a batch of its own."""
        key, place = quoted(KEY), quoted(PLACE)
        stays = "MIN" if self.existing == "keep" else "MAX"
        repeated = f"FROM {self.stage} GROUP BY {key} HAVING COUNT(*) > 1"
        return (
            f"DELETE FROM {self.stage} WHERE {key} IN (SELECT {key} {repeated}) "
            f"AND {place} NOT IN (SELECT {stays}({place}) {repeated})"
        )

    def _remove_present(self) -> str:
        key = quoted(KEY)
        return f"DELETE FROM {self.stage} USING {self.table} WHERE {self.stage}.{key} = {quoted(self.table.name)}.{key}"

    def _merge(self) -> str:
        key, values = quoted(KEY), {quoted(column.name): self._staged_value(column) for column in self.columns}
        updates = ", ".join(f"{name} = {value}" for name, value in values.items() if name != key)
        leave = self.existing == "keep" and self.dialect.keeps_in_merge
        return (
            f"MERGE INTO {self.table} USING {self.stage} ON {quoted(self.table.name)}.{key} = {self.stage}.{key} "
            f"WHEN MATCHED THEN {'DO NOTHING' if leave else f'UPDATE SET {updates}'} "
            f"WHEN NOT MATCHED THEN INSERT ({', '.join(values)}) VALUES ({', '.join(values.values())})"
        )

    def _staged_value(self, column: Column) -> str:
        value = f"{self.stage}.{quoted(column.name)}"
        return f"{value} AT TIME ZONE 'UTC'" if self.dialect.staged[column.kind] == "timestamp" else value

    def _record(self) -> str:
        ledger, batch, rows = self.table.ledger, self.dialect.value("batch_id"), self.dialect.value("rows")
        return (
            f'INSERT INTO {ledger} ("batch_id", "rows") '
            f"SELECT CAST({batch} AS VARCHAR(32)), CAST({rows} AS BIGINT) "
            f'FROM (SELECT COUNT(*) AS known FROM {ledger} WHERE "batch_id" = {batch}) AS counted '
            f"WHERE counted.known = 0"
        )


#: The staging table has no statistics, so the planner might take the whole target for a join with a few rows.
_USE_INDEX = "SELECT set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)"


def create_table(target: Target, distribution: str) -> str:
    """The statement that creates the target's table, unless it is there.

    Args:
        target: whose columns it gets.
        distribution: the column by which rows are spread over nodes, where there are nodes.
    """
    lines = [_declared(target.dialect, column) for column in target.columns]
    columns = ",\n".join(f"    {line}" for line in [*lines, f"PRIMARY KEY ({quoted(KEY)})"])
    table = f"CREATE TABLE IF NOT EXISTS {target.table} (\n{columns}\n)"
    if not target.dialect.encodings:
        return table
    sorted_by = next(column.name for column in target.columns if column.kind == "time" or column.name == "time")
    return f"{table}\nDISTSTYLE KEY DISTKEY ({quoted(distribution)})\nSORTKEY ({quoted(sorted_by)})"


def _declared(dialect: Dialect, column: Column) -> str:
    words = [quoted(column.name), dialect.types[column.kind]]
    if column.name == KEY:
        words.append("NOT NULL")
    if dialect.encodings:
        words.append(f"ENCODE {dialect.encodings.get(column.name) or dialect.encodings[column.kind]}")
    return " ".join(words)


def create_ledger(target: Target) -> str:
    """The statement that creates the table of batches, unless it is there."""
    return (
        f"CREATE TABLE IF NOT EXISTS {target.table.ledger} (\n"
        '    "batch_id" varchar(32) NOT NULL PRIMARY KEY,\n    "rows" bigint NOT NULL,\n'
        f'    "loaded_at" {target.dialect.now}\n)'
    )


def add_columns(target: Target, names: Sequence[str]) -> list[str]:
    """The statements that add columns of the target which its table lacks."""
    types = {column.name: target.dialect.types[column.kind] for column in target.columns}
    return [f"ALTER TABLE {target.table} ADD COLUMN {quoted(name)} {types[name]}" for name in names]


def _names(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names))
