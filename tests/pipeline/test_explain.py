"""One decision explained: its features are those of the whole log, its parts sum up, and no card number shows."""

from __future__ import annotations

import io
import json
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
from model_artifacts.artifact import load_model
from pipelines.explain.__main__ import main
from pipelines.explain.explanation import Explanation, Part, explain
from pipelines.explain.picture import MOST_BARS, steps, waterfall
from pipelines.explain.rebuild import Rebuilt, rebuild
from pipelines.explain.text import explanation_text
from pipelines.past import plan_the_past
from pipelines.settings import load_settings
from tests.command import Run, run_command
from transforms.batch import TransactionBatch
from transforms.durations import DAY

WORLD = Simulation(customers=40, terminals=30, days=50, seed=8, compromised_terminals_per_day=1)
CARD = "4111111111111111"
SETS = ("--set", "policy.review=0.02", "--set", "pipeline.deduplicate_window=5d")


@dataclass(frozen=True)
class Served:
    """A log, and a run on it."""

    log: str
    run: Run

    def plan(self, **flags: str) -> Any:
        return plan_the_past(load_settings(flags={"source": self.log, "quiet": "off", **flags}, sets=SETS[1::2]))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Decisions on a log that uses some ids again, for another customer at another terminal, soon after or later."""
    folder = tmp_path_factory.mktemp("served")
    table = simulate(WORLD)
    strangers = table.take(np.arange(0, table.num_rows, 23))
    for name, least in (("CUSTOMER_ID", 40), ("TERMINAL_ID", 30)):
        at = table.column_names.index(name)
        others = pc.subtract(least, pc.add(strangers[name], 1))
        strangers = strangers.set_column(at, table.schema.field(at), others.cast(table.schema.field(at).type))
    again = [_later(strangers, 2 * DAY), _later(strangers, 6 * DAY)]
    pq.write_table(pa.concat_tables([table, *again]), folder / "log.parquet", row_group_size=300)
    log = str(folder / "log.parquet")
    run = run_command(folder / "output", "--source", log, *SETS)
    assert run.summary["dead_letters"]["duplicate"] > 0
    return Served(log, run)


def _later(table: pa.Table, micros: int) -> pa.Table:
    at = table.column_names.index("TX_DATETIME")
    times = pc.add(table["TX_DATETIME"].cast(pa.int64()), micros).cast(table.schema.field(at).type)
    return table.set_column(at, table.schema.field(at), times)


def once(run: Run) -> list[dict[str, Any]]:
    """The decisions on ids that the log has once."""
    counts = {row["values"]: row["counts"] for row in pc.value_counts(run.decisions["transaction_id"]).to_pylist()}
    letters = {letter["transaction_id"] for letter in run.dead_letters}
    rows: list[dict[str, Any]] = run.decisions.to_pylist()
    return [row for row in rows if counts[row["transaction_id"]] == 1 and row["transaction_id"] not in letters]


def command(*argv: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([*argv, "--quiet"])
    return code, out.getvalue(), err.getvalue()


def test_features_from_the_rows_of_its_entities_are_those_of_the_whole_log(served: Served) -> None:
    """For transactions early and late in the log, alerts among them, every feature is the same to the bit."""
    rows = once(served.run)
    chosen = [*rows[5 :: len(rows) // 4], next(row for row in rows[::-1] if row["decision"] != "approve")]
    plan = served.plan()
    names = plan.manifest.feature_names
    for row in chosen:
        rebuilt = rebuild(plan, row["transaction_id"])
        now = rebuilt.row.rows.to_pylist()[0]
        assert [now[name] for name in names] == [row[name] for name in names]
        assert rebuilt.past < served.run.decisions.num_rows / 4


def test_the_command_says_all_of_it(served: Served, tmp_path: Path) -> None:
    """Text has the parts, the policy, the rules, the model and what was served; the picture is a picture."""
    row = next(row for row in once(served.run)[::-1] if row["decision"] == "review")
    config = tmp_path / "rules.toml"
    config.write_text('[[rules]]\nname = "all"\nwhen = "amount >= 0"\naction = "decline"\n')
    given = (row["transaction_id"], "--source", served.log, *SETS, "--served", str(served.run.output))
    code, text, err = command(*given, "--config", str(config), "--picture", str(tmp_path / "why.png"))
    assert (code, err) == (0, "")
    for said in (
        f"Transaction {row['transaction_id']} of",
        "DECISION: decline",
        "rule all; by its score alone it would be review",
        "applies         decline  all: amount >= 0",
        "a typical transaction",
        "Shapley values, exact",
        "review from a score of 0.02",
        f"MODEL: {row['model_id']}",
        "average precision",
        "the same score",
        "another decision",
        "the same 15 features, to the bit",
    ):
        assert said in text
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_json_is_the_decision_that_was_served_and_its_parts_sum_up(served: Served) -> None:
    """Score, decision and reasons are the run's, and the parts sum to the distance of the log-odds."""
    row = next(row for row in once(served.run) if row["decision"] != "approve")
    given = ("--source", served.log, *SETS, "--served", str(served.run.output / "decisions"), "--format", "json")
    code, text, _ = command(row["transaction_id"], *given)
    told = json.loads(text)
    assert code == 0
    assert {name: told[name] for name in ("score", "decision", "reasons", "model_id")} == {
        name: row[name] for name in ("score", "decision", "reasons", "model_id")
    }
    whole = told["log_odds"] - told["typical_log_odds"]
    assert sum(part["contribution"] for part in told["parts"]) == pytest.approx(whole, abs=1e-9)
    assert told["served"]["same_score"] is told["served"]["same_decision"] is True
    assert told["served"]["differing"] == []


def test_what_was_served_otherwise_is_named(served: Served, tmp_path: Path) -> None:
    """Another score and another value of a feature show, each with both numbers."""
    table = served.run.decisions
    row = once(served.run)[-1]
    (tmp_path / "served").mkdir()
    for name in ("score", "amount"):
        values = np.asarray(table[name]) + 0.5
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table.drop(["night"]), tmp_path / "served" / "a.parquet")
    given = ("--source", served.log, *SETS, "--served", str(tmp_path / "served"))
    code, text, _ = command(row["transaction_id"], *given)
    assert code == 0
    assert "another score" in text
    assert f"amount was served as {row['amount'] + 0.5:.9g}, and is {row['amount']:.9g}" in text
    assert "night was served" not in text


def test_an_id_must_be_there_once(served: Served, tmp_path: Path) -> None:
    """One that is absent, one that two transactions have, and one that was not served are refused; a repeat is none."""
    twice = served.run.dead_letters[0]["transaction_id"]
    source = ("--source", served.log, *SETS)
    assert command("no-such-id", *source)[0] == 2
    assert "transaction 'no-such-id' is not in" in command("no-such-id", *source)[2]
    code, _, err = command(twice, *source)
    assert code == 2
    assert f"transaction '{twice}' is 3 times in" in err
    log = pq.read_table(served.log)
    row = once(served.run)[-1]
    of_row = log.filter(pc.equal(log["TRANSACTION_ID"], int(row["transaction_id"])))
    pq.write_table(pa.concat_tables([of_row, of_row]), tmp_path / "log.parquet")
    code, text, err = command(row["transaction_id"], "--source", str(tmp_path / "log.parquet"))
    assert (code, err) == (0, "")
    assert "features computed from 2 rows" in text
    pq.write_table(served.run.decisions.slice(0, 1), tmp_path / "other.parquet")
    code, _, err = command(row["transaction_id"], *source, "--served", str(tmp_path / "other.parquet"))
    assert code == 2
    assert "it was not served" in err


def test_a_model_that_does_not_fit_the_schema_is_refused(served: Served) -> None:
    """Its features need columns that the log's schema does not have: said before anything is read."""
    code, _, err = command(
        "1", "--source", "simulator:?days=1", "--schema", "transaction-events", "--model", "handbook"
    )
    assert code == 2
    assert "needs terminal_id, which schema transaction-events does not have" in err


def test_a_stream_of_labels_counts_as_it_did(served: Served) -> None:
    """With labels that arrive apart, shares of frauds are those of the whole log and all its labels."""
    plan = served.plan(labels=served.log)
    row = max(once(served.run), key=lambda row: (row["terminal_risk_30d_delay_7d"], row["transaction_id"]))
    now = rebuild(plan, row["transaction_id"]).row.rows.to_pylist()[0]
    assert now["terminal_risk_30d_delay_7d"] == row["terminal_risk_30d_delay_7d"] > 0


def told_of(row: TransactionBatch, served: Served, **changes: Any) -> Explanation:
    plan = served.plan()
    return explain(plan, load_model(plan.model_uri), Rebuilt(row, past=1), **changes)


def test_card_numbers_are_masked_everywhere(served: Served) -> None:
    """Where customers are named by their cards, text and JSON show the last four digits."""
    rows = served.run.decisions.drop(["score", "model_id", "feature_set", "decision", "reasons"])
    batch = TransactionBatch(rows.slice(0, 1).combine_chunks().to_batches()[0])
    told = told_of(batch.with_columns({"customer_id": pa.array([CARD]), "transaction_id": pa.array([CARD])}), served)
    assert CARD not in str(told)
    assert "customer_id ************1111" in explanation_text(told)
    code, _, err = command(CARD, "--source", served.log)
    assert code == 2
    assert CARD not in err


def test_many_features_are_drawn_as_one(served: Served) -> None:
    """The picture's bars are at most twelve and the others, and lead from one score to the other."""
    rows = served.run.decisions.drop(["score", "model_id", "feature_set", "decision", "reasons"])
    told = told_of(TransactionBatch(rows.slice(7, 1).combine_chunks().to_batches()[0]), served)
    part: dict[str, Any] = {"words": "", "value": 1.0, "typical": 0.0, "error": 0.0}
    parts = [Part(feature=f"f{at}", contribution=1.0 / (at + 1), **part) for at in range(MOST_BARS + 3)]
    many = Explanation(**{**{name: getattr(told, name) for name in told.__struct_fields__}, "parts": parts})
    drawn = steps(many)
    assert len(drawn) == MOST_BARS + 1
    assert drawn[-1][0] == "3 others"
    assert sum(part for _, part in drawn) == pytest.approx(sum(part.contribution for part in parts))
    assert waterfall(many) == waterfall(many)
