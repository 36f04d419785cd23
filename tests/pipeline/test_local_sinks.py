"""The local sinks in a pipeline: what they write, and what a failing bundle leaves."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apache_beam as beam
import msgspec
import pyarrow.parquet as pq
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from io_connectors.json_lines import CHUNK, WriteJsonLines
from io_connectors.parquet_files import WriteParquet
from transforms.batch import PROVENANCE_COLUMNS, TransactionBatch, from_rows
from transforms.errors import UserError


def batch(rows: int, first: int = 0) -> TransactionBatch:
    return from_rows(
        {"transaction_id": f"t{number}", "event_time": number * 1_000_000, "amount_minor": number}
        for number in range(first, first + rows)
    )


def run_parquet(batches: Iterable[Any], directory: Path) -> None:
    with beam.Pipeline(FnApiRunner()) as pipeline:
        _ = pipeline | beam.Create(batches, reshuffle=False) | WriteParquet(directory)


def fail_on_none(element: TransactionBatch | None) -> TransactionBatch:
    if element is None:
        raise RuntimeError("an element later in the bundle failed")
    return element


def test_batches_become_parquet_files(tmp_path: Path) -> None:
    """All rows are there once, without the columns that tell where they were read, and that is told of them."""
    batches = [batch(10, first) for first in range(0, 100, 10)]
    with beam.Pipeline(FnApiRunner()) as pipeline:
        delivered = pipeline | beam.Create(batches) | WriteParquet(tmp_path, rows_per_file=30)
        told = delivered.written | beam.Map(lambda written: (written.source, written.ranges))
        assert_that(told, equal_to([("memory", ((0, 10),))] * 10))
    table = pq.read_table(tmp_path)
    assert sorted(table["amount_minor"].to_pylist()) == list(range(100))
    assert not set(PROVENANCE_COLUMNS) & set(table.column_names)


def test_batches_in_windows_are_written_as_well(tmp_path: Path) -> None:
    """What windows and timestamps the batches have makes no difference to the rows."""
    with beam.Pipeline(FnApiRunner()) as pipeline:
        _ = (
            pipeline
            | beam.Create([batch(10, first) for first in range(0, 100, 10)])
            | beam.Map(lambda each: TimestampedValue(each, each.numpy("event_time")[0] / 1e6))
            | beam.WindowInto(FixedWindows(20))
            | WriteParquet(tmp_path)
        )
    assert pq.read_table(tmp_path).num_rows == 100


def test_a_bundle_that_fails_leaves_no_file_that_looks_like_a_result(tmp_path: Path) -> None:
    """Rows before the failing element were written, but under no name a reader looks for."""
    with pytest.raises(Exception, match="later in the bundle failed"), beam.Pipeline(FnApiRunner()) as pipeline:
        _ = (
            pipeline
            | beam.Create([batch(10), batch(10, 10), None], reshuffle=False)
            | beam.Map(fail_on_none).with_output_types(TransactionBatch)
            | WriteParquet(tmp_path, rows_per_file=5)
        )
    assert list(tmp_path.glob("part-*.parquet")) == []


def test_the_same_run_twice_leaves_the_same_files(tmp_path: Path) -> None:
    """Names and bytes depend on the rows: a run again replaces, and adds nothing."""
    run_parquet([batch(100)], tmp_path)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run_parquet([batch(100)], tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


def test_no_batches_write_no_file(tmp_path: Path) -> None:
    """An empty input leaves an empty directory, not a file without rows."""
    run_parquet([], tmp_path / "decisions")
    assert list((tmp_path / "decisions").iterdir()) == []


def test_elements_become_lines(tmp_path: Path) -> None:
    """Each element is one line, however many chunks they fill, and what was there stays."""
    path = tmp_path / "alerts.jsonl"
    path.write_text('{"id":-1}\n')
    fill = "x" * (CHUNK // 8)
    with beam.Pipeline(FnApiRunner()) as pipeline:
        elements = pipeline | beam.Create([{"id": number, "fill": fill} for number in range(40)])
        _ = elements | WriteJsonLines(path, msgspec.json.encode)
    ids = [msgspec.json.decode(line)["id"] for line in path.read_bytes().splitlines()]
    assert (ids[0], sorted(ids[1:])) == (-1, list(range(40)))


def test_no_elements_leave_an_empty_file_to_follow(tmp_path: Path) -> None:
    """The file is there from the start, so that it can be followed before the first alert."""
    path = tmp_path / "new" / "alerts.jsonl"
    with beam.Pipeline(FnApiRunner()) as pipeline:
        _ = pipeline | beam.Create([]) | WriteJsonLines(path, msgspec.json.encode)
        assert path.read_bytes() == b""
    assert path.read_bytes() == b""


def test_a_line_end_inside_a_line_stops_the_run(tmp_path: Path) -> None:
    """An encoder that writes pretty JSON would make lines nobody can read back."""
    with pytest.raises(Exception, match="more than one line for a dict"), beam.Pipeline(FnApiRunner()) as pipeline:
        _ = pipeline | beam.Create([{"id": 1}]) | WriteJsonLines(tmp_path / "a.jsonl", lambda _: b"{\n}")


@pytest.mark.parametrize("sink", [WriteParquet, lambda path: WriteJsonLines(path / "a.jsonl", bytes)])
def test_a_place_that_cannot_be_written_is_refused_before_the_run(sink: Any) -> None:
    """The pipeline is not even built: the message names the place."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o500)
        user = os.geteuid()
        if user == 0:  # the administrator may write anywhere
            os.chown(directory, 65534, -1)
            os.seteuid(65534)
        try:
            with pytest.raises(UserError, match=f"cannot write .*{directory}"):
                _ = beam.Pipeline(FnApiRunner()) | beam.Create([]) | sink(Path(directory))
        finally:
            os.seteuid(user)
