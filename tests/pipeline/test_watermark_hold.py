"""The watermark hold at work: two ordered stages, one after the other, on a runner that streams."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_stream import TestStream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, GlobalWindows, TimestampedValue

from transforms.batch import TransactionBatch, earliest, from_rows, to_rows
from transforms.deduplicate import Deduplicate
from transforms.enrich import EnrichTransactions
from transforms.features import Declaration, FeatureSet

PRISM = os.environ.get("PRISM") or shutil.which("prism")
SUM = Declaration(kind="sum", entity="terminal_id", column="amount", windows=("1m",))
NAME = SUM.expand()[0].name


def batch(*rows: tuple[str, int]) -> TransactionBatch:
    """A batch from (id, second): every row another customer's, all at one terminal."""
    return from_rows(
        {"transaction_id": i, "event_time": s * 1_000_000, "customer_id": i, "terminal_id": "t", "amount_minor": 100}
        for i, s in rows
    )


def as_elements(batches: Iterable[TransactionBatch]) -> list[TimestampedValue[TransactionBatch]]:
    return [TimestampedValue(batch, earliest(batch)) for batch in batches]


@pytest.mark.skipif(not PRISM, reason="needs Beam's Prism runner: on the PATH, or at the path in PRISM")
def test_what_follows_a_waiting_row_does_not_run_ahead_of_it() -> None:
    """The second stage takes rows in order and none late, though shards of the first let theirs go at other moments."""
    script = TestStream()
    script.add_elements(as_elements([batch(("a", 10), ("d", 40)), batch(("b", 20))]))
    script.advance_watermark_to(25)
    script.add_elements(as_elements([batch(("c", 30))]))
    script.advance_watermark_to(35).advance_watermark_to(50).advance_watermark_to_infinity()
    options = PipelineOptions([f"--prism_location={PRISM}", "--environment_type=LOOPBACK"], streaming=True)

    def in_seconds(batch: TransactionBatch) -> list[Any]:
        return [TimestampedValue(("all", 1), row["event_time"].timestamp()) for row in to_rows(batch)]

    with beam.Pipeline("PrismRunner", options) as pipeline:
        unique = pipeline | script | Deduplicate(shards=16)
        rows = (unique.batches | EnrichTransactions(FeatureSet(name="one", declared=(SUM,)), shards=16)).batches
        found = rows | beam.FlatMap(lambda b: [(r["transaction_id"], r[NAME], r["late"]) for r in to_rows(b)])
        windows = (
            rows
            | "Seconds" >> beam.FlatMap(in_seconds)
            | "Windows" >> beam.WindowInto(FixedWindows(15))
            | beam.CombinePerKey(sum)
            | "Counts" >> beam.Map(lambda total, window=beam.DoFn.WindowParam: (int(window.start), total[1]))
            | "Together" >> beam.WindowInto(GlobalWindows())
        )
        expected = [("a", 1.0, False), ("b", 2.0, False), ("c", 3.0, False), ("d", 4.0, False)]
        assert_that(found, equal_to(expected), "in order")
        assert_that(windows, equal_to([(0, 1), (15, 1), (30, 2)]), "in windows")
