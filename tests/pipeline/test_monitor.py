"""Monitoring in Beam: when windows are told of, and that a run writes what its windows were like."""

from __future__ import annotations

from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing import test_pipeline, test_stream
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from model_artifacts.reference import Reference, number_reference
from pipelines.monitor.__main__ import main
from tests.command import lines_of, run_command
from transforms.batch import TransactionBatch, earliest, from_rows
from transforms.drift import Alarm, ColumnDrift
from transforms.durations import DAY, HOUR, SECOND
from transforms.monitor import MonitorCalibration, MonitorDrift
from transforms.window_counts import Windows

HOURS = Windows(HOUR, HOUR)
TRAINED = number_reference("score", np.linspace(0, 1, 1001))
REFERENCE = Reference(model_id="m", fingerprint="f", made_from="memory", columns=(TRAINED,))


def at(*minutes: int, score: float = 0.5) -> TransactionBatch:
    rows = [
        {
            "transaction_id": f"{minute}",
            "event_time": minute * 60 * SECOND,
            "amount_minor": 1,
            "score": score,
            "is_fraud": 1,
        }
        for minute in minutes
    ]
    return from_rows(rows, {"score": pa.float64()})


def arriving(batch: TransactionBatch) -> list[TimestampedValue[TransactionBatch]]:
    return [TimestampedValue(batch, earliest(batch))]


def told(drift: ColumnDrift) -> tuple[int, int, str, int]:
    return drift.window_start // HOUR, drift.rows, drift.pane, drift.firing


def ended(events: test_stream.TestStream) -> test_stream.TestStream:
    """The stream's end, after all windows': this runner does not hold the watermark for what timers tell at the end."""
    events.advance_watermark_to(DAY // SECOND).advance_watermark_to_infinity()
    return events


def check_stream(events: test_stream.TestStream, expected: list[tuple[int, int, str, int]], windows: Windows) -> None:
    with test_pipeline.TestPipeline(options=PipelineOptions([], streaming=True)) as pipeline:
        monitor = MonitorDrift(REFERENCE, windows, Alarm(rows=1), now=lambda: Timestamp(0))
        drifts = pipeline | ended(events) | monitor
        assert_that(drifts | beam.Map(told), equal_to(expected))


def stream() -> test_stream.TestStream:
    return test_stream.TestStream(coder=beam.coders.registry.get_coder(TransactionBatch))


def test_a_streams_window_is_told_of_once_with_all_its_rows() -> None:
    """When the watermark passes it; a batch that reaches into two windows counts in both."""
    events = stream().advance_watermark_to(0).add_elements(arriving(at(0, 1, 1, 59, 61)))
    events.advance_watermark_to(1800).add_elements(arriving(at(30, 45)))
    events.advance_watermark_to(3600).add_elements(arriving(at(62)))
    check_stream(events, [(0, 6, "on_time", 0), (1, 2, "on_time", 0)], HOURS)


def test_late_rows_gather_for_a_minute_of_the_clock() -> None:
    """Two late batches are one telling, and one that comes later another; what still gathers at the end is not lost."""
    events = stream().advance_watermark_to(0).add_elements(arriving(at(0, 1)))
    events.advance_watermark_to(3700).add_elements(arriving(at(2))).add_elements(arriving(at(3, 4)))
    events.advance_processing_time(61).add_elements(arriving(at(59)))
    check_stream(events, [(0, 2, "on_time", 0), (0, 5, "late", 1), (0, 6, "late", 2)], HOURS)


def test_a_late_row_is_told_of_with_all_of_its_window() -> None:
    """The second telling counts the window's rows of before as well, once."""
    events = stream().advance_watermark_to(0).add_elements(arriving(at(5, 6)))
    events.advance_watermark_to(3700).add_elements(arriving(at(7)))
    check_stream(events, [(0, 2, "on_time", 0), (0, 3, "late", 1)], HOURS)


def test_sliding_windows_of_a_stream_count_each_minute_they_cover() -> None:
    """As those of input that ends do."""
    events = ended(stream().advance_watermark_to(0).add_elements(arriving(at(10, 40, 70))))
    with test_pipeline.TestPipeline(options=PipelineOptions([], streaming=True)) as pipeline:
        drifts = pipeline | events | MonitorDrift(REFERENCE, Windows(HOUR, HOUR // 2))
        streamed = drifts | beam.Map(lambda drift: (drift.window_start, drift.rows, drift.psi))
        assert_that(streamed | beam.Map(lambda row: row[:2]), equal_to(_sliding()))


def _sliding() -> list[tuple[int, int]]:
    half = HOUR // 2
    return [(-half, 1), (0, 2), (half, 2), (2 * half, 1)]


def test_input_that_ends_is_told_of_in_the_same_windows() -> None:
    """However its rows are cut into batches, and sliding windows as on a stream."""
    with test_pipeline.TestPipeline() as pipeline:
        batches = pipeline | beam.Create([at(70), at(10, 40)])
        drifts = batches | MonitorDrift(REFERENCE, Windows(HOUR, HOUR // 2))
        assert_that(drifts | beam.Map(lambda drift: (drift.window_start, drift.rows)), equal_to(_sliding()))


def test_labels_that_are_known_are_compared_with_scores() -> None:
    """By window: as many frauds as there are, against the mean of the scores."""
    with test_pipeline.TestPipeline() as pipeline:
        batches = pipeline | beam.Create([at(1, 2, score=0.25), at(3, 61, score=0.75)])
        found = batches | MonitorCalibration(HOURS)
        rows = found | beam.Map(lambda each: (each.window_start // HOUR, each.rows, each.frauds, each.error))
        assert_that(rows, equal_to([(0, 3, 3, pytest.approx((0.75 * 2 + 0.25) / 3)), (1, 1, 1, 0.25)]))


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run") / "output"
    source = "simulator:?customers=60&terminals=120&days=50&seed=3"
    run_command(directory, "--source", source, "--set", "monitor.least_rows=50")
    return directory


def test_a_run_writes_and_reports_its_drift_and_calibration(output: Path) -> None:
    """A row for each day and column, none for weekends, which no day is comparable in; plots and figures of them."""
    drift = lines_of(output / "drift.jsonl")
    columns = {row["column"] for row in drift}
    assert {"amount", "night", "score"} <= columns
    assert "weekend" not in columns
    assert len(drift) == len(columns) * 50
    rows = sum(row["rows"] for row in drift if row["column"] == "score")
    assert rows == sum(row["rows"] for row in lines_of(output / "calibration.jsonl")) == _decided(output).num_rows
    # Histories are empty at first and full at the end.
    counts = [row for row in drift if row["column"] == "customer_count_30d"]
    assert counts[0]["psi"] > 3 * counts[-1]["psi"]
    report = (output / "report.html").read_text("utf-8")
    assert "Drift from training" in report
    assert "Scores against labels" in report


def _decided(output: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(part) for part in (output / "decisions").glob("*.parquet")])


def test_a_reference_is_made_of_a_runs_decisions(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run compared with itself as a whole counts every row, and a shipped model is left alone."""
    made = ["reference", "--decisions", str(output / "decisions"), "--model", "handbook"]
    assert main(made) == 2
    assert "shipped model" in capsys.readouterr().err
    assert main([*made, "--output", str(tmp_path / "mine.json")]) == 0
    source = "simulator:?customers=60&terminals=120&days=50&seed=3"
    settings = [
        f"monitor.reference={tmp_path / 'mine.json'}",
        "monitor.window=50d",
        "output.drift=" + str(tmp_path / "d"),
    ]
    run = run_command(tmp_path / "again", "--source", source, *(part for each in settings for part in ("--set", each)))
    assert run.code == 0
    assert (
        sum(row["rows"] for row in lines_of(tmp_path / "d") if row["column"] == "amount") == _decided(output).num_rows
    )
