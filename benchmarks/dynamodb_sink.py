"""`python -m benchmarks.dynamodb_sink`: decisions into DynamoDB Local, by the ways of writing and the calls in flight.

DynamoDB Local keeps the tables in memory. It is AWS's own, but no measure of DynamoDB, which takes what it is paid for:
what carries over is the work of the writer, here as the CPU time of this process. `first stands` and `last stands`
are the sink's `existing=keep` and `existing=replace`; `one by one` is the conditional PutItem that the sink
falls back on.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.report import table
from io_connectors.dynamodb.calls import Call, insert, put_each, replace
from io_connectors.dynamodb.table import Table, make_ready
from io_connectors.dynamodb.writer import ItemWriter
from io_connectors.retry import Backoff
from runners.local import DynamoDb, free_port
from transforms.batch import EVENT_TIME, TransactionBatch
from transforms.errors import UserError

ROWS = 5_000
FEATURES = 15
IN_FLIGHT = (1, 8)
WAYS: Mapping[str, Call] = {
    "first stands (PartiQL INSERT, 25 a call)": insert,
    "last stands (BatchWriteItem, 25 a call)": replace,
    "first stands, one by one (PutItem)": partial(put_each, keep=True),
}


@dataclass(frozen=True)
class Speed:
    """What one way of writing came to.

    Attributes:
        way: one of `WAYS`.
        in_flight: calls at once.
        per_second: items written in a second.
        cpu_microseconds: of this process, for an item.
        again_per_second: items in a second when all of them were there already.
    """

    way: str
    in_flight: int
    per_second: float
    cpu_microseconds: float
    again_per_second: float


def decisions(rows: int) -> TransactionBatch:
    """Decided transactions with the pipeline's columns; each item has less than a kilobyte, so costs one write unit."""
    numbers = np.arange(rows)
    features = {f"customer_amount_mean_{n}d": pa.array(numbers / (n + 7)) for n in range(FEATURES)}
    columns = {
        "transaction_id": pa.array([f"{n:012}" for n in numbers]),
        "event_time": pa.array(1_767_225_600_000_000 + numbers * 1_000_000, EVENT_TIME),
        "customer_id": pa.array([f"c{n % 5_000}" for n in numbers]),
        "terminal_id": pa.array([f"m{n % 10_000}" for n in numbers]),
        "amount_minor": pa.array(100 + numbers % 100_000),
        "late": pa.array(np.zeros(rows, dtype=np.bool_)),
        **features,
        "score": pa.array(numbers / rows),
        "model_id": pa.repeat("handbook-49a57abca78a", rows),
        "feature_set": pa.repeat("94828c4470086fb8", rows),
        "decision": pa.repeat("approve", rows),
        "reasons": pa.array([[]] * rows, pa.list_(pa.string())),
    }
    return TransactionBatch(pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)))


def measure(server: DynamoDb, rows: int = ROWS, in_flight: Sequence[int] = IN_FLIGHT) -> list[Speed]:
    """Write the same rows in every way, each time into a new table of a server that runs."""
    batch = decisions(rows)
    _measure(server, "warm-up", insert, max(in_flight), batch)
    return [_measure(server, way, call, at_once, batch) for way, call in WAYS.items() for at_once in in_flight]


def measure_locally(rows: int = ROWS) -> list[Speed]:
    """The same on a server that is started for it.

    Raises:
        UserError: DynamoDB Local cannot be had here.
    """
    with tempfile.TemporaryDirectory() as directory:
        server = DynamoDb(Path(directory), free_port(), in_memory=True).start()
        try:
            return measure(server, rows)
        finally:
            server.stop()


def _measure(server: DynamoDb, way: str, call: Call, in_flight: int, batch: TransactionBatch) -> Speed:
    client = server.client(max_pool_connections=in_flight, parameter_validation=False)
    name = "benchmark"
    make_ready(client, Table(name, create=True), Backoff(), lambda error: None)
    writer = ItemWriter(client, name, call, True, None, in_flight, Backoff(), lambda error: None)
    try:
        cpu, started = time.process_time(), time.perf_counter()
        writer.write(batch)
        written, cpu = time.perf_counter(), time.process_time() - cpu
        writer.write(batch)
        again = time.perf_counter() - written
        client.delete_table(TableName=name)
    finally:
        writer.close()
    rows = len(batch)
    return Speed(way, in_flight, rows / (written - started), cpu / rows * 1e6, rows / again)


def results_text(speeds: Sequence[Speed]) -> str:
    """The measures as a Markdown table."""
    head = ["way", "calls in flight", "items/s", "items/s when all are there", "CPU of the writer, us an item"]
    return table(
        head,
        [
            [s.way, str(s.in_flight), f"{s.per_second:,.0f}", f"{s.again_per_second:,.0f}", f"{s.cpu_microseconds:.0f}"]
            for s in speeds
        ],
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 when DynamoDB Local cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dynamodb_sink", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=ROWS, metavar="N", help=f"items of a run (default {ROWS:,})")
    options = parser.parse_args(argv)
    logging.getLogger("io_connectors").setLevel(logging.ERROR)  # that this server keeps no backups is no news
    try:
        print(results_text(measure_locally(options.rows)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
