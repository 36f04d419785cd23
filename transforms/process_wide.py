"""A value of which each worker process has one, for as long as it lives."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_lock = threading.RLock()
_values: dict[str, Any] = {}
#: A process that runs one pipeline after another keeps the values of the last few.
_MOST = 16


class ProcessWide(Generic[T]):
    """A handle that may be pickled: its copies in one process have the same value.

    Beam's `Shared` lets go of a value once nothing but the handle knows it, and holds on to the last one only. Here the
    value stays: what runs in the background must not begin anew with each bundle.

    Example:
        >>> numbers: ProcessWide[list[int]] = ProcessWide()
        >>> numbers.get(lambda: [1]) is numbers.get(lambda: [2])
        True
    """

    def __init__(self) -> None:
        self._key = uuid.uuid4().hex

    def get(self, make: Callable[[], T]) -> T:
        """The value; who comes first makes it, others wait.

        Raises:
            Exception: what `make` raises; it is tried again next time.
        """
        value: T | None = _values.get(self._key)
        if value is None:
            with _lock:
                value = _values.get(self._key)
                if value is None:
                    value = _values[self._key] = make()
                    for old in list(_values)[:-_MOST]:
                        del _values[old]
        return value
