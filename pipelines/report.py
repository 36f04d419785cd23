"""The report of a run: one HTML file that needs nothing else, to look at, to mail and to keep."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pipelines import report_plots
from pipelines.formats import moment, share, span
from pipelines.monitor.report import calibration_plot, drift_plot
from pipelines.report_page import card, page, table
from pipelines.summary import NO_LABELS, WAITS, RunFacts, some_labels
from transforms import outcomes
from transforms.statistics import DECISIONS, LABELS


def report_html(facts: RunFacts) -> str:
    """The report as one HTML page: figures, plots and tables, without scripts or anything from elsewhere."""
    run = facts.statistics
    known = outcomes.labelled(run)
    notes = [some_labels(facts)] if known else list(NO_LABELS)
    panels = [
        *(_plots(facts) if run.transactions else ()),
        *((_outcomes(facts), _money(facts)) if known else (_outcomes(facts),)),
        report_plots.throughput(facts),
        _run(facts),
    ]
    panels = [panel for panel in panels if panel]
    panels.append(_files(facts, wide=len(panels) % 2 == 0))
    return page(f"Fraud detection on {facts.source}", _about(facts), notes, _cards(facts), panels)


def _about(facts: RunFacts) -> str:
    run = facts.statistics
    parts = [f"schema {facts.schema}", f"model {facts.model_id}"]
    if run.first_event_time is not None and run.last_event_time is not None:
        parts.append(f"transactions of {moment(run.first_event_time)} to {moment(run.last_event_time)} UTC")
    return " · ".join(parts)


def _cards(facts: RunFacts) -> list[str]:
    run = facts.statistics
    alerts = int(run.counts[1:].sum())
    cards = [
        ("transactions", f"{run.transactions:,}", f"{facts.money(int(run.amounts.sum()))} in all"),
        ("alerts", f"{alerts:,}", f"{share(alerts, run.transactions)} of transactions"),
    ]
    if outcomes.labelled(run):
        caught, missed = outcomes.frauds(run)
        precision, recall = outcomes.precision(run), outcomes.recall(run)
        average = outcomes.average_precision(run)
        worth = outcomes.money(run, facts.costs)
        cards += [
            ("frauds caught", f"{caught:,}", f"of {caught + missed:,}"),
            ("precision", "-" if precision is None else share(precision), "of alerts were frauds"),
            ("recall", "-" if recall is None else share(recall), "of frauds raised an alert"),
            ("average precision", "-" if average is None else f"{average:.3f}", "over all thresholds"),
            ("saved", facts.money(worth.saved), "compared with approving everything"),
        ]
    cards.append(("throughput", f"{facts.rate:,.0f}", f"transactions a second, {span(facts.wall_seconds)} in all"))
    return [card(*each) for each in cards]


def _plots(facts: RunFacts) -> list[str]:
    return [
        report_plots.score_distribution(facts),
        report_plots.precision_recall(facts),
        report_plots.alerts_over_time(facts),
        report_plots.saved_by_threshold(facts),
        report_plots.top_reasons(facts),
        report_plots.top_features(facts),
        drift_plot(facts.monitored),
        calibration_plot(facts.monitored),
    ]


def _outcomes(facts: RunFacts) -> str:
    """Decisions by label: how many, and their amounts below."""
    run = facts.statistics
    shown = [at for at in range(len(LABELS)) if run.counts[:, at].any()]
    rows = []
    for place, decision in enumerate(DECISIONS):
        cells = [_cell(int(run.counts[place, at]), int(run.amounts[place, at]), facts) for at in shown]
        rows.append([decision, *cells, _cell(int(run.counts[place].sum()), int(run.amounts[place].sum()), facts)])
    totals = [_cell(int(run.counts[:, at].sum()), int(run.amounts[:, at].sum()), facts) for at in shown]
    rows.append(["all", *totals, _cell(run.transactions, int(run.amounts.sum()), facts)])
    return table("Decisions and what they were on", ["", *(LABELS[at] for at in shown), "all"], rows)


def _cell(count: int, amount: int, facts: RunFacts) -> str:
    return f"{count:,}<small>{escape(facts.money(amount))}</small>"


def _money(facts: RunFacts) -> str:
    run, costs = facts.statistics, facts.costs
    worth = outcomes.money(run, costs)
    reviews, declines = int(run.counts[1, :2].sum()), int(run.counts[2, 1])
    rows = [
        ["frauds stopped", facts.money(worth.stopped)],
        [f"{reviews:,} reviews at {facts.money(costs.review)}", facts.money(-worth.review_cost)],
        [f"{declines:,} good customers declined at {facts.money(costs.decline)}", facts.money(-worth.decline_cost)],
        ["saved, compared with approving everything", facts.money(worth.saved)],
        ["frauds missed", facts.money(worth.missed)],
    ]
    policy = f"review from {facts.thresholds.review:.4g}, decline from {facts.thresholds.decline:.4g}"
    return table(f"Money at the policy: {policy}", [], _escaped(rows), total=3)


def _run(facts: RunFacts) -> str:
    dead = sorted(facts.dead_letters.items(), key=lambda entry: (-entry[1], entry[0]))
    rows = [
        ["records read", f"{facts.read:,}"],
        ["decided on", f"{facts.statistics.transactions:,}"],
        ["dead letters", f"{sum(facts.dead_letters.values()):,}"],
        *([f'<span class="sub">{escape(reason)}</span>', f"{count:,}"] for reason, count in dead),
        ["late rows", f"{facts.statistics.late:,}"],
        ["took", span(facts.wall_seconds)],
    ]
    middle, slowest = facts.latency(0.5), facts.latency(0.99)
    if middle is not None and slowest is not None:
        rows.append(["latency of a decision, p50 and p99", f"{span(middle)}, {span(slowest)}"])
    note = WAITS if facts.ordering == "event_time" and middle is not None else ""
    return table("The run", [], rows, note=note)


def _files(facts: RunFacts, wide: bool) -> str:
    rows = [[escape(what), f'<span class="muted">{escape(where)}</span>'] for what, where in facts.files.items()]
    return table("Files", [], rows, css="panel wide" if wide else "panel") if rows else ""


def _escaped(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[escape(cell) for cell in row] for row in rows]
