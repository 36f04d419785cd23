"""`python -m benchmarks.kinesis_source`: transactions into a stream, and from a stream to parsed transactions.

Transactions of the simulator as JSON, 220 bytes each, in a stream of two shards on kinesalite, in a process of its own
on the same machine. It is no measure of Kinesis, where a shard gives 2 MB and 5 calls a second: the pipeline keeps to
that here, too. What carries over is the work of this process, its CPU time: `asked` is boto3 and the raw batch,
`parsed` is `parse` on top, both as fast as the server answers; `pipeline` is all of it on Beam's in-memory runner. The
delay is from the arrival of a record to its raw batch, with a reader that asks as often as is allowed.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker

from benchmarks.report import print_results, table
from io_connectors.delivery import Message
from io_connectors.kinesis.api import EARLIEST
from io_connectors.kinesis.connect import READERS, api_of
from io_connectors.kinesis.progress import ProgressTracker
from io_connectors.kinesis.read import ReadKinesis, ReadSlice, cut_slices, first_progress
from io_connectors.kinesis.records import raw_batch, unpack
from io_connectors.kinesis.settings import ReadSettings, Stream
from io_connectors.kinesis.shards import Segment
from io_connectors.kinesis.write import KinesisSink
from io_connectors.moments import Moment
from io_connectors.simulation import Simulation, simulate_days
from io_connectors.simulator import as_transaction_events
from io_connectors.watermarks import AdvancingWatermark
from runners.local import Kinesis, free_port
from transforms.parse import ParseTransactions, parse
from transforms.schema import load_schema

ROWS = 50_000
SHARDS = 2
BATCH_ROWS = 10_000
DELAY_SECONDS = 8.0
SCHEMA = load_schema("transaction-events")


@dataclass(frozen=True)
class Speed:
    """What one way came to.

    Attributes:
        what: was measured.
        records: read or written.
        size: bytes of them.
        seconds: of the clock.
        cpu_seconds: of this process.
    """

    what: str
    records: int
    size: int
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Measures:
    """What was measured.

    Attributes:
        speeds: of every way.
        delays: of some percentiles of the records, in seconds.
    """

    speeds: list[Speed]
    delays: dict[int, float]


@contextmanager
def server() -> Iterator[Kinesis]:
    """A server that is started for it.

    Raises:
        UserError: kinesalite cannot be had here.
    """
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as directory:
        running = Kinesis(Path(directory), free_port()).start()
        os.environ.update(running.environment)  # credentials good for nothing but this server
        try:
            yield running
        finally:
            os.environ.clear()
            os.environ.update(before)
            running.stop()


def measure_locally(rows: int = ROWS) -> Measures:
    """Write so many transactions and read them, in every way.

    Raises:
        UserError: kinesalite cannot be had here.
    """
    with server() as running:
        running.create_stream("speed", SHARDS)
        running.create_stream("delay", 1)
        settings = _settings(running, "speed")
        messages = _messages(rows)
        size = sum(len(message.body) for message in messages)
        writing = _timed("written", size, _write, settings.stream, messages)
        _ask(settings.stream, _parsed)  # what is compiled is compiled now
        speeds = [
            writing,
            _timed("asked", size, _ask, settings.stream, len),
            _timed("parsed", size, _ask, settings.stream, _parsed),
            _timed("pipeline", size, _run, settings, rows),
        ]
        return Measures(speeds, _delays(_settings(running, "delay"), messages))


def _settings(running: Kinesis, stream: str) -> ReadSettings:
    where = Stream(stream, None, "us-east-1", running.endpoint)
    return ReadSettings(where, until=Moment("latest"), batch_rows=BATCH_ROWS)


def _messages(rows: int) -> list[Message]:
    bodies: list[bytes] = []
    for day in simulate_days(Simulation(customers=20_000, terminals=10_000, days=60)):
        bodies += as_transaction_events(day)
        if len(bodies) >= rows:
            break
    return [Message(f"c{at % 20_000}", body) for at, body in enumerate(bodies[:rows])]


def _timed(what: str, size: int, work: Callable[..., int], *given: Any) -> Speed:
    started, cpu = time.perf_counter(), time.process_time()
    records = work(*given)
    return Speed(what, records, size, time.perf_counter() - started, time.process_time() - cpu)


def _write(stream: Stream, messages: Sequence[Message]) -> int:
    writer = KinesisSink(stream).open(lambda error: None)
    for first in range(0, len(messages), BATCH_ROWS):
        if writer.write(messages[first : first + BATCH_ROWS]):
            raise RuntimeError("the server refused a message of the benchmark")
    writer.close()
    return len(messages)


def _ask(stream: Stream, work: Callable[[Any], int]) -> int:
    """Read every shard to its tip, without a pause."""
    api, done = api_of(stream), 0
    for shard in api.shards():
        iterator = api.iterator(Segment(shard, "", ""), EARLIEST)
        while (answer := api.records(iterator)).records and answer.next:
            done += work(raw_batch(f"{stream.name}/{shard}", unpack(answer.records), time.time_ns() // 1000))
            iterator = answer.next
    return done


def _parsed(raw: Any) -> int:
    batch, letters = parse(raw, SCHEMA)
    if letters:
        raise RuntimeError(f"a transaction of the simulator was refused: {letters[0]}")
    return len(batch) if batch else 0


def _run(settings: ReadSettings, rows: int) -> int:
    def check(found: int) -> None:
        if found != rows:
            raise RuntimeError(f"{rows} transactions were written, {found} were read")

    with beam.Pipeline(FnApiRunner()) as pipeline:
        parsed = pipeline | ReadKinesis(settings) | ParseTransactions(SCHEMA)
        counts: Any = parsed.batches | beam.Map(len) | beam.CombineGlobally(sum)
        _ = counts | beam.Map(check)
    READERS.close()
    return rows


def _delays(settings: ReadSettings, messages: Sequence[Message]) -> dict[int, float]:
    """Percentiles of the seconds from arrival to batch, of some 500 records a second."""
    (element,) = cut_slices(settings.stream.name, ReadSettings(settings.stream, max_duration=1 << 40))
    writing = threading.Thread(target=_write_slowly, args=(settings.stream, messages, time.monotonic() + DELAY_SECONDS))
    writing.start()
    do, progress = ReadSlice(settings), first_progress(element)
    delays: list[Any] = []
    while writing.is_alive():
        tracker = ThreadsafeRestrictionTracker(ProgressTracker(progress))
        batches = do.read(element, RestrictionTrackerView(tracker), AdvancingWatermark(0))
        delays += (time.time() - np.asarray(batch.value.timestamps) / 1e6 for batch in batches)
        progress, wait = tracker.deferred_status() or (progress, 0)
        time.sleep(max(0.0, float(wait)))
    writing.join()
    READERS.close()
    found = np.concatenate(delays)
    return {percent: float(np.percentile(found, percent)) for percent in (50, 99)}


def _write_slowly(stream: Stream, messages: Sequence[Message], until: float) -> None:
    writer, first = KinesisSink(stream).open(lambda error: None), 0
    while time.monotonic() < until and first < len(messages):
        writer.write(messages[first : first + 25])
        first += 25
        time.sleep(0.05)
    writer.close()


def results_text(measures: Measures) -> str:
    """The measures as a Markdown table, and the delay in a sentence."""
    head = ["what", "records/s", "MB/s a shard", "CPU, us a record"]
    rows = [
        [
            s.what,
            f"{s.records / s.seconds:,.0f}",
            f"{s.size / s.seconds / SHARDS / 1e6:.1f}",
            f"{s.cpu_seconds / s.records * 1e6:.0f}",
        ]
        for s in measures.speeds
    ]
    p50, p99 = (f"{seconds:.2f} s" for seconds in measures.delays.values())
    return f"{table(head, rows)}\n\nFrom arrival to raw batch: half of the records in {p50}, 99 of 100 in {p99}."


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 when kinesalite cannot be had."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kinesis_source", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--rows", type=int, default=ROWS, metavar="N", help=f"records of a run (default {ROWS:,})")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.ERROR)
    return print_results(lambda: results_text(measure_locally(options.rows)))


if __name__ == "__main__":
    sys.exit(main())
