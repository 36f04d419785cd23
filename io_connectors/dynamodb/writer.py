"""Write batches into a table, several calls in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from io_connectors.aws import is_transient
from io_connectors.delivery import OnRetry, Refused
from io_connectors.dynamodb.calls import ITEMS_PER_CALL, Call, Outcome, Row
from io_connectors.dynamodb.items import KEY, items_of, unwritable
from io_connectors.retry import Backoff
from transforms.batch import TransactionBatch


class ItemWriter:
    """An open table; see `io_connectors.delivery.BatchWriter`.

    Args:
        client: of DynamoDB; its calls may be made from several threads.
        table: its name.
        call: writes some rows.
        keep_first: of two rows with one id in a batch, whether the first stands or the last.
        ttl: see `items_of`.
        concurrency: calls at once, at most.
        backoff: how often a call is made again.
        on_retry: told of each that is.
    """

    def __init__(
        self,
        client: Any,
        table: str,
        call: Call,
        keep_first: bool,
        ttl: int | None,
        concurrency: int,
        backoff: Backoff,
        on_retry: OnRetry,
    ) -> None:
        self.client = client
        self.table = table
        self.call = call
        self.keep_first = keep_first
        self.ttl = ttl
        self.concurrency = concurrency
        self.backoff = backoff
        self.on_retry = on_retry
        self.pool = ThreadPoolExecutor(concurrency, thread_name_prefix="dynamodb")

    def write(self, batch: TransactionBatch) -> Sequence[Refused]:
        """Put every row into the table; those it never takes are returned.

        Raises:
            Exception: a call failed for good; of the rows some may be in the table.
        """
        refused = unwritable(batch)
        places = _places(batch, refused, self.keep_first)
        rows = map(Row, places.tolist(), items_of(batch.take(places), self.ttl))
        retries: list[Exception] = []
        flying: deque[Future[list[Refused]]] = deque()
        try:
            while chunk := list(islice(rows, ITEMS_PER_CALL)):
                if len(flying) >= 2 * self.concurrency:  # built ahead, and not too far: items are large
                    refused += flying.popleft().result()
                flying.append(self.pool.submit(self._deliver, chunk, retries))
            for future in flying:
                refused += future.result()
        finally:
            for future in flying:
                future.cancel()
            wait(flying)
            for error in retries:  # told here: metrics count on the thread of the bundle
                self.on_retry(error)
        return refused

    def close(self) -> None:
        self.pool.shutdown()
        self.client.close()

    def _deliver(self, rows: Sequence[Row], retries: list[Exception]) -> list[Refused]:
        """Call until all rows are written or refused."""
        refused: list[Refused] = []
        deadline = self.backoff.clock() + self.backoff.give_up_after
        attempt = 0
        while True:
            rows, never, error = self._attempt(rows)
            refused += never
            if error is None:
                return refused
            if self.backoff.clock() >= deadline:
                raise error
            retries.append(error)
            self.backoff.wait(attempt, deadline)
            attempt += 1

    def _attempt(self, rows: Sequence[Row]) -> Outcome:
        try:
            return self.call(self.client, self.table, rows)
        except Exception as error:
            if is_transient(error):
                return Outcome(list(rows), [], error)
            raise


def _places(batch: TransactionBatch, refused: Sequence[Refused], keep_first: bool) -> np.ndarray[Any, Any]:
    """Where the rows are that go out: of those with one id only one does, since no call takes an id twice."""
    good = np.setdiff1d(np.arange(len(batch)), np.array([each.at for each in refused], dtype=np.int64))
    codes = np.asarray(pc.dictionary_encode(batch.rows.column(KEY).take(pa.array(good))).indices)
    if keep_first:
        return good[np.sort(np.unique(codes, return_index=True)[1])]
    return good[np.sort(len(good) - 1 - np.unique(codes[::-1], return_index=True)[1])]
