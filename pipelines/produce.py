"""Send transactions to a stream, as a card platform would: for demonstrations, load and tests.

    python -m pipelines.produce --source 'simulator:?customers=100000&days=1' --sink kafka://HOST:PORT/TOPIC --rate 500

Each transaction becomes one JSON object of the schema `transaction-events`, keyed by its customer, so that a
customer's transactions stay in order.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NoReturn

import msgspec
import numpy as np
import pyarrow as pa

from io_connectors.delivery import Message, MessageWriter
from io_connectors.files import FilePiece, check_files, read_piece
from io_connectors.simulation import simulate_days, simulation_from_url
from io_connectors.simulator import as_transaction_events
from io_connectors.sinks import message_sink
from pipelines.setting_values import mask_secrets
from transforms.batch import TransactionBatch
from transforms.errors import UserError
from transforms.parse import parse
from transforms.schema import Schema, load_schema

#: What is handed to the stream at once: so many, or with a pace what is due in a tenth of a second.
MOST_AT_ONCE = 10_000
PERIOD = 0.1

Times = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Events:
    """Some transactions in order.

    Attributes:
        keys: each one's customer.
        times: each one's event time, in microseconds since 1970.
        bodies: makes them JSON objects, given the event times to write into them.
    """

    keys: Sequence[str]
    times: Times
    bodies: Callable[[int, Times], list[bytes]]

    def messages(self, first: int, times: Times) -> list[Message]:
        """Those from number `first` on, with these event times; a message's id is its customer's."""
        keys = self.keys[first : first + len(times)]
        return [Message(key, body) for key, body in zip(keys, self.bodies(first, times), strict=True)]


def simulated(url: str) -> Iterator[Events]:
    """The transactions of a `simulator:` URL, a day at a time.

    Raises:
        UserError: a parameter is wrong.
    """
    simulation, _ = simulation_from_url(url)
    return map(_events_of_day, simulate_days(simulation))


def _events_of_day(day: pa.RecordBatch) -> Events:
    return Events(day.column("CUSTOMER_ID").cast(pa.string()).to_pylist(), _micros(day, "TX_DATETIME"), _bodies(day))


def _micros(batch: pa.RecordBatch, name: str) -> Times:
    return np.asarray(batch.column(name).view(pa.int64()))


def _bodies(day: pa.RecordBatch) -> Callable[[int, Times], list[bytes]]:
    def bodies(first: int, times: Times) -> list[bytes]:
        part = day.slice(first, len(times))
        at = part.schema.get_field_index("TX_DATETIME")
        stamped = pa.array(times).view(part.schema.field(at).type)
        return as_transaction_events(part.set_column(at, part.schema.field(at), stamped))

    return bodies


def recorded(url: str, schema_name: str) -> Iterator[Events]:
    """The transactions of files, in the files' order.

    Raises:
        UserError: the files cannot be read with this schema, or hold a record that is no transaction.
    """
    schema = load_schema(schema_name)
    return chain.from_iterable(_events_of_piece(piece, schema) for piece in check_files(url, schema))


def _events_of_piece(piece: FilePiece, schema: Schema) -> Iterator[Events]:
    for raw in read_piece(piece, schema, MOST_AT_ONCE, time.time_ns):
        batch, letters = parse(raw, schema)
        if letters:
            letter = letters[0]
            raise UserError(f"{letter.source}, record {letter.position}: {letter.error}; only good records are sent")
        if batch is not None:
            keys = batch.rows.column("customer_id").fill_null("").to_pylist()
            yield Events(keys, batch.numpy("event_time"), _as_json(batch, schema.columns["amount_minor"].minor_digits))


def _as_json(batch: TransactionBatch, minor_digits: int) -> Callable[[int, Times], list[bytes]]:
    optional = [n for n in ("merchant_category", "location", "payment_method") if n in batch.rows.schema.names]

    def bodies(first: int, times: Times) -> list[bytes]:
        rows = batch.slice(first, len(times)).rows
        stamps = pa.array(times).view(pa.timestamp("us")).cast(pa.string())
        columns: dict[str, list[Any]] = {
            "transaction_id": rows.column("transaction_id").to_pylist(),
            "user_id": rows.column("customer_id").to_pylist(),
            "amount": [minor / 10**minor_digits for minor in rows.column("amount_minor").to_pylist()],
            "timestamp": [f"{text.replace(' ', 'T')}Z" for text in stamps.to_pylist()],
            **{name: rows.column(name).to_pylist() for name in optional},
            "is_fraud": [None if label is None else bool(label) for label in rows.column("is_fraud").to_pylist()],
        }
        names = tuple(columns)
        return [msgspec.json.encode(dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)]

    return bodies


@dataclass(frozen=True)
class Pace:
    """When transactions are sent.

    Attributes:
        rate: so many a second; None for no such limit.
        speed: at the recorded intervals, so many times faster; None for as fast as possible.
        stamped: whether the event time written into each is the time of sending and not the recorded one.
        clock: nanoseconds since 1970.
        sleep: waits for so many seconds.
    """

    rate: float | None = None
    speed: float | None = None
    stamped: bool = True
    clock: Callable[[], int] = time.time_ns
    sleep: Callable[[float], None] = time.sleep

    def due(self, times: Times, sent: int, origin: int) -> Times:
        """When each is due, in microseconds after the start.

        Args:
            times: event times, ascending.
            sent: how many were sent before these.
            origin: the event time of the very first.
        """
        if self.rate is not None:
            return ((sent + np.arange(len(times))) * 1e6 / self.rate).astype(np.int64)
        if self.speed is not None:
            return ((times - origin) / self.speed).astype(np.int64)
        return np.zeros(len(times), dtype=np.int64)

    def stamps(self, times: Times, due: Times) -> Times:
        """The event times to send: recorded ones, or when each was due; without a pace that is now."""
        if not self.stamped:
            return times
        return np.full(len(times), self.clock() // 1000) if self.rate is self.speed is None else due


def paced(events: Iterable[Events], pace: Pace) -> Iterator[list[Message]]:
    """Messages in the order of `events`, each list when all of it is due."""
    started, sent, origin = pace.clock() // 1000, 0, 0
    for some in events:
        origin = origin if sent else int(some.times[0])
        due = pace.due(some.times, sent, origin)
        first = 0
        while first < len(due):
            now = pace.clock() // 1000 - started
            end = min(int(np.searchsorted(due, now, side="right")), first + MOST_AT_ONCE)
            if end == first:
                pace.sleep(max(PERIOD, (int(due[first]) - now) / 1e6))
                continue
            times = pace.stamps(some.times[first:end], started + due[first:end])
            yield some.messages(first, times)
            sent, first = sent + end - first, end


class Sent:
    """How many have been sent, shown on a stream once in a while.

    Args:
        quiet: shows nothing.
        clock: seconds of a clock that never goes back.
    """

    def __init__(self, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        self._quiet = quiet
        self._clock = clock
        self._started = self._shown = clock()

    def add(self, count: int) -> None:
        """So many more."""
        self.count += count
        if not self._quiet and self._clock() - self._shown >= 1.0:
            self._shown = self._clock()
            print(f"\r{self.line()}", end="", file=sys.stderr, flush=True)

    def line(self) -> str:
        """What is shown."""
        seconds = self._clock() - self._started
        return f"sent {self.count:,} in {seconds:,.1f} s ({self.count / seconds if seconds else 0:,.0f}/s)"


def send(messages: Iterable[list[Message]], writer: MessageWriter, most: int | None, sent: Sent) -> None:
    """Write messages until there are no more, or `most` have been sent.

    Raises:
        UserError: the stream refuses one for good.
    """
    for some in messages:
        now = some if most is None else some[: most - sent.count]
        for refused in writer.write(now):
            raise UserError(f"the stream refuses a transaction of customer {now[refused.at].id}: {refused.error}")
        sent.add(len(now))
        if sent.count == most:
            return


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(mask_secrets(message))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m pipelines.produce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--source",
        default="simulator:?customers=100000&terminals=20000&days=1",
        metavar="URL",
        help="simulator: or file: (default %(default)s)",
    )
    parser.add_argument("--schema", default="handbook", metavar="NAME|FILE", help="of the files (default handbook)")
    parser.add_argument("--sink", required=True, metavar="URL", help="kafka: or kinesis:")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument(
        "--rate", type=_positive, metavar="N", help="transactions a second (default: as fast as possible)"
    )
    pace.add_argument("--speed", type=_positive, metavar="X", help="at the recorded pace (1), or so many times faster")
    parser.add_argument(
        "--times",
        choices=("now", "recorded"),
        default="now",
        help="event times: when each is sent (the default), or as recorded",
    )
    parser.add_argument("--count", type=int, metavar="N", help="stop after so many")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser.parse_args(argv)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, found {text!r}")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 0 when all was sent, 2 when something given is wrong, 130 when interrupted."""
    sent = Sent(quiet=True)
    try:
        given = _arguments(argv)
        if given.count is not None and given.count < 1:
            raise UserError(f"--count must be at least 1, found {given.count}")
        sent = Sent(given.quiet)
        simulates = given.source.startswith("simulator:")
        events = simulated(given.source) if simulates else recorded(given.source, given.schema)
        pace = Pace(given.rate, given.speed, stamped=given.times == "now")
        writer = message_sink(given.sink, "--sink").open(lambda error: None)
        try:
            send(paced(events, pace), writer, given.count, sent)
        finally:
            writer.close()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\rinterrupted: {sent.line()}", file=sys.stderr)
        return 130
    print(f"\r{sent.line()}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
