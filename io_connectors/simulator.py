"""The simulator as a source of the pipeline: in columns, or as the JSON a card platform would send."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import PBegin, PCollection

from io_connectors.simulation import Simulation, Words, simulate_days
from transforms.durations import SECOND
from transforms.errors import UserError, did_you_mean
from transforms.raw_batch import RawBatch

SOURCE = "simulator"
SCHEMAS = ("handbook", "transaction-events")
BATCHES_A_SECOND = 10  # with a rate, batches are small enough to arrive this often

MERCHANT_CATEGORIES = (
    "grocery",
    "restaurant",
    "fuel",
    "travel",
    "electronics",
    "clothing",
    "health",
    "entertainment",
    "home",
    "online",
)
LOCATIONS = ("Brussels", "Antwerp", "Ghent", "Liege", "Namur", "Bruges", "Leuven", "Mons")
PAYMENT_METHODS = ("credit_card", "debit_card", "prepaid_card", "mobile_wallet")

_UUID_DIGITS = [at for at in range(36) if at not in (8, 13, 18, 23)]  # the others are hyphens


class SimulateTransactions(beam.PTransform[PBegin, PCollection[RawBatch]]):
    """Makes transactions up and hands them on as a file or a topic would: `PBegin -> PCollection[RawBatch]`.

    The batches come from source `simulator`; a record's position is the transaction's number. The
    ingest time is the clock's, or the newest event time of the batch where that lies ahead of the clock: a
    simulated future is not a broken clock.

    Args:
        simulation: what to simulate.
        schema: `handbook` (columns) or `transaction-events` (JSON objects).
        rate: transactions a second at most; None is as fast as they are made.
        batch_rows: rows of a batch, at most.
        clock: nanoseconds since 1970.
        sleep: waits for so many seconds.

    Raises:
        UserError: no such schema, or a rate or batch size that is not above 0.

    Example:
        >>> from apache_beam.runners.portability.fn_api_runner import FnApiRunner
        >>> with beam.Pipeline(FnApiRunner()) as p:
        ...     simulated = p | SimulateTransactions(Simulation(customers=100, terminals=200, days=7))
        ...     _ = simulated | beam.Map(len) | beam.Map(print)
        943
    """

    def __init__(
        self,
        simulation: Simulation,
        schema: str = "handbook",
        rate: float | None = None,
        batch_rows: int = 16_384,
        clock: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__()
        if schema not in SCHEMAS:
            hint = did_you_mean(schema, SCHEMAS)
            raise UserError(f"the simulator speaks the schemas {' and '.join(SCHEMAS)}, not {schema!r}{hint}")
        if rate is not None and not 0 < rate < math.inf:
            raise UserError(f"simulator: rate must be a number of transactions a second above 0, found {rate}")
        if batch_rows < 1:
            raise UserError(f"simulator: batch_rows must be at least 1, found {batch_rows}")
        self._simulation = simulation
        self._settings = (schema, rate, batch_rows, clock, sleep)

    def expand(self, root: PBegin) -> PCollection[RawBatch]:
        simulations = root | "Simulations" >> beam.Create([self._simulation], reshuffle=False)
        simulate = beam.FlatMap(simulate_raw_batches, *self._settings).with_output_types(RawBatch)
        batches: PCollection[RawBatch] = simulations | "Simulate" >> simulate
        return batches


def simulate_raw_batches(
    simulation: Simulation,
    schema: str,
    rate: float | None,
    batch_rows: int,
    clock: Callable[[], int],
    sleep: Callable[[float], None],
) -> Iterator[RawBatch]:
    """The batches of a simulation, each as soon as all its transactions are due; see `SimulateTransactions`."""
    rows = batch_rows if rate is None else max(1, min(batch_rows, int(rate / BATCHES_A_SECOND)))
    started = clock()
    for batch in _cut(simulate_days(simulation), rows):
        numbers = batch.column("TRANSACTION_ID").to_numpy()
        if rate is not None:
            due = started + math.ceil((int(numbers[-1]) + 1) * 1e9 / rate)
            sleep(max(0, due - clock()) / 1e9)
        newest = int(batch.column("TX_DATETIME").view(pa.int64())[-1].as_py())
        ingest_time = max(clock() // 1_000, newest)
        if schema == "handbook":
            yield RawBatch(SOURCE, ingest_time, numbers, columns=batch)
        else:
            yield RawBatch(SOURCE, ingest_time, numbers, payloads=as_transaction_events(batch))


def _cut(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `rows`, the last one shorter and none empty."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= rows:
            whole = pa.concat_batches(held)
            full = len(whole) - len(whole) % rows
            for at in range(0, full, rows):
                yield whole.slice(at, rows)
            held = [whole.slice(full)]
    if rest := sum(map(len, held)):
        yield pa.concat_batches(held).slice(0, rest)


def as_transaction_events(batch: pa.RecordBatch) -> list[bytes]:
    """Simulated transactions as JSON objects of the schema `transaction-events`, one a row.

    The UUID (version 8, RFC 9562) is a hash of the transaction's columns; merchant category and location belong
    to the terminal, the payment method to the customer, so the same transaction is always the same bytes.

    Args:
        batch: columns as `simulate_days` gives them.

    Example:
        >>> from io_connectors.simulation import simulate_days
        >>> import json
        >>> event = json.loads(as_transaction_events(next(simulate_days(Simulation())))[0])
        >>> event["user_id"], event["amount"], event["timestamp"], event["merchant_category"], event["is_fraud"]
        ('672', 141.19, '2026-01-01T00:02:15Z', 'grocery', False)
    """
    if not len(batch):
        return []
    units, cents = np.divmod(np.rint(batch.column("TX_AMOUNT").to_numpy() * 100).astype(np.int64), 100)
    terminal, customer = _mix(_words(batch, "TERMINAL_ID")), _mix(_words(batch, "CUSTOMER_ID"))
    times = batch.column("TX_DATETIME").view(pa.timestamp("us"))
    if not np.any(times.view(pa.int64()).to_numpy() % SECOND):
        times = times.cast(pa.timestamp("s"))  # without a fraction where there is none
    parts = {
        '{"transaction_id":"': _uuids(batch),
        '","user_id":"': batch.column("CUSTOMER_ID").cast(pa.string()),
        '","amount":': pa.array(units).cast(pa.string()),
        ".": pc.utf8_lpad(pa.array(cents).cast(pa.string()), 2, "0"),
        ',"timestamp":"': pc.replace_substring(times.cast(pa.string()), " ", "T"),
        'Z","merchant_category":"': _pick(MERCHANT_CATEGORIES, terminal),
        '","location":"': _pick(LOCATIONS, _mix(terminal)),
        '","payment_method":"': _pick(PAYMENT_METHODS, customer),
        '","is_fraud":': pc.if_else(pc.equal(batch.column("TX_FRAUD"), 1), "true", "false"),
    }
    pieces = [piece for text, values in parts.items() for piece in (text, values)]
    lines = pc.binary_join_element_wise(*pieces, "}", "")
    payloads: list[bytes] = lines.cast(pa.binary()).to_pylist()
    return payloads


def _uuids(batch: pa.RecordBatch) -> pa.Array:
    """A UUID of version 8 a row as text, hashed from all the columns that tell one transaction from another."""
    names = ("TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT")
    hashed = np.zeros(len(batch), dtype=np.uint64)
    for name in names:
        hashed = _mix(hashed ^ _words(batch, name))
    upper = hashed & np.uint64(0xFFFFFFFFFFFF0FFF) | np.uint64(0x8000)
    lower = _mix(hashed ^ _words(batch, names[0])) & np.uint64(0x3FFFFFFFFFFFFFFF) | np.uint64(0x8000000000000000)
    digits = np.stack([upper, lower], axis=1).astype(">u8").tobytes().hex().encode()
    text = np.full((len(batch), 36), ord("-"), dtype=np.uint8)
    text[:, _UUID_DIGITS] = np.frombuffer(digits, np.uint8).reshape(-1, 32)
    return pa.array(text.view("S36").ravel()).cast(pa.string())


def _words(batch: pa.RecordBatch, name: str) -> Words:
    """A column of eight-byte numbers or times as the 64-bit words that hold it."""
    return np.asarray(batch.column(name).to_numpy(zero_copy_only=False).view(np.uint64))


def _pick(names: tuple[str, ...], hashed: Words) -> pa.Array:
    return pa.array(names).take(pa.array(hashed % len(names)))


def _mix(words: Words) -> Words:
    """SplitMix64's finaliser: a bijection that scatters neighbouring numbers (Steele, Lea and Flood, 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
