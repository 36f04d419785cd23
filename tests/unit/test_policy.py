"""Segments, the alert budget, and policies that are chosen on some weeks and measured on others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_artifacts.artifact import load_model
from model_artifacts.manifest import Costs, Thresholds
from pipelines.policy.__main__ import main
from pipelines.policy.choose import by_budget, by_cost, by_segment, highest_by_card_and_day
from pipelines.policy.measure import measure
from pipelines.policy.rows import PolicyRows, policy_rows
from pipelines.settings import load_settings
from transforms.batch import CANONICAL_FIELDS, PROVENANCE_COLUMNS, from_rows
from transforms.budget import Budget, limit_all, spend, threshold
from transforms.decide import decide_batch
from transforms.durations import DAY, HOUR
from transforms.errors import UserError
from transforms.policy import Segment, compile_segments
from transforms.suppress import example_alert

MODEL = load_model("handbook")
LARGE = Segment(name="large", when="amount_minor >= 500", review=0.1, decline=0.3)
HUGE = Segment(name="huge", when="amount_minor >= 900", review=0.05, decline=0.06)
COLUMNS: Any = {"amount_minor": "number"}


def decided(rows: list[dict[str, Any]]) -> list[str]:
    typical = dict(zip(MODEL.manifest.feature_names, MODEL.manifest.baseline, strict=True))
    kinds = {name: pa.float64() for name in (*typical, "score")}
    batch = from_rows(
        [{"transaction_id": f"{at}", "event_time": 0, **typical, **row} for at, row in enumerate(rows)], kinds
    )
    segments = compile_segments([HUGE, LARGE], COLUMNS)
    found = decide_batch(batch, MODEL, Thresholds(review=0.5, decline=0.9), segments=segments)
    decisions: list[str] = found.rows.column("decision").to_pylist()
    return decisions


def test_a_transaction_is_decided_by_the_first_segment_it_is_in() -> None:
    """Its thresholds count in place of the others, and what is in none keeps those of all."""
    rows = [{"amount_minor": amount, "score": 0.2} for amount in (100, 500, 1000)]
    assert decided(rows) == ["approve", "review", "decline"]


def test_segments_are_settings(tmp_path: Path) -> None:
    """Tables in a file, each checked as a rule is."""
    path = tmp_path / "fraud.toml"
    table = "[[policy.segments]]\nname = 'large'\nwhen = 'amount_minor >= 500'\nreview = 0.1\ndecline = {}\n"
    path.write_text(table.format("0.3"))
    assert load_settings(path).policy.segments == (LARGE,)
    for text, says in {
        table.format("0.01"): r"segment 'large': review \(0.1\) must be at most decline \(0.01\)",
        table.format("7"): r"policy.segments\[1\].decline must be a number above 0",
        table.format("0.3") * 2: "'large' is there more than once",
        "[policy]\nsegments = 3": r"write \[\[policy.segments\]\]",
        table.format("0.3").replace("when", "wen"): "did you mean when",
    }.items():
        path.write_text(text)
        with pytest.raises(UserError, match=says):
            load_settings(path)


def test_a_budget_is_never_exceeded_and_a_card_costs_once() -> None:
    """However many alerts come, of however many cards, and none is told of on two days' budgets at once."""
    rng = np.random.default_rng(0)
    times = np.sort(rng.integers(0, 12 * DAY, 4000))
    budget, told = Budget(), dict[int, set[str]]()
    for time, card, score in zip(times.tolist(), rng.integers(0, 300, 4000).tolist(), rng.random(4000), strict=True):
        passed = spend(budget, time, f"c{card}", float(score), cards_a_day=20)
        if f"c{card}" in told.setdefault(time // DAY, set()):
            assert passed
        if passed:
            told[time // DAY].add(f"c{card}")
    assert {len(cards) for cards in told.values()} == {20}


def test_the_budget_goes_to_higher_scores_than_first_come_would_give_it_to() -> None:
    """After a day of learning, nearly all that it is spent on are among the day's highest scores."""
    rng = np.random.default_rng(1)
    budget, times = Budget(), np.sort(rng.integers(0, 9 * DAY, 9000))
    scores = rng.random(9000)
    passed = np.array([spend(budget, int(t), f"c{at}", float(scores[at]), 50) for at, t in enumerate(times.tolist())])
    later = times >= 2 * DAY
    assert scores[later & passed].mean() > 0.95
    assert scores[(times < DAY) & passed].mean() < 0.6  # nothing is known on the first day: first come, first served


@given(
    st.lists(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9)), max_size=9), min_size=1, max_size=4),
    st.integers(1, 4),
)
def test_the_threshold_lets_as_many_through_as_are_left(past: list[list[tuple[float, int]]], left: int) -> None:
    """On an average of the days before at most so many later cards reach it, unless scores are equal."""
    least = threshold(past, 4, left)
    later = sorted((score for day in past for score, at in day if at > 4), reverse=True)
    assert least == (later[left * len(past) - 1] if len(later) > left * len(past) else 0.0)


def test_memory_of_a_budget_is_bounded() -> None:
    """A day of a hundred thousand cards leaves a few times the budget, the highest scores among them."""
    budget = Budget()
    for at in range(3000):
        spend(budget, at, f"c{at}", (at * 7919 % 3000) / 3000, cards_a_day=5)
    assert len(budget.today) <= 40
    assert max(budget.today.values())[0] == 2999 / 3000


def test_an_alert_of_a_rule_takes_a_place_whatever_its_score() -> None:
    """While one is left; the decision to look was the team's, not the score's."""
    days = [
        example_alert(f"d{day}.{hour}", day * DAY + hour * HOUR, f"c{hour}") for day in range(3) for hour in range(9)
    ]
    low = msgspec.structs.replace(example_alert("low", 3 * DAY, "x"), score=0.01)
    assert "low" not in {alert.alert_id for alert in limit_all([*days, low], 2)}
    forced = msgspec.structs.replace(low, reasons=["rule large: amount > 2000"])
    assert "low" in {alert.alert_id for alert in limit_all([*days, forced], 2)}


def decisions_table(days: int = 30, a_day: int = 200, seed: int = 2) -> pa.Table:
    rng = np.random.default_rng(seed)
    rows = days * a_day
    amounts = rng.integers(100, 100_000, rows)
    scores = rng.random(rows) ** 6
    batch = from_rows(
        [
            {
                "transaction_id": f"t{at}",
                "event_time": at * DAY // a_day,
                "customer_id": f"c{rng.integers(0, 150)}",
                "amount_minor": int(amounts[at]),
                "is_fraud": int(rng.random() < scores[at]),
                "score": float(scores[at]),
            }
            for at in range(rows)
        ],
        {"score": pa.float64()},
    )
    return pa.Table.from_batches([batch.without_columns(PROVENANCE_COLUMNS).rows])


ROWS: PolicyRows = policy_rows(decisions_table())


def test_a_static_budget_flags_so_many_cards_a_day_on_the_days_it_is_chosen_on() -> None:
    """Counted pair by pair, and one step lower would flag more."""
    for cards in (1, 7, 40):
        review = by_budget(ROWS, cards, decline=0.9).review
        pairs = {
            (time // DAY, card)
            for time, card, score in zip(ROWS.times.tolist(), ROWS.cards.tolist(), ROWS.scores, strict=True)
            if score >= review
        }
        assert len(pairs) == cards * ROWS.days
    assert len(highest_by_card_and_day(ROWS)) == len(
        set(zip((ROWS.times // DAY).tolist(), ROWS.cards.tolist(), strict=True))
    )


def test_segments_cost_no_more_than_one_threshold_where_they_are_chosen() -> None:
    """Since one threshold for all is among what they could be; a part without frauds keeps that one."""
    costs = Costs()
    rest, segments = by_segment(ROWS, [("large", "amount_minor >= 50000")], COLUMNS, costs)
    review, decline = segments.thresholds(ROWS.batch, rest)
    own = (ROWS.scores >= review).astype(np.int8) + (ROWS.scores >= decline)
    overall = by_cost(ROWS, costs)
    one = (ROWS.scores >= overall.review).astype(np.int8) + (ROWS.scores >= overall.decline)
    assert measure("", own, ROWS, costs, 10).cost_a_day <= measure("", one, ROWS, costs, 10).cost_a_day
    _, none = by_segment(ROWS, [("none", "amount_minor >= 99999999")], COLUMNS, costs)
    assert (none.segments[0].review, none.segments[0].decline) == (overall.review, overall.decline)


def test_what_a_policy_comes_to_is_counted_row_by_row() -> None:
    """Cost, frauds caught and flagged cards by the slow way."""
    severity = (ROWS.scores > 0.3).astype(np.int8) + (ROWS.scores > 0.8)
    found, cost, cards = measure("p", severity, ROWS, Costs(review=500, decline=2000), 10), 0, dict[int, set[int]]()
    for at in range(len(ROWS)):
        fraud = ROWS.labels[at] == 1
        cost += (int(ROWS.amounts[at]) if fraud else 0, 500, 0 if fraud else 2000)[severity[at]]
        if severity[at]:
            cards.setdefault(int(ROWS.times[at] // DAY), set()).add(int(ROWS.cards[at]))
    assert found.cost_a_day == cost / ROWS.days
    assert found.most_cards == max(map(len, cards.values()))
    assert found.cards_a_day == sum(map(len, cards.values())) / ROWS.days
    assert found.caught == int(((severity > 0) & (ROWS.labels == 1)).sum())


def test_the_command_compares_and_writes_settings_that_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row a policy, chosen before and measured after; what it writes is a config file."""
    table = decisions_table()
    assert {field.name for field in CANONICAL_FIELDS} - set(PROVENANCE_COLUMNS) <= set(table.column_names)
    pq.write_table(table, tmp_path / "part-0.parquet")
    settings = tmp_path / "policy.toml"
    argv = ["--decisions", str(tmp_path), "--model", "handbook", "--cards_a_day", "5", "--settings", str(settings)]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "chosen on 1970-01-01 to 1970-01-20, measured on 1970-01-28 to 1970-01-30" in out
    assert [line.split("  ")[0] for line in out.splitlines()[3:9]] == [
        "approve everything", "as served", "least cost", "least cost by segment", "5 cards a day",
        "as served, alerts.cards_a_day = 5",
    ]  # fmt: skip
    assert load_settings(settings).policy.review is not None
    assert main([*argv, "--segment", "large amount_minor > 3"]) == 2
    assert main([*argv, "--segment", "large: amont > 3"]) == 2
    assert main([*argv, "--label_delay", "30d"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [
        part in line for part, line in zip(("NAME: CONDITION", "amont", "leave no frauds"), errors, strict=True)
    ] == [True] * 3


def test_labels_may_come_from_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Decisions without labels and a file of these come to the same as decisions with labels."""
    table = decisions_table()
    days = pa.scalar(20_000 * DAY, pa.duration("us"))  # of this century, as labels have to be
    table = table.set_column(table.column_names.index("event_time"), "event_time", pc.add(table["event_time"], days))
    labels = pa.table(
        {
            "TRANSACTION_ID": table["transaction_id"],
            "TX_DATETIME": table["event_time"],
            "CUSTOMER_ID": table["customer_id"],
            "TERMINAL_ID": table["customer_id"],
            "TX_AMOUNT": pc.divide(table["amount_minor"].cast(pa.float64()), 100.0),
            "TX_FRAUD": table["is_fraud"],
        }
    )
    pq.write_table(labels, tmp_path / "labels.parquet")
    wrong = labels.slice(0, 3).set_column(5, "TX_FRAUD", pa.array([7, 0, 1], pa.int8()))
    pq.write_table(pa.concat_tables([labels.slice(3), wrong]), tmp_path / "wrong.parquet")
    pq.write_table(wrong.slice(0, 1), tmp_path / "none.parquet")
    at = table.column_names.index("is_fraud")
    bare = table.set_column(at, "is_fraud", pa.nulls(table.num_rows, pa.int8()))
    for name, content in (("labelled", table), ("bare", bare)):
        (tmp_path / name).mkdir()
        pq.write_table(content, tmp_path / name / "part-0.parquet")
    argv = ["--model", "handbook", "--cards_a_day", "5", "--decisions"]
    assert main([*argv, str(tmp_path / "labelled")]) == 0
    expected = capsys.readouterr().out
    assert main([*argv, str(tmp_path / "bare")]) == 2
    assert "none of 6000 decisions has a label; give --labels URL" in capsys.readouterr().err
    assert main([*argv, str(tmp_path / "bare"), "--labels", str(tmp_path / "labels.parquet")]) == 0
    assert capsys.readouterr().out == expected

    assert main([*argv, str(tmp_path / "bare"), "--labels", str(tmp_path / "wrong.parquet")]) == 0
    assert "5999 labels; 1 records are none, such as: TX_FRAUD is 7" in capsys.readouterr().err
    assert main([*argv, str(tmp_path / "bare"), "--labels", str(tmp_path / "none.parquet")]) == 2
    assert "not one label of schema handbook could be read; 1 records are none" in capsys.readouterr().err
