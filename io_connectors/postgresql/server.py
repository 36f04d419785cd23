"""A PostgreSQL server: connect, look at tables, load a batch in one transaction, tell what an error means."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa

from io_connectors.postgresql.binary_copy import binary_copy
from io_connectors.sql.columns import KEY, PLACE
from io_connectors.sql.dialects import POSTGRESQL, Dialect
from io_connectors.sql.faults import Fault, fault_of_state
from io_connectors.sql.names import TableName
from io_connectors.sql.statements import Target
from io_connectors.sql.tables import Found

Connection = psycopg.Connection[Any]

_CHUNK = 1 << 20  # bytes handed to the socket at once
#: Classes of SQLSTATE after which a connection is as good as before.
_HARMLESS = frozenset(("22", "23", "40", "42", "54", "55"))

#: The unique indexes that keep rows of one key apart. One with a condition or with further columns does not.
_UNIQUE_KEYS = """
SELECT index.relname FROM pg_index
JOIN pg_class AS index ON index.oid = indexrelid
JOIN pg_class AS indexed ON indexed.oid = indrelid
JOIN pg_namespace ON pg_namespace.oid = indexed.relnamespace
JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
WHERE nspname = %(schema)s AND indexed.relname = %(table)s AND attname = %(key)s
AND indisunique AND indisvalid AND indpred IS NULL AND indnkeyatts = 1
"""


@dataclass
class PostgresqlDatabase:
    """A `Database` of the writer; `connect` opens a connection that commits each statement by itself."""

    connect: Callable[[], Connection]
    _connection: Connection | None = None
    _unique: frozenset[str] = frozenset()

    @property
    def dialect(self) -> Dialect:
        """PostgreSQL's."""
        return POSTGRESQL

    def columns(self, table: TableName) -> list[Found]:
        """See `Database`."""
        values = {"schema": table.schema, "table": table.name}
        return [Found(*row) for row in self._connected().execute(POSTGRESQL.catalogue, values)]

    def has_unique_key(self, table: TableName) -> bool:
        """See `Database`."""
        values = {"schema": table.schema, "table": table.name, "key": KEY}
        keys = {row[0] for row in self._connected().execute(_UNIQUE_KEYS, values)}
        values = {"schema": table.schema, "table": table.ledger.name, "key": "batch_id"}
        batches = {row[0] for row in self._connected().execute(_UNIQUE_KEYS, values)}
        self._unique = frozenset(keys | batches)
        return bool(keys)

    def execute(self, statements: Sequence[str]) -> None:
        """See `Database`."""
        connection = self._connected()
        with connection.transaction():
            for statement in statements:
                connection.execute(statement)

    def load(self, values: pa.RecordBatch, target: Target) -> None:
        """See `Database`. The batch's id depends on its content alone, so it is known when it comes again.

        Rows are merged in the order of their keys: writers of the same rows wait for each other, and not in a circle.
        """
        place = pa.array(np.arange(values.num_rows, dtype=np.int32))
        content = binary_copy(values.append_column(PLACE, place).sort_by(KEY)).data
        head = repr(target.columns).encode()
        batch_id = hashlib.blake2b(content, digest_size=16, key=hashlib.blake2b(head).digest()).hexdigest()
        bound = {"batch_id": batch_id, "rows": values.num_rows}
        try:
            connection = self._connected()
            with connection.transaction():
                self._write(connection, content, target, bound)
        except psycopg.Error as error:
            if (error.sqlstate or "")[:2] not in _HARMLESS:
                self.close()
            raise

    def _write(self, connection: Connection, content: memoryview, target: Target, bound: dict[str, Any]) -> None:
        for statement in target.before:
            connection.execute(statement)
        load = f"COPY {target.stage} ({target.staged_columns}) FROM STDIN (FORMAT BINARY)"
        with connection.cursor() as cursor, cursor.copy(load) as copy:
            for start in range(0, len(content), _CHUNK):
                copy.write(content[start : start + _CHUNK])
        for statement in target.after:
            connection.execute(statement, bound)

    def fault(self, error: Exception) -> Fault:
        """See `Database`. Two writers of one row meet at its unique index; the one that fails tries again."""
        if not isinstance(error, psycopg.Error):
            return Fault.FINAL
        if error.sqlstate is None:
            lost = isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
            return Fault.TRANSIENT if lost else Fault.FINAL
        if error.sqlstate == "23505" and error.diag.constraint_name in self._unique:
            return Fault.TRANSIENT
        return fault_of_state(error.sqlstate)

    def reason(self, error: Exception) -> tuple[str, str]:
        """See `Database`."""
        state = error.sqlstate if isinstance(error, psycopg.Error) else None
        words = error.diag.message_primary if isinstance(error, psycopg.Error) else None
        return f"sqlstate_{state}", words or "the database gave no reason"

    def close(self) -> None:
        """See `Database`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self.connect()
        return self._connection
