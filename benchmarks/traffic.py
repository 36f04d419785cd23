"""Made-up transactions of a fixed rate, whose open windows always hold the same number of them; and decided ones."""

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

    What stands here by default is an eighth of the default run's traffic.
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


def decisions(first: int, rows: int, features: int = 15) -> TransactionBatch:
    """Decided transactions, numbered from `first`, with the columns that the pipeline gives them.

    As wide as the default job's: fifteen features, and reasons for one in a hundred.
    """
    random, numbers = np.random.default_rng(first), np.arange(first, first + rows)
    flagged = random.random(rows) < 0.01
    reasons = [["amount: amount is 176.45, typically 45.22", "night: whether it is night is 1, typically 0"], []]
    columns = {
        "transaction_id": pa.array(numbers).cast(pa.string()),
        "event_time": pa.array(START + numbers * 1_000_000, EVENT_TIME),
        "customer_id": pa.array(random.integers(0, 5_000, rows)).cast(pa.string()),
        "terminal_id": pa.array(random.integers(0, 10_000, rows)).cast(pa.string()),
        "amount_minor": pa.array(random.integers(100, 20_000, rows)),
        "is_fraud": pa.array(flagged.astype(np.int8)),
        "late": pa.array(np.zeros(rows, dtype=np.bool_)),
        **{f"customer_amount_mean_{n}d": pa.array(random.random(rows) * 100) for n in range(1, features + 1)},
        "score": pa.array(np.round(random.random(rows), 9)),
        "model_id": pa.repeat("handbook-49a57abca78a", rows),
        "feature_set": pa.repeat("94828c4470086fb8", rows),
        "decision": pa.array(np.where(flagged, "review", "approve")),
        "reasons": pa.array(reasons, pa.list_(pa.string())).take(pa.array(np.where(flagged, 0, 1))),
    }
    return TransactionBatch(pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)))
