"""The command as its users and its enemies run it: real files in, real files out, and what it says when it refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from io_connectors.output_directory import MARKER
from io_connectors.simulation import Simulation, simulate
from io_connectors.simulator import as_transaction_events
from model_artifacts.artifact import SHIPPED, load_model
from pipelines.plan import make_plan
from pipelines.settings import load_settings
from pipelines.training.__main__ import main as train
from tests.command import Run, decisions_of, lines_of, run_command
from tests.training_table import needs_keras
from transforms.alerts import alert_id
from transforms.features import load_feature_set

CHECKOUT = Path(__file__).parents[2]
# Terminals are compromised often, so that few transactions hold many frauds.
WORLD = Simulation(customers=50, terminals=70, days=40, seed=5, compromised_terminals_per_day=0.5)
CARD = "4111111111111111"
KAGGLE = CHECKOUT.parent / "shared" / "data" / "creditcard_first_7973_rows.parquet"


@dataclasses.dataclass(frozen=True)
class Files:
    """The same transactions in every format, and as events."""

    rows: int
    frauds: int
    csv: str
    jsonl: str
    parquet: str
    events: str


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("data")
    batch = simulate(WORLD).combine_chunks().to_batches()[0]
    table = pa.Table.from_batches([batch])
    csv.write_csv(table, folder / "day.csv")
    pq.write_table(table, folder / "day.parquet", row_group_size=700)
    records = [{**row, "TX_DATETIME": row["TX_DATETIME"].isoformat()} for row in batch.to_pylist()]
    (folder / "day.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "events.jsonl").write_bytes(b"\n".join(as_transaction_events(batch)))
    return Files(
        rows=len(batch),
        frauds=int(pc.sum(batch.column("TX_FRAUD")).as_py()),
        csv=str(folder / "day.csv"),
        jsonl=str(folder / "day.jsonl"),
        parquet=str(folder / "day.parquet"),
        events=str(folder / "events.jsonl"),
    )


@pytest.fixture(scope="module")
def base(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on the CSV file with nothing else said."""
    run = run_command(tmp_path_factory.mktemp("base"), "--source", files.csv)
    assert run.code == 0
    return run


def error_of(run: Run) -> str:
    """The one line of a run that was refused before it began."""
    assert run.code == 2
    assert run.stdout == ""
    assert run.stderr.startswith("error: ")
    assert run.stderr.endswith("\n")
    assert run.stderr.count("\n") == 1
    return run.stderr


def reasons_by_position(run: Run, file: str = "") -> dict[int, str]:
    letters = [letter for letter in run.dead_letters if letter["source"].endswith(file)]
    reasons = {letter["position"]: letter["reason"] for letter in letters}
    assert len(reasons) == len(letters)
    return reasons


def command(cwd: Path, *argv: str) -> subprocess.Popen[str]:
    """The command in a process of its own, started in a directory that is not the checkout."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.fraud", *argv],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PYTHONIOENCODING": "ascii"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(there: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Wait until something is there; fail when the process that should bring it has ended."""
    deadline = time.monotonic() + 120
    while not there():
        assert process is None or process.poll() is None, "the process ended before"
        assert time.monotonic() < deadline
        time.sleep(0.002)


# What a run leaves.


def test_every_transaction_gets_one_decision(files: Files, base: Run) -> None:
    """Without bad input, read = transactions = rows of the decisions, there are no dead letters, and labels count."""
    figures = base.summary
    assert figures["read"] == figures["transactions"] == base.decisions.num_rows == files.rows
    assert base.dead_letters == []
    assert figures["labelled"] == files.rows
    assert figures["frauds_caught"] + figures["frauds_missed"] == files.frauds
    assert figures["frauds_caught"] > 50


def test_sinks_are_told_the_columns_of_decisions(base: Run) -> None:
    """Those by which they may be asked for are those that decisions have."""
    assert make_plan(load_settings()).decision_columns == tuple(base.decisions.column_names)


def test_decisions_say_everything(base: Run) -> None:
    """Each decision has the transaction, every feature's value, score, decision, reasons, what decided, and `late`."""
    manifest = load_model("handbook").manifest
    columns = {
        "transaction_id": pa.string(),
        "event_time": pa.timestamp("us", tz="UTC"),
        "amount_minor": pa.int64(),
        **dict.fromkeys(load_feature_set("handbook").names, pa.float64()),
        "score": pa.float64(),
        "decision": pa.string(),
        "reasons": pa.list_(pa.string()),
        "model_id": pa.string(),
        "feature_set": pa.string(),
        "late": pa.bool_(),
    }
    table = base.decisions
    assert {name: table.schema.field(name).type for name in columns} == columns
    assert all(table[name].null_count == 0 for name in columns)
    assert table["model_id"].unique().to_pylist() == [manifest.model_id]
    assert table["feature_set"].unique().to_pylist() == [manifest.fingerprint]


def test_every_alert_is_of_one_transaction_that_was_not_approved(base: Run) -> None:
    """Alerts and decisions other than approve are the same transactions, each once, under ids that follow from them."""
    flagged = base.decisions.filter(pc.not_equal(base.decisions["decision"], "approve")).to_pylist()
    alerts = {alert["alert_id"]: alert for alert in base.alerts}
    assert len(alerts) == len(base.alerts) == len(flagged) == base.summary["reviewed"] + base.summary["declined"]
    for row in flagged:
        alert = alerts[alert_id(row["transaction_id"])]
        same = ("transaction_id", "amount_minor", "score", "decision", "reasons", "model_id", "feature_set", "late")
        assert {name: alert[name] for name in same} == {name: row[name] for name in same}
        assert alert["event_time"] == row["event_time"].isoformat()
        assert row["reasons"]


def test_nothing_but_decisions(files: Files, base: Run, tmp_path: Path) -> None:
    """What is switched off is neither made nor written nor named, and the decisions are the same."""
    names = ("alerts.enabled", "summary.enabled", "policy.reasons", "monitor.calibration", "monitor.drift")
    off = [part for name in names for part in ("--set", f"{name}=false")]
    run = run_command(tmp_path, "--source", files.csv, *off)
    assert run.code == 0
    assert run.decisions.drop(["reasons"]).equals(base.decisions.drop(["reasons"]))
    assert not any(run.decisions["reasons"].to_pylist())
    kept = {"decisions", "dead_letters.jsonl", "report.html", "summary.json"}
    assert {path.name for path in run.output.iterdir() if not path.name.startswith(".")} == kept
    assert set(run.summary["files"]) == {"decisions", "dead letters", "report", "figures"}
    assert run.summary["reviewed"] == base.summary["reviewed"] > 0


def test_alerts_that_are_switched_off_go_nowhere(tmp_path: Path) -> None:
    """To name a place for them as well is refused."""
    refused = error_of(run_command(tmp_path, "--alert", "alerts.jsonl", "--set", "alerts.enabled=false"))
    assert "alerts.enabled (false, --set) leaves nothing to send to output.alerts (--alert)" in refused


def test_the_same_decisions_in_another_process_and_directory(files: Files, base: Run, tmp_path: Path) -> None:
    """`python -m` from elsewhere decides the same, replaces the run before, and speaks on any terminal."""
    shutil.copytree(base.output, tmp_path / "output")
    stale = tmp_path / "output" / "decisions" / "part-stale.parquet"
    shutil.copy(next(stale.parent.glob("*.parquet")), stale)
    shutil.copy(files.csv, tmp_path / "tageß.csv")
    process = command(
        tmp_path, "--source", "tageß.csv", "--set", "pipeline.shards=3", "--set", "pipeline.batch_rows=501"
    )
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert not stale.exists()
    assert decisions_of(tmp_path / "output" / "decisions").equals(base.decisions)
    assert sorted((tmp_path / "output" / "alerts.jsonl").read_bytes().splitlines()) == sorted(
        (base.output / "alerts.jsonl").read_bytes().splitlines()
    )
    assert out.startswith("Fraud detection on tage\\xdf.csv\n")
    assert f"decided on{files.rows:,}" in out.replace(" ", "").replace("decidedon", "decided on")
    assert "output/report.html" in out
    assert err.splitlines()[-1].split("  ")[1].startswith(f"read {files.rows:,}")  # progress, in plain lines
    assert "Traceback" not in err


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_formats_change_no_decision(kind: str, files: Files, base: Run, tmp_path: Path) -> None:
    """The same transactions as JSON lines and as Parquet give the decisions of the CSV file, to the last bit."""
    run = run_command(tmp_path / "out", "--source", getattr(files, kind))
    assert run.decisions.equals(base.decisions)


def test_labels_apart_change_no_decision(files: Files, base: Run, tmp_path: Path) -> None:
    """The same file as the label source gives the features, decisions and figures of the labels it carries itself."""
    run = run_command(tmp_path / "out", "--source", files.csv, "--labels", files.csv, "--set", "labels.delay=7d")
    assert run.decisions.equals(base.decisions)
    known = ("labelled", "frauds_caught", "frauds_missed", "precision", "recall", "average_precision", "money")
    assert {name: run.summary[name] for name in known} == {name: base.summary[name] for name in known}


def test_what_is_no_label_is_said_apart(files: Files, base: Run, tmp_path: Path) -> None:
    """Bad records of the label source are dead letters, but none of the records read: the sum still holds."""
    labels = tmp_path / "labels.jsonl"
    first = json.loads(Path(files.jsonl).read_text().partition("\n")[0])
    del first["TX_FRAUD"]
    labels.write_text(Path(files.jsonl).read_text() + json.dumps(first) + '\n{"TRANSACTION_ID": 1, "TX_\n')
    run = run_command(tmp_path / "out", "--source", files.csv, "--labels", str(labels))
    assert run.summary["dead_letters"] == {}
    assert run.summary["refused_labels"] == {"label_missing": 1, "json_invalid": 1}
    assert {letter["source"] for letter in run.dead_letters} == {str(labels)}
    assert len(run.dead_letters) == 2
    assert run.decisions.equals(base.decisions)
    assert "labels refused" in run.stdout


def test_events_as_a_platform_sends_them(files: Files, tmp_path: Path) -> None:
    """JSON events run with the shipped model of their schema, and their categories are kept."""
    run = run_command(tmp_path / "out", "--source", files.events, "--schema", "transaction-events")
    assert run.code == 0
    assert run.summary["transactions"] == run.summary["labelled"] == files.rows
    assert run.summary["model_id"] == load_model("transaction-events").manifest.model_id
    first = json.loads(Path(files.events).read_text().partition("\n")[0])
    row = run.decisions.filter(pc.equal(run.decisions["transaction_id"], first["transaction_id"])).to_pylist()[0]
    assert row["customer_id"] == first["user_id"]
    assert row["amount_minor"] == round(100 * first["amount"])
    assert all(row[name] == first[name] for name in ("merchant_category", "location", "payment_method"))


# Settings.


def test_rules_of_a_config_file_force_decisions(files: Files, base: Run, tmp_path: Path) -> None:
    """A rule makes decisions stricter, never laxer, stands first in the reasons, and touches no other transaction."""
    config = tmp_path / "fraud.toml"
    small = pc.and_(pc.less(base.decisions["amount_minor"], 5_000), pc.equal(base.decisions["decision"], "approve"))
    terminal = base.decisions.filter(small)["terminal_id"][0].as_py()
    config.write_text(
        f"[input]\nsource = {json.dumps(files.csv)}\n"
        '[[rules]]\nname = "large"\nwhen = "amount > 150"\naction = "review"\n'
        f'[[rules]]\nname = "blocked"\nwhen = "terminal_id == \'{terminal}\'"\naction = "decline"\n'
    )
    run = run_command(tmp_path / "out", "--config", str(config))
    severity = {"approve": 0, "review": 1, "decline": 2}
    seen = set()
    for row, before in zip(run.decisions.to_pylist(), base.decisions.to_pylist(), strict=True):
        large, blocked = row["amount_minor"] > 15_000, row["terminal_id"] == terminal
        rules = {"rule large: amount > 150": large, f"rule blocked: terminal_id == '{terminal}'": blocked}
        forced = [reason for reason, meets in rules.items() if meets]
        least = 2 if blocked else 1 if large else 0
        assert severity[row["decision"]] == max(least, severity[before["decision"]])
        assert row["reasons"][: len(forced)] == forced
        assert forced or row == before
        seen.add((large, blocked))
    assert {(True, False), (False, True), (False, False)} <= seen
    assert run.summary["reasons"]["rule blocked"] == pc.sum(pc.equal(run.decisions["terminal_id"], terminal)).as_py()


def test_results_go_where_they_are_sent(files: Files, base: Run, tmp_path: Path) -> None:
    """Each of several sinks gets every decision, alerts and dead letters go elsewhere, and the policy is a setting."""
    source = tmp_path / "day.csv"
    source.write_text(Path(files.csv).read_text() + "only,three,fields\n")
    run = run_command(
        tmp_path / "out", "--source", str(source), "--set", "policy.review=0.001",
        "--set", "pipeline.batch_rows=500",  # a file ends with a batch
        "--sink", f"file:{tmp_path}/one", "--sink", f"{tmp_path}/two?rows_per_file=1000",
        "--alert", f"file:{tmp_path}/sent/alerts.jsonl", "--dead_letters", f"{tmp_path}/dead.jsonl",
    )  # fmt: skip
    decisions = decisions_of(tmp_path / "one")
    assert decisions_of(tmp_path / "two").equals(decisions)
    assert len(list((tmp_path / "two").iterdir())) > 1
    decline = load_model("handbook").manifest.thresholds.decline
    scores = decisions["score"].to_numpy()
    expected = np.where(scores >= decline, "decline", np.where(scores >= 0.001, "review", "approve"))
    assert decisions["decision"].to_pylist() == expected.tolist()
    assert (expected == "review").sum() > base.summary["reviewed"]
    assert len(lines_of(tmp_path / "sent" / "alerts.jsonl")) == (expected != "approve").sum()
    assert [letter["payload"] for letter in lines_of(tmp_path / "dead.jsonl")] == ["only,three,fields"]
    left = [MARKER, "calibration.jsonl", "drift.jsonl", "report.html", "summary.json", "windows.jsonl"]
    assert sorted(os.listdir(run.output)) == left
    assert run.summary["thresholds"] == {"review": 0.001, "decline": decline}


def test_print_config_is_a_config(tmp_path: Path) -> None:
    """What --print_config writes says the same when it is given back, and nothing is run."""
    config, output = tmp_path / "fraud.toml", tmp_path / "out"
    first = run_command(output, "--source", "day.csv", "--set", "policy.review=0.25", "--print_config")
    config.write_text(first.stdout)
    again = run_command(output, "--config", str(config), "--print_config")
    assert first.code == again.code == 0
    assert without_origins(first.stdout) == without_origins(again.stdout)
    assert "review = 0.25  # --set" in first.stdout
    assert f"review = 0.25  # {config}" in again.stdout
    assert not output.exists()


def without_origins(printed: str) -> list[str]:
    return [line.partition("  # ")[0] for line in printed.splitlines()]


# Bad input: each record alone.


def event(**fields: Any) -> bytes:
    """A good event but for `fields`; a field that is `...` is left out."""
    good = {"transaction_id": "t", "user_id": "u1", "amount": 10.5, "timestamp": "2026-01-02T03:04:05Z"}
    return json.dumps({name: value for name, value in {**good, **fields}.items() if value is not ...}).encode()


def literal(text: str) -> bytes:
    """An event whose amount is `text` as it stands, which JSON may not allow."""
    return event(transaction_id="x").replace(b"10.5", text.encode())


BAD_EVENTS = [
    (event(amount="12,50"), "amount_not_a_number"),
    (event(amount=[1]), "amount_not_a_number"),
    (event(amount=True), "amount_not_a_number"),
    (event(transaction_id={"a": 1}), "id_invalid"),
    (event(is_fraud="maybe"), "label_invalid"),
    (event(transaction_id=...), "missing_transaction_id"),
    (event(user_id=None), "missing_customer_id"),
    (event(user_id=""), "missing_customer_id"),
    (event(amount=...), "missing_amount_minor"),
    (event(timestamp=...), "missing_event_time"),
    (b"{}", "missing_transaction_id"),
    (event(amount="NaN"), "amount_not_finite"),
    (event(amount="-inf"), "amount_not_finite"),
    (literal("NaN"), "json_invalid"),
    (literal("Infinity"), "json_invalid"),
    (literal("1e999"), "number_out_of_range"),
    (event(amount=-1), "amount_negative"),
    (event(amount="-0.01"), "amount_negative"),
    (event(amount=10.123), "amount_precision"),
    (event(amount=1e15), "amount_too_large"),
    (event(timestamp="2199-01-01T00:00:00Z"), "time_future"),
    (event(timestamp="9999-12-31T23:59:59.999999-23:59"), "time_future"),
    (event(timestamp="1999-12-31T23:59:59Z"), "time_ancient"),
    (event(timestamp="0000-00-00T00:00:00Z"), "time_invalid"),
    (event(timestamp=1_767_323_045), "time_invalid"),
    (event(transaction_id="\u00e9").replace(b"\\u00e9", b"\xff\xfe"), "utf8_invalid"),
    (b"\x80\x81\x82", "utf8_invalid"),
    (event()[:40], "json_invalid"),
    (b"\x00\x00\x00", "json_invalid"),
    (b"[]", "json_not_object"),
    (b"null", "json_not_object"),
    (event(deep=1).replace(b"1}", b"[" * 100_000 + b"]" * 100_000 + b"}"), "json_too_deep"),
    (b'{"a":' * 5000, "json_too_deep"),
    (event(location="x" * 10_000_000), "record_too_large"),
    (b"y" * 10_000_000, "record_too_large"),
    # A card number where it should never be.
    (event(amount=-5, card=CARD), "amount_negative"),
    (event(amount=float(CARD)), "amount_too_large"),
    (event(amount=-float(CARD)), "amount_negative"),
    (event(amount=f"{CARD} 12/27"), "amount_not_a_number"),
    (event(amount="x", note=f"02 {CARD}, 4111-1111-1111-1111"), "amount_not_a_number"),
    (event(timestamp=CARD), "time_invalid"),
    (b'{"card": "' + CARD.encode(), "json_invalid"),
    # Ids seen before: the very same record, and one of another customer.
    (event(transaction_id="good"), "duplicate"),
    (event(transaction_id="good", user_id="u2", timestamp="2026-01-02T03:04:06Z"), "duplicate"),
    (event(transaction_id=CARD, timestamp="2026-01-02T03:04:06Z"), "duplicate"),
]  # fmt: skip


@pytest.fixture(scope="module")
def abused(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on all bad events, with good ones before, among and after them; everything raises an alert."""
    folder = tmp_path_factory.mktemp("abused")
    good = [event(transaction_id="good"), event(transaction_id=CARD, user_id="u3")]
    among = [line for at, (bad, _) in enumerate(BAD_EVENTS) for line in (event(transaction_id=f"good-{at}"), bad)]
    (folder / "events.jsonl").write_bytes(b"\n".join([*good, *among, b"", b"  ", event(transaction_id="last")]))
    return run_command(
        folder / "out", "--source", str(folder / "events.jsonl"), "--schema", "transaction-events",
        "--set", "policy.review=0.000001",
    )  # fmt: skip


def test_each_bad_event_is_a_dead_letter_alone(abused: Run) -> None:
    """Every bad record has the reason that it should, at its line, and every good one around them is decided on."""
    expected = {4 + 2 * at: reason for at, (_, reason) in enumerate(BAD_EVENTS)}
    assert reasons_by_position(abused) == expected
    assert len(abused.dead_letters) == len(expected)
    decided = set(abused.decisions["transaction_id"].to_pylist())
    assert decided == {"good", CARD, "last", *(f"good-{at}" for at in range(len(BAD_EVENTS)))}
    assert abused.decisions.num_rows == len(decided)


def test_dead_letters_stay_small_and_say_where(abused: Run) -> None:
    """However long a record was, its dead letter is short, names file and line, and tells what was expected."""
    for letter in abused.dead_letters:
        assert len(json.dumps(letter)) < 30_000
        assert letter["source"].endswith("events.jsonl")
        assert "expected" in letter["error"] or letter["reason"].startswith(("missing", "duplicate"))


def test_card_numbers_stay_nowhere(abused: Run) -> None:
    """A card number in a stray field, an amount, a time or half a record is in no dead letter, alert or report."""
    for name in ("dead_letters.jsonl", "windows.jsonl", "summary.json", "report.html"):
        text = (abused.output / name).read_text()
        assert CARD not in text
        assert CARD not in text.replace("-", "").replace(" ", "")
    alerts = (abused.output / "alerts.jsonl").read_text()
    assert alerts.count(CARD) == 1  # where it is the transaction's id, which an alert must name
    assert len(abused.alerts) == abused.summary["transactions"]
    assert CARD not in abused.stdout + abused.stderr
    assert sum("************1111" in letter["payload"] for letter in abused.dead_letters) == 8


def test_bad_rows_of_csv_and_parquet_stand_alone(tmp_path: Path) -> None:
    """In text and in typed columns, too, each bad row has its reason and takes no neighbour along."""
    folder = tmp_path / "in"
    folder.mkdir()
    rows = [
        b"1,2026-01-01 10:00:00,1,1,5.00,0",
        b"2,2026-01-01 10:00:01,1,1,nan,0",
        b"3,2026-01-01 10:00:02,1,1,inf,0",
        b"4,2026-01-01 10:00:03,1,1,-5.00,0",
        b"5,01/02/2026,1,1,5.00,0",
        b"6,2026-01-01 10:00:05,,1,5.00,0",
        b"7,2026-01-01 10:00:06,1,\xff,5.00,0",
        b"8,2026-01-01 10:00:07,1,1,5.00",
        b'9,"2026-01-01 10:00:08,1,1,5.00,0',
        b"10,2026-01-01 10:00:09,1,1," + b"9" * 2_000_000 + b",0",
        b"1,2026-01-01 10:00:00,1,1,5.00,0",
        b"12,2026-01-01 10:00:11,1,1,5.00,",
    ]
    header = b"TRANSACTION_ID,TX_DATETIME,CUSTOMER_ID,TERMINAL_ID,TX_AMOUNT,TX_FRAUD\n"
    (folder / "a.csv").write_bytes(header + b"\n".join(rows))
    day = 1_767_261_600_000_000
    table = pa.table(
        {
            "TRANSACTION_ID": pa.array([20.0, float("nan"), 22.5, 23.0, 24.0, 25.0, 26.0]),
            "TX_DATETIME": pa.array([day, day, day, day, day, -day, 10 * day], pa.timestamp("us")),
            "CUSTOMER_ID": pa.array([1, 1, 1, 1, None, 1, 1]),
            "TERMINAL_ID": pa.array(["1"] * 7).dictionary_encode(),
            "TX_AMOUNT": pa.array([5.0, 5.0, 5.0, float("inf"), 5.0, 5.0, 5.0], pa.float32()),
        }
    )
    pq.write_table(table, folder / "b.parquet")
    run = run_command(tmp_path / "out", "--source", f"{folder}/*")
    csv_letters = reasons_by_position(run, "a.csv")
    assert csv_letters == {
        2: "amount_not_finite", 3: "amount_not_finite", 4: "amount_negative", 5: "time_invalid",
        6: "missing_customer_id", 7: "utf8_invalid", 8: "csv_columns", 9: "csv_quotes", 10: "record_too_large",
        11: "duplicate",
    }  # fmt: skip
    parquet_letters = reasons_by_position(run, "b.parquet")
    assert parquet_letters == {
        2: "missing_transaction_id", 3: "id_invalid", 4: "amount_not_finite", 5: "missing_customer_id",
        6: "time_ancient", 7: "time_future",
    }  # fmt: skip
    assert run.decisions["transaction_id"].to_pylist() == ["1", "20", "12"]
    assert run.decisions["is_fraud"].to_pylist() == [0, None, None]


def test_duplicates_are_kept_where_asked(tmp_path: Path) -> None:
    """With pipeline.deduplicate = false an id seen before is decided on again."""
    events = tmp_path / "events.jsonl"
    events.write_bytes(b"\n".join([event(), event(), event(user_id="u2")]))
    run = run_command(
        tmp_path / "out",
        "--source",
        str(events),
        "--schema",
        "transaction-events",
        "--set",
        "pipeline.deduplicate=false",
    )
    assert run.decisions["transaction_id"].to_pylist() == ["t", "t", "t"]


def test_files_without_records_are_no_mistake(tmp_path: Path) -> None:
    """An empty file and one with a header only end in a report of nothing."""
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "header.csv").write_text("TRANSACTION_ID,TX_DATETIME,CUSTOMER_ID,TERMINAL_ID,TX_AMOUNT\n")
    run = run_command(tmp_path / "out", "--source", f"{tmp_path}/*.csv")
    assert run.code == 0
    assert run.summary["read"] == 0
    assert list((run.output / "decisions").iterdir()) == []
    assert "decided on" in run.stdout
    assert (run.output / "report.html").stat().st_size > 1000


# Mistakes: one line, exit code 2, nothing written.


@pytest.fixture
def finished(base: Run, tmp_path: Path) -> Iterator[Path]:
    """A directory with the results of a run, which must be the same afterwards."""
    output = tmp_path / "finished"
    shutil.copytree(base.output, output)
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    yield output
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--sorce", "x"], "--sorce is a flag of neither this program nor Beam; did you mean --source?"),
        (["--set", "polcy.review=0.5"], "polcy.review is not a setting; did you mean policy"),
        (["--set", "policy.review=2"], "policy.review must be a number above 0"),
        (
            ["--source", "kafak:topic"],
            "unknown scheme 'kafak'; known are file, kafka, kinesis, s3, simulator; did you mean kafka?",
        ),
        (["--source", "DATA/day.cvs"], "no file of that name; did you mean day.csv?"),
        (["--source", "DATA/*.orc"], "no file of that name"),
        (["--source", "DATA"], "is a directory; say which files"),
        (["--source", "simulator:?custmers=5"], "unknown parameter 'custmers'; known are"),
        (["--source", "DATA/day.csv", "--labels", "DATA/nothing.csv"], "nothing.csv: no file of that name"),
        (["--source", "DATA/day.csv", "--sink", "redshfit:x"], "--sink: unknown scheme 'redshfit'"),
        (["--source", "DATA/day.csv", "--sink", "file:x?rows=3"], "unknown parameter 'rows'; known are rows_per_file"),
        (
            ["--source", "DATA/day.csv", "--sink", "kafka://127.0.0.1:9/t?columns=transaction_id,skore"],
            "columns: there is no 'skore'; did you mean score?; there are transaction_id, event_time",
        ),
        (["--source", "DATA/day.csv", "--alert", "sms:x"], "--alert: unknown scheme 'sms'"),
        (["--source", "DATA/day.csv", "--alert", "a.jsonl", "--dead_letters", "./a.jsonl"], "one kind of record"),
        (["--source", "DATA/day.csv", "--dead_letters", "DATA/day.csv"], "is to be read, so nothing can be added"),
        (["--source", "FINISHED/alerts.jsonl"], "name another directory with --output"),
        (["--source", "DATA/day.csv", "--model", "handbok"], "did you mean handbook?"),
        (["--source", "DATA/day.csv", "--schema", "handbok"], "did you mean handbook?"),
        (["--source", "DATA/day.csv", "--set", "labels.delay=30d"], "labels are known only after 30d"),
        (["--source", "DATA/day.csv", "--set", "summary.early=10ms"], "every whole seconds"),
        (["--source", "DATA/day.csv", "--schema", "creditcard"], "field Time is missing"),
        (["--source", "DATA/day.csv", "--schema", "transaction-events", "--model", "handbook"], "is missing"),
        (["--source", "DATA/changed.csv"], "changed.csv: field TX_AMOUNT is missing"),
        (["--source", "DATA/headless.csv"], "headless.csv: field TRANSACTION_ID is missing"),
        (["--source", "DATA/pipe?format=csv"], "pipe: is a pipe or a device"),
        (
            ["--source", "DATA/day.csv", "--schema", "DATA/hiding.toml"],
            "has a feature called amount, and schema hiding",
        ),
        (["--source", "DATA/corrupt.parquet"], "corrupt.parquet: is no readable Parquet file"),
        (["--source", "DATA/cut.csv.gz"], "cut.csv.gz: cannot be decompressed"),
        (["--source", "simulator:", "--schema", "creditcard"], "speaks the schemas handbook and transaction-events"),
        (["--config", "DATA/day.csv"], "is not a TOML file"),
    ],
)
def test_a_mistake_is_one_line_and_costs_nothing(
    argv: list[str], said: str, files: Files, finished: Path, tmp_path: Path
) -> None:
    """Each is told in one line that names it, before anything is read, removed or written; no card number shows."""
    data = tmp_path / "data"
    data.mkdir()
    text = Path(files.csv).read_bytes()
    (data / "day.csv").write_bytes(text)
    (data / "changed.csv").write_bytes(text.replace(b"TX_AMOUNT", b"AMOUNT_EUR"))
    (data / "headless.csv").write_text(f"7,2026-01-01 05:04:18,{CARD},27,73.56,0\n")
    os.mkfifo(data / "pipe")
    handbook = (CHECKOUT / "transforms" / "schemas" / "handbook.toml").read_text()
    hiding = 'amount = { field = "TX_FRAUD_SCENARIO", type = "number" }'
    (data / "hiding.toml").write_text(handbook.replace('"handbook"', '"hiding"', 1) + hiding)
    (data / "corrupt.parquet").write_bytes(Path(files.parquet).read_bytes()[:-20] + b"\0" * 20)
    (data / "cut.csv.gz").write_bytes(b"\x1f\x8b\x08\x00\x00")
    places = [word.replace("DATA", str(data)).replace("FINISHED", str(finished)) for word in argv]
    error = error_of(run_command(finished, *places))
    assert said in error
    assert CARD not in error


def test_a_creditcard_run_without_a_model_says_how_to_get_one(tmp_path: Path) -> None:
    """No model is shipped for that schema: the error is the command that trains one on the very file."""
    source = kaggle_file(tmp_path, rows=10)
    error = error_of(run_command(tmp_path / "out", "--source", source, "--schema", "creditcard"))
    assert f"python -m pipelines.training --source '{source}' --schema creditcard --features creditcard" in error
    assert not (tmp_path / "out").exists()


def rename_a_feature(model: Path) -> None:
    manifest = model / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"customer_count_1d"', '"customer_count_2d"'))


def change_the_file(model: Path) -> None:
    (model / "model.onnx").write_bytes((model / "model.onnx").read_bytes() + b"\0")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (rename_a_feature, "feature_names[3] is customer_count_2d, but its feature_set declares customer_count_1d"),
        (change_the_file, "model.onnx: its sha256 is"),
    ],
)
def test_a_model_that_disagrees_is_refused(
    spoil: Callable[[Path], None], said: str, files: Files, finished: Path, tmp_path: Path
) -> None:
    """A manifest that names another feature, or the sha256 of another file, stops the run before it begins."""
    model = tmp_path / "model"
    shutil.copytree(SHIPPED / "handbook", model)
    spoil(model)
    assert said in error_of(run_command(finished, "--source", files.csv, "--model", str(model)))


def test_a_directory_of_others_is_left_alone(files: Files, tmp_path: Path) -> None:
    """Where files lie that no run wrote, nothing is written or removed; and where nothing can be, that is said."""
    (tmp_path / "notes.txt").write_text("mine")
    assert "such as notes.txt; nothing was touched" in error_of(run_command(tmp_path, "--source", files.csv))
    assert os.listdir(tmp_path) == ["notes.txt"]
    for nowhere in (tmp_path / "notes.txt", tmp_path / "notes.txt" / "out", Path("/proc/out")):
        assert f"cannot create directory {nowhere}" in error_of(run_command(nowhere, "--source", files.csv))


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_directory_is_said(files: Files, tmp_path: Path) -> None:
    """A directory that may not be written to is one clear error."""
    tmp_path.chmod(0o555)
    assert "cannot be written" in error_of(run_command(tmp_path, "--source", files.csv))


# What ends a run.


def test_two_runs_at_once_and_one_that_was_killed(files: Files, base: Run, tmp_path: Path) -> None:
    """A second run into a directory in use is refused; after a kill -9 in mid-write the next leaves only its own."""
    output = tmp_path / "output"
    decisions = output / "decisions"
    process = command(tmp_path, "--source", "simulator:?customers=700&terminals=1400&days=60&seed=1", "--quiet")
    try:
        wait_for(decisions.is_dir, process)
        refused = run_command(output, "--source", files.csv)
        assert f"is in use by another run (process {process.pid})" in error_of(refused)
        wait_for(lambda: any(decisions.iterdir()), process)
    finally:
        process.kill()
        process.communicate()
    left = {path.name for path in decisions.iterdir()}
    assert left
    assert not (output / "summary.json").exists()
    run = run_command(output, "--source", files.csv)
    assert run.decisions.equals(base.decisions)
    assert {path.name for path in decisions.iterdir()} == {path.name for path in (base.output / "decisions").iterdir()}
    assert len(run.alerts) == len(base.alerts)


def test_ctrl_c_ends_a_run_in_one_line(tmp_path: Path) -> None:
    """SIGINT ends with exit code 130 and says so, without a traceback."""
    process = command(tmp_path, "--source", "simulator:?customers=50&terminals=50&days=30&rate=5", "--quiet")
    wait_for((tmp_path / "output" / "calibration.jsonl").exists, process)
    time.sleep(1)  # the sinks are made just before the pipeline starts
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT), err  # which shells show as 130 too
    assert err == "interrupted: what was written until then stands, but it is not all\n"
    assert out == ""


def test_a_failure_is_one_line_and_a_log(files: Files, tmp_path: Path) -> None:
    """When a sink fails in mid-run, exit code 1, one line names the cause, and error.log has the traceback."""
    sink = tmp_path / CARD  # a card number in an exception's text, to see what becomes of it

    def remove_sink() -> None:
        wait_for((tmp_path / "out" / "calibration.jsonl").exists)  # the last sink to be made
        shutil.rmtree(sink)

    remover = threading.Thread(target=remove_sink)
    remover.start()
    run = run_command(tmp_path / "out", "--source", files.csv, "--sink", f"file:{sink}")
    remover.join()
    assert run.code == 1
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1
    assert run.stderr.startswith("error: the run failed: FileNotFoundError: [Errno 2]")
    assert "[while running 'WriteDecisions[0]/Write" in run.stderr
    log = run.output / "error.log"
    assert run.stderr.endswith(f"(the whole traceback is in {log})\n")
    assert "Traceback (most recent call last)" in log.read_text()
    assert CARD not in run.stderr + log.read_text()
    assert not (run.output / "summary.json").exists()
    again = run_command(run.output, "--source", files.csv, "--sink", f"file:{sink}")
    assert again.code == 0
    assert not log.exists()


# The Kaggle credit-card set's schema, which has no model of its own.


def kaggle_file(folder: Path, rows: int) -> str:
    """Made-up rows in the set's columns, over forty days, with frauds that two components give away."""
    rng = np.random.default_rng(7)
    fraud = rng.random(rows) < 0.03
    columns: dict[str, Any] = {"Time": np.sort(rng.integers(0, 40 * 86_400, rows)).astype(float)}
    for component in range(1, 29):
        columns[f"V{component}"] = rng.normal(size=rows) - 3 * fraud * (component in (3, 14))
    columns["Amount"] = np.round(rng.gamma(1.0, 60.0, rows), 2)
    columns["Class"] = fraud.astype(int)
    path = folder / "creditcard.csv"
    csv.write_csv(pa.table(columns), path)
    return str(path)


@pytest.fixture(
    scope="module", params=["logistic", "forest", "xgboost", "average", pytest.param("neural", marks=needs_keras)]
)
def creditcard_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A source in the set's schema, and a model of each kind trained on it by the command that the error names."""
    folder = tmp_path_factory.mktemp("creditcard")
    source = kaggle_file(folder, rows=3000)
    argv = ["--source", source, "--schema", "creditcard", "--features", "creditcard", "--model", request.param]
    assert train([*argv, "--output", str(folder / "model")]) == 0
    return source, str(folder / "model")


def test_a_trained_creditcard_model_runs(creditcard_model: tuple[str, str], tmp_path: Path) -> None:
    """The model that training wrote finds the frauds, and ids are made of file and row."""
    source, model = creditcard_model
    run = run_command(tmp_path / "out", "--source", source, "--schema", "creditcard", "--model", model)
    assert run.summary["transactions"] == 3000
    assert run.summary["average_precision"] > 0.7  # of three rows in a hundred
    assert run.summary["labelled"] == 3000
    assert set(run.decisions["transaction_id"].to_pylist()) == {f"{source}:{row}" for row in range(1, 3001)}
    assert run.decisions["customer_id"].null_count == 3000


@pytest.mark.skipif(not KAGGLE.exists(), reason="the Kaggle set's rows are not part of the project")
def test_the_kaggle_sets_own_rows(creditcard_model: tuple[str, str], tmp_path: Path) -> None:
    """All rows are decided on but the one that is cut short, which is a dead letter."""
    _, model = creditcard_model
    run = run_command(tmp_path / "out", "--source", str(KAGGLE), "--schema", "creditcard", "--model", model)
    assert run.summary["transactions"] == 7972
    assert reasons_by_position(run) == {7973: "missing_amount_minor"}
