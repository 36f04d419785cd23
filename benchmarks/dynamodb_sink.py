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

from benchmarks.report import print_results, table
from benchmarks.traffic import decisions
from io_connectors.dynamodb.calls import Call, insert, put_each, replace
from io_connectors.dynamodb.table import Table, make_ready
from io_connectors.dynamodb.writer import ItemWriter
from io_connectors.retry import Backoff
from runners.local import DynamoDb, free_port
from transforms.batch import TransactionBatch

ROWS = 5_000
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


def measure(server: DynamoDb, rows: int = ROWS, in_flight: Sequence[int] = IN_FLIGHT) -> list[Speed]:
    """Write the same rows in every way, each time into a new table of a server that runs."""
    batch = decisions(0, rows)
    _measure(server, "warm-up", insert, max(in_flight), batch)
    return [_measure(server, way, call, at_once, batch) for way, call in WAYS.items() for at_once in in_flight]


def measure_locally(rows: int = ROWS) -> list[Speed]:
    """The same on a server that is started for it.

    Raises:
        UserError: DynamoDB Local cannot be had here.
    """
    with tempfile.TemporaryDirectory() as directory:
        server = DynamoDb(Path(directory), free_port()).start()
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
    return print_results(lambda: results_text(measure_locally(options.rows)))


if __name__ == "__main__":
    sys.exit(main())
