"""The summary of a run: what it says, and what it does not pretend to know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from model_artifacts.manifest import Costs, Thresholds
from pipelines.progress import ThroughputSample
from pipelines.summary import RunFacts, summary_json, summary_text
from transforms.batch import from_rows
from transforms.durations import DAY
from transforms.statistics import RunStatistics, empty_statistics, observe

NOW = 1_533_038_400_000_000  # 2018-07-31 12:00 UTC
EXTRA = {"amount": pa.float64(), "score": pa.float64(), "decision": pa.string(), "reasons": pa.list_(pa.string())}


def row(decision: str, label: int | None, amount_minor: int, score: float, **columns: Any) -> dict[str, Any]:
    reasons = [] if decision == "approve" else ["amount: high"]
    return {
        "event_time": NOW,
        "ingest_time": NOW - 2_000_000,
        "decision": decision,
        "is_fraud": label,
        "amount_minor": amount_minor,
        "amount": amount_minor / 100,
        "score": score,
        "reasons": reasons,
        **columns,
    }


def run(rows: Sequence[dict[str, Any]]) -> RunStatistics:
    numbered = [{"transaction_id": f"t{at}", **row} for at, row in enumerate(rows)]
    return observe(from_rows(numbered, EXTRA), ["amount"], NOW)


LABELLED = [
    row("approve", 0, 1_000, 0.01, event_time=NOW - 3 * DAY),
    row("approve", 0, 2_000, 0.02),
    row("approve", 1, 4_500, 0.03, late=True),
    row("review", 1, 250_000, 0.5),
    row("review", 0, 90_000, 0.4),
    row("decline", 1, 500_000, 0.95),
    row("decline", 1, 123_456, 0.97),
    row("decline", 0, 70_000, 0.9),
]


def facts(rows: Sequence[dict[str, Any]], **changes: Any) -> RunFacts:
    """Facts of a run over these rows."""
    given: dict[str, Any] = {
        "statistics": run(rows) if rows else empty_statistics(["amount"]),
        "source": "file:cards.csv",
        "schema": "handbook",
        "model_id": "handbook-0123456789ab",
        "thresholds": Thresholds(review=0.25, decline=0.875),
        "costs": Costs(review=500, decline=2000),
        "ordering": "event_time",
        "read": len(rows) + 3,
        "dead_letters": {"duplicate": 1, "amount_negative": 2},
        "wall_seconds": 4.0,
        "throughput": [ThroughputSample(0.0, 0, 0), ThroughputSample(2.0, 6, 0), ThroughputSample(4.0, 11, 8)],
        "files": {"decisions": "output/decisions", "report": "output/report.html"},
        **changes,
    }
    return RunFacts(**given)


EXPECTED = """\
Fraud detection on file:cards.csv
schema handbook, model handbook-0123456789ab
2018-07-28 12:00 to 2018-07-31 12:00 UTC

TRANSACTIONS
  decided on                        8   100.0 %         10,409.56
  approved                          3    37.5 %             75.00
  alerts                            5    62.5 %         10,334.56
    to review                       2    25.0 %          3,400.00
    declined                        3    37.5 %          6,934.56

FRAUD
  frauds                            4    50.0 %          8,779.56
    caught                          3    75.0 %          8,734.56
    missed                          1    25.0 %             45.00
  false alarms                      2
  precision                              60.0 %  of alerts were frauds
  recall                                 75.0 %  of frauds raised an alert
  average precision                       0.854  over all thresholds

MONEY
  review from a score of 0.25, decline from 0.875
  frauds stopped                                         8,734.56
  reviews                           2                      -10.00  5.00 each
  good customers declined           1                      -20.00  20.00 each
  saved                                                  8,704.56  compared with approving everything

RUN
  records read                     11
  dead letters                      3    27.3 %
    amount_negative                 2
    duplicate                       1
  late rows                         1
  took                     4.0 s, 2 transactions a second
  latency of a decision    p50 2.0 s, p99 2.0 s
  (decisions wait until rows are in order of event time; pipeline.ordering = arrival does not wait)

FILES
  decisions                output/decisions
  report                   output/report.html"""


def test_the_summary_says_what_a_fraud_manager_asks() -> None:
    """The whole text of a small run, every figure of which can be checked by hand."""
    assert summary_text(facts(LABELLED)) == EXPECTED


def test_without_labels_nothing_is_said_of_frauds_caught() -> None:
    """Unknown is said in words: no zero, no precision and no money stand for what nobody knows."""
    rows = [{**row, "is_fraud": None} for row in LABELLED]
    text = summary_text(facts(rows))
    assert "No labels are known" in text
    assert not any(word in text for word in ("precision", "missed", "MONEY", "saved "))
    told = json.loads(summary_json(facts(rows)))
    assert told["labelled"] == 0
    assert {told[name] for name in ("frauds_caught", "precision", "recall", "average_precision", "money")} == {None}


def test_some_missing_labels_are_mentioned_and_left_out() -> None:
    """With a part of the labels, the figures are of that part, and the text says how many are missing."""
    text = summary_text(facts([*LABELLED, row("review", None, 10_000_000, 0.6)]))
    assert "1 of 9 transactions have no label yet and are left out of what follows." in text
    assert "8,704.56  compared with approving everything" in text


def test_a_run_without_transactions_has_a_summary() -> None:
    """Nothing decided on is reported as such, without a division by zero."""
    text = summary_text(facts([], read=0, dead_letters={}, wall_seconds=0.0))
    assert "decided on" in text
    assert "latency" not in text
    assert json.loads(summary_json(facts([])))["latency_seconds"] == {"p50": None, "p99": None}


def test_no_alerts_and_no_frauds_are_said_in_words() -> None:
    """A share of nothing is a dash with the reason, not a number."""
    text = summary_text(facts([row("approve", 0, 1_000, 0.01)]))
    assert "precision                                   -  no alerts" in text
    assert "recall                                      -  no frauds" in text


def test_names_from_outside_cannot_steer_the_terminal() -> None:
    """Control characters in names and reasons are shown as question marks."""
    text = summary_text(
        facts(LABELLED, source="file:\x1b[2Jx", dead_letters={"bad\rreason": 1}, files={"a\x07": "b\n"})
    )
    assert "\x1b" not in text
    assert "file:?[2Jx" in text
    assert "bad?reason" in text
    assert all(line.isprintable() for line in text.splitlines())


def test_colour_is_only_there_when_asked_for() -> None:
    """Headings are bold on a terminal; the words are the same."""
    plain, coloured = summary_text(facts(LABELLED)), summary_text(facts(LABELLED), colour=True)
    assert "\x1b[1mMONEY\x1b[0m" in coloured
    assert coloured.replace("\x1b[1m", "").replace("\x1b[0m", "") == plain


def test_waiting_for_the_watermark_is_only_mentioned_where_it_happens() -> None:
    """A run in order of arrival has no such note."""
    assert "order of event time" not in summary_text(facts(LABELLED, ordering="arrival"))


def test_money_has_the_decimals_of_its_currency() -> None:
    """A currency without decimals shows none."""
    assert "8,704.56" not in summary_text(facts(LABELLED, minor_digits=0))
    assert "870,456" in summary_text(facts(LABELLED, minor_digits=0))


def test_the_json_has_the_figures_of_the_text() -> None:
    """Programs read the same numbers: money in minor units, times in microseconds."""
    told = json.loads(summary_json(facts(LABELLED)))
    assert (told["transactions"], told["approved"], told["reviewed"], told["declined"]) == (8, 3, 2, 3)
    assert (told["frauds_caught"], told["frauds_missed"], told["precision"]) == (3, 1, 0.6)
    assert told["money"] == {
        "saved": 870_456,
        "stopped": 873_456,
        "missed": 4_500,
        "review_cost": 1_000,
        "decline_cost": 2_000,
    }
    assert told["dead_letters"] == {"duplicate": 1, "amount_negative": 2}
    assert told["reasons"] == {"amount": 5}
    assert (told["first_event_time"], told["last_event_time"]) == (NOW - 3 * DAY, NOW)
    assert told["latency_seconds"]["p50"] == pytest.approx(2.0, rel=0.05)
