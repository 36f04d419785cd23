"""The simulator as a source: what it hands on, in which form, and how fast."""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing import test_pipeline
from apache_beam.testing.util import assert_that

from io_connectors.simulation import Simulation, simulate
from io_connectors.simulator import (
    LOCATIONS,
    MERCHANT_CATEGORIES,
    PAYMENT_METHODS,
    SimulateTransactions,
    as_transaction_events,
    simulate_raw_batches,
)
from transforms.errors import UserError
from transforms.raw_batch import RawBatch

SIMULATION = Simulation(customers=100, terminals=200, days=6, seed=5, compromised_terminals_per_day=2)
WHOLE = simulate(SIMULATION).combine_chunks().to_batches()[0]
LATER = 2_000_000_000 * 10**9  # a clock well after the simulated days, in nanoseconds


@dataclass
class Clock:
    """A clock that moves when someone sleeps, and by `work` nanoseconds whenever it is read."""

    now: int = LATER
    work: int = 0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> int:
        self.now += self.work
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += round(seconds * 1e9)


def batches_of(**settings: Any) -> list[RawBatch]:
    clock = settings.pop("clock", Clock())
    chosen = {"schema": "handbook", "rate": None, "batch_rows": 16_384, "clock": clock, "sleep": clock.sleep}
    return list(simulate_raw_batches(SIMULATION, **{**chosen, **settings}))


def in_pipeline(transform: SimulateTransactions, check: Any) -> None:
    with test_pipeline.TestPipeline(FnApiRunner()) as p:
        assert_that(p | transform, check)


def joined(batches: list[RawBatch]) -> pa.Table:
    return pa.Table.from_batches([batch.columns for batch in batches])


def test_the_pipeline_sees_the_whole_simulation_in_columns() -> None:
    """In order of position, the batches' columns are the simulation's rows and no batch is longer than asked."""

    def check(batches: list[RawBatch]) -> None:
        batches = sorted(batches, key=lambda batch: int(batch.positions[0]))
        assert [len(batch) for batch in batches[:-1]] == [100] * (len(WHOLE) // 100)
        assert all(batch.source == "simulator" and batch.payloads is None and not batch.rejected for batch in batches)
        assert joined(batches).equals(pa.Table.from_batches([WHOLE]))
        # Position and TRANSACTION_ID are one number, so a dead letter leads back to its transaction.
        assert [at for batch in batches for at in batch.positions] == WHOLE.column("TRANSACTION_ID").to_pylist()

    in_pipeline(SimulateTransactions(SIMULATION, batch_rows=100), check)


def test_the_pipeline_sees_the_same_simulation_as_events() -> None:
    """Schema transaction-events: each position holds the JSON of that transaction, and no columns are given."""
    expected = as_transaction_events(WHOLE)

    def check(batches: list[RawBatch]) -> None:
        assert all(batch.columns is None for batch in batches)
        payloads = {int(at): p for b in batches for at, p in zip(b.positions, b.payloads or [], strict=True)}
        assert payloads == dict(enumerate(expected))

    in_pipeline(SimulateTransactions(SIMULATION, schema="transaction-events", batch_rows=300), check)


def test_a_rate_paces_a_pipeline() -> None:
    """Inside a pipeline, too, the injected clock and sleep are the ones used: ingest times run at the rate."""
    clock = Clock()
    transform = SimulateTransactions(SIMULATION, rate=100, clock=clock, sleep=clock.sleep)

    def check(batches: list[RawBatch]) -> None:
        for batch in batches:
            assert batch.ingest_time - LATER // 1_000 == (int(batch.positions[-1]) + 1) * 10_000

    in_pipeline(transform, check)


def test_events_say_what_the_columns_say() -> None:
    """Every field of every event is the transaction's own, in the types of the schema."""
    rows = WHOLE.to_pylist()
    for row, payload in zip(rows, as_transaction_events(WHOLE), strict=True):
        event = json.loads(payload)
        assert list(event) == [
            "transaction_id", "user_id", "amount", "timestamp",
            "merchant_category", "location", "payment_method", "is_fraud",
        ]  # fmt: skip
        assert event["user_id"] == str(row["CUSTOMER_ID"])
        assert event["amount"] == row["TX_AMOUNT"]
        assert datetime.fromisoformat(event["timestamp"]) == row["TX_DATETIME"].astimezone(UTC)
        assert event["is_fraud"] is bool(row["TX_FRAUD"])
    assert {row["TX_FRAUD"] for row in rows} == {0, 1}


def test_amounts_are_written_in_full() -> None:
    """Amounts of whole units, of tenths and below one unit keep two decimals and are JSON."""
    amounts = pa.array([0.0, 0.07, 3.0, 12.5, 1_108.85])
    few = WHOLE.slice(0, 5).set_column(4, WHOLE.schema.field("TX_AMOUNT"), amounts)
    written = [event.split(b'"amount":')[1].split(b",")[0] for event in as_transaction_events(few)]
    assert written == [b"0.00", b"0.07", b"3.00", b"12.50", b"1108.85"]


def test_ids_are_unique_uuids_and_depend_on_the_seed() -> None:
    """Each transaction has a UUID of its own; another seed's transactions of the same numbers have others."""

    def ids(simulation: Simulation) -> list[str]:
        batch = simulate(simulation).combine_chunks().to_batches()[0]
        return [json.loads(event)["transaction_id"] for event in as_transaction_events(batch)]

    ours, others = ids(SIMULATION), ids(replace(SIMULATION, seed=6))
    assert {(uuid.UUID(text).version, uuid.UUID(text).variant) for text in ours} == {(8, uuid.RFC_4122)}
    assert all(str(uuid.UUID(text)) == text for text in ours)
    assert len({*ours, *others}) == len(ours) + len(others)


def test_categories_belong_to_the_terminal_and_the_customer() -> None:
    """A terminal keeps its category and place, a customer the way of paying, and every category occurs."""
    seen: dict[tuple[str, int], set[str]] = defaultdict(set)
    for row, payload in zip(WHOLE.to_pylist(), as_transaction_events(WHOLE), strict=True):
        event = json.loads(payload)
        seen["merchant_category", row["TERMINAL_ID"]].add(event["merchant_category"])
        seen["location", row["TERMINAL_ID"]].add(event["location"])
        seen["payment_method", row["CUSTOMER_ID"]].add(event["payment_method"])
    assert all(len(values) == 1 for values in seen.values())
    for kind, names in (
        ("merchant_category", MERCHANT_CATEGORIES),
        ("location", LOCATIONS),
        ("payment_method", PAYMENT_METHODS),
    ):
        assert {value for (name, _), values in seen.items() if name == kind for value in values} == set(names)


def test_events_do_not_depend_on_the_cut() -> None:
    """The events of slices are the slices of the events; no rows give no events."""
    assert [e for at in range(0, len(WHOLE), 77) for e in as_transaction_events(WHOLE.slice(at, 77))] == (
        as_transaction_events(WHOLE)
    )
    assert as_transaction_events(WHOLE.slice(0, 0)) == []


@pytest.mark.parametrize("rows", [1, 7, 100, 200, 10**6])
def test_any_batch_size_gives_the_same_rows(rows: int) -> None:
    """Batches are as long as asked but the last one, none is empty, and together they are the simulation."""
    batches = batches_of(batch_rows=rows)
    assert all(len(batch) == rows for batch in batches[:-1])
    assert 0 < len(batches[-1]) <= rows
    assert joined(batches).combine_chunks().equals(pa.Table.from_batches([WHOLE]))


def test_a_simulation_without_transactions_gives_no_batches() -> None:
    """Nobody near any terminal: the source ends at once."""
    nobody = Simulation(customers=1, terminals=1, days=3, radius=0.001)
    clock = Clock()
    assert list(simulate_raw_batches(nobody, "handbook", None, 10, clock, clock.sleep)) == []


def test_a_rate_emits_small_batches_when_they_are_due() -> None:
    """At 200 a second: ten batches of 20 a second, each handed on once its last transaction is due."""
    clock = Clock()
    batches = batches_of(rate=200.0, clock=clock)
    assert {len(batch) for batch in batches[:-1]} == {20}
    assert sum(clock.slept) == pytest.approx(len(WHOLE) / 200)
    assert [b.ingest_time - LATER // 1_000 for b in batches[:3]] == [100_000, 200_000, 300_000]


def test_a_rate_below_one_batch_goes_one_by_one() -> None:
    """At 4 a second each transaction is a batch, a quarter of a second apart."""
    clock = Clock()
    batches = batches_of(rate=4.0, clock=clock)
    assert len(batches) == len(WHOLE)
    assert set(clock.slept) == {0.25}


def test_a_slow_consumer_is_not_slowed_further() -> None:
    """When the work takes longer than the rate allows, nothing sleeps."""
    clock = Clock(work=10**9)
    batches_of(rate=1_000.0, clock=clock)
    assert set(clock.slept) == {0.0}


def test_ingest_time_is_never_before_the_transactions() -> None:
    """With the clock before the simulated days, a batch is taken in at its newest transaction; else by the clock."""
    for batch in batches_of(clock=Clock(now=0), batch_rows=50):
        assert batch.columns is not None
        assert batch.ingest_time == batch.columns.column("TX_DATETIME").view(pa.int64())[-1].as_py()
    assert {batch.ingest_time for batch in batches_of(batch_rows=50)} == {LATER // 1_000}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schema": "handbok"}, "did you mean handbook"),
        ({"schema": "creditcard"}, "speaks the schemas handbook and transaction-events"),
        ({"rate": 0}, "rate must be"),
        ({"rate": float("nan")}, "rate must be"),
        ({"rate": float("inf")}, "rate must be"),
        ({"batch_rows": 0}, "batch_rows must be"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_runs(settings: dict[str, Any], message: str) -> None:
    """Each is one clear error when the pipeline is built."""
    with pytest.raises(UserError, match=message):
        SimulateTransactions(SIMULATION, **settings)
