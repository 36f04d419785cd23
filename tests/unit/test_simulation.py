"""The simulator: the same bytes everywhere, and the process it claims to follow."""

from __future__ import annotations

import hashlib
import math
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from io_connectors import simulation as module
from io_connectors.simulation import (
    DAY_SECONDS,
    SIMULATED,
    Simulation,
    build_neighbourhood,
    build_population,
    simulate,
    simulate_days,
    simulation_from_url,
)
from transforms.errors import UserError

SMALL = Simulation(
    customers=200, terminals=300, days=10, seed=3, compromised_terminals_per_day=2, compromised_customers_per_day=3
)
# Wide enough for shares to settle, with few enough draws that hardly any is drawn twice.
WIDE = Simulation(
    customers=2_000,
    terminals=3_000,
    days=60,
    seed=3,
    compromised_terminals_per_day=1,
    compromised_customers_per_day=2,
)
small_simulations = st.builds(
    Simulation,
    customers=st.integers(1, 60),
    terminals=st.integers(1, 60),
    days=st.integers(1, 4),
    seed=st.integers(0, 2**63 - 1),
    radius=st.sampled_from([0.5, 5.0, 20.0, 33.4, 100.0]),
    compromised_terminals_per_day=st.sampled_from([None, 0, 0.5, 2, 1_000]),
    compromised_customers_per_day=st.sampled_from([None, 0, 0.3, 3, 1_000]),
)


def columns_of(table: pa.Table) -> dict[str, np.ndarray[Any, Any]]:
    return {name: table.column(name).to_numpy() for name in table.schema.names}


@pytest.fixture(scope="module")
def wide() -> dict[str, np.ndarray[Any, Any]]:
    return columns_of(simulate(WIDE))


@pytest.fixture(scope="module")
def genuine() -> dict[str, np.ndarray[Any, Any]]:
    """The wide run without the scenarios that need a draw."""
    return columns_of(simulate(replace(WIDE, compromised_terminals_per_day=0, compromised_customers_per_day=0)))


def digest(table: pa.Table) -> str:
    """sha256 of the columns' values as little-endian bytes."""
    sha = hashlib.sha256()
    for values in columns_of(table).values():
        sha.update(values.view(f"i{values.itemsize}").astype(f"<i{values.itemsize}").tobytes())
    return sha.hexdigest()


def test_a_seed_gives_the_same_bytes_on_every_machine() -> None:
    """The sha256 of a small run never changes: not with the machine, nor with the versions of libraries."""
    table = simulate(SMALL)
    assert set(table.column("TX_FRAUD_SCENARIO").to_pylist()) == {0, 1, 2, 3}
    assert digest(table) == "a0e23d3c9d1b13985deb580f271235510b8c044811abbb9b44bc6398c523e2ff"


@settings(max_examples=30)
@given(small_simulations)
def test_every_transaction_is_well_formed(simulation: Simulation) -> None:
    """Ids count from 0, times rise and stay in their day, amounts are whole cents, ids of both ends exist."""
    next_id = 0
    for day, batch in enumerate(simulate_days(simulation)):
        assert batch.schema == SIMULATED
        assert batch.column("TRANSACTION_ID").to_pylist() == list(range(next_id, next_id + len(batch)))
        next_id += len(batch)
        times = batch.column("TX_DATETIME").view(pa.int64()).to_numpy()
        seconds, micros = np.divmod(times - int(simulation.start.timestamp()) * 1_000_000, 1_000_000)
        assert not micros.any()
        assert (np.diff(seconds) >= 0).all()
        assert (seconds // DAY_SECONDS == day).all()
        assert all(amount >= 0 and amount == round(amount, 2) for amount in batch.column("TX_AMOUNT").to_pylist())
        for name, most in (("CUSTOMER_ID", simulation.customers), ("TERMINAL_ID", simulation.terminals)):
            assert ((batch.column(name).to_numpy() >= 0) & (batch.column(name).to_numpy() < most)).all()
        scenario = batch.column("TX_FRAUD_SCENARIO").to_numpy()
        assert ((scenario > 0) == batch.column("TX_FRAUD").to_numpy()).all()
        assert set(scenario) <= {0, 1, 2, 3}
    assert day == simulation.days - 1


@settings(max_examples=30)
@given(small_simulations, st.integers(1, 4))
def test_the_first_days_do_not_depend_on_how_many_follow(simulation: Simulation, more: int) -> None:
    """A longer run begins with the shorter one, byte for byte; so does a repeated one."""
    longer = simulate(replace(simulation, days=simulation.days + more))
    shorter = simulate(simulation)
    assert longer.slice(0, len(shorter)).equals(shorter)
    assert simulate(simulation).equals(shorter)


def test_another_seed_is_another_world() -> None:
    """Neighbouring seeds share neither their customers' habits nor their transactions."""
    one, other = (columns_of(simulate(replace(WIDE, seed=seed, days=3))) for seed in (1, 2))
    few = min(len(one["TX_AMOUNT"]), len(other["TX_AMOUNT"]))
    for name in ("CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT"):
        assert np.mean(one[name][:few] == other[name][:few]) < 0.01, name


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(0, 60), st.integers(1, 100_000_000))
def test_the_grid_finds_exactly_the_near_terminals(seed: int, customers: int, terminals: int, reach: int) -> None:
    """Customers with terminals, and the terminals drawn for them, are those of the full matrix of distances."""
    words = np.random.PCG64(seed).random_raw
    customer_xy = module._below(words(2 * customers), 100_000_000).reshape(2, -1)
    terminal_xy = module._below(words(2 * terminals), 100_000_000).reshape(2, -1)
    distance_squared = ((customer_xy[:, :, None] - terminal_xy[:, None, :]) ** 2).sum(axis=0)
    near = distance_squared < reach * reach
    neighbourhood = build_neighbourhood(customer_xy, terminal_xy, reach)
    spenders = neighbourhood.customers_with_terminals()
    assert spenders.tolist() == np.flatnonzero(near.any(axis=1)).tolist()
    drawn_for = np.repeat(spenders, 20)
    assert near[drawn_for, neighbourhood.draw(drawn_for, words)].all()


def test_a_terminal_at_the_radius_is_out_of_reach() -> None:
    """A customer reaches what is nearer than the radius, not what is just as far."""
    customers, terminals = np.array([[0, 1], [0, 0]]), np.array([[5_000_000], [0]])
    neighbourhood = build_neighbourhood(customers, terminals, reach=5_000_000)
    assert neighbourhood.customers_with_terminals().tolist() == [1]


def test_every_terminal_within_reach_is_as_likely() -> None:
    """Over many draws each near terminal is drawn its share of times, within five standard deviations."""
    population = build_population(WIDE)
    near_of = population.neighbourhood
    customer, draws = int(population.spenders[0]), 40_000
    counts = np.bincount(near_of.draw(np.full(draws, customer), np.random.PCG64(5).random_raw))
    dx = near_of.terminal_x - near_of.customer_x[customer]
    dy = near_of.terminal_y - near_of.customer_y[customer]
    near = near_of.terminal_ids[dx * dx + dy * dy < near_of.reach**2]
    assert sorted(near) == np.flatnonzero(counts).tolist()
    assert len(near) > 5
    share = 1 / len(near)
    assert np.abs(counts[near] - draws * share).max() < 5 * math.sqrt(draws * share * (1 - share))


def test_customers_without_terminals_make_no_transactions() -> None:
    """With terminals far apart many customers reach none, and they never appear."""
    sparse = Simulation(customers=500, terminals=50, days=4)
    spenders = build_population(sparse).spenders
    assert 50 < len(spenders) < 400
    assert set(simulate(sparse).column("CUSTOMER_ID").to_pylist()) <= set(spenders.tolist())


def test_poisson_counts_follow_the_textbook_formula() -> None:
    """The table agrees with exp(-m) m^k / k!, and draws from it have that mean and variance."""
    table = module._poisson_table().astype(np.float64) / 2**64
    for rate in (0, 123, 399):
        mean = (rate + 0.5) / 100
        terms = [math.exp(-mean) * mean**count / math.factorial(count) for count in range(40)]
        np.testing.assert_allclose(table[:, rate], np.cumsum(terms), atol=1e-14)
    drawn = module._poisson(np.random.PCG64(1).random_raw(200_000), np.full(200_000, 250))
    assert drawn.mean() == pytest.approx(2.505, abs=0.02)
    assert drawn.var() == pytest.approx(2.505, abs=0.05)


def test_normal_draws_are_near_normal() -> None:
    """Mean, deviation and the tail above 2.4 deviations (an amount of 220 for a mean of 100) fit the normal."""
    drawn = module._normal(np.random.PCG64(1).random_raw, 300_000) / 65_536
    assert drawn.mean() == pytest.approx(0, abs=0.01)
    assert drawn.std() == pytest.approx(1, abs=0.01)
    assert np.mean(drawn > 2.4) == pytest.approx(0.0082, abs=0.0010)
    assert np.mean(np.abs(drawn) < 1) == pytest.approx(0.6827, abs=0.006)


def test_customers_spend_by_their_profile(genuine: dict[str, np.ndarray[Any, Any]]) -> None:
    """Counts and mean amounts a customer are those of the profile, within six standard errors."""
    population = build_population(WIDE)
    counts = np.bincount(genuine["CUSTOMER_ID"], minlength=WIDE.customers)[population.spenders]
    expected = (population.rate[population.spenders] + 0.5) / 100 * WIDE.days * 0.969  # 3.1% fall outside the day
    assert (np.abs(counts - expected) < 6 * np.sqrt(expected) + 1).all()
    assert counts.sum() == pytest.approx(expected.sum(), rel=0.01)
    sums = np.bincount(genuine["CUSTOMER_ID"], genuine["TX_AMOUNT"], minlength=WIDE.customers)[population.spenders]
    mean = population.mean_amount[population.spenders]
    # The 2.3% of amounts below 0 are drawn again from amounts that average the mean: 2.7% more in all.
    assert (np.abs(sums - 1.027 * mean * counts) <= 6 * mean / 2 * np.sqrt(counts) + 1).all()
    assert sums.sum() == pytest.approx((1.027 * mean * counts).sum(), rel=0.005)
    assert population.mean_amount.mean() == pytest.approx(52.5, abs=2)
    assert population.rate.mean() == pytest.approx(199.5, abs=8)


def test_the_day_has_its_peak_at_noon(genuine: dict[str, np.ndarray[Any, Any]]) -> None:
    """Times of day have mean 12:00 and the deviation of a normal of 20,000 s cut at midnight."""
    seconds = genuine["TX_DATETIME"].astype("datetime64[s]").astype(np.int64) % DAY_SECONDS
    assert seconds.mean() == pytest.approx(43_200, abs=300)
    assert seconds.std() == pytest.approx(18_500, abs=250)
    assert seconds.min() >= 1


def test_scenario_one_is_every_large_amount(genuine: dict[str, np.ndarray[Any, Any]]) -> None:
    """With nothing compromised, the frauds are exactly the amounts above 220, one in some two thousand."""
    assert ((genuine["TX_AMOUNT"] > 220) == (genuine["TX_FRAUD_SCENARIO"] == 1)).all()
    assert np.mean(genuine["TX_FRAUD"]) == pytest.approx(0.0006, abs=0.0003)


def test_compromises_change_nothing_else(
    wide: dict[str, np.ndarray[Any, Any]], genuine: dict[str, np.ndarray[Any, Any]]
) -> None:
    """Scenarios 2 and 3 mark transactions, scenario 3 makes amounts five times larger; all else stays."""
    for name in ("TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID"):
        assert (wide[name] == genuine[name]).all(), name
    factor = np.where(wide["TX_FRAUD_SCENARIO"] == 3, 5, 1)
    assert (np.rint(wide["TX_AMOUNT"] * 100) == np.rint(genuine["TX_AMOUNT"] * 100) * factor).all()
    rest = np.isin(wide["TX_FRAUD_SCENARIO"], (0, 1))
    assert (wide["TX_FRAUD_SCENARIO"][rest] == genuine["TX_FRAUD_SCENARIO"][rest]).all()


def test_scenario_two_takes_whole_terminals_for_28_days(wide: dict[str, np.ndarray[Any, Any]]) -> None:
    """A compromised terminal's transactions are all frauds from its first to its last day, 28 days apart at most."""
    day = (wide["TX_DATETIME"] - wide["TX_DATETIME"][0]).astype("timedelta64[D]").astype(np.int64)
    marked = wide["TX_FRAUD_SCENARIO"] == 2
    terminals = np.unique(wide["TERMINAL_ID"][marked])
    assert 50 <= len(terminals) <= 60  # one a day for 60 days, less those drawn twice or never used
    spans = []
    for terminal in terminals:
        here = wide["TERMINAL_ID"] == terminal
        first, last = day[here & marked].min(), day[here & marked].max()
        assert wide["TX_FRAUD"][here & (day >= first) & (day <= last)].all()
        spans.append(last - first + 1)
    assert np.mean(np.array(spans) <= 28) > 0.95  # the others were drawn again
    settled = day >= 28
    assert np.mean(marked[settled]) == pytest.approx(28 / WIDE.terminals, rel=0.15)


def test_scenario_three_takes_a_third_of_a_customers_transactions_for_14_days(
    wide: dict[str, np.ndarray[Any, Any]],
) -> None:
    """A compromised customer has frauds within 14 days, on a third of the transactions made in them."""
    day = (wide["TX_DATETIME"] - wide["TX_DATETIME"][0]).astype("timedelta64[D]").astype(np.int64)
    misused = wide["TX_FRAUD_SCENARIO"] == 3
    customers = np.unique(wide["CUSTOMER_ID"][misused])
    spans = [np.ptp(day[misused & (wide["CUSTOMER_ID"] == customer)]) + 1 for customer in customers]
    assert 90 <= len(customers) <= 120
    assert np.mean(np.array(spans) <= 14) > 0.9
    settled = day >= 14
    assert np.mean(misused[settled]) == pytest.approx(2 * 14 / WIDE.customers / 3, rel=0.15)


def test_the_default_run_is_a_fair_demonstration() -> None:
    """No parameter at all gives 150 to 200 thousand transactions of which 0.6 to 1% are frauds of each scenario."""
    table = simulate(simulation_from_url("simulator:")[0])
    counts = np.bincount(table.column("TX_FRAUD_SCENARIO").to_numpy())
    assert 150_000 <= len(table) <= 200_000
    assert 0.006 <= counts[1:].sum() / len(table) <= 0.01
    assert counts[1:].min() > 50


@pytest.mark.parametrize(("customers", "terminals"), [(500, 1_000), (5_000, 10_000)])
def test_the_share_of_frauds_does_not_depend_on_the_size(customers: int, terminals: int) -> None:
    """Unless told otherwise, as many of 10,000 terminals and 5,000 customers are drawn as in the Handbook."""
    simulation = Simulation(customers=customers, terminals=terminals, days=60)
    scenarios = simulate(simulation).column("TX_FRAUD_SCENARIO").to_numpy()
    later = np.bincount(scenarios[len(scenarios) // 2 :]) / len(scenarios) * 2
    assert later[2] == pytest.approx(0.0056, rel=0.25)
    assert later[3] == pytest.approx(0.0028, rel=0.25)


@given(st.integers(0, 2**32), st.integers(0, 60), st.integers(1, 50))
def test_some_draws_different_numbers(seed: int, count: int, limit: int) -> None:
    """As many as asked for, all different and below the limit; all of them when more are asked for."""
    drawn = module._some(np.random.PCG64(seed).random_raw, count, limit).tolist()
    assert len(set(drawn)) == len(drawn) == min(count, limit)
    assert set(drawn) <= set(range(limit))


def test_some_draws_each_number_as_often() -> None:
    """Two of five, twenty thousand times: each of the five comes up two fifths of the time."""
    words = np.random.PCG64(9).random_raw
    counts = np.bincount(np.concatenate([module._some(words, 2, 5) for _ in range(20_000)]))
    assert np.abs(counts / 20_000 - 0.4).max() < 0.02


def test_many_customers_need_no_matrix() -> None:
    """200,000 customers of 10,000 terminals peak below 600 bytes a customer: a matrix would be 10,000 at least."""
    tracemalloc.start()
    try:
        population = build_population(Simulation(customers=200_000, terminals=10_000))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(population.spenders) == 200_000
    assert peak < 120_000_000


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"customers": 0}, "customers must be a whole number from 1"),
        ({"terminals": 2.5}, "terminals must be a whole number from 1"),
        ({"days": 10**6}, "days must be a whole number from 1 to 36500"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"radius": 0.0}, "radius must be above 0"),
        ({"radius": math.nan}, "radius must be above 0"),
        ({"compromised_terminals_per_day": -1}, "compromised_terminals_per_day must be 0 or more"),
        ({"compromised_customers_per_day": math.inf}, "compromised_customers_per_day must be 0 or more"),
        ({"start": datetime(2026, 1, 1)}, "start must be a midnight in UTC"),
        ({"start": datetime(2026, 1, 1, 5, tzinfo=UTC)}, "start must be a midnight in UTC"),
    ],
)
def test_a_simulation_that_cannot_be_is_refused(changed: dict[str, Any], message: str) -> None:
    """Each value out of range is one clear error that names the field."""
    with pytest.raises(UserError, match=message):
        Simulation(**changed)


def test_a_url_sets_what_it_names() -> None:
    """Parameters of the URL reach the simulation, the others keep their defaults, and the rate stands apart."""
    assert simulation_from_url("simulator:") == (Simulation(), None)
    assert simulation_from_url("simulator:?") == (Simulation(), None)
    full = "simulator:?customers=10&terminals=20&days=3&seed=4&rate=2.5"
    assert simulation_from_url(full) == (Simulation(customers=10, terminals=20, days=3, seed=4), 2.5)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("simulator:?custommers=5", "did you mean customers"),
        ("simulator:?customers=", "customers must be a whole number"),
        ("simulator:?days=1e3", "days must be a whole number"),
        ("simulator:?days=-1", "days must be a whole number"),
        ("simulator:?days=0", "days must be a whole number from 1"),
        ("simulator:?seed=1&seed=2", "seed is given twice"),
        ("simulator:?rate=0", "rate must be"),
        ("simulator:?rate=nan", "rate must be"),
        ("simulator:?customers", "customers must be a whole number"),
        ("simulator:customers=5", "is not a simulator"),
        ("simulator://host?days=1", "is not a simulator"),
        ("simulator:?days=1#top", "days must be a whole number"),
        ("file:x.csv", "is not a simulator"),
    ],
)
def test_a_url_with_a_mistake_is_refused(url: str, message: str) -> None:
    """Unknown, repeated and malformed parameters are one clear error, with a suggestion where there is one."""
    with pytest.raises(UserError, match=message):
        simulation_from_url(url)
