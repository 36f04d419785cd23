"""Decisions that were written as Parquet, read a day of event time at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from io_connectors.urls import Scheme, parse_url
from transforms.batch import EVENT_TIME
from transforms.durations import DAY
from transforms.errors import UserError

SERVED = {
    "file": Scheme("a run's directory, or a pattern such as output/decisions/*.parquet"),
    "s3": Scheme("bucket/prefix", ("region", "endpoint")),
}
#: Columns without which a file holds no decisions.
NEEDED = ("transaction_id", "event_time", "amount_minor", "late", "score", "model_id", "decision", "reasons")


class Decisions(Protocol):
    """Decisions that can be read again."""

    def day(self, number: int) -> pa.Table | None:
        """Those whose event time lies on a day, counted from 1970-01-01 UTC; None where there are none."""


@dataclass(frozen=True)
class DecisionFiles:
    """Decisions in Parquet files, as `WriteParquet` leaves them; made by `decision_files`.

    Attributes:
        files: their paths.
        schema: the columns of all; a file that lacks one has nulls there.
    """

    files: tuple[str, ...]
    schema: pa.Schema

    def day(self, number: int) -> pa.Table | None:
        """See `Decisions.day`; row groups without the day are not read."""
        start, end = (pa.scalar(at * DAY, pa.int64()).cast(EVENT_TIME) for at in (number, number + 1))
        time = ds.field("event_time")
        files = ds.dataset(self.files, schema=self.schema, format="parquet")
        found = files.to_table(filter=(time >= start) & (time < end), use_threads=False)
        return found if found.num_rows else None


def decision_files(files: Sequence[str | Path], where: str) -> DecisionFiles:
    """The decisions in these files, of which the columns are looked at.

    Args:
        files: Parquet files.
        where: what the user calls them, for messages.

    Raises:
        UserError: there are none, one is no Parquet file, or one holds no decisions.
    """
    paths = tuple(sorted(map(str, files)))
    if not paths:
        raise UserError(f"{where}: there are no Parquet files of decisions; a run writes them to output/decisions")
    try:
        return DecisionFiles(paths, pa.unify_schemas([_columns(path, where) for path in paths]))
    except pa.ArrowException as error:
        raise UserError(f"{where}: a column is not of the same type in all files: {error}") from error


def _columns(path: str, where: str) -> pa.Schema:
    try:
        found = pq.read_schema(path).remove_metadata()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{where}: {path} is no readable Parquet file: {error}") from error
    missing = [name for name in NEEDED if name not in found.names]
    if missing:
        raise UserError(f"{where}: {path} holds no decisions: it has no column {', '.join(missing)}")
    return found


def open_decisions(text: str) -> Decisions:
    """The decisions that `--served` names.

    Args:
        text: a run's directory, its `decisions`, a pattern of Parquet files, or the `s3://bucket/prefix` of a sink.

    Raises:
        UserError: nothing is there, or no decisions.
    """
    url = parse_url(text, SERVED, "--served")
    if url.scheme == "s3":
        from pipelines.replay.decision_objects import decision_objects

        return decision_objects(url)
    return decision_files(files_of(url.path), f"--served {url.path}")


def files_of(path: str) -> list[str]:
    """The Parquet files that a run's directory, its `decisions` or a pattern means; none where nothing is there."""
    if not os.path.isdir(path):
        return sorted(glob(path, recursive=True))
    return glob(os.path.join(path, "*.parquet")) or glob(os.path.join(path, "decisions", "*.parquet"))
