"""The report of a run: one HTML file that needs nothing else, to look at, to mail and to keep."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pipelines import report_plots
from pipelines.formats import moment, share, span
from pipelines.monitor.report import calibration_plot, drift_plot
from pipelines.summary import NO_LABELS, WAITS, RunFacts, some_labels
from transforms import outcomes
from transforms.statistics import DECISIONS, LABELS

_STYLE = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --panel: #ffffff; --ink: #1c2430; --muted: #5c6675; --grid: #e3e7ed;
  --accent: #3b5bdb; --good: #0b7285; --fraud: #c92a2a; --unknown: #868e96; --review: #e8920c; --decline: #c92a2a; }
@media (prefers-color-scheme: dark) { :root {
  --page: #12161c; --panel: #1b2129; --ink: #e8ecf1; --muted: #9aa5b4; --grid: #2c3540;
  --accent: #8ea2ff; --good: #4cc3d9; --fraud: #ff7b72; --unknown: #8b949e; --review: #f0b35a; --decline: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 3rem; max-width: 1180px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1rem; font-weight: 600; margin: 0 0 .6rem; }
p { margin: .3rem 0; } .muted, .card span, .card small { color: var(--muted); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 235px), 1fr)); gap: .8rem;
  margin: 1.4rem 0; }
.card, figure, .panel { background: var(--panel); border: 1px solid var(--grid); border-radius: 10px; }
.card { padding: .8rem 1rem; } .card span, .card small { display: block; font-size: .8rem; }
.card b { display: block; font-size: 1.45rem; line-height: 1.35; overflow-wrap: anywhere;
  font-variant-numeric: tabular-nums; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: .9rem; }
figure, .panel { margin: 0; padding: .9rem 1rem; overflow-x: auto; }
figcaption { font-weight: 600; display: flex; justify-content: space-between; flex-wrap: wrap; gap: .2rem 1rem; }
.keys { font-weight: 400; font-size: .8rem; color: var(--muted); } .key { margin-left: .9rem; white-space: nowrap; }
.key i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .35em;
  background: currentColor; }
svg { display: block; width: 100%; height: auto; } svg text { font-size: 11.5px; fill: var(--muted); }
svg text.name, svg text.note { fill: var(--ink); }
.note { paint-order: stroke; stroke: var(--panel); stroke-width: 4px; stroke-linejoin: round; }
svg .grid { display: inline; stroke: var(--grid); } .line { fill: none; stroke: currentColor; stroke-width: 1.8;
  stroke-linejoin: round; } .tint { fill: currentColor; opacity: .14; } .bar { fill: currentColor; }
.dot { fill: currentColor; stroke: var(--panel); stroke-width: 2; }
.rule { stroke: currentColor; stroke-width: 1.4; stroke-dasharray: 5 4; }
.accent { color: var(--accent); } .good { color: var(--good); } .fraud { color: var(--fraud); }
.ink { color: var(--ink); }
.unknown { color: var(--unknown); } .review { color: var(--review); } .decline { color: var(--decline); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; border-top: 1px solid var(--grid); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; }
thead th { border-top: 0; font-weight: 500; color: var(--muted); } tr.total td { font-weight: 600; }
td small { color: var(--muted); display: block; } .sub { padding-left: 1rem; } .wide { grid-column: 1 / -1; }
@media print { body { max-width: none; } figure, .card, .panel { break-inside: avoid; } }
"""


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
    title = f"Fraud detection on {facts.source}"
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            f'<p class="muted">{escape(_about(facts))}</p>',
            *(f"<p>{escape(note)}</p>" for note in notes if note),
            f'<div class="cards">{"".join(_cards(facts))}</div>',
            f'<div class="grid">{"".join(panels)}</div>',
            "</body></html>\n",
        ]
    )


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
    return [f"<div class=card><span>{a}</span><b>{escape(b)}</b><small>{escape(c)}</small></div>" for a, b, c in cards]


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
    return _table("Decisions and what they were on", ["", *(LABELS[at] for at in shown), "all"], rows)


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
    return _table(f"Money at the policy: {policy}", [], _escaped(rows), total=3)


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
    return _table("The run", [], rows, note=note)


def _files(facts: RunFacts, wide: bool) -> str:
    rows = [[escape(what), f'<span class="muted">{escape(where)}</span>'] for what, where in facts.files.items()]
    return _table("Files", [], rows, css="panel wide" if wide else "panel") if rows else ""


def _escaped(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[escape(cell) for cell in row] for row in rows]


def _table(
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    total: int | None = None,
    note: str = "",
    css: str = "panel",
) -> str:
    """A table of cells that are HTML already; `total` is the row in bold."""
    headed = f"<thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr></thead>" if head else ""
    body = "".join(
        f"<tr{' class=total' if place == total else ''}>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
        for place, row in enumerate(rows)
    )
    below = f'<p class="muted">{escape(note)}</p>' if note else ""
    return (
        f'<section class="{css}"><h2>{escape(title)}</h2><table>{headed}<tbody>{body}</tbody></table>{below}</section>'
    )
