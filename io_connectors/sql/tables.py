"""Is the table there, and does it fit what would be written into it? If not: what is to be done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from io_connectors.sql.dialects import Dialect
from io_connectors.sql.names import TableName
from io_connectors.sql.statements import Target, add_columns, create_ledger
from transforms.errors import UserError


class Found(NamedTuple):
    """A column of a table, as the catalogue has it.

    Attributes:
        name: of the column.
        type: of it, in words.
        longest: for text with a limit, that limit.
        must_be_given: whether a row that says nothing of it is refused.
    """

    name: str
    type: str
    longest: int | None
    must_be_given: bool


def missing_table(dialect: Dialect, table: TableName) -> UserError:
    """What to say of a table that is not there."""
    return UserError(
        f"{dialect.name}: there is no table {table.plain} that this user may see. Add create=true to the URL, "
        f"or run what this prints: {dialect.command} --table {table.plain} --model MODEL"
    )


def check_table(target: Target, found: Sequence[Found]) -> None:
    """Refuse a table that does not fit.

    Args:
        target: what would be written, and where.
        found: the table's columns; there is at least one.

    Raises:
        UserError: it lacks columns, has some of another type, or wants values that nobody has.
    """
    place = f"{target.dialect.name}: table {target.table.plain}"
    types = {column.name: column.type for column in found}
    missing = [column.name for column in target.columns if column.name not in types]
    if missing:
        raise UserError(
            f"{place} has no column {', '.join(missing)}, which the decisions have. Add them:\n"
            + _lines(add_columns(target, missing))
        )
    for column in target.columns:
        if types[column.name] not in target.dialect.fits[column.kind]:
            raise UserError(
                f"{place}: column {column.name} is of type {types[column.name]}, "
                f"but what is written there is {target.dialect.types[column.kind]}; change its type, or write elsewhere"
            )
    written = {column.name for column in target.columns}
    wanted = [column.name for column in found if column.must_be_given and column.name not in written]
    if wanted:
        raise UserError(
            f"{place}: column {', '.join(wanted)} is NOT NULL without a default, and the decisions have no such "
            "column; give it a default, or allow NULL"
        )


def check_ledger(target: Target, found: Sequence[Found]) -> None:
    """Refuse to write without a ledger.

    Raises:
        UserError: there is none.
    """
    if {"batch_id", "rows"} - {column.name for column in found}:
        raise UserError(
            f"{target.dialect.name}: there is no table {target.table.ledger.plain} that this user may see, in which "
            f"the batches written to {target.table.plain} are recorded. Add create=true to the URL, or run\n"
            + _lines([create_ledger(target)])
        )


def _lines(statements: Iterable[str]) -> str:
    return "\n".join(f"    {statement};" for statement in statements)
