"""What a replay came to, in tables for a terminal and as JSON for programs."""

from __future__ import annotations

from typing import Any

import msgspec

from pipelines.formats import day, moment
from pipelines.replay.facts import ReplayFacts
from pipelines.replay.outcome import SIDES, Outcome
from pipelines.replay.tables import Table, shown, tables
from transforms import outcomes
from transforms.card_numbers import mask_card_numbers
from transforms.durations import format_duration
from transforms.statistics import DECISIONS

MOST_ROWS = 25  # of a table in a terminal; the report has all


def summary_text(facts: ReplayFacts, colour: bool = False) -> str:
    """The summary for a terminal, without a line's end after the last line; card numbers are masked.

    Args:
        facts: what to tell.
        colour: whether the terminal shows bold headings.
    """
    files = Table("Files", (), [[what, shown(where)] for what, where in facts.files.items()], numbers=0)
    lines = [*head(facts)]
    for table in (*tables(facts), files):
        title = table.title.upper()
        lines += ["", f"\x1b[1m{title}\x1b[0m" if colour else title, *table.text(MOST_ROWS)]
    return "\n".join([*lines, "", verdict(facts)])


def head(facts: ReplayFacts) -> list[str]:
    """What was replayed, and from where on its past was read: a line each."""
    period, models = facts.period, ", ".join(sorted(facts.comparison.models)) or "nothing"
    before, remembered = (format_duration(us) for us in (period.start - period.warm, period.warm - period.first))
    lines = [
        f"Replay of {day(period.days.start)} up to {day(period.days.stop)} on {facts.source}",
        f"served by {models} ({facts.served}), replayed by {facts.model_id}, schema {facts.schema}",
        f"read from {moment(period.first)} on: features look back {before}, ids are remembered for {remembered}",
    ]
    if facts.cold and facts.span:
        lines.append(
            f"the source begins at {moment(facts.span[0])}: features are those served if serving began there too"
        )
    return [shown(line) for line in lines]


def verdict(facts: ReplayFacts) -> str:
    """The last line: whether anything differs."""
    if facts.comparison.identical:
        return "Nothing differs: every transaction, feature and decision is as it was served."
    comparison = facts.comparison
    skewed = sum(1 for each in comparison.features.values() if each.differ)
    lost = comparison.only_served + comparison.only_replayed
    parts = [
        (comparison.on_time.changed, "decisions differ"),
        (skewed, "features were served otherwise"),
        (lost, "transactions are on one side only"),
        (comparison.scores.differ, "scores of the same model differ"),
    ]
    return "; ".join(f"{count:,} {words}" for count, words in parts if count) + "."


def summary_json(facts: ReplayFacts) -> bytes:
    """The figures of a replay as indented JSON; money in minor units, times in microseconds, unknowns null."""
    comparison, period = facts.comparison, facts.period
    figures: dict[str, Any] = {
        "identical": comparison.identical,
        "from": period.start,
        "to": period.end,
        "read_from": period.first,
        "source": facts.source,
        "source_spans": facts.span,
        "served": facts.served,
        "schema": facts.schema,
        "served_by": comparison.models,
        "model_id": facts.model_id,
        "thresholds": facts.thresholds,
        "costs": facts.costs,
        "known_by": facts.known_by,
        **_figures(facts, comparison.on_time),
        "late": _figures(facts, comparison.late),
        "only_served": comparison.only_served,
        "only_replayed": comparison.only_replayed,
        "served_again": comparison.repeated,
        "features": comparison.features,
        "scores": comparison.scores,
        "reasons": comparison.reasons,
        "by": facts.by,
        "segments": {mask_card_numbers(name): _figures(facts, came) for name, came in comparison.segments.items()},
        "daily": {day(number): counts for number, counts in sorted(comparison.daily.items())},
        "read": facts.read,
        "dead_letters": facts.dead_letters,
        "wall_seconds": facts.wall_seconds,
        "files": facts.files,
    }
    return msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n"


def _figures(facts: ReplayFacts, came: Outcome) -> dict[str, Any]:
    sides: dict[str, Any] = {}
    for side in SIDES:
        run = came.of(side)
        known = bool(outcomes.labelled(run))
        counts = run.counts.sum(axis=1).tolist()
        sides[side] = {
            **dict(zip(DECISIONS, counts, strict=True)),
            "frauds_caught": outcomes.frauds(run)[0] if known else None,
            "precision": outcomes.precision(run),
            "recall": outcomes.recall(run),
            "average_precision": outcomes.average_precision(run),
            "saved": outcomes.money(run, facts.costs).saved if known else None,
            "cost": facts.cost(came, side) if known else None,
        }
    return {
        "transactions": came.transactions,
        "labelled": outcomes.labelled(came.of("served")),
        "changed": came.changed,
        "alerts_gained": came.alerts_gained,
        "alerts_lost": came.alerts_lost,
        "flips": {
            a: dict(zip(DECISIONS, row, strict=True)) for a, row in zip(DECISIONS, came.flips.tolist(), strict=True)
        },
        **sides,
    }
