"""The counting under `SummarizeWindows`, in columns: rows to partial counts, partial counts to summaries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.batch import TransactionBatch
from transforms.errors import UserError
from transforms.histograms import SCORE_BINS, Ints, score_at, score_bins
from transforms.statistics import DECISIONS, decision_indices
from transforms.struct_coder import StructCoder
from transforms.window_counts import AMOUNT, CELL, COLUMNS, COUNT, START, Pane, Windows, changes, write_counts

QUANTILES = (0.5, 0.9, 0.99)

#: A cell of a count is decision * SCORE_BINS + bin.
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
    first = changes(packed)
    table = np.empty((len(first), COLUMNS), dtype=np.int64)
    table[:, START] = starts[order[first]]
    table[:, CELL] = packed[first] % _CELLS
    table[:, COUNT] = np.diff(first, append=len(packed))
    table[:, AMOUNT] = np.add.reduceat(batch.numpy("amount_minor")[rows], first)
    spans = table[:, START] // span if span else np.zeros(len(table), dtype=np.int64)
    owners = codes[rows[first]]
    groups = changes(owners, spans)
    edges = [*groups.tolist(), len(table)]
    for place, (owner, number) in enumerate(zip(owners[groups].tolist(), spans[groups].tolist(), strict=True)):
        yield names[owner], number, write_counts(table[edges[place] : edges[place + 1]])


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
    slots = changes(starts, decisions)
    running = np.cumsum(table[:, COUNT])
    before = running[slots] - table[slots, COUNT]
    counts = np.add.reduceat(table[:, COUNT], slots)
    # A slot's rows are in the order of the score, so a quantile is where the running count reaches its
    # share. The epsilon keeps rounding from asking for one row more.
    reached = [np.searchsorted(running, before + counts * (share * (1 - 1e-12))) for share in QUANTILES]
    bins = [(table[at, CELL] % SCORE_BINS).tolist() for at in reached]
    windows = changes(starts[slots])
    return _Totals(
        starts=starts[slots[windows]].tolist(),
        edges=[*windows.tolist(), len(slots)],
        decisions=decisions[slots].tolist(),
        counts=counts.tolist(),
        amounts=np.add.reduceat(table[:, AMOUNT], slots).tolist(),
        quantiles=[(_MIDDLES[a], _MIDDLES[b], _MIDDLES[c]) for a, b, c in zip(*bins, strict=True)],
    )
