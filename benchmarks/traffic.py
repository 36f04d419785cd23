"""Made-up transactions of a fixed rate: however long they go on, the open windows hold the same number of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from transforms.batch import CANONICAL_FIELDS, EVENT_TIME, TransactionBatch
from transforms.durations import DAY

START = 1_522_540_800_000_000  # 2018-04-01, in microseconds


@dataclass(frozen=True)
class Traffic:
    """Transactions at even distances in time, each of a customer and a terminal drawn by a seed.

    What stands here by default is the traffic of one of the default run's eight shards.
    """

    customers: int = 625
    terminals: int = 1_250
    per_day: int = 1_200
    seed: int = 1

    def scaled(self, factor: int) -> Traffic:
        """The same habits of more people."""
        return Traffic(self.customers * factor, self.terminals * factor, self.per_day * factor, self.seed)

    def batches(self, rows: int, chunk: int) -> Iterator[TransactionBatch]:
        """The first `rows` transactions in order of time, `chunk` at once.

        Example:
            >>> [len(batch) for batch in Traffic().batches(rows=5, chunk=2)]
            [2, 2, 1]
        """
        random = np.random.default_rng(self.seed)
        for start in range(0, rows, chunk):
            yield self._batch(start, min(chunk, rows - start), random)

    def _batch(self, start: int, count: int, random: np.random.Generator) -> TransactionBatch:
        numbers = np.arange(start, start + count, dtype=np.int64)
        times = pa.array(START + numbers * DAY // self.per_day, EVENT_TIME)
        columns = {
            "transaction_id": pa.array(numbers).cast(pa.string()),
            "event_time": times,
            "customer_id": pa.array(random.integers(0, self.customers, count)).cast(pa.string()),
            "terminal_id": pa.array(random.integers(0, self.terminals, count)).cast(pa.string()),
            "amount_minor": pa.array(random.integers(100, 20_000, count)),
            "is_fraud": pa.array((random.random(count) < 0.01).astype(np.int8)),
            "late": pa.array(np.zeros(count, dtype=np.bool_)),
            "source": pa.DictionaryArray.from_arrays(np.zeros(count, dtype=np.int32), ["benchmark"]),
            "position": pa.array(numbers),
            "ingest_time": times,
        }
        schema = pa.schema(CANONICAL_FIELDS)
        return TransactionBatch(pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema))
