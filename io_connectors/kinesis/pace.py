"""How often a shard may be asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from io_connectors.kinesis.settings import Stream

#: What a shard gives to all who read it together: calls and bytes a second.
CALLS, BYTES = 5.0, 2e6
#: Seconds for which a reader of a shard that others read, too, keeps its turn without asking for it.
TURN = 1.0


class Pace:
    """When a shard may be asked again: everybody in this process who reads it shares one, and they take turns.

    Args:
        clock: seconds that never go back.

    Example:
        >>> pace, one, other = Pace(lambda: 10.0), object(), object()
        >>> pace.take(one), pace.take(other)
        (True, True)
        >>> pace.count(1_000_000)
        >>> pace.take(one), pace.wait()
        (False, 0.5)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = 0.0
        self._asked: dict[int, float] = {}
        self._served: dict[int, float] = {}

    def take(self, reader: object) -> bool:
        """Whether a reader may ask now: it is time, and none of the others that want to has waited longer."""
        now, me = self._clock(), id(reader)
        self._asked[me] = now
        if now < self._next:
            return False
        # Who has not asked for a while is reading something else, or is gone.
        waiting = [each for each, asked in self._asked.copy().items() if now - asked <= TURN]
        never = float("-inf")
        if any(self._served.get(each, never) < self._served.get(me, never) for each in waiting):
            return False
        self._served[me] = now
        return True

    def leave(self, reader: object) -> None:
        """A reader will not ask again."""
        self._asked.pop(id(reader), None)
        self._served.pop(id(reader), None)

    def wait(self) -> float:
        """Seconds until somebody may ask."""
        return max(0.0, self._next - self._clock())

    def count(self, size: int) -> None:
        """A call gave so many bytes."""
        self.hold(max(1 / CALLS, size / BYTES))

    def hold(self, seconds: float) -> None:
        """Leave the shard alone for so long."""
        self._next = max(self._next, self._clock() + seconds)


_PACES: dict[tuple[Stream, str], Pace] = {}
_PACES_LOCK = threading.Lock()


def pace_of(stream: Stream, shard: str) -> Pace:
    """The pace of a shard, the same for all of this process."""
    with _PACES_LOCK:
        return _PACES.setdefault((stream, shard), Pace())
