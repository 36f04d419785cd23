"""Card transactions made up from a seed: the process of the Fraud Detection Handbook, in columns.

Le Borgne, Siblini, Lebichot and Bontempi, "Reproducible Machine Learning for Credit Card Fraud Detection -
Practical Handbook", 2022, chapter 3: customers and terminals lie on a map, customers spend by their
profile at terminals near them, and three scenarios turn some transactions into frauds.

A seed gives the same bytes on every machine. So all randomness is the raw output of PCG64 under
SeedSequence, whose streams NumPy promises never to change, and what is done with it is integer
arithmetic or a single correctly rounded operation at a time; NumPy's distributions, logarithms and
exponentials promise neither.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pyarrow as pa

from transforms.errors import UserError, did_you_mean

SIMULATED = pa.schema(
    [
        pa.field("TRANSACTION_ID", pa.int64(), nullable=False),
        pa.field("TX_DATETIME", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("CUSTOMER_ID", pa.int64(), nullable=False),
        pa.field("TERMINAL_ID", pa.int64(), nullable=False),
        pa.field("TX_AMOUNT", pa.float64(), nullable=False),
        pa.field("TX_FRAUD", pa.int8(), nullable=False),
        pa.field("TX_FRAUD_SCENARIO", pa.int8(), nullable=False),
    ]
)

DAY_SECONDS = 86_400
MAP_SIZE = 100  # the map is a square of this many units
SUSPICIOUS_CENTS = 22_000  # scenario 1: larger amounts are frauds
TERMINAL_DAYS, CUSTOMER_DAYS = 28, 14  # scenarios 2 and 3: how long a compromise lasts
# The Handbook draws 2 of its 10,000 terminals and 3 of its 5,000 customers a day.
TERMINAL_SHARE, CUSTOMER_SHARE = Fraction(2, 10_000), Fraction(3, 5_000)

_LIMITS = {"customers": 10_000_000, "terminals": 10_000_000, "days": 36_500}
_UNIT = 1_000_000  # steps in one unit of the map: positions are integers, so distances are exact
_SIDE = MAP_SIZE * _UNIT
_CELLS = 1_000  # most cells along one side of the grid that finds near terminals
_RATES = 400  # different spending rates: the middles of hundredths from 0 to 4 a day
_MOST_A_DAY = 40  # P(more than 40 | mean 4) < 2**-64
_PEOPLE, _SPENDING, _FRAUDS = range(3)  # what a stream of randomness is for

Ints = np.ndarray[Any, np.dtype[np.int64]]
Words = np.ndarray[Any, np.dtype[np.uint64]]
Stream = Callable[[int], Words]


@dataclass(frozen=True)
class Simulation:
    """What to simulate.

    Attributes:
        customers: card holders, each spending 0 to 4 times a day on average.
        terminals: where they may spend.
        days: length of the run; the first days are the same however many follow.
        seed: 0 or a positive integer below 2**63; another seed is another world.
        start: midnight UTC of the first day.
        radius: a customer uses the terminals nearer than this; the map is 100 by 100.
        compromised_terminals_per_day: terminals drawn a day in scenario 2, a fraction meaning one every few days.
            None keeps the Handbook's density, 2 of 10,000, so that the share of frauds does not depend on the size.
        compromised_customers_per_day: customers drawn a day in scenario 3; None is 3 of 5,000.

    Raises:
        UserError: a value is out of range.

    Example:
        >>> simulate(Simulation(customers=100, terminals=200, days=7)).num_rows
        943
    """

    customers: int = 1_000
    terminals: int = 2_000
    days: int = 90
    seed: int = 1
    start: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    radius: float = 5.0
    compromised_terminals_per_day: float | None = None
    compromised_customers_per_day: float | None = None

    def __post_init__(self) -> None:
        for name, most in _LIMITS.items():
            _check_integer(name, getattr(self, name), 1, most)
        _check_integer("seed", self.seed, 0, 2**63 - 1)
        if not 0 < self.radius <= MAP_SIZE:
            raise UserError(f"simulation: radius must be above 0 and at most {MAP_SIZE}, found {self.radius}")
        for name in ("compromised_terminals_per_day", "compromised_customers_per_day"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise UserError(f"simulation: {name} must be 0 or more, found {value}")
        if self.start.utcoffset() != timedelta(0) or self.start.timestamp() % DAY_SECONDS:
            raise UserError(f"simulation: start must be a midnight in UTC, found {self.start.isoformat()}")


def _check_integer(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or not least <= value <= most:
        raise UserError(f"simulation: {name} must be a whole number from {least} to {most}, found {value!r}")


def simulation_from_url(url: str) -> tuple[Simulation, float | None]:
    """The simulation a `simulator:` URL asks for, and its rate in transactions a second (None: no pacing).

    Raises:
        UserError: an unknown, repeated or malformed parameter; the message names it.

    Example:
        >>> simulation, rate = simulation_from_url("simulator:?customers=50&days=7&rate=100")
        >>> simulation.customers, simulation.terminals, simulation.days, rate
        (50, 2000, 7, 100.0)
    """
    scheme, _, rest = url.partition(":")
    if scheme != "simulator" or (rest and not rest.startswith("?")):
        raise UserError(f"{url!r} is not a simulator; write simulator: or simulator:?customers=1000&days=90")
    known = ("customers", "terminals", "days", "seed", "rate")
    found: dict[str, str] = {}
    for name, value in parse_qsl(rest[1:], keep_blank_values=True):
        if name not in known:
            raise UserError(f"{url!r}: no parameter {name!r}; there are {', '.join(known)}{did_you_mean(name, known)}")
        if name in found:
            raise UserError(f"{url!r}: parameter {name} is given twice")
        found[name] = value
    rate = _rate(url, found.pop("rate", None))
    sizes: dict[str, Any] = {name: _whole(url, name, value) for name, value in found.items()}
    return Simulation(**sizes), rate


def _whole(url: str, name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", text):
        raise UserError(f"{url!r}: {name} must be a whole number, found {text!r}")
    return int(text)


def _rate(url: str, text: str | None) -> float | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})?", text) or float(text) == 0:
        raise UserError(f"{url!r}: rate must be a number of transactions a second above 0, found {text!r}")
    return float(text)


def simulate(simulation: Simulation) -> pa.Table:
    """All days in one table, with the columns of `SIMULATED`."""
    return pa.Table.from_batches(simulate_days(simulation), SIMULATED)


def simulate_days(simulation: Simulation) -> Iterator[pa.RecordBatch]:
    """One batch a day with the columns of `SIMULATED`, in order of time; ids count from 0 over the whole run.

    Memory follows the customers, the terminals and one day's transactions.
    Where the Handbook takes exactly a third of a compromised customer's transactions after the fact,
    each of them is taken with probability 1/3 here, which needs no look ahead.
    """
    population = build_population(simulation)
    terminal_safe = np.zeros(simulation.terminals, dtype=np.int64)  # first day it is no longer compromised
    customer_safe = np.zeros(simulation.customers, dtype=np.int64)
    terminals_a_day = _per_day(simulation.compromised_terminals_per_day, simulation.terminals * TERMINAL_SHARE)
    customers_a_day = _per_day(simulation.compromised_customers_per_day, simulation.customers * CUSTOMER_SHARE)
    next_id = 0
    for day in range(simulation.days):
        frauds = _stream(simulation, _FRAUDS, day)
        terminal_safe[_some(frauds, _drawn_on(day, terminals_a_day), simulation.terminals)] = day + TERMINAL_DAYS
        customer_safe[_some(frauds, _drawn_on(day, customers_a_day), simulation.customers)] = day + CUSTOMER_DAYS
        seconds, customer, terminal, cents = _spend(population, _stream(simulation, _SPENDING, day))
        scenario = (cents > SUSPICIOUS_CENTS).astype(np.int8)
        scenario[terminal_safe[terminal] > day] = 2
        exposed = np.flatnonzero(customer_safe[customer] > day)
        misused = exposed[_below(frauds(len(exposed)), 3) == 0]
        cents[misused] *= 5
        scenario[misused] = 3
        times = (int(simulation.start.timestamp()) + day * DAY_SECONDS + seconds) * 1_000_000
        yield _to_batch(np.arange(next_id, next_id + len(cents)), times, customer, terminal, cents, scenario)
        next_id += len(cents)


def _to_batch(
    ids: Ints, times: Ints, customer: Ints, terminal: Ints, cents: Ints, scenario: np.ndarray[Any, np.dtype[np.int8]]
) -> pa.RecordBatch:
    columns = [ids, times, customer, terminal, cents / 100, (scenario > 0).astype(np.int8), scenario]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, SIMULATED, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SIMULATED)


def _spend(population: Population, words: Stream) -> tuple[Ints, Ints, Ints, Ints]:
    """One day's genuine transactions in order of time: second of the day, customer, terminal, cents."""
    spenders = population.spenders
    customer = np.repeat(spenders, _poisson(words(len(spenders)), population.rate[spenders]))
    seconds = DAY_SECONDS // 2 + (20_000 * _normal(words, len(customer)) >> 16)
    inside = np.flatnonzero((seconds > 0) & (seconds < DAY_SECONDS))
    order = inside[np.argsort(seconds[inside], kind="stable")]
    seconds, customer = seconds[order], customer[order]
    mean = population.mean_amount[customer]
    amount = mean + mean / 2 * (_normal(words, len(customer)) / 65_536)
    negative = np.flatnonzero(amount < 0)
    amount[negative] = 2 * mean[negative] * _fraction(words(len(negative)))
    cents = np.rint(amount * 100).astype(np.int64)
    return seconds, customer, population.neighbourhood.draw(customer, words), cents


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """Which terminals each customer can reach.

    Neither a matrix nor a list of pairs is kept, so memory is a few numbers a customer and a terminal.
    The map is cut into cells no smaller than the reach; a terminal is drawn from the nine cells about a
    customer (the candidates) until one lies within reach, about one in three, each as likely as another.

    Attributes:
        reach: the radius; it and the positions are in millionths of a unit of the map.
        customer_x, customer_y: int64 (customers,).
        terminal_x, terminal_y, terminal_ids: int64 (terminals,), sorted by cell, row of cells by row.
        ends: int64 (3, customers): candidates up to and with each of the three rows of cells about the customer.
        shifts: int64 (3, customers): a candidate's number plus this is its place among the sorted terminals.
    """

    reach: int
    customer_x: Ints
    customer_y: Ints
    terminal_x: Ints
    terminal_y: Ints
    terminal_ids: Ints
    ends: Ints
    shifts: Ints

    def draw(self, customers: Ints, words: Stream) -> Ints:
        """A terminal for each of `customers`, all of whom must reach one."""
        terminals = np.empty(len(customers), dtype=np.int64)
        pending = np.arange(len(customers))
        while len(pending):
            who = customers[pending]
            places, near = self._candidates(who, _below(words(len(who)), self.ends[2][who]))
            terminals[pending[near]] = self.terminal_ids[places[near]]
            pending = pending[~near]
        return terminals

    def customers_with_terminals(self) -> Ints:
        """The customers who reach at least one terminal, in order."""
        found = np.zeros(len(self.customer_x), dtype=np.bool_)
        pending, number = np.arange(len(found)), 0
        while len(pending := pending[self.ends[2][pending] > number]):
            _, near = self._candidates(pending, np.full(len(pending), number))
            found[pending[near]] = True
            pending, number = pending[~near], number + 1
        return np.flatnonzero(found)

    def _candidates(self, customers: Ints, numbers: Ints) -> tuple[Ints, np.ndarray[Any, np.dtype[np.bool_]]]:
        """Where each customer's candidate of that number stands, and whether it is within reach."""
        row = (numbers >= self.ends[0][customers]).astype(np.int64) + (numbers >= self.ends[1][customers])
        places = numbers + self.shifts[row, customers]
        dx = self.customer_x[customers] - self.terminal_x[places]
        dy = self.customer_y[customers] - self.terminal_y[places]
        return places, dx * dx + dy * dy < self.reach * self.reach


def build_neighbourhood(customer_xy: Ints, terminal_xy: Ints, reach: int) -> Neighbourhood:
    """The grid over positions given as int64 (2, customers) and (2, terminals), in millionths of a unit."""
    cells = min(_CELLS, _SIDE // reach)
    across = cells + 2  # a frame of empty cells spares the edge of the map a rule of its own
    customer_column, customer_row = 1 + np.minimum(customer_xy // (_SIDE // cells), cells - 1)
    terminal_column, terminal_row = 1 + np.minimum(terminal_xy // (_SIDE // cells), cells - 1)
    terminal_cell = terminal_row * across + terminal_column
    order = np.argsort(terminal_cell, kind="stable")
    before = np.concatenate([[0], np.cumsum(np.bincount(terminal_cell, minlength=across * across))])
    middle = customer_row * across + customer_column
    middles = np.stack([middle - across, middle, middle + across])
    starts, lengths = before[middles - 1], before[middles + 2] - before[middles - 1]
    ends = np.cumsum(lengths, axis=0)
    return Neighbourhood(
        reach=reach,
        customer_x=customer_xy[0],
        customer_y=customer_xy[1],
        terminal_x=terminal_xy[0, order],
        terminal_y=terminal_xy[1, order],
        terminal_ids=order,
        ends=ends,
        shifts=starts - (ends - lengths),
    )


@dataclass(frozen=True, eq=False)
class Population:
    """The customers of a simulation.

    Attributes:
        mean_amount: float64 (customers,), 5 to 100; half of it is the standard deviation.
        rate: int64 (customers,): a customer makes `(rate + 0.5) / 100` transactions a day on average.
        neighbourhood: the terminals they reach.
        spenders: int64, the customers who reach a terminal; the others make no transactions.
    """

    mean_amount: np.ndarray[Any, np.dtype[np.float64]]
    rate: Ints
    neighbourhood: Neighbourhood
    spenders: Ints


def build_population(simulation: Simulation) -> Population:
    """Customers and terminals uniform on the map; mean amounts and rates of spending uniform too."""
    words = _stream(simulation, _PEOPLE, 0)
    mean_amount = 5 + 95 * _fraction(words(simulation.customers))
    rate = _below(words(simulation.customers), _RATES)
    customer_xy = _below(words(2 * simulation.customers), _SIDE).reshape(2, -1)
    terminal_xy = _below(words(2 * simulation.terminals), _SIDE).reshape(2, -1)
    reach = max(1, round(simulation.radius * _UNIT))
    neighbourhood = build_neighbourhood(customer_xy, terminal_xy, reach)
    return Population(mean_amount, rate, neighbourhood, neighbourhood.customers_with_terminals())


def _stream(simulation: Simulation, purpose: int, day: int) -> Stream:
    """An endless stream of random 64-bit words of its own for this purpose on this day."""
    # random_raw is typed for its other use, without a size.
    return np.random.PCG64(np.random.SeedSequence(simulation.seed, spawn_key=(purpose, day))).random_raw


def _fraction(words: Words) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Uniform on [0, 1): the upper 53 bits."""
    return np.asarray((words >> 11) * 2.0**-53)


def _below(words: Words, limit: int | Ints) -> Ints:
    """Uniform integers in [0, limit), for limits far below 2**32: the upper half of the word, scaled."""
    return np.asarray((words >> 32).astype(np.int64) * limit >> 32)


def _normal(words: Stream, count: int) -> Ints:
    """Normal integers of mean 0 and standard deviation 65,536: sums of twelve uniforms of 16 bits.

    The sum of twelve (the Irwin-Hall distribution) has variance 12/12 and is near normal to three standard
    deviations. Three words hold one sum, so the order of a machine's bytes does not matter.
    """
    uniforms = words(3 * count).view(np.uint16).reshape(count, 12)
    return np.asarray(uniforms.sum(axis=1, dtype=np.int64) - 6 * 65_535)


def _poisson(words: Words, rate: Ints) -> Ints:
    """Poisson counts by inversion: the first count whose cumulated probability exceeds the word."""
    table = _poisson_table()
    counts = np.zeros(len(rate), dtype=np.int64)
    pending = np.arange(len(rate))
    for count in range(_MOST_A_DAY):
        pending = pending[words[pending] >= table[count, rate[pending]]]
        counts[pending] += 1
    return counts


@cache
def _poisson_table() -> Words:
    """P(at most count) in units of 2**-64, as uint64 (counts, rates); `decimal` rounds alike everywhere."""
    table = np.empty((_MOST_A_DAY, _RATES), dtype=np.uint64)
    with localcontext(Context(prec=40)):
        for rate in range(_RATES):
            mean = (Decimal(rate) + Decimal("0.5")) / 100
            term = cumulated = (-mean).exp()
            for count in range(_MOST_A_DAY):
                table[count, rate] = min(int(cumulated * 2**64), 2**64 - 1)
                term = term * mean / (count + 1)
                cumulated += term
    return table


def _per_day(asked: float | None, usual: Fraction) -> Fraction:
    return usual if asked is None else Fraction(str(asked))


def _drawn_on(day: int, per_day: Fraction) -> int:
    """How many are drawn that day; the first day draws at least one, so that a small run has frauds too."""
    return math.ceil(per_day * (day + 1)) - math.ceil(per_day * day)


def _some(words: Stream, count: int, limit: int) -> Ints:
    """`count` different integers in [0, limit), or all of them (Floyd's algorithm)."""
    count = min(count, limit)
    chosen: set[int] = set()
    for top, word in zip(range(limit - count, limit), words(count).tolist(), strict=True):
        drawn = word * (top + 1) >> 64
        chosen.add(top if drawn in chosen else drawn)
    return np.array(sorted(chosen), dtype=np.int64)
