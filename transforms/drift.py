"""The counting under `MonitorDrift`, in columns: how a window's values lie, against how they lay in training.

Two distances. PSI, the population stability index, adds up (found - expected) * ln(found / expected) over some ten
groups of about equal share; 0.1 is commonly called a shift and 0.25 a large one (Siddiqi, "Credit Risk Scorecards",
2006). For n rows without any drift it is about 9 / n (Yurdakul, "Statistical Properties of Population Stability Index",
2018), so little can be said of a few dozen rows. KS, of Kolmogorov and Smirnov, is the largest difference of the two
cumulative shares, taken at the reference's percentiles: at most some hundredths below that of the plain values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import apache_beam as beam
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model_artifacts.reference import ColumnReference, NumberReference, Reference, floats
from transforms.batch import TransactionBatch
from transforms.histograms import Ints
from transforms.struct_coder import StructCoder
from transforms.window_counts import Pane, Windows

GROUPS = 10
#: A share of 0 would make PSI infinite: it counts as this much.
LEAST_SHARE = 1e-4


class ColumnDrift(msgspec.Struct, frozen=True, kw_only=True):
    """How far one column of one window is from the reference.

    A window may be told of more than once: the row with the highest `firing` counts all of it.

    Attributes:
        window_start, window_end: microseconds since 1970; the end is not part of the window.
        column: a feature, a text column, or `score`.
        psi: population stability index; a missing value is a group of its own.
        ks: the largest difference of the cumulative shares, 0 to 1; None for text, and where all values are missing.
        rows: decisions in the window.
        missing: the share without a finite value.
        unknown: of text, the share with a value that the reference does not tell apart; None for numbers.
        drifted: whether `psi` reached the alert's threshold on enough rows.
        model_id: of the reference.
        pane: `on_time`, or `late` when late rows came.
        firing: 0 for a window's first row, then 1, 2, ...
    """

    window_start: int
    window_end: int
    column: str
    psi: float
    ks: float | None
    rows: int
    missing: float
    unknown: float | None
    drifted: bool
    model_id: str
    pane: Pane = "on_time"
    firing: int = 0

    def to_json(self) -> bytes:
        """One line of JSON, without the line's end."""
        return msgspec.json.encode(self)


beam.coders.registry.register_coder(ColumnDrift, StructCoder)


@dataclass(frozen=True)
class Alarm:
    """When a column counts as drifted.

    Attributes:
        psi: from which index on.
        rows: how many decisions a window needs; of fewer the index is mostly noise.
    """

    psi: float = 0.25
    rows: int = 1000


@dataclass(frozen=True)
class Cells:
    """Where each column's bins lie in one array of counts: a column after the other, its missing values last.

    Attributes:
        reference: what is compared with.
    """

    reference: Reference

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The first cell of each column, and the end of the last."""
        widths = [len(column.counts) + 1 for column in self.reference.columns]
        return (0, *np.cumsum(widths).tolist())

    @cached_property
    def key(self) -> str:
        """Of the reference; it takes a while to make."""
        return self.reference.key

    @cached_property
    def edges(self) -> tuple[Any, ...]:
        """For each column what its values are looked up in: a float array, or an Arrow array of text."""
        return tuple(
            np.asarray(column.edges) if isinstance(column, NumberReference) else pa.array(column.values, pa.string())
            for column in self.reference.columns
        )

    def columns(self, counts: Ints) -> Iterator[tuple[ColumnReference, Ints]]:
        """Each column with its part of `counts`."""
        for at, column in enumerate(self.reference.columns):
            yield column, counts[self.starts[at] : self.starts[at + 1]]

    def __reduce__(self) -> tuple[Any, ...]:
        return Cells, (self.reference,)


@dataclass(frozen=True)
class Drift:
    """Drift as `MeasureWindows` measures it.

    Attributes:
        cells: what is counted, and compared with.
        alarm: when a column has drifted.
    """

    cells: Cells
    alarm: Alarm = Alarm()

    @property
    def key(self) -> str:
        """Differs where counts cannot be added, because they are of other bins."""
        return self.cells.key

    @property
    def width(self) -> int:
        """How many cells there are."""
        return self.cells.starts[-1]

    def count(self, batch: TransactionBatch, windows: Windows) -> Iterator[tuple[int, Ints]]:
        """See `window_counts`."""
        return window_counts(batch, self.cells, windows)

    def rows(self, counts: Ints) -> int:
        """How many rows were counted: each is in one cell of each column."""
        return int(counts[: self.cells.starts[1]].sum())

    def tell(self, counts: Ints, start: int, end: int) -> list[ColumnDrift]:
        """See `column_drifts`."""
        return column_drifts(counts, self.cells, start, end, self.alarm)


def window_counts(batch: TransactionBatch, cells: Cells, windows: Windows) -> Iterator[tuple[int, Ints]]:
    """How many rows of a decided batch fall in each cell, for each window that it touches.

    Yields:
        (window start, int64 (cells,)).
    """
    if not len(batch):
        return
    rows, starts = windows.of(batch.numpy("event_time"))
    distinct, at = np.unique(starts, return_inverse=True)
    found = np.empty((len(cells.edges), len(batch)), dtype=np.int64)
    for place, (column, edges) in enumerate(zip(cells.reference.columns, cells.edges, strict=True)):
        np.add(_bins(batch.rows.column(column.name), column, edges), cells.starts[place], out=found[place])
    width = cells.starts[-1]
    if len(distinct) > 1 or len(rows) != len(batch):
        found = found[:, rows] + at * width
    counts = np.bincount(found.ravel(), minlength=len(distinct) * width).reshape(len(distinct), width)
    yield from zip(distinct.tolist(), counts, strict=True)


def _bins(values: pa.Array, column: ColumnReference, edges: Any) -> Ints:
    """Each value's bin; the number of bins stands for a missing one."""
    missing = len(column.counts)
    if not isinstance(column, NumberReference):
        texts = values.cast(pa.string())
        known = pc.fill_null(pc.index_in(texts, value_set=edges), missing - 1)
        return np.asarray(pc.if_else(texts.is_valid(), known, missing)).astype(np.int64)
    numbers = floats(values)
    bins: Ints = edges.searchsorted(numbers)
    finite = np.isfinite(numbers)
    return bins if finite.all() else np.where(finite, bins, missing)


def column_drifts(counts: Ints, cells: Cells, start: int, end: int, alarm: Alarm) -> list[ColumnDrift]:
    """The distance of each column of one window, in the reference's order.

    Args:
        counts: of the whole window, int64 (cells,).
        cells: what they count.
        start, end: of the window, microseconds since 1970.
        alarm: when a column has drifted.
    """
    drifts = []
    for column, found in cells.columns(counts):
        rows, number = int(found.sum()), isinstance(column, NumberReference)
        expected = np.array([*column.counts, column.missing], dtype=np.int64)
        distance = psi(*grouped(expected, found)) if number else psi(expected, found)
        drifts.append(
            ColumnDrift(
                window_start=start,
                window_end=end,
                column=column.name,
                psi=round(distance, 6),
                ks=ks(expected[:-1], found[:-1]) if number else None,
                rows=rows,
                missing=int(found[-1]) / rows,
                unknown=None if number else int(found[-2]) / rows,
                drifted=rows >= alarm.rows and distance >= alarm.psi,
                model_id=cells.reference.model_id,
            )
        )
    return drifts


def grouped(expected: Ints, found: Ints) -> tuple[Ints, Ints]:
    """Both histograms with neighbouring bins put together, to some ten groups of about equal expected share.

    Args:
        expected, found: (bins + 1,), the last for missing values, which stay a group of their own.
    """
    bins = expected[:-1]
    middles = (np.cumsum(bins) - bins / 2) / max(1, int(bins.sum()))
    group = np.append(np.minimum((middles * GROUPS).astype(np.int64), GROUPS - 1), GROUPS)
    sums = [np.zeros(GROUPS + 1, dtype=np.int64) for _ in range(2)]
    np.add.at(sums[0], group, expected)
    np.add.at(sums[1], group, found)
    return sums[0], sums[1]


def psi(expected: Ints, found: Ints) -> float:
    """The population stability index of two histograms of the same bins; those empty in both count for nothing.

    Example:
        >>> round(psi(np.array([50, 50]), np.array([500, 500])), 3), round(psi(np.array([50, 50]), np.array([9, 1])), 3)
        (0.0, 0.879)
    """
    used = (expected > 0) | (found > 0)
    before = np.maximum(expected[used] / expected.sum(), LEAST_SHARE)
    now = np.maximum(found[used] / found.sum(), LEAST_SHARE)
    return float(np.sum((now - before) * np.log(now / before)))


def ks(expected: Ints, found: Ints) -> float | None:
    """The largest difference of the cumulative shares of two histograms; None where one is empty.

    Example:
        >>> ks(np.array([50, 50]), np.array([9, 1]))
        0.4
    """
    if not expected.sum() or not found.sum():
        return None
    distances = np.abs(np.cumsum(expected) / expected.sum() - np.cumsum(found) / found.sum())
    return round(float(distances.max()), 6)
