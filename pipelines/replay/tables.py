"""The tables of a replay, for the terminal and the report alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.formats import moment, printable, share, span
from pipelines.replay.compare import Difference
from pipelines.replay.facts import ReplayFacts
from pipelines.replay.outcome import SIDES, Outcome
from pipelines.replay.segments import in_order
from transforms import outcomes
from transforms.card_numbers import mask_card_numbers
from transforms.statistics import DECISIONS

_WORDS = {"approve": "approved", "review": "to review", "decline": "declined"}


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading.

    Attributes:
        title: the heading.
        head: names of the columns after the first.
        rows: cells; the first names the row.
        numbers: how many columns after the first hold numbers; what follows them is words.
        note: a sentence below it.
    """

    title: str
    head: tuple[str, ...]
    rows: list[list[str]]
    numbers: int
    note: str = ""

    def text(self, most: int) -> list[str]:
        """The lines for a terminal, of at most so many rows."""
        shown = [["", *self.head]] if self.head else []
        shown += self.rows[:most]
        widths = [max((len(row[at]) for row in shown if at < len(row)), default=0) for at in range(self.numbers + 1)]
        lines = [self._line(row, widths) for row in shown]
        if len(self.rows) > most:
            lines.append(f"  and {len(self.rows) - most:,} more: see the report")
        return [*lines, *([f"  {self.note}"] if self.note else [])]

    def _line(self, row: Sequence[str], widths: Sequence[int]) -> str:
        numbers = [f"{cell:>{width}}" for cell, width in zip(row[1 : self.numbers + 1], widths[1:], strict=False)]
        return "  ".join(["", f"{row[0]:<{widths[0]}}", *numbers, *row[self.numbers + 1 :]]).rstrip()


def tables(facts: ReplayFacts) -> list[Table]:
    """All tables that have something to tell."""
    found = [decisions(facts), flips(facts.comparison.on_time), worth(facts), segments(facts), skew(facts), rows(facts)]
    return [table for table in found if table.rows or table.note]


def decisions(facts: ReplayFacts) -> Table:
    """Decisions on each side, and alerts that come and go."""
    came = facts.comparison.on_time
    served, replayed = (came.of(side).counts.sum(axis=1).tolist() for side in SIDES)
    cells = [
        [_WORDS[decision], f"{before:,}", f"{after:,}", _signed(after - before)]
        for decision, before, after in zip(DECISIONS, served, replayed, strict=True)
    ]
    cells += [
        ["alerts gained", "", "", _signed(came.alerts_gained)],
        ["alerts lost", "", "", _signed(-came.alerts_lost)],
        ["decided otherwise", "", "", f"{came.changed:,}", share(came.changed, came.transactions)],
    ]
    return Table("Decisions", (*SIDES, "difference"), cells, numbers=3)


def flips(came: Outcome) -> Table:
    """The matrix of decisions: served down, replayed across."""
    cells = [
        [f"{decision} served", *(f"{count:,}" for count in counts)]
        for decision, counts in zip(DECISIONS, came.flips.tolist(), strict=True)
    ]
    return Table("Decisions served, and what becomes of them", DECISIONS, cells, numbers=3)


def worth(facts: ReplayFacts) -> Table:
    """How good each side's decisions are where labels are known."""
    came = facts.comparison.on_time
    sides = [came.of(side) for side in SIDES]
    known = outcomes.labelled(sides[0])
    note = f"of {known:,} of {came.transactions:,} transactions, whose label was known by {moment(facts.known_by)}"
    if not known:
        note = f"No label was known by {moment(facts.known_by)}: what the decisions cost cannot be said."
        return Table("Outcomes", (), [], numbers=0, note=note)
    measures = {
        "precision": outcomes.precision,
        "recall": outcomes.recall,
        "average precision": outcomes.average_precision,
    }
    cells = [[name, *_ratios([measure(side) for side in sides])] for name, measure in measures.items()]
    caught, missed = ([outcomes.frauds(side)[at] for side in sides] for at in (0, 1))
    saved = [outcomes.money(side, facts.costs).saved for side in sides]
    costs = [facts.cost(came, side) for side in SIDES]
    cells += [
        ["frauds caught", *(f"{count:,}" for count in caught), _signed(caught[1] - caught[0])],
        ["frauds missed", *(f"{count:,}" for count in missed), _signed(missed[1] - missed[0])],
        ["cost", *map(facts.money, costs), facts.money(costs[1] - costs[0]), "frauds missed, reviews, wrong declines"],
        ["saved", *map(facts.money, saved), facts.money(saved[1] - saved[0]), "compared with approving everything"],
    ]
    return Table("Outcomes", (*SIDES, "difference"), cells, numbers=3, note=note)


def segments(facts: ReplayFacts) -> Table:
    """A row a segment."""
    head = ("transactions", "changed", "gained", "lost", "cost served", "replayed", "avg. precision", "replayed")
    cells = []
    for name in in_order(list(facts.comparison.segments)):
        came = facts.comparison.segments[name]
        counts = (came.transactions, came.changed, came.alerts_gained, came.alerts_lost)
        costs = [facts.money(facts.cost(came, side)) for side in SIDES]
        average = _ratios([outcomes.average_precision(came.of(side)) for side in SIDES])[:2]
        cells.append([shown(name), *(f"{count:,}" for count in counts), *costs, *average])
    return Table(f"By {facts.by}", head, cells, numbers=len(head))


def skew(facts: ReplayFacts) -> Table:
    """Values that were served otherwise than they are now, the most frequent first."""
    comparison = facts.comparison
    found = {**comparison.features, "score, by the same model": comparison.scores}
    ranked = sorted(found.items(), key=lambda entry: (-entry[1].differ, entry[0]))
    cells = [[name, *_difference(each), f"{each.largest:.6g}"] for name, each in ranked if each.differ]
    if comparison.reasons.differ:
        cells.append(["reasons, by the same model", *_difference(comparison.reasons), "-"])
    return Table("Served otherwise", ("compared", "differ", "share", "largest difference"), cells, numbers=4)


def rows(facts: ReplayFacts) -> Table:
    """What was read and compared."""
    comparison, late = facts.comparison, facts.comparison.late
    reasons = ", ".join(f"{name} {count:,}" for name, count in sorted(facts.dead_letters.items()))
    cells = [
        ["records read", f"{facts.read:,}", "with those of the past that features need"],
        ["dead letters", f"{sum(facts.dead_letters.values()):,}", reasons],
        ["compared", f"{comparison.on_time.transactions:,}", "served on time; all above is of these"],
        [
            "served late",
            f"{late.transactions:,}",
            f"{late.changed:,} of them are decided otherwise" if late.transactions else "",
        ],
        ["only served", f"{comparison.only_served:,}", "the source has no such transaction, or it got no decision now"],
        ["only replayed", f"{comparison.only_replayed:,}", "the source has it, and it was not served"],
        ["served again", f"{comparison.repeated:,}", "rows of a transaction that was served before; the first stands"],
        ["features compared", f"{len(comparison.features):,}", f"of {facts.features} that are replayed, by name"],
        ["took", span(facts.wall_seconds)],
    ]
    return Table("Rows", (), cells, numbers=1)


def shown(text: str) -> str:
    """Text from outside, fit to be shown: nothing in it steers a terminal, and card numbers are masked."""
    return mask_card_numbers(printable(text))


def _difference(each: Difference) -> list[str]:
    return [f"{each.rows:,}", f"{each.differ:,}", share(each.differ, each.rows)]


def _ratios(values: Sequence[float | None]) -> list[str]:
    texts = ["-" if value is None else f"{value:.3f}" for value in values]
    before, after = values
    return [*texts, "" if before is None or after is None else f"{after - before:+.3f}"]


def _signed(number: int) -> str:
    return f"{number:+,}" if number else "0"
