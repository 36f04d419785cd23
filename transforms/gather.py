"""Make few large batches of many small ones, for sinks that take large ones well: object stores and warehouses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.coders import VarIntCoder
from apache_beam.pvalue import PCollection
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.timestamp import Duration, Timestamp

from transforms.batch import TransactionBatch, TransactionBatchCoder, concat_batches
from transforms.sharding import ShardBy

_BATCHES = BagStateSpec("batches", TransactionBatchCoder())
_ROWS = ReadModifyWriteStateSpec("rows", VarIntCoder())
_DUE = TimerSpec("gather:due", TimeDomain.REAL_TIME)


class GatherBatches(beam.PTransform[PCollection[TransactionBatch], PCollection[TransactionBatch]]):
    """Hold the rows of a stream back until there are many, or the oldest has waited long enough.

    What waits is in the runner's state: a checkpoint has it. All batches must have the same columns. Batches of
    bounded input are large as they are; gathering them would only make them wait for its end.

    Args:
        rows: a batch is passed on once it has so many rows.
        every_us: microseconds of the clock after which a batch is passed on, however small.
        shards: so many batches grow side by side.

    Example:
        >>> import apache_beam as beam
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> from apache_beam.testing.util import assert_that, equal_to
        >>> from transforms.batch import from_rows
        >>> small = [from_rows([{"transaction_id": str(n), "event_time": n, "amount_minor": 1}]) for n in range(9)]
        >>> with TestPipeline() as pipeline:
        ...     batches = pipeline | beam.Create(small, reshuffle=False)
        ...     large = batches | GatherBatches(rows=9, every_us=60_000_000, shards=1)
        ...     _ = assert_that(large | beam.Map(len), equal_to([9]))
    """

    def __init__(self, rows: int, every_us: int, shards: int = 4) -> None:
        super().__init__()
        self.rows = rows
        self.every_us = every_us
        self.shards = shards

    def expand(self, pcoll: PCollection[TransactionBatch]) -> PCollection[TransactionBatch]:
        gather = beam.ParDo(_Gather(self.rows, self.every_us)).with_output_types(TransactionBatch)
        gathered: PCollection[TransactionBatch] = (
            pcoll
            | "AnyWindow" >> beam.WindowInto(GlobalWindows())
            | "Spread" >> ShardBy("transaction_id", self.shards)
            | "Gather" >> gather
        )
        return gathered


class _Gather(beam.DoFn):
    def __init__(self, rows: int, every_us: int) -> None:
        self.rows = rows
        self.every_us = every_us

    def process(
        self,
        element: tuple[int, TransactionBatch],
        batches: Any = beam.DoFn.StateParam(_BATCHES),
        rows: Any = beam.DoFn.StateParam(_ROWS),
        due: Any = beam.DoFn.TimerParam(_DUE),
    ) -> Iterator[TransactionBatch]:
        _, batch = element
        before = rows.read() or 0
        batches.add(batch)
        rows.write(before + len(batch))
        if before + len(batch) >= self.rows:
            due.clear()
            yield from self._pass_on(batches, rows)
        elif not before:
            due.set(Timestamp.now() + Duration(micros=self.every_us))

    @on_timer(_DUE)
    def gathered(
        self, batches: Any = beam.DoFn.StateParam(_BATCHES), rows: Any = beam.DoFn.StateParam(_ROWS)
    ) -> Iterator[TransactionBatch]:
        return self._pass_on(batches, rows)

    def _pass_on(self, batches: Any, rows: Any) -> Iterator[TransactionBatch]:
        waiting = list(batches.read())
        batches.clear()
        rows.clear()
        if waiting:
            yield concat_batches(waiting)
