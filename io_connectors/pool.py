"""Open connections, shared by all that a process does.

Runners make and drop DoFn instances as they like, many a minute; a connection that went with each of them would be
made anew all the time, and what it had fetched ahead would be lost.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class Closing(Protocol):
    """Anything that can be closed."""

    def close(self) -> None:
        """Let go of what is held."""


Connection = TypeVar("Connection", bound=Closing)
IDLE_SECONDS = 120.0


class Pool(Generic[Connection]):
    """Connections by key. Who takes one has it alone, and puts it back in working order or closes it.

    One that nobody has taken for two minutes is closed: its partition is read elsewhere by now.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._idle: dict[Hashable, list[tuple[float, Connection]]] = {}
        atexit.register(self.close)

    def take(self, key: Hashable, make: Callable[[], Connection]) -> Connection:
        """A connection that is idle, or a new one."""
        with self._lock:
            held = self._idle.get(key)
            if held:
                return held.pop()[1]
        return make()

    def put(self, key: Hashable, connection: Connection) -> None:
        """Give a connection back."""
        now = self._clock()
        with self._lock:
            self._idle.setdefault(key, []).append((now, connection))
            old = self._remove_older_than(now - IDLE_SECONDS)
        for connection in old:
            connection.close()

    def close(self) -> None:
        """Close all that are idle."""
        with self._lock:
            old = self._remove_older_than(float("inf"))
        for connection in old:
            connection.close()

    def _remove_older_than(self, moment: float) -> list[Connection]:
        old = [connection for held in self._idle.values() for since, connection in held if since < moment]
        kept = {key: [entry for entry in held if entry[0] >= moment] for key, held in self._idle.items()}
        self._idle = {key: held for key, held in kept.items() if held}
        return old
