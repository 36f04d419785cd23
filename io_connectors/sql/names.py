"""Names of tables and columns: checked, then quoted. What has passed the check cannot end a quotation."""

from __future__ import annotations

import re
from dataclasses import dataclass

from transforms.errors import UserError

_NAME = re.compile(r"[a-z_][a-z0-9_$]*", re.ASCII)
LEDGER = "_batches"
#: What a database itself takes. All characters are ASCII, so these are bytes as well.
LONGEST_POSTGRESQL, LONGEST_REDSHIFT = 63, 127


def check_name(name: str, longest: int, what: str) -> str:
    """`name`, when it may name something in a database.

    Args:
        name: of a schema, a table or a column.
        longest: the most characters; databases cut longer names without a word.
        what: is named, for the message.

    Raises:
        UserError: it may not.

    Example:
        >>> check_name("decisions", 63, "table")
        'decisions'
    """
    if not _NAME.fullmatch(name) or len(name) > longest:
        raise UserError(
            f"{what} {name!r}: a name in the database is made of a-z, 0-9, _ and $, begins with a letter or _, "
            f"and has at most {longest} characters"
        )
    return name


def quoted(name: str) -> str:
    """A name as SQL has it, where it means itself even if SQL has a word like it.

    Raises:
        UserError: it is none.

    Example:
        >>> quoted("time")
        '"time"'
    """
    return f'"{check_name(name, LONGEST_REDSHIFT, "column")}"'


@dataclass(frozen=True)
class TableName:
    """A table in a schema.

    Example:
        >>> str(TableName("public", "decisions")), str(TableName("public", "decisions").ledger)
        ('"public"."decisions"', '"public"."decisions_batches"')
    """

    schema: str
    name: str

    def __str__(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def plain(self) -> str:
        """For messages and commands: `schema.table`."""
        return f"{self.schema}.{self.name}"

    @property
    def ledger(self) -> TableName:
        """The table of the batches that were written."""
        return TableName(self.schema, self.name + LEDGER)


def table_name(schema: str, table: str, longest: int) -> TableName:
    """A table whose name, and whose ledger's name, a database takes.

    Raises:
        UserError: it does not.
    """
    check_name(schema, longest, "schema")
    check_name(table, longest - len(LEDGER), "table")
    return TableName(schema, table)
