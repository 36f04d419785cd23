from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import sqlglot
from sqlglot import exp

from io_connectors.sql.ddl import main
from io_connectors.sql.dialects import POSTGRESQL, REDSHIFT, Dialect
from io_connectors.sql.layouts import rows_of
from tests.command import run_command

EVENTS = b"""\
{"transaction_id": "1", "user_id": "u", "amount": 1.5, "timestamp": "2026-01-01T00:00:00Z", "location": "here"}
"""


def printed(capsys: pytest.CaptureFixture[str], dialect: Dialect, *argv: str) -> str:
    assert main(dialect, ["ddl", *argv]) == 0
    return capsys.readouterr().out


def columns(script: str, dialect: str) -> list[tuple[str, str]]:
    """Names and types of the first table."""
    table = next(tree for tree in sqlglot.parse(script, read=dialect) if isinstance(tree, exp.Create))
    return [(each.name, each.kind.sql(dialect).lower()) for each in table.find_all(exp.ColumnDef) if each.kind]


@pytest.mark.parametrize("schema", ["handbook", "transaction-events"])
def test_the_table_has_the_columns_of_the_decisions(
    schema: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that a run of the pipeline writes, in their order, for each schema that has a model."""
    source = "simulator:?customers=50&terminals=70&days=3"
    if schema == "transaction-events":
        (tmp_path / "events.jsonl").write_bytes(EVENTS)
        source = str(tmp_path / "events.jsonl")
    run = run_command(tmp_path / "output", f"--source={source}", f"--schema={schema}")
    assert run.code == 0, run.stderr
    decided = rows_of(run.decisions.to_batches()[0], "decisions", json_lists=False)
    capsys.readouterr()
    found = columns(printed(capsys, POSTGRESQL, "--schema", schema), "postgres")
    assert [name for name, _ in found] == [column.name for column in decided.columns]
    assert pa.float64() in decided.values.schema.types


def test_redshifts_tables_parse_as_redshifts(capsys: pytest.CaptureFixture[str]) -> None:
    """With the keys that the issuer's queries are made fast by, for every schema."""
    for argv, distribution, sort in (
        (("--model", "handbook"), "customer_id", "event_time"),
        (("--schema", "transaction-events"), "customer_id", "event_time"),
        (("--schema", "creditcard"), "transaction_id", "event_time"),  # it names no customer
        (("--kaggle",), "transaction_id", "time"),
    ):
        script = printed(capsys, REDSHIFT, *argv)
        tables = [tree for tree in sqlglot.parse(script, read="redshift") if isinstance(tree, exp.Create)]
        assert len(tables) == 2
        assert tables[0].find(exp.DistKeyProperty).name == distribution  # type: ignore[union-attr]
        assert [each.name for each in tables[0].find(exp.SortKeyProperty).this] == [sort]  # type: ignore[union-attr]


def test_the_kaggle_table_is_the_wide_one(capsys: pytest.CaptureFixture[str]) -> None:
    """fraud_detection(time, v1..v28, amount, class), and the id that tells its rows apart."""
    script = printed(capsys, REDSHIFT, "--kaggle")
    assert '"public"."fraud_detection"' in script
    found = columns(script, "redshift")
    assert [name for name, _ in found] == [
        "time",
        *(f"v{n}" for n in range(1, 29)),
        "amount",
        "class",
        "transaction_id",
    ]
    assert dict(found)["amount"] in ("numeric(12, 2)", "decimal(12, 2)")
    assert "The set has no id" in script


def test_the_table_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """And so is its ledger."""
    script = printed(capsys, POSTGRESQL, "--table", "fraud.mine")
    assert '"fraud"."mine" (' in script
    assert '"fraud"."mine_batches" (' in script


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["--table", "decisions"], "write SCHEMA.TABLE"),
        (["--table", "public.No"], "a name in the database"),
        (["--schema", "handbok"], "did you mean handbook?"),
        (["--model", "handbok"], "did you mean handbook?"),
        (["--model", "handbook", "--features", "handbook"], "give one"),
    ],
)
def test_a_mistake_ends_with_2_and_one_line(argv: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As every command's does."""
    assert main(POSTGRESQL, ["ddl", *argv]) == 2
    said = capsys.readouterr()
    assert error in said.err
    assert said.err.startswith("error: ")
    assert said.out == ""


def test_a_schema_without_a_model_needs_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Or the features that one will have."""
    path = tmp_path / "own.toml"
    path.write_text(
        'name = "own"\n[columns]\ntransaction_id = { type = "id" }\n'
        'event_time = { field = "t", type = "time" }\namount_minor = { field = "a", type = "amount" }\n'
    )
    assert main(POSTGRESQL, ["ddl", "--schema", str(path)]) == 2
    assert "name one with --model, or --features" in capsys.readouterr().err
    assert '"customer_id" text' in printed(capsys, POSTGRESQL, "--schema", str(path), "--features", "creditcard")
