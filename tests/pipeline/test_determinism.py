"""Under event-time ordering nothing but the transactions decides: not batches, shards, files or arrival."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from io_connectors.parquet_files import WriteParquet
from io_connectors.simulation import Simulation, simulate
from pipelines.fraud import build
from pipelines.plan import make_plan
from pipelines.settings import load_settings

SIMULATION = Simulation(customers=60, terminals=40, days=40, seed=3, compromised_terminals_per_day=1)
TRANSACTIONS = simulate(SIMULATION)


def decide(table: pa.Table, files: int, shards: int, batch_rows: int) -> bytes:
    """The decisions on `table`, spread over some CSV files, as one Arrow stream sorted by id."""
    with tempfile.TemporaryDirectory() as directory:
        rows = np.array_split(np.arange(table.num_rows), files)
        for number, part in enumerate(rows):
            pc.write_csv(table.take(part), Path(directory, f"{number}.csv"))
        plan = make_plan(
            load_settings(
                flags={"source": f"{directory}/*.csv"},
                sets=[f"pipeline.shards={shards}", f"pipeline.batch_rows={batch_rows}", "policy.review=0.01"],
            )
        )
        with beam.Pipeline(FnApiRunner()) as pipeline:
            _ = build(pipeline, plan).decisions | WriteParquet(f"{directory}/decisions")
        decisions = pq.read_table(f"{directory}/decisions").sort_by("transaction_id").combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, decisions.schema) as writer:
        writer.write_table(decisions)
    return bytes(sink.getvalue())


@settings(max_examples=6, deadline=None)
@given(
    files=st.integers(1, 5),
    shards=st.integers(1, 13),
    batch_rows=st.sampled_from([1_000, 64, 7]),
    seed=st.integers(0, 2**32 - 1),
)
def test_decisions_are_the_same_bytes_however_the_input_is_cut_and_shuffled(
    files: int, shards: int, batch_rows: int, seed: int
) -> None:
    """Any number of files and shards, any batch size and any order of arrival give the same bytes."""
    arrival: Any = np.random.default_rng(seed).permutation(TRANSACTIONS.num_rows)
    assert decide(TRANSACTIONS.take(arrival), files, shards, batch_rows) == decided_at_once()


@cache
def decided_at_once() -> bytes:
    return decide(TRANSACTIONS, files=1, shards=4, batch_rows=16_384)
