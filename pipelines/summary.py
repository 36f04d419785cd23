"""What a run came to, in plain words for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from model_artifacts.manifest import Costs, Thresholds
from pipelines.formats import moment, money, printable, share, span
from pipelines.monitor.report import Monitored, monitoring_json, monitoring_lines
from pipelines.progress import ThroughputSample
from transforms import outcomes
from transforms.histograms import duration_at, quantile_bin
from transforms.statistics import RunStatistics


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Everything that the summary and the report say of a run.

    Attributes:
        statistics: counts over all decisions, with the labels that were known at the end.
        source: what was read; without secrets.
        schema: how its fields were named.
        model_id: what scored.
        thresholds: from which scores on transactions were reviewed, and declined.
        costs: what reviews and wrong declines cost.
        ordering: how rows were ordered; `event_time` makes decisions wait for the watermark.
        read: records read; those decided on and the dead letters, together.
        dead_letters: how many by reason, duplicates among them.
        refused_labels: records of the label source that are no labels, by reason.
        suppressed: alerts that were counted and not sent, see `SuppressAlerts`.
        over_budget: likewise, see `LimitAlerts`.
        undelivered: decisions and alerts that a sink refused for good, by reason.
        wall_seconds: how long the run took.
        throughput: its course, see `Progress.samples`.
        files: what was written, and where.
        minor_digits: decimals of the currency.
        monitored: drift and calibration of its windows.
    """

    statistics: RunStatistics
    source: str
    schema: str
    model_id: str
    thresholds: Thresholds
    costs: Costs
    ordering: Literal["event_time", "arrival"]
    read: int
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    refused_labels: Mapping[str, int] = field(default_factory=dict)
    suppressed: int = 0
    over_budget: int = 0
    undelivered: Mapping[str, int] = field(default_factory=dict)
    wall_seconds: float
    throughput: Sequence[ThroughputSample] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    minor_digits: int = 2
    monitored: Monitored = field(default_factory=Monitored)

    def money(self, minor: int) -> str:
        """An amount of this run in major units."""
        return money(minor, self.minor_digits)

    def latency(self, quantile: float) -> float | None:
        """Seconds from reading to decision, at a quantile; None without decisions."""
        place = quantile_bin(self.statistics.latencies, quantile)
        return None if place is None else float(duration_at(place + 0.5)) / 1e6

    @property
    def rate(self) -> float:
        """Transactions decided on in a second."""
        return self.statistics.transactions / self.wall_seconds if self.wall_seconds else 0.0


WAITS = "decisions wait until rows are in order of event time; pipeline.ordering = arrival does not wait"
NO_LABELS = (
    "No labels are known: how many frauds were caught, and what that saved, cannot be said.",
    "Give them with --labels URL, or in the source.",
)


def some_labels(facts: RunFacts) -> str:
    """What to say of transactions without a label, when others have one; else nothing."""
    run, known = facts.statistics, outcomes.labelled(facts.statistics)
    if not known or known == run.transactions:
        return ""
    unknown = f"{run.transactions - known:,} of {run.transactions:,} transactions"
    return f"{unknown} have no label yet and are left out of what follows."


def summary_text(facts: RunFacts, colour: bool = False) -> str:
    """The summary for a terminal, without a line's end after the last line.

    Args:
        facts: what to tell.
        colour: whether the terminal shows bold headings.
    """
    run = facts.statistics
    sections = [
        ("TRANSACTIONS", _decisions(facts)),
        ("FRAUD", _fraud(facts)),
        ("MONEY", _money(facts)),
        ("MONITORING", [_Line(label, note=words) for label, words in monitoring_lines(facts.monitored)]),
        ("RUN", _run(facts)),
        ("FILES", [_Line(label, note=path) for label, path in facts.files.items()]),
    ]
    head = [f"Fraud detection on {facts.source}", f"schema {facts.schema}, model {facts.model_id}"]
    if run.first_event_time is not None and run.last_event_time is not None:
        head.append(f"{moment(run.first_event_time)} to {moment(run.last_event_time)} UTC")
    lines = [printable(line) for line in head]
    width = max(len(line.label) for _, section in sections for line in section)
    for title, section in sections:
        if section:
            lines += ["", f"\x1b[1m{title}\x1b[0m" if colour else title]
            lines += [line.text(width) for line in section]
    return "\n".join(lines)


@dataclass(frozen=True)
class _Line:
    """A line of a section; without numbers, `note` follows the label at once."""

    label: str
    number: str = ""
    part: str = ""
    amount: str = ""
    note: str = ""

    def text(self, width: int) -> str:
        if not self.label:
            return f"  {printable(self.note)}"
        columns = f"{self.number:>12}{self.part:>10}" if self.number or self.part or self.amount else ""
        columns += f"{self.amount:>18}" if self.amount else ""
        return f"  {printable(self.label):<{width}}{columns}  {printable(self.note)}".rstrip()


def _decisions(facts: RunFacts) -> list[_Line]:
    run = facts.statistics
    counts, amounts = run.counts.sum(axis=1).tolist(), run.amounts.sum(axis=1).tolist()
    rows = [
        ("decided on", sum(counts), sum(amounts)),
        ("approved", counts[0], amounts[0]),
        ("alerts", counts[1] + counts[2], amounts[1] + amounts[2]),
        ("  to review", counts[1], amounts[1]),
        ("  declined", counts[2], amounts[2]),
    ]
    return [_Line(label, f"{count:,}", share(count, sum(counts)), facts.money(amount)) for label, count, amount in rows]


def _fraud(facts: RunFacts) -> list[_Line]:
    run = facts.statistics
    if not outcomes.labelled(run):
        return [_Line("", note=sentence) for sentence in NO_LABELS]
    caught, missed = outcomes.frauds(run)
    worth = outcomes.money(run, facts.costs)
    note = some_labels(facts)
    figures = [
        ("precision", outcomes.precision(run), "of alerts were frauds", "no alerts"),
        ("recall", outcomes.recall(run), "of frauds raised an alert", "no frauds"),
    ]
    average = outcomes.average_precision(run)
    return [
        *([_Line("", note=note)] if note else []),
        _Line(
            "frauds",
            f"{caught + missed:,}",
            share(caught + missed, outcomes.labelled(run)),
            facts.money(worth.stopped + worth.missed),
        ),
        _Line("  caught", f"{caught:,}", share(caught, caught + missed), facts.money(worth.stopped)),
        _Line("  missed", f"{missed:,}", share(missed, caught + missed), facts.money(worth.missed)),
        _Line("false alarms", f"{int(run.counts[1:, 1].sum()):,}"),
        *(
            _Line(label, part="-" if value is None else share(value), note=absent if value is None else words)
            for label, value, words, absent in figures
        ),
        _Line("average precision", part="-" if average is None else f"{average:.3f}", note="over all thresholds"),
    ]


def _money(facts: RunFacts) -> list[_Line]:
    run, costs = facts.statistics, facts.costs
    if not outcomes.labelled(run):
        return []
    worth = outcomes.money(run, costs)
    reviews, declines = int(run.counts[1, :2].sum()), int(run.counts[2, 1])
    thresholds = facts.thresholds
    return [
        _Line("", note=f"review from a score of {thresholds.review:.4g}, decline from {thresholds.decline:.4g}"),
        _Line("frauds stopped", amount=facts.money(worth.stopped)),
        _Line(
            "reviews", f"{reviews:,}", amount=facts.money(-worth.review_cost), note=f"{facts.money(costs.review)} each"
        ),
        _Line(
            "good customers declined",
            f"{declines:,}",
            amount=facts.money(-worth.decline_cost),
            note=f"{facts.money(costs.decline)} each",
        ),
        _Line("saved", amount=facts.money(worth.saved), note="compared with approving everything"),
    ]


def _run(facts: RunFacts) -> list[_Line]:
    dead = sum(facts.dead_letters.values())
    lines = [
        _Line("records read", f"{facts.read:,}"),
        _Line("dead letters", f"{dead:,}", share(dead, facts.read)),
    ]
    for reason, count in sorted(facts.dead_letters.items(), key=lambda entry: (-entry[1], entry[0])):
        lines.append(_Line(f"  {reason}", f"{count:,}"))
    refused = sum(facts.refused_labels.values())
    lines += [_Line("labels refused", f"{refused:,}", note="see the dead letters")] if refused else []
    lines += [_Line("alerts not sent", f"{facts.suppressed:,}", note="suppressed")] if facts.suppressed else []
    over = f"{facts.over_budget:,}"
    lines += [_Line("alerts not sent", over, note="over the day's budget")] if facts.over_budget else []
    undelivered = sum(facts.undelivered.values())
    lines += [_Line("not delivered", f"{undelivered:,}", note="see the dead letters")] if undelivered else []
    lines += [
        _Line("late rows", f"{facts.statistics.late:,}"),
        _Line("took", note=f"{span(facts.wall_seconds)}, {facts.rate:,.0f} transactions a second"),
    ]
    middle, slowest = facts.latency(0.5), facts.latency(0.99)
    if middle is not None and slowest is not None:
        lines.append(_Line("latency of a decision", note=f"p50 {span(middle)}, p99 {span(slowest)}"))
        if facts.ordering == "event_time":
            lines.append(_Line("", note=f"({WAITS})"))
    return lines


def summary_json(facts: RunFacts) -> bytes:
    """The figures of a run as indented JSON; money in minor units, times in microseconds, unknowns null."""
    run = facts.statistics
    known = outcomes.labelled(run)
    counts = run.counts.sum(axis=1).tolist()
    caught, missed = outcomes.frauds(run)
    worth = outcomes.money(run, facts.costs)
    figures: dict[str, Any] = {
        "source": facts.source,
        "schema": facts.schema,
        "model_id": facts.model_id,
        "ordering": facts.ordering,
        "thresholds": facts.thresholds,
        "costs": facts.costs,
        "first_event_time": run.first_event_time,
        "last_event_time": run.last_event_time,
        "read": facts.read,
        "transactions": run.transactions,
        "approved": counts[0],
        "reviewed": counts[1],
        "declined": counts[2],
        "dead_letters": facts.dead_letters,
        "refused_labels": facts.refused_labels,
        "suppressed": facts.suppressed,
        "over_budget": facts.over_budget,
        "undelivered": facts.undelivered,
        "late": run.late,
        "labelled": known,
        "frauds_caught": caught if known else None,
        "frauds_missed": missed if known else None,
        "precision": outcomes.precision(run),
        "recall": outcomes.recall(run),
        "average_precision": outcomes.average_precision(run),
        "money": {"saved": worth.saved, **msgspec.to_builtins(worth)} if known else None,
        "monitoring": monitoring_json(facts.monitored),
        "wall_seconds": facts.wall_seconds,
        "transactions_per_second": facts.rate,
        "latency_seconds": {"p50": facts.latency(0.5), "p99": facts.latency(0.99)},
        "reasons": dict(sorted(run.reasons.items(), key=lambda entry: (-entry[1], entry[0]))),
        "files": facts.files,
    }
    return msgspec.json.format(msgspec.json.encode(figures), indent=2) + b"\n"
