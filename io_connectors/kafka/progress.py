"""How far all sinks have come with a source: the positions up to which each of them holds every record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

#: Positions as rows of (first, behind the last), ascending and apart from each other.
Ranges = np.ndarray[Any, np.dtype[np.int64]]

NO_RANGES: Ranges = np.empty((0, 2), dtype=np.int64)


def merge(*ranges: Ranges) -> Ranges:
    """What lies in any of them.

    Example:
        >>> merge(np.array([[0, 5], [9, 12]]), np.array([[5, 7], [10, 11]])).tolist()
        [[0, 7], [9, 12]]
    """
    together = np.concatenate([NO_RANGES, *ranges])
    if not len(together):
        return NO_RANGES
    together = together[np.argsort(together[:, 0], kind="stable")]
    reached = np.maximum.accumulate(together[:, 1])
    breaks = np.flatnonzero(together[1:, 0] > reached[:-1]) + 1
    firsts = together[np.append(0, breaks), 0]
    return np.stack([firsts, reached[np.append(breaks - 1, len(together) - 1)]], axis=1)


def without(first: int, stop: int, positions: Iterable[int]) -> Ranges:
    """The positions from `first` to before `stop` less some.

    Example:
        >>> without(10, 20, [10, 11, 15]).tolist()
        [[12, 15], [16, 20]]
    """
    edges = np.array([first - 1, *sorted(positions), stop], dtype=np.int64)
    gaps = np.stack([edges[:-1] + 1, edges[1:]], axis=1)
    return gaps[gaps[:, 0] < gaps[:, 1]]


class _Stored(msgspec.Struct, array_like=True):
    """Progress as bytes. Fields may be added at the end, never moved."""

    version: int
    done: int | None
    held: dict[str, bytes]


VERSION = 1


@dataclass(frozen=True)
class Progress:
    """What is known of one source.

    Attributes:
        done: before it every sink holds every record; None while nobody has said where reading began.
        held: by sink, what it holds at or behind `done`.
    """

    done: int | None
    held: Mapping[str, Ranges]

    @classmethod
    def of(cls, sinks: Iterable[str]) -> Progress:
        """That nothing is known yet of sinks with these names."""
        return cls(None, dict.fromkeys(sinks, NO_RANGES))

    def add(self, sinks: Iterable[str], ranges: Ranges, begin: int | None = None) -> Progress:
        """With more that some sinks hold; `begin` is where reading began.

        Example:
            >>> begun = Progress.of(["a", "b"]).add(["a"], np.array([[0, 9]]), begin=0)
            >>> begun.done, begun.add(["b"], np.array([[2, 9]])).done, begun.add(["b"], np.array([[0, 4]])).done
            (0, 0, 4)
        """
        names = set(sinks)
        held = {name: merge(old, ranges) if name in names else old for name, old in self.held.items()}
        done = begin if self.done is None else self.done
        if done is None:
            return Progress(None, held)
        done = min(_reached(done, each) for each in held.values())
        return Progress(done, {name: each[each[:, 1] > done] for name, each in held.items()})

    def encode(self) -> bytes:
        """As bytes that another release can read."""
        packed = {name: each.astype("<i8").tobytes() for name, each in self.held.items()}
        return msgspec.msgpack.encode(_Stored(VERSION, self.done, packed))

    @classmethod
    def decode(cls, encoded: bytes, sinks: Iterable[str]) -> Progress:
        """What was encoded, for the sinks there are now: a new one holds nothing yet, one that is gone is forgotten.

        Raises:
            ValueError: another release wrote it in another form.
        """
        stored = msgspec.msgpack.decode(encoded, type=_Stored)
        if stored.version != VERSION:
            raise ValueError(
                f"progress of version {stored.version} cannot be read by version {VERSION}: "
                "restore with the release that wrote it"
            )
        held = {name: np.frombuffer(stored.held.get(name, b""), "<i8").reshape(-1, 2) for name in sinks}
        return cls(stored.done, held)


def _reached(done: int, ranges: Ranges) -> int:
    """How far without a gap."""
    ahead = ranges[ranges[:, 1] > done]
    return int(ahead[0, 1]) if len(ahead) and ahead[0, 0] <= done else done
