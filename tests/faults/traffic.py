"""Transactions as they happen: sent to a topic while a test goes on, each partition in the order of event times."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import numpy as np

from io_connectors.sinks import message_sink
from pipelines.produce import Events, simulated

#: Few customers and terminals: every transaction has a past, so a feature that forgot or doubled something differs.
#: Four hundred days are sent in twenty minutes, and a hundred faults take an hour.
SIMULATOR = "simulator:?customers=200&terminals=50&days=4000&seed=11"
PERIOD = 0.1


class Traffic:
    """A thread that sends transactions, each with the time of its sending as event time.

    Args:
        url: of the topic.
        rate: transactions a second.

    Attributes:
        sent: ids of those that the topic has taken, in order.
    """

    def __init__(self, url: str, rate: float) -> None:
        self.url, self.rate = url, rate
        self.sent: list[str] = []
        self._sending, self._over = threading.Lock(), threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, nothing is sent and nothing is on its way.

        A broker that is away would hold transactions up, and they would come later than their event times allow.
        """
        with self._sending:
            yield

    def check(self) -> None:
        """Raise what ended the thread, if something did."""
        if self._failed is not None:
            raise self._failed

    def _run(self) -> None:
        writer = message_sink(self.url, "--sink").open(lambda error: None)
        size = max(1, round(self.rate * PERIOD))
        try:
            for events, first in _pieces(size):
                if self._over.wait(PERIOD):
                    return
                with self._sending:
                    # The event time is that of sending: it is behind the record's own time by a moment at most.
                    messages = events.messages(first, time.time_ns() // 1000 - size + np.arange(size))
                    if refused := writer.write(messages):
                        raise RuntimeError(f"the topic refuses a transaction: {refused[0].error}")
                    self.sent += [json.loads(message.body)["transaction_id"] for message in messages]
            raise RuntimeError(f"all transactions of {SIMULATOR} have been sent: the test takes longer than they last")
        except BaseException as error:
            self._failed = error
        finally:
            writer.close()


def _pieces(size: int) -> Iterator[tuple[Events, int]]:
    """Simulated transactions, and where in them the next `size` begin."""
    for events in simulated(SIMULATOR):
        for first in range(0, len(events.times) - size + 1, size):
            yield events, first
