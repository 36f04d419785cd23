"""Make one batch of the small ones that come together, so that what follows is paid once for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection
from apache_beam.utils.windowed_value import WindowedValue

from transforms.batch import TransactionBatch, concat_batches, earliest

MOST_ROWS = 16_384


class JoinBatches(beam.PTransform[PCollection[TransactionBatch], PCollection[TransactionBatch]]):
    """Join the batches of each bundle, in their order.

    Nothing waits longer for it: what a stage gives leaves a runner when the bundle ends, joined or not. A stage that
    remembers takes its input shard by shard, from every worker before it; without joining, each of its small pieces
    would be cut again for the next stage. All batches of a window must have the same columns.

    Args:
        most_rows: batches are not joined beyond so many rows; a batch that has more passes as it is.

    Example:
        >>> import apache_beam as beam
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> from apache_beam.testing.util import assert_that, equal_to
        >>> from transforms.batch import from_rows
        >>> small = [from_rows([{"transaction_id": str(n), "event_time": n, "amount_minor": 1}]) for n in range(9)]
        >>> with TestPipeline() as pipeline:
        ...     joined = pipeline | beam.Create(small, reshuffle=False) | JoinBatches(most_rows=6)
        ...     _ = assert_that(joined | beam.Map(len), equal_to([6, 3]))
    """

    def __init__(self, most_rows: int = MOST_ROWS) -> None:
        super().__init__()
        self.most_rows = most_rows

    def expand(self, pcoll: PCollection[TransactionBatch]) -> PCollection[TransactionBatch]:
        join = beam.ParDo(_Join(self.most_rows)).with_output_types(TransactionBatch)
        joined: PCollection[TransactionBatch] = pcoll | "Join" >> join
        return joined


class _Join(beam.DoFn):
    def __init__(self, most_rows: int) -> None:
        self.most_rows = most_rows

    def start_bundle(self) -> None:
        self.waiting: dict[Any, list[TransactionBatch]] = {}
        self.rows: dict[Any, int] = {}

    def process(self, element: TransactionBatch, window: Any = beam.DoFn.WindowParam) -> Iterator[Any]:
        if self.rows.get(window, 0) + len(element) > self.most_rows:
            yield from self._pass_on(window)
        self.waiting.setdefault(window, []).append(element)
        self.rows[window] = self.rows.get(window, 0) + len(element)

    def finish_bundle(self) -> Iterator[Any]:
        for window in list(self.waiting):
            yield from self._pass_on(window)

    def _pass_on(self, window: Any) -> Iterator[Any]:
        waiting = self.waiting.pop(window, [])
        self.rows.pop(window, None)
        if waiting:
            joined = concat_batches(waiting)
            yield WindowedValue(joined, earliest(joined), (window,))
