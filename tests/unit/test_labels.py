"""Labels of their own: when they count, which one counts, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from transforms.batch import from_rows
from transforms.errors import UserError
from transforms.labels import as_labels, attach_labels
from transforms.schema import load_schema

ROW: dict[str, Any] = {"event_time": 1_000_000, "amount_minor": 1}


def test_a_label_counts_from_its_own_time_or_after_the_delay() -> None:
    """`label_time` is the arrival where there is one; otherwise the transaction's time and the delay."""
    rows = [{**ROW, "transaction_id": "told", "is_fraud": 1, "label_time": 9_000_000}, {**ROW, "transaction_id": "not"}]
    rows[1]["is_fraud"] = 0
    labels, dead = as_labels(from_rows(rows, {"label_time": pa.timestamp("us", tz="UTC")}), delay=5_000_000)
    assert labels is not None
    assert labels.numpy("label_arrival").tolist() == [9_000_000, 6_000_000]
    assert not dead


def test_a_record_without_a_label_or_before_its_transaction_is_a_dead_letter() -> None:
    """Of three records one is a label; the other two say why they are none."""
    rows = [
        {**ROW, "transaction_id": "good", "is_fraud": 1, "label_time": 2_000_000},
        {**ROW, "transaction_id": "unknown", "is_fraud": None},
        {**ROW, "transaction_id": "early", "is_fraud": 1, "label_time": 1_000_000},
    ]
    labels, dead = as_labels(from_rows(rows, {"label_time": pa.timestamp("us", tz="UTC")}), delay=1)
    assert labels is not None
    assert labels.rows.column("transaction_id").to_pylist() == ["good"]
    assert [(letter.transaction_id, letter.reason) for letter in dead] == [
        ("unknown", "label_missing"),
        ("early", "label_early"),
    ]


def test_the_latest_of_several_labels_stands() -> None:
    """A correction that arrives later replaces a label; a transaction without one stays unknown."""
    told = [{**ROW, "transaction_id": "a", "is_fraud": 1}, {**ROW, "transaction_id": "a", "is_fraud": 0}]
    told[1]["event_time"] = 2_000_000
    labels, _ = as_labels(from_rows(told), delay=1)
    decided = from_rows([{**ROW, "transaction_id": "a"}, {**ROW, "transaction_id": "b"}])
    assert labels is not None
    assert attach_labels(decided, labels).rows.column("is_fraud").to_pylist() == [0, None]


def test_a_schema_may_name_the_labels_time_and_no_column_of_the_pipelines_own(tmp_path: Path) -> None:
    """`label_time` of type time is read; a column called `score` is refused before anything runs."""
    text = Path(load_file("handbook")).read_text("utf-8")
    (tmp_path / "labels.toml").write_text(text + 'label_time = { field = "AT", type = "time", required = false }\n')
    assert load_schema(str(tmp_path / "labels.toml")).own_columns == ("label_time",)
    (tmp_path / "score.toml").write_text(text + 'score = { field = "S", type = "number" }\n')
    with pytest.raises(UserError, match="column score of its own"):
        load_schema(str(tmp_path / "score.toml"))


def load_file(name: str) -> str:
    from transforms.schema import SHIPPED

    return str(SHIPPED / f"{name}.toml")
