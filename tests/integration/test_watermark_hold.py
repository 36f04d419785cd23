"""The watermark hold at work: what follows a stage that waits, on a runner that streams."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_stream import TestStream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, GlobalWindows, TimestampedValue

from transforms.batch import TransactionBatch, earliest, from_rows, to_rows
from transforms.deduplicate import Deduplicate
from transforms.enrich import EnrichTransactions
from transforms.features import Declaration, FeatureSet
from transforms.summarize import SummarizeWindows

#: Beam says that it ends Prism when this process ends, and the output that pytest gave it is closed.
logging.getLogger("apache_beam.utils.subprocess_server").setLevel(logging.ERROR)
SUM = Declaration(kind="sum", entity="terminal_id", column="amount", windows=("1m",))
NAME = SUM.expand()[0].name


def batch(*rows: tuple[str, int]) -> TransactionBatch:
    """A batch from (id, second): every row another customer's, all at one terminal."""
    return from_rows(
        {"transaction_id": i, "event_time": s * 1_000_000, "customer_id": i, "terminal_id": "t", "amount_minor": 100}
        for i, s in rows
    )


def decided(*seconds: int) -> TransactionBatch:
    """A decided batch with rows at these seconds."""
    blank = {"amount_minor": 100, "score": 0.01, "decision": "approve"}
    rows = [{"transaction_id": f"t{second}", "event_time": second * 1_000_000, **blank} for second in seconds]
    return from_rows(rows, {"score": pa.float64(), "decision": pa.string()})


def as_elements(batches: Iterable[TransactionBatch]) -> list[TimestampedValue[TransactionBatch]]:
    return [TimestampedValue(batch, earliest(batch)) for batch in batches]


def streaming(prism: Path) -> PipelineOptions:
    """Options of a stream whose watermarks and holds are a real runner's."""
    return PipelineOptions([f"--prism_location={prism}", "--environment_type=LOOPBACK"], streaming=True)


def test_what_follows_a_waiting_row_does_not_run_ahead_of_it(prism: Path) -> None:
    """The second stage takes rows in order and none late, though shards of the first let theirs go at other moments."""
    script = TestStream()
    script.add_elements(as_elements([batch(("a", 10), ("d", 40)), batch(("b", 20))]))
    script.advance_watermark_to(25)
    script.add_elements(as_elements([batch(("c", 30))]))
    script.advance_watermark_to(35).advance_watermark_to(50).advance_watermark_to_infinity()

    def in_seconds(batch: TransactionBatch) -> list[Any]:
        return [TimestampedValue(("all", 1), row["event_time"].timestamp()) for row in to_rows(batch)]

    with beam.Pipeline("PrismRunner", streaming(prism)) as pipeline:
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


def test_what_is_told_of_a_window_is_in_time_for_what_follows(prism: Path) -> None:
    """No on-time summary is late for a count by window that takes no late elements."""
    script = TestStream().advance_watermark_to(0)
    script.add_elements(as_elements([decided(5, 65, 125), decided(70)]))
    script.advance_watermark_to(100).add_elements(as_elements([decided(6), decided(130)]))
    script.advance_watermark_to(1000).add_elements(as_elements([decided(7)])).advance_watermark_to_infinity()
    with beam.Pipeline("PrismRunner", streaming(prism)) as pipeline:
        summaries = pipeline | script | SummarizeWindows(60_000_000, allowed_lateness_us=200_000_000)
        told = summaries | beam.Map(lambda s: (s.window_start // 1_000_000, s.transactions, s.pane, s.firing))
        followed = (
            summaries
            | "Rows" >> beam.Map(lambda summary: ("all", summary.transactions)).with_output_types(tuple[str, int])
            | "Strictly" >> beam.WindowInto(FixedWindows(60), allowed_lateness=0)
            | beam.CombinePerKey(sum)
            | "Counts" >> beam.Map(lambda total, window=beam.DoFn.WindowParam: (int(window.start), total[1]))
            | "Together" >> beam.WindowInto(GlobalWindows())
        )
        together = told | "AllTogether" >> beam.WindowInto(GlobalWindows())
        expected = [(0, 1, "on_time", 0), (0, 2, "late", 1), (60, 2, "on_time", 0), (120, 2, "on_time", 0)]
        assert_that(together, equal_to(expected), "told")
        assert_that(followed, equal_to([(0, 1), (60, 2), (120, 2)]), "followed")
