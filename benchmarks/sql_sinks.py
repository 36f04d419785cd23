"""`python -m benchmarks.sql_sinks`: decisions into PostgreSQL, by the size of a batch.

Wide rows, as the default job's: an id, a time, two entities, an amount, fifteen features, score, model, decision, and
reasons for one in a hundred. Every batch is one transaction: COPY into the staging table, duplicates removed, MERGE,
ledger. One writer, the server on this machine with its own defaults, `fsync` and all. `again` is the same batches
once more, which the ledger knows; `anew` the same rows in other cuts, which it does not, so that MERGE meets each
row in the table.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.report import print_results, spread, table
from benchmarks.traffic import decisions
from io_connectors.postgresql.sink import postgresql_sink
from io_connectors.sinks import DECISION_SINKS
from io_connectors.urls import parse_url
from runners.local import Postgres, free_port

SIZES = (100, 1_000, 10_000, 50_000)
ROWS = 400_000
MOST_BATCHES = 400  # of a run: small batches need not write as many rows to be measured as large ones


@dataclass(frozen=True)
class Speed:
    """What batches of one size came to.

    Attributes:
        size: rows of a batch.
        held: rows that the table held before.
        rows: written.
        seconds: each batch took, in their order.
        cpu_seconds: of this process, for all of them.
        again_seconds: for all, written again in the same batches.
        anew_seconds: for all, written again in other batches.
    """

    size: int
    held: int
    rows: int
    seconds: Sequence[float]
    cpu_seconds: float
    again_seconds: float
    anew_seconds: float

    @property
    def per_second(self) -> float:
        """Rows written in a second."""
        return self.rows / sum(self.seconds)


def measure_here(rows: int = ROWS) -> list[Speed]:
    """As `measure`, on a server that is started for it.

    Raises:
        UserError: there is no PostgreSQL server on this machine.
    """
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)  # the server may run as another user
        server = Postgres(Path(directory), free_port()).start()
        try:
            return measure(server, rows)
        finally:
            server.stop()


def measure(server: Postgres, rows: int = ROWS, sizes: Sequence[int] = SIZES) -> list[Speed]:
    """Write so many rows in batches of each size, first into an empty table, then into one that holds twice as many."""
    with _environment("PGPASSWORD", server.password):
        _measure(server, 1_000, 0, min(rows, 10_000))  # whatever is done only once is done now
        return [
            _measure(server, size, held, min(rows, size * MOST_BATCHES)) for held in (0, 2 * rows) for size in sizes
        ]


def _measure(server: Postgres, size: int, held: int, rows: int) -> Speed:
    batch, name = decisions(held, rows), "benchmark"
    with server.connect(autocommit=True) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {name}, {name}_batches".encode())
    url = f"{server.url}/public/{name}?create=true&statement_timeout=10m"
    writer = postgresql_sink(parse_url(url, DECISION_SINKS)).open(lambda error: None)
    try:
        for first in range(0, held, 100_000):
            writer.write(decisions(first, min(100_000, held - first)))
        cpu = time.process_time()
        seconds = [_timed(partial(writer.write, piece)) for piece in batch.pieces(size)]
        cpu = time.process_time() - cpu
        again = _timed(lambda: [writer.write(piece) for piece in batch.pieces(size)])
        other = batch.slice(min(size, rows) // 2)
        anew = _timed(lambda: [writer.write(piece) for piece in other.pieces(size)]) * len(batch) / len(other)
    finally:
        writer.close()
    return Speed(size, held, len(batch), seconds, cpu, again, anew)


def _timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})


def results_text(speeds: Sequence[Speed]) -> str:
    """The measures as a Markdown table."""
    head = [
        "rows of a batch",
        "rows there before",
        "rows/s",
        "a batch, ms (min / median / max)",
        "CPU of the writer, us a row",
        "again, rows/s",
        "anew, rows/s",
    ]
    return table(
        head,
        [
            [
                f"{s.size:,}",
                f"{s.held:,}",
                f"{s.per_second:,.0f}",
                spread([1e3 * each for each in s.seconds], ",.1f"),
                f"{1e6 * s.cpu_seconds / s.rows:.1f}",
                f"{s.rows / s.again_seconds:,.0f}",
                f"{s.rows / s.anew_seconds:,.0f}",
            ]
            for s in speeds
        ],
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 when PostgreSQL cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sql_sinks", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=ROWS, metavar="N", help=f"of the largest runs (default {ROWS:,})")
    options = parser.parse_args(argv)
    return print_results(lambda: results_text(measure_here(options.rows)))


if __name__ == "__main__":
    sys.exit(main())
