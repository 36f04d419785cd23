"""Files and raw batches through Beam: parsed batches, dead letters and times."""

from __future__ import annotations

import gzip
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.coders import registry
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.utils.timestamp import Timestamp

from io_connectors.files import ReadFiles
from transforms.batch import TransactionBatch, TransactionBatchCoder, to_rows
from transforms.dead_letters import DeadLetter
from transforms.errors import UserError
from transforms.parse import ParseTransactions
from transforms.raw_batch import RawBatch
from transforms.schema import load_schema
from transforms.struct_coder import StructCoder

NOW = 1_770_000_000_000_000  # 2026-02-02T02:40:00Z
EVENTS = load_schema("transaction-events")
HANDBOOK = load_schema("handbook")
HEADER = "TRANSACTION_ID,TX_DATETIME,CUSTOMER_ID,TERMINAL_ID,TX_AMOUNT,TX_FRAUD\n"


def payload(name: str, second: int, amount: object = 5) -> bytes:
    time = f"2026-01-02T03:04:{second:02d}.123456Z"
    return f'{{"transaction_id": "{name}", "user_id": "u", "amount": {amount}, "timestamp": "{time}"}}'.encode()


def raw_batch(*payloads: bytes, rejected: tuple[DeadLetter, ...] = ()) -> RawBatch:
    return RawBatch("topic-0", NOW, np.arange(len(payloads)), payloads=list(payloads), rejected=rejected)


def fixed_clock() -> int:
    return NOW * 1000


def ids(batch: TransactionBatch) -> list[str]:
    return [row["transaction_id"] for row in to_rows(batch)]


def test_parse_transactions_gives_batches_and_dead_letters() -> None:
    """Good records come as batches, bad and rejected ones as dead letters, each exactly once."""
    rejected = DeadLetter(stage="parse", reason="csv_columns", error="e", payload="", source="f", position=1)
    raw = [
        raw_batch(payload("a", 1), payload("b", 2, -5), b"{", payload("c", 3)),
        raw_batch(b"[]", rejected=(rejected,)),
        raw_batch(payload("d", 4)),
        raw_batch(),
    ]
    pipeline = beam.Pipeline(FnApiRunner())
    parsed = pipeline | beam.Create(raw) | ParseTransactions(EVENTS)
    assert_that(parsed.batches | beam.Map(ids), equal_to([["a", "c"], ["d"]]), "batches")
    assert_that(
        parsed.dead_letters | beam.Map(lambda letter: (letter.stage, letter.reason)),
        equal_to(
            [
                ("validate", "amount_negative"),
                ("parse", "json_invalid"),
                ("parse", "json_not_object"),
                ("parse", "csv_columns"),
            ]
        ),
        "dead letters",
    )
    pipeline.run().wait_until_finish()


def test_a_batch_is_at_the_time_of_its_earliest_transaction() -> None:
    """The watermark can trust a batch: its timestamp is its oldest event time, floored to the millisecond."""
    with beam.Pipeline(FnApiRunner()) as pipeline:
        raw = pipeline | beam.Create([raw_batch(payload("b", 9), payload("a", 7), payload("c", 8))])
        parsed = raw | ParseTransactions(EVENTS)
        times = parsed.batches | beam.Map(lambda batch, at=beam.DoFn.TimestampParam: at)
        assert_that(times, equal_to([Timestamp(micros=1_767_323_047_123_000)]))


def test_parsed_collections_are_encoded_by_their_own_coders() -> None:
    """What crosses a shuffle after parsing is Arrow and MessagePack, never a pickle."""
    pipeline = beam.Pipeline(FnApiRunner())
    parsed = pipeline | beam.Create([raw_batch(payload("a", 1))]) | ParseTransactions(EVENTS)
    assert isinstance(registry.get_coder(parsed.batches.element_type), TransactionBatchCoder)
    assert isinstance(registry.get_coder(parsed.dead_letters.element_type), StructCoder)


def test_the_longest_record_is_an_argument() -> None:
    """`max_record_bytes` reaches the parser."""
    with beam.Pipeline(FnApiRunner()) as pipeline:
        parsed = pipeline | beam.Create([raw_batch(payload("a", 1))]) | ParseTransactions(EVENTS, max_record_bytes=10)
        assert_that(parsed.dead_letters | beam.Map(lambda letter: letter.reason), equal_to(["record_too_large"]))


def test_files_of_all_formats_flow_through_one_pipeline(tmp_path: Path) -> None:
    """A glob over a CSV file, a Parquet file of two row groups and a broken archive loses nothing."""
    rows = [f"{at},2018-04-01 00:00:{at:02d},5,6,7.00,0\n" for at in range(6)]
    (tmp_path / "a.csv").write_text(HEADER + rows[0] + "1,2\n" + rows[1])
    table = pa.table(
        {
            "TRANSACTION_ID": [2, 3, 4],
            "TX_DATETIME": pa.array([1_522_540_800] * 3, pa.timestamp("s")),
            "CUSTOMER_ID": [5, 5, 5],
            "TERMINAL_ID": [6, 6, 6],
            "TX_AMOUNT": [7.0, -7.0, 7.0],
        }
    )
    pq.write_table(table, tmp_path / "b.parquet", row_group_size=2)
    whole = gzip.compress((HEADER + rows[5] + "".join(rows)).encode())
    (tmp_path / "c.csv.gz").write_bytes(whole[:-9])
    pipeline = beam.Pipeline(FnApiRunner())
    raw = pipeline | ReadFiles(f"{tmp_path}/*", HANDBOOK, batch_rows=2, clock=fixed_clock)
    parsed = raw | ParseTransactions(HANDBOOK)
    letters = parsed.dead_letters | beam.Map(lambda letter: (Path(letter.source).name, letter.reason, letter.position))
    assert_that(
        parsed.batches | beam.FlatMap(ids) | beam.combiners.Count.PerElement(),
        equal_to([("0", 2), ("1", 2), ("2", 2), ("3", 1), ("4", 2), ("5", 1)]),
        "rows",
    )
    assert_that(
        letters,
        equal_to([("a.csv", "csv_columns", 2), ("b.parquet", "amount_negative", 2), ("c.csv.gz", "file_corrupt", 7)]),
        "dead letters",
    )
    pipeline.run().wait_until_finish()


def test_a_source_that_cannot_work_stops_the_build_of_the_pipeline(tmp_path: Path) -> None:
    """A CSV file with a changed header is one error before anything runs."""
    (tmp_path / "a.csv").write_text(HEADER.replace("CUSTOMER_ID", "CUSTOMER"))
    with pytest.raises(UserError, match=r"field CUSTOMER_ID is missing.*did you mean CUSTOMER\?"):
        _ = beam.Pipeline(FnApiRunner()) | ReadFiles(f"file:{tmp_path}/a.csv", HANDBOOK)


def test_empty_files_are_a_pipeline_without_records(tmp_path: Path) -> None:
    """Reading nothing but an empty file ends with nothing."""
    (tmp_path / "a.csv").write_bytes(b"")
    with beam.Pipeline(FnApiRunner()) as pipeline:
        parsed = pipeline | ReadFiles(str(tmp_path / "a.csv"), HANDBOOK) | ParseTransactions(HANDBOOK)
        assert_that(parsed.batches, equal_to([]))
