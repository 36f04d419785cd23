"""Let each transaction id through once: the first in the order the stage takes rows in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
import numba
import numpy as np
from apache_beam.pvalue import PCollection

from transforms.batch import TransactionBatch
from transforms.dead_letters import DeadLetter, dead_letters_of_rows
from transforms.durations import DAY, HOUR, format_duration
from transforms.hashing import stable_hash
from transforms.shard_state import Ordering, TakeInOrder, Taken, take_in_order
from transforms.sharding import ShardBy

Array = np.ndarray[Any, Any]


class SeenIds:
    """The transaction ids of one shard seen within a window of event time.

    Ids are kept as 64-bit hashes in an open-addressing table: 16 bytes a place, at most half of them full.

    Args:
        window: how long an id is remembered, in microseconds of event time.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._count = 0
        self._ids = np.zeros(256, dtype=np.uint64)
        self._times = np.zeros(256, dtype=np.int64)

    @property
    def bytes_held(self) -> int:
        """Bytes of the arrays behind this table."""
        return self._ids.nbytes + self._times.nbytes

    def first_seen(self, ids: Array, times: Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which rows carry an id not seen within the window before; those are remembered.

        Args:
            ids: uint64[n], never 0.
            times: int64[n], event times in microseconds.
        """
        while (self._count + len(ids)) * 2 > len(self._ids):
            self._widen()
        fresh = np.zeros(len(ids), dtype=np.bool_)
        self._count += int(_remember(self._ids, self._times, ids, times, self.window, fresh))
        return fresh

    def live(self, now: int) -> Array:
        """The ids that still count at the event time `now`: int64[2, n], hash and time."""
        held = (self._ids != 0) & (self._times > now - self.window)
        order = np.argsort(self._times[held], kind="stable")
        return np.stack([self._ids[held][order].view(np.int64), self._times[held][order]])

    def _widen(self) -> None:
        held = self._ids != 0
        ids, times = self._ids[held], self._times[held]
        self._ids = np.zeros(2 * len(self._ids), dtype=np.uint64)
        self._times = np.zeros(len(self._ids), dtype=np.int64)
        _remember(self._ids, self._times, ids, times, self.window, np.zeros(len(ids), dtype=np.bool_))


@numba.njit(cache=True, nogil=True)
def _remember(held_ids: Any, held_times: Any, ids: Any, times: Any, window: Any, fresh: Any) -> Any:
    """Mark the rows whose id is new and put it in; returns how many places that took."""
    mask = held_ids.shape[0] - 1
    taken = 0
    for row in range(ids.shape[0]):
        at = np.int64(ids[row] & np.uint64(mask))
        while held_ids[at] != 0 and held_ids[at] != ids[row]:
            at = (at + 1) & mask
        if held_ids[at] == 0:
            held_ids[at] = ids[row]
            taken += 1
        elif abs(times[row] - held_times[at]) < window:
            continue
        held_times[at] = times[row]
        fresh[row] = True
    return taken


class DuplicateEngine:
    """Drop the rows of a shard whose transaction id was seen before; see `shard_state.Engine`."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.seen = SeenIds(window)

    def take(self, transactions: TransactionBatch | None, labels: TransactionBatch | None) -> Taken:
        """Pass on the rows with a new id; the others become dead letters."""
        if transactions is None:
            return Taken()
        ids = stable_hash(transactions.rows.column("transaction_id"))
        times = transactions.numpy("event_time")
        fresh = self.seen.first_seen(ids, times)
        log = [np.stack([ids[fresh].view(np.int64), times[fresh]])]
        if fresh.all():
            return Taken(transactions, log=log)
        error = (
            f"this transaction_id was decided on before, within {format_duration(self.window)} of event time "
            "(pipeline.deduplicate_window); the first one stands"
        )
        again = transactions.take(np.flatnonzero(~fresh))
        letters = dead_letters_of_rows(again, "deduplicate", "duplicate", error)
        return Taken(transactions.take(np.flatnonzero(fresh)) if fresh.any() else None, letters, log)

    def snapshot(self, now: int) -> Array:
        """The ids that still count at `now`."""
        return self.seen.live(now)

    def restore(self, log: Iterable[Array]) -> None:
        """Remember the ids of a log."""
        for ids, times in log:
            self.seen.first_seen(ids.view(np.uint64), times)


@dataclass(frozen=True)
class Deduplicated:
    """What `Deduplicate` gives: batches in which every id is new, and the repeated rows."""

    batches: PCollection[TransactionBatch]
    dead_letters: PCollection[DeadLetter]


class Deduplicate(beam.PTransform[PCollection[TransactionBatch], Deduplicated]):
    """Let each transaction id through once within a window of event time.

    Args:
        window: how long an id is remembered, in microseconds.
        shards: keys of the state; fixed for the life of a stream's state.
        ordering: under `event_time` the earliest of several stands, under `arrival` the first to come.
        allowed_lateness: see `shard_state.TakeInOrder`, in microseconds.
        batch_rows: the most rows a batch has on its way out.

    Example:
        >>> import apache_beam as beam
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> from apache_beam.testing.util import assert_that, equal_to
        >>> from transforms.batch import from_rows
        >>> rows = [{"transaction_id": i, "event_time": 0, "amount_minor": 100} for i in ("a", "b", "a")]
        >>> with TestPipeline() as pipeline:
        ...     once = pipeline | beam.Create([from_rows(rows)]) | Deduplicate(shards=2)
        ...     _ = assert_that(once.dead_letters | beam.Map(lambda letter: letter.transaction_id), equal_to(["a"]))
    """

    def __init__(
        self,
        window: int = 30 * DAY,
        shards: int = 2,
        ordering: Ordering = "event_time",
        allowed_lateness: int = HOUR,
        batch_rows: int = 16_384,
    ) -> None:
        super().__init__()
        self.window = window
        self.shards = shards
        self.ordering = ordering
        self.allowed_lateness = allowed_lateness
        self.batch_rows = batch_rows

    def expand(self, pcoll: PCollection[TransactionBatch]) -> Deduplicated:
        how = TakeInOrder(
            stage="deduplicate",
            name="deduplicate",
            make_engine=partial(DuplicateEngine, self.window),
            ordering=self.ordering,
            allowed_lateness=self.allowed_lateness,
            batch_rows=self.batch_rows,
            bounded=pcoll.is_bounded,
        )
        name = f"TakeOnce[{self.shards} shards]"  # so that a savepoint of another number of shards is refused
        outputs = pcoll | "ShardById" >> ShardBy("transaction_id", self.shards) | name >> take_in_order(how)
        return Deduplicated(outputs.batches, outputs.dead_letters)
