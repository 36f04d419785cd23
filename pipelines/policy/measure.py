"""Policies, measured on days they were not chosen on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_artifacts.manifest import Costs
from pipelines.formats import money, share
from pipelines.policy.rows import PolicyRows
from pipelines.training.metrics import card_precision_at_k
from transforms.durations import DAY


@dataclass(frozen=True)
class Measured:
    """What a policy would have done.

    Attributes:
        name: the policy's.
        cost_a_day: reviews, wrong declines, and the frauds approved, in minor units.
        caught, frauds: frauds that were flagged, of all.
        false: good transactions that were flagged.
        alerts_a_day: transactions flagged.
        cards_a_day: cards flagged, on average.
        most_cards: on the day with most.
        card_precision: of the k flagged cards with the highest scores of a day, the share that was compromised.
    """

    name: str
    cost_a_day: float
    caught: int
    frauds: int
    false: int
    alerts_a_day: float
    cards_a_day: float
    most_cards: int
    card_precision: float


def measure(name: str, severity: NDArray[np.int8], rows: PolicyRows, costs: Costs, k: int) -> Measured:
    """What deciding by `severity` (0 approve, 1 review, 2 decline) would have come to on these rows."""
    flagged, fraud = severity > 0, rows.labels == 1
    lost = int(rows.amounts[~flagged & fraud].sum())
    cost = lost + costs.review * int((severity == 1).sum()) + costs.decline * int(((severity == 2) & ~fraud).sum())
    cards = np.where(rows.cards >= 0, rows.cards, -1 - np.arange(len(rows)))[flagged]
    pairs = np.unique(np.stack([rows.times[flagged] // DAY, cards], axis=1), axis=0)
    by_day = np.unique(pairs[:, 0], return_counts=True)[1]
    # Who is not flagged is not looked at, however high the score.
    looked = np.where(flagged, rows.cards, -1)
    return Measured(
        name=name,
        cost_a_day=cost / rows.days,
        caught=int((flagged & fraud).sum()),
        frauds=int(fraud.sum()),
        false=int((flagged & ~fraud).sum()),
        alerts_a_day=float(flagged.sum()) / rows.days,
        cards_a_day=len(pairs) / rows.days,
        most_cards=int(by_day.max(initial=0)),
        card_precision=card_precision_at_k(rows.times, looked, rows.scores, rows.labels, k),
    )


def table(measured: Sequence[Measured], k: int, minor_digits: int) -> list[str]:
    """The policies side by side, for a terminal."""
    head = ["policy", "cost a day", "caught", "precision", "alerts a day", "cards a day", "at most", f"CP@{k}"]
    rows = [
        [
            each.name,
            money(round(each.cost_a_day), minor_digits),
            share(each.caught, each.frauds) if each.frauds else "-",
            share(each.caught, each.caught + each.false) if each.caught + each.false else "-",
            f"{each.alerts_a_day:,.1f}",
            f"{each.cards_a_day:,.1f}",
            f"{each.most_cards:,}",
            f"{each.card_precision:.3f}",
        ]
        for each in measured
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return ["  ".join(_padded(row, widths)) for row in (head, *rows)]


def _padded(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """The first cell to the left, the numbers to the right."""
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
