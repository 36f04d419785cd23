"""Decisions as a run wrote them, read back into one table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.errors import UserError


def read_decisions(place: str, columns: Iterable[str] | None = None, flag: str = "--decisions") -> pa.Table:
    """The rows of Parquet files, those of different columns with nulls where one has none.

    Args:
        place: a directory, looked through with those below it, or a file.
        columns: to read; None for all.
        flag: what the user called it, for errors.

    Raises:
        UserError: there is no such file, it is none of Parquet, or has none of a column.
    """
    path = Path(place)
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{flag} {place}: no *.parquet in it; give the decisions directory of a run's output")
    wanted = None if columns is None else list(dict.fromkeys(columns))
    tables = [_read(file, wanted, flag) for file in files]
    try:
        return pa.concat_tables(tables, promote_options="default")
    except pa.ArrowInvalid as error:
        raise UserError(f"{flag} {place}: its files do not go together: {error}") from error


def _read(file: Path, columns: list[str] | None, flag: str) -> pa.Table:
    try:
        names = pq.read_schema(file).names
        absent = [name for name in columns or () if name not in names]
        if absent:
            raise UserError(f"{flag} {file} has no column {', '.join(absent)}; found {', '.join(names)}")
        return pq.ParquetFile(file).read(columns)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{flag} {file} cannot be read as Parquet: {error}") from error
