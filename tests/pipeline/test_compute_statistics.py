"""Run statistics on the runner."""

from __future__ import annotations

from collections.abc import Iterable

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.testing import test_pipeline
from apache_beam.testing.util import assert_that, equal_to

from transforms.batch import TransactionBatch, from_rows
from transforms.histograms import duration_bins
from transforms.statistics import DECISIONS, ComputeStatistics, RunStatistics, RunStatisticsCoder, observe

EXTRA = {"f": pa.float64(), "score": pa.float64(), "decision": pa.string(), "reasons": pa.list_(pa.string())}
NOW = 5_000_000


def clock() -> int:
    return NOW


def batches(sizes: Iterable[int]) -> list[TransactionBatch]:
    """Decided batches of these sizes, every row different from the next."""
    made, at = [], 0
    for size in sizes:
        rows = [
            {
                "transaction_id": f"t{n}",
                "event_time": n * 3_600_000_000,
                "amount_minor": n * 7,
                "is_fraud": (None, 0, 1)[n % 3],
                "ingest_time": 4_000_000,
                "f": float(n),
                "score": n / 200,
                "decision": DECISIONS[n % 4 % 3],
                "reasons": ["f: high"] if n % 4 % 3 else [],
            }
            for n in range(at, at + size)
        ]
        made.append(from_rows(rows, EXTRA))
        at += size
    return made


def test_one_value_comes_out_with_everything_counted() -> None:
    """However the input is cut into batches, the run's statistics are those of all rows at once."""
    (whole,) = batches([120])
    expected = RunStatisticsCoder().encode(observe(whole, ["f"], NOW))
    with test_pipeline.TestPipeline() as pipeline:
        counted = pipeline | beam.Create(batches([1, 50, 0, 69])) | ComputeStatistics(["f"], clock)
        assert_that(counted | beam.Map(RunStatisticsCoder().encode), equal_to([expected]))


def test_a_run_without_decisions_has_statistics_of_nothing() -> None:
    """An empty input gives one value that counts nothing and still names its features."""
    with test_pipeline.TestPipeline() as pipeline:
        counted = pipeline | beam.Create([]).with_output_types(TransactionBatch) | ComputeStatistics(["f"], clock)
        told = counted | beam.Map(lambda run: (run.transactions, run.feature_names, run.first_event_time))
        assert_that(told, equal_to([(0, ("f",), None)]))


def test_latency_is_measured_with_the_clock_given() -> None:
    """A decision's latency is the clock's time less the time its transaction was read."""
    with test_pipeline.TestPipeline() as pipeline:
        counted = pipeline | beam.Create(batches([3])) | ComputeStatistics(["f"], clock)
        bins = counted | beam.FlatMap(lambda run: np.flatnonzero(run.latencies).tolist())
        assert_that(bins, equal_to(duration_bins(np.array([1_000_000])).tolist()))


def test_statistics_cross_a_shuffle_in_their_own_format() -> None:
    """Between workers neither the statistics nor the sums on the way to them are pickled."""
    pipeline = test_pipeline.TestPipeline()
    counted = pipeline | beam.Create(batches([3])) | ComputeStatistics(["f"], clock)
    components = pipeline.to_runner_api().components
    combine = next(
        t for t in components.transforms.values() if t.spec.urn == common_urns.composites.COMBINE_PER_KEY.urn
    )
    accumulator = beam_runner_api_pb2.CombinePayload.FromString(combine.spec.payload).accumulator_coder_id
    assert b"RunStatisticsCoder" in components.coders[accumulator].spec.payload
    assert counted.element_type == RunStatistics
