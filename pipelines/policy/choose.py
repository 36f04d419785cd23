"""Policies, chosen on one part of the days."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_artifacts.manifest import Costs, Thresholds
from pipelines.policy.rows import PolicyRows
from pipelines.training.thresholds import choose_thresholds
from transforms.budget import Budget, spend
from transforms.durations import DAY
from transforms.policy import CompiledSegments, Segment, compile_segments
from transforms.rules import Kind

#: Of a segment with fewer frauds thresholds would be an accident: it keeps those of all.
LEAST_FRAUDS = 20


@dataclass(frozen=True)
class Policy:
    """Thresholds for all, and of some segments' own.

    Attributes:
        name: what the table calls it.
        thresholds: of what is in no segment.
        segments: with thresholds of their own.
    """

    name: str
    thresholds: Thresholds
    segments: CompiledSegments | None = None

    def severity(self, rows: PolicyRows) -> NDArray[np.int8]:
        """0 for what is approved, 1 for reviewed, 2 for declined, shape (rows,)."""
        one = self.thresholds
        review, decline = self.segments.thresholds(rows.batch, one) if self.segments else (one.review, one.decline)
        return (rows.scores >= review).astype(np.int8) + (rows.scores >= decline)


def by_cost(rows: PolicyRows, costs: Costs) -> Thresholds:
    """The thresholds of least cost."""
    return choose_thresholds(rows.scores, rows.labels, rows.amounts, costs)


def by_budget(rows: PolicyRows, cards_a_day: int, decline: float) -> Thresholds:
    """The lowest review threshold under which on average at most so many cards a day are flagged.

    A card counts once a day, by its highest score; a row without a card counts by itself.

    Args:
        rows: of whole days.
        cards_a_day: the budget.
        decline: from which score on to decline, unless the review threshold is above it.
    """
    highest = np.sort(highest_by_card_and_day(rows))[::-1]
    place = cards_a_day * rows.days
    # The first score that would be one too many; the next number above it flags those before.
    review = float(np.nextafter(highest[place], 1.0)) if place < len(highest) else float(highest[-1])
    review = min(max(review, np.finfo(np.float64).tiny), 1.0)
    return Thresholds(review=review, decline=max(decline, review))


def highest_by_card_and_day(rows: PolicyRows) -> NDArray[np.float64]:
    """The highest score of each card on each day it has a transaction."""
    cards = np.where(rows.cards >= 0, rows.cards, -1 - np.arange(len(rows)))
    keys = np.stack([rows.times // DAY, cards], axis=1)
    _, at = np.unique(keys, axis=0, return_inverse=True)
    highest = np.zeros(int(at.max()) + 1)
    np.maximum.at(highest, at.ravel(), rows.scores)
    return highest


def within_budget(rows: PolicyRows, severity: NDArray[np.int8], cards_a_day: int, budget: Budget) -> NDArray[np.int8]:
    """What is left of a policy's flags when alerts spend a budget as they come; `budget` is brought up to date.

    It is measured as if what is held back were approved: nobody looks at it.

    Args:
        rows: in order of event time.
        severity: 0 for approved, 1 for reviewed, 2 for declined, (rows,).
        cards_a_day: the budget.
        budget: what is remembered of the days before.
    """
    kept = severity.copy()
    for row in np.flatnonzero(severity).tolist():
        card = f"c{rows.cards[row]}" if rows.cards[row] >= 0 else f"t{row}"
        if not spend(budget, int(rows.times[row]), card, float(rows.scores[row]), cards_a_day):
            kept[row] = 0
    return kept


def by_segment(
    rows: PolicyRows, conditions: Sequence[tuple[str, str]], columns: dict[str, Kind], costs: Costs
) -> tuple[Thresholds, CompiledSegments]:
    """Thresholds of least cost for each segment, and for what is in none.

    A transaction is in the first segment whose condition it meets.

    Args:
        rows: to choose on.
        conditions: a name and a condition for each segment, in order.
        columns: what conditions may use.
        costs: of reviews and wrong declines.

    Raises:
        UserError: a condition is none.
    """
    overall = by_cost(rows, costs)
    blank = [Segment(name=name, when=when, review=1.0, decline=1.0) for name, when in conditions]
    places = compile_segments(blank, columns).places(rows.batch)
    chosen = [_of_part(rows, places == place, costs, overall) for place in range(len(blank) + 1)]
    segments = [
        Segment(name=segment.name, when=segment.when, review=own.review, decline=own.decline)
        for segment, own in zip(blank, chosen, strict=False)
    ]
    return chosen[-1], compile_segments(segments, columns)


def _of_part(rows: PolicyRows, part: NDArray[np.bool_], costs: Costs, overall: Thresholds) -> Thresholds:
    if int(rows.labels[part].sum()) < LEAST_FRAUDS:
        return overall
    return choose_thresholds(rows.scores[part], rows.labels[part], rows.amounts[part], costs)


def amount_bands(rows: PolicyRows) -> list[tuple[str, str]]:
    """Three bands by amount, the largest tenth and the larger half apart, for who names no segments."""
    half, tenth = (int(np.quantile(rows.amounts, share, method="higher")) for share in (0.5, 0.9))
    bands = [("largest tenth", tenth), ("larger half", half)]
    return [(name, f"amount_minor >= {least}") for name, least in bands]
