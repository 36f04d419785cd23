"""Windows of event time, and what is counted in them: whole numbers in columns, which can be added."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from transforms.durations import format_duration
from transforms.errors import UserError
from transforms.histograms import Ints
from transforms.packing import pack, unpack

Pane = Literal["early", "on_time", "late"]

#: Counts are an int64 matrix with a row for each window and cell that occur: the window's start, which cell, how many,
#: and a sum of amounts where there is one. What a cell stands for, say those who count.
START, CELL, COUNT, AMOUNT = range(4)
COLUMNS = 4


@dataclass(frozen=True)
class Windows:
    """Windows [start, start + size) that start at every multiple of `every`, in microseconds.

    `every` equal to `size` gives fixed windows, a smaller one sliding windows.

    Raises:
        UserError: a length that windows cannot have.
    """

    size: int
    every: int

    def __post_init__(self) -> None:
        for what, length in (("length", self.size), ("period", self.every)):
            if length <= 0 or length % 1000:
                raise UserError(f"a window's {what} must be whole milliseconds, 1 or more; found {length} us")
        if self.every > self.size:
            raise UserError(
                f"a window's period ({format_duration(self.every)}) must be at most its length "
                f"({format_duration(self.size)}): rows between two windows would be in none"
            )

    def of(self, times: Ints) -> tuple[Ints, Ints]:
        """The windows that each time lies in, as pairs of (place in `times`, window start).

        Example:
            >>> rows, starts = Windows(size=10_000, every=5_000).of(np.array([7_000]))
            >>> rows.tolist(), starts.tolist()
            ([0, 0], [5000, 0])
        """
        newest = times - times % self.every
        back = np.arange(-(-self.size // self.every), dtype=np.int64) * self.every
        starts = newest[:, None] - back
        rows, columns = np.nonzero(starts > (times - self.size)[:, None])
        return rows, starts[rows, columns]


def changes(*columns: Ints) -> Ints:
    """The places where a row differs from the one before, the first row included."""
    differs = np.ones(len(columns[0]), dtype=bool)
    if len(differs):
        differs[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return np.flatnonzero(differs)


def write_counts(counts: Ints) -> bytes:
    """A matrix of counts as bytes."""
    return pack(counts.T)


def read_counts(written: Iterable[bytes]) -> Ints:
    """Matrices that `write_counts` wrote, as one."""
    return np.concatenate([np.empty((0, COLUMNS), dtype=np.int64), *(unpack(each).T for each in written)])


def add_counts(counts: Ints) -> Ints:
    """The same counts with one row for each window and cell, in this order.

    Example:
        >>> add_counts(np.array([[60, 2, 1, 500], [0, 7, 1, 100], [60, 2, 3, 50]])).tolist()
        [[0, 7, 1, 100], [60, 2, 4, 550]]
    """
    counts = counts[np.lexsort((counts[:, CELL], counts[:, START]))]
    cells = changes(counts[:, START], counts[:, CELL])
    added = counts[cells]
    if len(cells):
        added[:, COUNT] = np.add.reduceat(counts[:, COUNT], cells)
        added[:, AMOUNT] = np.add.reduceat(counts[:, AMOUNT], cells)
    return added
