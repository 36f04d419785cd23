"""The counting under `SummarizeWindows`, in columns: rows to partial counts, partial counts to summaries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import apache_beam as beam
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.batch import TransactionBatch
from transforms.durations import format_duration
from transforms.errors import UserError
from transforms.histograms import SCORE_BINS, Ints, score_at, score_bins
from transforms.statistics import DECISIONS, decision_indices
from transforms.struct_coder import StructCoder

Pane = Literal["early", "on_time", "late"]
QUANTILES = (0.5, 0.9, 0.99)

#: A partial count is an int64 matrix with a row for each (window, decision, score bin) that occurs:
#: window start, decision * SCORE_BINS + bin, count, sum of amounts. It travels as its bytes.
START, CELL, COUNT, AMOUNT = range(4)
_COLUMNS = 4
_CELLS = len(DECISIONS) * SCORE_BINS
# A bin's middle is within 0.8 % of the scores in it: more than four digits would pretend.
_MIDDLES = [float(f"{middle:.4g}") for middle in score_at(np.arange(SCORE_BINS) + 0.5).tolist()]


class WindowSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The decisions of one window, or of one category in it.

    A window may be summarised more than once: each summary counts all of the window so far and takes
    the place of those with a lower `firing`.

    Attributes:
        window_start, window_end: microseconds since 1970; the end is not part of the window.
        by: the column that parts the rows of a window; None when none does.
        category: its value; None when no column does, and for rows without a value.
        transactions: how many there were.
        counts: how many by decision; only decisions that occur, here and below.
        amounts_minor: their sums by decision, in minor units.
        alert_rate: the share that was not approved.
        score_quantiles: the 50th, 90th and 99th percentile of the score by decision, from a histogram:
            within 0.8 % of the value.
        pane: `early` (before the watermark passed the window), `on_time`, or `late` (late rows came).
        firing: 0 for a window's first summary, then 1, 2, ...
    """

    window_start: int
    window_end: int
    by: str | None
    category: str | None
    transactions: int
    counts: dict[str, int]
    amounts_minor: dict[str, int]
    alert_rate: float
    score_quantiles: dict[str, tuple[float, float, float]]
    pane: Pane = "on_time"
    firing: int = 0

    def to_json(self) -> bytes:
        """One line of JSON, without the line's end."""
        return msgspec.json.encode(self)


beam.coders.registry.register_coder(WindowSummary, StructCoder)


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


def window_partials(
    batch: TransactionBatch, windows: Windows, by: str | None, span: int | None = None
) -> Iterator[tuple[str, int, bytes]]:
    """Partial counts of a decided batch, one for each category and span of time that it touches.

    Args:
        batch: rows with `score` and `decision`.
        windows: to count in.
        by: the column that parts a window's rows, or None.
        span: windows that start in the same `span` microseconds share a partial count; None for one of all windows.

    Yields:
        The category, the number of the span (0 where there are none), and the partial count.
        An empty category stands for none.

    Raises:
        UserError: there is no column `by`.
    """
    if not len(batch):
        return
    rows, starts = windows.of(batch.numpy("event_time"))
    cells = (decision_indices(batch) * SCORE_BINS + score_bins(batch.numpy("score")))[rows]
    names, codes = _categories(batch, by)
    distinct, at = np.unique(starts, return_inverse=True)
    packed = (codes[rows] * len(distinct) + at) * _CELLS + cells
    order = np.argsort(packed, kind="stable")
    rows, packed = rows[order], packed[order]
    first = _changes(packed)
    table = np.empty((len(first), _COLUMNS), dtype=np.int64)
    table[:, START] = starts[order[first]]
    table[:, CELL] = packed[first] % _CELLS
    table[:, COUNT] = np.diff(first, append=len(packed))
    table[:, AMOUNT] = np.add.reduceat(batch.numpy("amount_minor")[rows], first)
    spans = table[:, START] // span if span else np.zeros(len(table), dtype=np.int64)
    owners = codes[rows[first]]
    groups = _changes(owners, spans)
    content, width = table.tobytes(), _COLUMNS * 8
    edges = [*(groups * width).tolist(), len(content)]
    for place, (owner, number) in enumerate(zip(owners[groups].tolist(), spans[groups].tolist(), strict=True)):
        yield names[owner], number, content[edges[place] : edges[place + 1]]


def _categories(batch: TransactionBatch, by: str | None) -> tuple[list[str], Ints]:
    """The distinct categories of a batch, and each row's place among them."""
    if by is None:
        return [""], np.zeros(len(batch), dtype=np.int64)
    if by not in batch.rows.schema.names:
        raise UserError(
            f"decisions cannot be summarised by {by!r}: no such column; there are {', '.join(batch.rows.schema.names)}"
        )
    encoded = pc.dictionary_encode(pc.fill_null(batch.rows.column(by).cast(pa.string()), ""))
    return encoded.dictionary.to_pylist(), np.asarray(encoded.indices).astype(np.int64)


def _changes(*columns: Ints) -> Ints:
    """The places where a row differs from the one before, the first row included."""
    differs = np.ones(len(columns[0]), dtype=bool)
    if len(differs):
        differs[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return np.flatnonzero(differs)


def read_counts(partials: Iterable[bytes]) -> Ints:
    """Partial counts as one matrix."""
    return np.frombuffer(b"".join(partials), dtype=np.int64).reshape(-1, _COLUMNS)


def add_counts(counts: Ints) -> Ints:
    """The same counts with one row for each window, decision and score bin, in this order.

    Example:
        >>> add_counts(np.array([[60, 2, 1, 500], [0, 7, 1, 100], [60, 2, 3, 50]])).tolist()
        [[0, 7, 1, 100], [60, 2, 4, 550]]
    """
    counts = counts[np.lexsort((counts[:, CELL], counts[:, START]))]
    cells = _changes(counts[:, START], counts[:, CELL])
    added = counts[cells]
    if len(cells):
        added[:, COUNT] = np.add.reduceat(counts[:, COUNT], cells)
        added[:, AMOUNT] = np.add.reduceat(counts[:, AMOUNT], cells)
    return added


def window_summaries(category: str, table: Ints, windows: Windows, by: str | None) -> list[WindowSummary]:
    """The on-time summaries of all windows in a category's counts, as `add_counts` gives them, in the same order."""
    if not len(table):
        return []
    summaries: list[WindowSummary] = []
    totals = _totals(table)
    for at, start in enumerate(totals.starts):
        slots = range(totals.edges[at], totals.edges[at + 1])
        decisions = [DECISIONS[totals.decisions[slot]] for slot in slots]
        counts = dict(zip(decisions, (totals.counts[slot] for slot in slots), strict=True))
        transactions = sum(counts.values())
        summaries.append(
            WindowSummary(
                window_start=start,
                window_end=start + windows.size,
                by=by,
                category=category or None,
                transactions=transactions,
                counts=counts,
                amounts_minor=dict(zip(decisions, (totals.amounts[slot] for slot in slots), strict=True)),
                alert_rate=1 - counts.get(DECISIONS[0], 0) / transactions,
                score_quantiles=dict(zip(decisions, (totals.quantiles[slot] for slot in slots), strict=True)),
            )
        )
    return summaries


@dataclass(frozen=True)
class _Totals:
    """Totals by window and decision: window i has the slots `edges[i]` to `edges[i + 1]`."""

    starts: list[int]
    edges: list[int]
    decisions: list[int]
    counts: list[int]
    amounts: list[int]
    quantiles: list[tuple[float, float, float]]


def _totals(table: Ints) -> _Totals:
    starts, decisions = table[:, START], table[:, CELL] // SCORE_BINS
    slots = _changes(starts, decisions)
    running = np.cumsum(table[:, COUNT])
    before = running[slots] - table[slots, COUNT]
    counts = np.add.reduceat(table[:, COUNT], slots)
    # A slot's rows are in the order of the score, so a quantile is where the running count reaches its
    # share. The epsilon keeps rounding from asking for one row more.
    reached = [np.searchsorted(running, before + counts * (share * (1 - 1e-12))) for share in QUANTILES]
    bins = [(table[at, CELL] % SCORE_BINS).tolist() for at in reached]
    windows = _changes(starts[slots])
    return _Totals(
        starts=starts[slots[windows]].tolist(),
        edges=[*windows.tolist(), len(slots)],
        decisions=decisions[slots].tolist(),
        counts=counts.tolist(),
        amounts=np.add.reduceat(table[:, AMOUNT], slots).tolist(),
        quantiles=[(_MIDDLES[a], _MIDDLES[b], _MIDDLES[c]) for a, b, c in zip(*bins, strict=True)],
    )
