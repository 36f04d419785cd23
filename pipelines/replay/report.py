"""The report of a replay: one HTML page with what differs, in tables and plots."""

from __future__ import annotations

from html import escape

import numpy as np

from pipelines import plots
from pipelines.formats import day, share
from pipelines.replay.facts import ReplayFacts
from pipelines.replay.outcome import SIDES, Side
from pipelines.replay.summary import head, verdict
from pipelines.replay.tables import Table, decisions, flips, rows, segments, shown, skew, worth
from pipelines.report_page import card, page, table
from transforms import outcomes

_COLOURS: dict[Side, str] = {"served": "unknown", "replayed": "accent"}


def report_html(facts: ReplayFacts) -> str:
    """The report as one HTML page, without scripts or anything from elsewhere; card numbers are masked."""
    came = facts.comparison.on_time
    title, *about = head(facts)
    drawn = [alerts_by_day(facts), precision_recall(facts), costs_by_segment(facts), skewed_features(facts)]
    files = Table("Files", (), [[what, shown(where)] for what, where in facts.files.items()], numbers=0)
    wide = [_panel(each, "panel wide") for each in (segments(facts), skew(facts)) if each.rows]
    pairs = [_panel(each) for each in (decisions(facts), flips(came), worth(facts), rows(facts))]
    panels = [*(drawing for drawing in drawn if drawing), *pairs, *wide, _panel(files, "panel wide")]
    return page(title, " · ".join(about), [verdict(facts)], _cards(facts), panels)


def _cards(facts: ReplayFacts) -> list[str]:
    came = facts.comparison.on_time
    cards = [
        card("transactions", f"{came.transactions:,}", "served on time and replayed"),
        card("decided otherwise", f"{came.changed:,}", f"{share(came.changed, came.transactions)} of them"),
        card("alerts gained", f"{came.alerts_gained:,}", "approved when served"),
        card("alerts lost", f"{came.alerts_lost:,}", "approved now"),
    ]
    served, replayed = (came.of(side) for side in SIDES)
    if outcomes.labelled(served):
        before, after = (facts.cost(came, side) for side in SIDES)
        cards.append(card("cost", facts.money(after), f"{facts.money(before)} as served"))
        average = [outcomes.average_precision(side) for side in (served, replayed)]
        if average[0] is not None and average[1] is not None:
            cards.append(card("average precision", f"{average[1]:.3f}", f"{average[0]:.3f} as served"))
    differ = sum(1 for each in facts.comparison.features.values() if each.differ)
    cards.append(card("features served otherwise", f"{differ:,}", f"of {len(facts.comparison.features)} compared"))
    return cards


def _panel(of: Table, css: str = "panel") -> str:
    head = ["", *of.head] if of.head else []
    return table(of.title, head, [[escape(cell) for cell in row] for row in of.rows], note=of.note, css=css)


def alerts_by_day(facts: ReplayFacts) -> str:
    """Alerts of both sides, day by day; nothing where there is one day only."""
    daily = sorted(facts.comparison.daily.items())
    if len(daily) < 2:
        return ""
    first, last = daily[0][0], daily[-1][0]
    middle = daily[len(daily) // 2][0]
    x = plots.x_axis(first, last + 1, [(at + 0.5, day(at)) for at in sorted({first, middle, last})])
    y = plots.y_axis(max(1.0, *(float(count) for _, counts in daily for count in counts)), "a day")
    edges = [float(at) for at in range(first, last + 2)]
    counted = dict(daily)
    marks = []
    for place, colour in enumerate((*_COLOURS.values(), "fraud")):
        heights = [float(counted.get(at, (0, 0, 0))[place]) for at in range(first, last + 1)]
        marks.append(plots.line(plots.steps(edges, heights), x, y, colour))
    legend = [(colour, f"alerts {side}") for side, colour in _COLOURS.items()]
    return plots.chart("Alerts over time", x, y, marks, [*legend, ("fraud", "decided otherwise")])


def precision_recall(facts: ReplayFacts) -> str:
    """Precision against recall of both sides' scores, their decisions marked; nothing without frauds."""
    ticks = [(number / 5, f"{number * 20} %") for number in range(6)]
    x = plots.x_axis(0, 1, ticks, "recall: share of frauds that raise an alert")
    y = plots.Axis(
        0, 1, plots.HEIGHT - plots.BOTTOM, plots.TOP, ticks, title="precision: share of alerts that are frauds"
    )
    marks = []
    for side, colour in _COLOURS.items():
        run = facts.comparison.on_time.of(side)
        curve, precision, recall = outcomes.precision_recall(run), outcomes.precision(run), outcomes.recall(run)
        if curve is None:
            return ""
        points = list(zip(curve.recall.tolist(), curve.precision.tolist(), strict=True))
        kept = [points[at] for at in plots.thinned(np.arange(len(points))).tolist()]
        marks.append(plots.line([(0.0, kept[0][1]), *kept], x, y, colour))
        if precision is not None and recall is not None:
            marks.append(plots.dot((recall, precision), side, x, y, colour, below=side == "served"))
    return plots.chart("Precision and recall", x, y, marks, [(colour, side) for side, colour in _COLOURS.items()])


def costs_by_segment(facts: ReplayFacts, most: int = 12) -> str:
    """Where the replayed decisions cost more or less, the largest first; nothing without segments or labels."""
    found = []
    for name, came in facts.comparison.segments.items():
        served, replayed = (facts.cost(came, side) for side in SIDES)
        if served != replayed:
            found.append((shown(name), float(replayed - served), facts.money(replayed - served)))
    ranked = sorted(found, key=lambda entry: (-abs(entry[1]), entry[0]))[:most]
    return plots.ranking(f"Cost, replayed less served, by {facts.by}", ranked, "accent") if ranked else ""


def skewed_features(facts: ReplayFacts, most: int = 12) -> str:
    """The features that were served otherwise, as shares of what was compared; nothing where none was."""
    found = [
        (name, each.differ / each.rows, share(each.differ, each.rows))
        for name, each in facts.comparison.features.items()
        if each.differ
    ]
    ranked = sorted(found, key=lambda entry: (-entry[1], entry[0]))[:most]
    return plots.ranking("Features served otherwise, share of transactions", ranked, "fraud") if ranked else ""
