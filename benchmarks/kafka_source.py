"""`python -m benchmarks.kafka_source`: from a topic to parsed transactions, and from decisions into a topic.

Transactions of the simulator as JSON, 220 bytes each, in a topic of one partition; the broker runs on the same machine,
in a process of its own. A record's cost is the CPU time of this process, the client's own threads among it, so
records per CPU-second are what one core does. `polled` is the client alone, `parsed` the client, the raw batch and
`parse`; `pipeline` is both as transforms on Beam's in-memory runner, whose time to start counts too.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from benchmarks.report import print_results, table
from benchmarks.traffic import decisions
from io_connectors.delivery import Message
from io_connectors.kafka.clients import Fetched
from io_connectors.kafka.connect import LOOKERS, READERS, open_reader
from io_connectors.kafka.producers import KafkaWriter
from io_connectors.kafka.read import ReadKafka
from io_connectors.kafka.records import raw_batch
from io_connectors.kafka.settings import CLIENTS, Cluster, ReadSettings, WriteSettings
from io_connectors.kafka.write import KafkaDecisionSink
from io_connectors.moments import Moment
from io_connectors.simulation import Simulation, simulate_days
from io_connectors.simulator import as_transaction_events
from runners.local import Kafka, free_port
from transforms.batch import TransactionBatch
from transforms.parse import ParseTransactions, parse
from transforms.schema import load_schema

ROWS = 1_000_000
BATCH_ROWS = 10_000
SCHEMA = load_schema("transaction-events")
TOPIC = "benchmark"


@dataclass(frozen=True)
class Speed:
    """What one way came to.

    Attributes:
        client: one of `CLIENTS`.
        what: was measured.
        records: read or written.
        seconds: of the clock.
        cpu_seconds: of this process.
    """

    client: str
    what: str
    records: int
    seconds: float
    cpu_seconds: float


def measure_locally(rows: int = ROWS) -> list[Speed]:
    """As `measure`, on a broker that is started for it.

    Raises:
        UserError: Kafka cannot be had here.
    """
    with tempfile.TemporaryDirectory() as directory:
        server = Kafka(Path(directory), free_port()).start()
        try:
            return measure(server, rows)
        finally:
            server.stop()


def measure(server: Kafka, records: int = ROWS) -> list[Speed]:
    """Write so many transactions and read them, in every way, with every client."""
    messages = _messages(records)
    decided = decisions(0, min(records, 100_000))
    speeds = []
    for client in CLIENTS:
        cluster = Cluster(server.bootstrap, client)
        topic = f"{TOPIC}-{client}"
        server.create_topic(topic, 1)
        server.create_topic(f"{topic}-decisions", 1)
        read = ReadSettings(cluster, topic, until=Moment("latest"), batch_rows=BATCH_ROWS)
        speeds += [
            _timed(client, "transactions written", _write, cluster, topic, messages),
            _timed(client, "decisions written", _decide, cluster, f"{topic}-decisions", decided),
            _timed(client, "polled", _poll, read, records, len),
            _timed(client, "parsed", _poll, read, records, _parsed),
            _timed(client, "pipeline", _run, read, records),
        ]
    return speeds


def _messages(records: int) -> list[Message]:
    bodies: list[bytes] = []
    for day in simulate_days(Simulation(customers=20_000, terminals=10_000, days=60)):
        bodies += as_transaction_events(day)
        if len(bodies) >= records:
            break
    return [Message(f"c{at % 20_000}", body) for at, body in enumerate(bodies[:records])]


def _timed(client: str, what: str, work: Callable[..., int], *given: Any) -> Speed:
    started, cpu = time.perf_counter(), time.process_time()
    records = work(*given)
    return Speed(client, what, records, time.perf_counter() - started, time.process_time() - cpu)


def _write(cluster: Cluster, topic: str, messages: Sequence[Message]) -> int:
    writer = KafkaWriter(WriteSettings(cluster, topic), lambda error: None)
    for first in range(0, len(messages), BATCH_ROWS):
        if writer.write(messages[first : first + BATCH_ROWS]):
            raise RuntimeError("the broker refused a message of the benchmark")
    writer.close()
    return len(messages)


def _decide(cluster: Cluster, topic: str, batch: TransactionBatch) -> int:
    writer = KafkaDecisionSink(WriteSettings(cluster, topic)).open(lambda error: None)
    for piece in batch.pieces(BATCH_ROWS):
        writer.write(piece)
    writer.close()
    return len(batch)


def _poll(settings: ReadSettings, records: int, work: Callable[[Fetched], int]) -> int:
    reader = open_reader(settings, 0)
    reader.seek(0)
    done = 0
    while done < records:
        done += work(reader.poll(BATCH_ROWS, 0.025))
    reader.close()
    return done


def _parsed(fetched: Fetched) -> int:
    batch, letters = parse(raw_batch("benchmark-0", fetched, fetched.position, time.time_ns() // 1000), SCHEMA)
    if letters:
        raise RuntimeError(f"a transaction of the simulator was refused: {letters[0]}")
    return len(batch) if batch else 0


def _run(settings: ReadSettings, records: int) -> int:
    def check(found: int) -> None:
        if found != records:
            raise RuntimeError(f"{records} transactions were written, {found} were read")

    with beam.Pipeline(FnApiRunner()) as pipeline:
        parsed = pipeline | ReadKafka(settings) | ParseTransactions(SCHEMA)
        counts: Any = parsed.batches | beam.Map(len) | beam.CombineGlobally(sum)
        _ = counts | beam.Map(check)
    READERS.close()
    LOOKERS.close()
    return records


def results_text(speeds: Sequence[Speed]) -> str:
    """The measures as a Markdown table."""
    head = ["client", "what", "records/s", "records/s a core", "CPU, us a record"]
    return table(
        head,
        [
            [
                s.client,
                s.what,
                f"{s.records / s.seconds:,.0f}",
                f"{s.records / s.cpu_seconds:,.0f}",
                f"{s.cpu_seconds / s.records * 1e6:.1f}",
            ]
            for s in speeds
        ],
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 when Kafka cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kafka_source", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=ROWS, metavar="N", help=f"default {ROWS:,}")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.ERROR)
    return print_results(lambda: results_text(measure_locally(options.rows)))


if __name__ == "__main__":
    sys.exit(main())
