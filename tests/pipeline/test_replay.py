"""Past days decided again: as they were served, to the bit; by another model, told apart; and nothing is sent."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from io_connectors.simulation import Simulation, simulate
from pipelines.replay.__main__ import main
from tests.command import Run, decisions_of, run_command
from transforms.durations import DAY

WORLD = Simulation(customers=60, terminals=40, days=60, seed=3, compromised_terminals_per_day=1)
# The log begins on 2026-01-01. Features look 37 days back, so those of the last days need not all of it.
DAYS = ("--from", "2026-02-20", "--to", "2026-03-01")
SETS = ("--set", "pipeline.deduplicate_window=2d", "--set", "policy.review=0.02")


@dataclass(frozen=True)
class Served:
    """A log, and a run on it."""

    log: str
    run: Run


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Decisions on a log in which some ids come again: within what is remembered, and after that."""
    folder = tmp_path_factory.mktemp("served")
    table = simulate(WORLD)
    picked = table.take(np.arange(0, table.num_rows, 50))
    again = [_later(picked, DAY), _later(picked, 3 * DAY)]
    pq.write_table(pa.concat_tables([table, *again]), folder / "log.parquet", row_group_size=400)
    log = str(folder / "log.parquet")
    run = run_command(folder / "output", "--source", log, *SETS)
    assert run.code == 0
    assert run.summary["dead_letters"]["duplicate"] > 0
    return Served(log, run)


def _later(table: pa.Table, micros: int) -> pa.Table:
    at = table.column_names.index("TX_DATETIME")
    times = pc.add(table["TX_DATETIME"].cast(pa.int64()), micros).cast(table.schema.field(at).type)
    return table.set_column(at, table.schema.field(at), times)


def replay(output: Path, *argv: str) -> Run:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([*argv, "--output", str(output), "--quiet"])
    return Run(code, output, out.getvalue(), err.getvalue())


@pytest.mark.parametrize("batch_rows", [16_384, 37])
def test_the_served_model_decides_the_same_again(served: Served, batch_rows: int, tmp_path: Path) -> None:
    """Replayed from the days that features need on, no transaction, feature, score, reason or decision differs."""
    given = ("--source", served.log, "--served", str(served.run.output), *SETS, *DAYS)
    done = replay(tmp_path / "replay", *given, "--set", f"pipeline.batch_rows={batch_rows}", "--fail_on_difference")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.endswith("Nothing differs: every transaction, feature and decision is as it was served.\n")
    figures = done.summary
    assert figures["identical"]
    assert figures["changed"] == figures["only_served"] == figures["only_replayed"] == 0
    assert 0 < figures["served"]["review"] + figures["served"]["decline"] < figures["transactions"]
    assert figures["features"]["terminal_risk_30d_delay_7d"] == {
        "rows": figures["transactions"],
        "differ": 0,
        "largest": 0.0,
    }
    again, before = decisions_of(tmp_path / "replay" / "decisions"), served.run.decisions
    start, end = again["event_time"][0], again["event_time"][-1]
    before = before.filter(
        pc.and_(pc.greater_equal(before["event_time"], start), pc.less_equal(before["event_time"], end))
    )
    assert again.equals(before)
    assert pq.read_table(tmp_path / "replay" / "differences.parquet").num_rows == 0


def test_another_policy_is_told_from_the_served_one(served: Served, tmp_path: Path) -> None:
    """Flips, alerts gained and lost, costs and the file of changed decisions agree with the decisions themselves."""
    given = ("--source", served.log, "--served", str(served.run.output / "decisions"), *DAYS, "--by", "amount")
    sets = ("--set", "pipeline.deduplicate_window=2d", "--set", "policy.review=0.2")
    done = replay(tmp_path / "replay", *given, *sets)
    figures = done.summary
    assert done.code == 0
    assert not figures["identical"]
    both = _paired(served.run.decisions, decisions_of(tmp_path / "replay" / "decisions"))
    flips = {(a, b): 0 for a in figures["flips"] for b in figures["flips"]}
    for row in both:
        flips[row["decision"], row["now"]] += 1
    assert {(a, b): count for a, counts in figures["flips"].items() for b, count in counts.items()} == flips
    lost = [row for row in both if row["decision"] != "approve" and row["now"] == "approve"]
    assert figures["alerts_lost"] == len(lost) > 0
    assert figures["alerts_gained"] == 0
    changed = pq.read_table(tmp_path / "replay" / "differences.parquet").to_pylist()
    assert {row["transaction_id"] for row in changed} == {
        row["transaction_id"] for row in both if row["decision"] != row["now"]
    }
    assert all(row["served_decision"] != row["decision"] for row in changed)
    for side, key in (("served", "decision"), ("replayed", "now")):
        missed = sum(row["amount_minor"] for row in both if row["is_fraud"] and row[key] == "approve")
        reviews = sum(row[key] == "review" for row in both)
        declined = sum(row[key] == "decline" and not row["is_fraud"] for row in both)
        costs = figures["costs"]
        assert figures[side]["cost"] == missed + costs["review"] * reviews + costs["decline"] * declined
    assert sum(each["transactions"] for each in figures["segments"].values()) == len(both)
    assert sum(each["changed"] for each in figures["segments"].values()) == figures["changed"]
    assert all(each["differ"] == 0 for each in figures["features"].values())
    report = (tmp_path / "replay" / "report.html").read_text("utf-8")
    assert "By amount" in report
    assert "Alerts over time" in report


def _paired(served: pa.Table, replayed: pa.Table) -> list[dict[str, Any]]:
    before = {(row["transaction_id"], row["event_time"]): row for row in served.to_pylist()}
    return [
        {**before[row["transaction_id"], row["event_time"]], "now": row["decision"]} for row in replayed.to_pylist()
    ]


def test_a_feature_that_was_served_otherwise_is_named(served: Served, tmp_path: Path) -> None:
    """A served value of another feature, a lost and a repeated row each show, and --fail_on_difference exits with 1."""
    table = served.run.decisions
    table = table.filter(pc.less(table["event_time"].cast(pa.int64()), _micros("2026-03-01")))
    last, name = len(table) - 1, "customer_amount_mean_7d"
    spoiled = table[name].to_numpy().copy()
    spoiled[last] += 12.5
    table = table.set_column(table.column_names.index(name), name, pa.array(spoiled))
    parts = [table.slice(0, last - 1), table.slice(last), table.slice(last)]  # one is lost, one is there twice
    (tmp_path / "served").mkdir()
    pq.write_table(pa.concat_tables(parts), tmp_path / "served" / "a.parquet")
    given = ("--source", served.log, "--served", str(tmp_path / "served"), *SETS, *DAYS)
    done = replay(tmp_path / "replay", *given, "--fail_on_difference")
    assert done.code == 1
    figures = done.summary
    differing = {name: each for name, each in figures["features"].items() if each["differ"]}
    assert list(differing) == ["customer_amount_mean_7d"]
    assert differing["customer_amount_mean_7d"]["differ"] == 1
    assert differing["customer_amount_mean_7d"]["largest"] == pytest.approx(12.5)
    assert (figures["only_served"], figures["only_replayed"], figures["served_again"], figures["changed"]) == (
        0,
        1,
        1,
        0,
    )
    assert "customer_amount_mean_7d" in done.stdout


def test_labels_that_arrive_are_those_of_the_run(served: Served, tmp_path: Path) -> None:
    """With a stream of labels features are the same again, and only labels known by a day are valued."""
    told = ("--source", served.log, "--labels", served.log, "--set", "labels.delay=10d", *SETS)
    run = run_command(tmp_path / "output", *told)
    assert run.code == 0
    given = (*told, "--served", str(run.output), *DAYS)
    done = replay(tmp_path / "replay", *given, "--known_by", "2026-03-05", "--fail_on_difference")
    assert (done.code, done.stderr) == (0, "")
    early = pc.sum(pc.less(run.decisions["event_time"].cast(pa.int64()), _micros("2026-02-23"))).as_py()
    before = pc.sum(pc.less(run.decisions["event_time"].cast(pa.int64()), _micros("2026-02-20"))).as_py()
    assert done.summary["labelled"] == early - before > 0


def _micros(day: str) -> int:
    return int(np.datetime64(day, "us").astype(np.int64))


def test_no_sink_and_no_alert_target_is_opened(served: Served, tmp_path: Path) -> None:
    """With sinks, alerts and an output directory in the settings, all a replay writes is in its own directory."""
    live = tmp_path / "live"
    live.mkdir()
    (live / "alerts.jsonl").write_text("sent\n")
    config = tmp_path / "fraud.toml"
    config.write_text(f"""
        [output]
        directory = "{live}"
        sinks = ["file:{live}/sink", "postgresql://fraud@127.0.0.1:1/fraud/public/decisions"]
        alerts = ["file:{live}/alerts.jsonl", "kafka://127.0.0.1:1/alerts"]
        dead_letters = "file:{live}/dead_letters.jsonl"
        summaries = "file:{live}/windows.jsonl"
    """)
    before = {path: path.read_bytes() for path in served.run.output.rglob("*") if path.is_file()}
    given = ("--config", str(config), "--source", served.log, "--served", str(served.run.output), *SETS)
    done = replay(tmp_path / "replay", *given, "--from", "2026-02-28", "--to", "2026-03-01")
    assert (done.code, done.stderr) == (0, "")
    assert [path.name for path in live.iterdir()] == ["alerts.jsonl"]
    assert (live / "alerts.jsonl").read_text() == "sent\n"
    assert {path: path.read_bytes() for path in served.run.output.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--from", "2026-02-31", "--to", "2026-03-01"], "--from '2026-02-31' is not a date"),
        (["--from", "2026-03-01", "--to", "2026-03-01"], "--from must be a day before --to"),
        (["--from", "2027-03-01", "--to", "2027-03-02"], "holds no decisions on transactions of 2027-03-01"),
        ([*DAYS, "--by", "customer_idd"], "did you mean customer_id?"),
        ([*DAYS, "--by", "transaction_id"], "a segment of every transaction"),
        ([*DAYS, "--srved", "x"], "did you mean --served?"),
        ([*DAYS, "--model", "handbok"], "neither a directory nor a shipped model"),
    ],
)
def test_what_cannot_be_replayed_is_said(served: Served, argv: list[str], said: str, tmp_path: Path) -> None:
    """A user's mistake ends in one line and exit code 2, before anything is written."""
    done = replay(tmp_path / "replay", "--source", served.log, "--served", str(served.run.output), *argv)
    assert done.code == 2
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "replay" / "decisions").exists()


def test_what_was_served_is_never_replaced(served: Served, tmp_path: Path) -> None:
    """The directory that holds what is to be compared is refused as the place for results, and left as it is."""
    done = replay(served.run.output, "--source", served.log, "--served", str(served.run.output), *DAYS)
    assert done.code == 2
    assert "which is to be read: name another directory" in done.stderr
    assert served.run.decisions.num_rows == served.run.summary["transactions"]


def test_another_model_must_be_named(served: Served, tmp_path: Path) -> None:
    """Where the settings' model is not the one that served, it is not taken for it in silence."""
    table = served.run.decisions
    (tmp_path / "served").mkdir()
    at = table.column_names.index("model_id")
    others = table.set_column(at, "model_id", pa.array(["older-000000000000"] * len(table)))
    pq.write_table(others, tmp_path / "served" / "a.parquet")
    done = replay(tmp_path / "replay", "--source", served.log, "--served", str(tmp_path / "served"), *DAYS)
    assert done.code == 2
    assert "was decided by older-000000000000" in done.stderr
    assert "name the one to replay with --model" in done.stderr
