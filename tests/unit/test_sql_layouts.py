from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from io_connectors.sql.columns import ARROW_TYPES, Column, column_of
from io_connectors.sql.layouts import COMPONENTS, json_texts, rows_of
from io_connectors.sql.refusals import refuse
from transforms.batch import from_rows
from transforms.errors import UserError

ROW: dict[str, Any] = {"transaction_id": "t", "event_time": 0, "amount_minor": 1}


@pytest.mark.parametrize(
    ("arrow", "kind"),
    [
        (pa.string(), "text"),
        (pa.large_string(), "text"),
        (pa.dictionary(pa.int32(), pa.string()), "text"),
        (pa.list_(pa.string()), "texts"),
        (pa.bool_(), "flag"),
        (pa.int8(), "small"),
        (pa.uint8(), "small"),
        (pa.uint16(), "integer"),
        (pa.int32(), "integer"),
        (pa.uint32(), "big"),
        (pa.int64(), "big"),
        (pa.float32(), "double"),
        (pa.timestamp("ms"), "time"),
    ],
)
def test_every_column_of_a_batch_has_one_in_the_database(arrow: pa.DataType, kind: str) -> None:
    """With room for all that the Arrow type can hold."""
    assert column_of(pa.field("c", arrow)).kind == kind


@pytest.mark.parametrize("arrow", [pa.uint64(), pa.list_(pa.int8()), pa.struct([]), pa.binary()])
def test_a_column_that_a_database_cannot_hold_is_named(arrow: pa.DataType) -> None:
    """Before anything is sent."""
    with pytest.raises(UserError, match="column c: "):
        column_of(pa.field("c", arrow))


def test_decisions_leave_out_where_they_were_read() -> None:
    """A file's name or a batch's time of arrival would differ when the same transaction is read again."""
    rows = rows_of(from_rows([ROW], {"category": pa.dictionary(pa.int8(), pa.string())}).rows, "decisions", False)
    names = [column.name for column in rows.columns]
    assert names == [
        "transaction_id",
        "event_time",
        "customer_id",
        "terminal_id",
        "amount_minor",
        "is_fraud",
        "late",
        "category",
    ]
    assert rows.values.schema.names == names
    assert rows.values.schema.types == [ARROW_TYPES[column.kind] for column in rows.columns]


def test_a_list_of_text_is_json_where_there_are_no_lists() -> None:
    """Empty ones as well, and no list at all stays none."""
    lists = pa.array([['a "b"', "\n\0ü"], [], None, [None]], pa.list_(pa.string()))
    assert json_texts(lists).to_pylist() == ['["a \\"b\\"","\\n\\u0000ü"]', "[]", None, "[null]"]
    assert json_texts(lists.slice(1, 2)).to_pylist() == ["[]", None]


def test_the_kaggle_layout_has_the_sets_own_columns() -> None:
    """`time` in seconds since 2013-09-01, when the set's two days begin by its schema."""
    components = {name: float(at) for at, name in enumerate(COMPONENTS)}
    row = {**ROW, "event_time": 1_377_993_600_000_000 + 90_500_000, "amount_minor": 12_345, **components}
    batch = from_rows([row], dict.fromkeys(COMPONENTS, pa.float64()) | {"score": pa.float64()})
    rows = rows_of(batch.rows, "kaggle", False)
    assert rows.columns[0] == Column("time", "double")
    assert rows.columns[-3:] == (Column("amount", "money"), Column("class", "small"), Column("transaction_id", "text"))
    assert rows.values.to_pylist() == [
        {"time": 90.5, **components, "amount": 123.45, "class": None, "transaction_id": "t"}
    ]


def test_the_kaggle_layout_is_of_one_schema() -> None:
    """What is missing is said."""
    with pytest.raises(UserError, match=r"no v1 \(28 of v1 to v28 are missing\).*--schema creditcard"):
        rows_of(from_rows([ROW]).rows, "kaggle", False)


def test_rows_are_refused_with_the_first_reason_that_holds() -> None:
    """Each once, in their order, also of a batch that is a view into a longer one."""
    reasons = [["fine"], ["fine", "a\0b", "c\0d"], [], None, ["fine"], ["x\0"]]
    batch = from_rows(
        (
            {**ROW, "transaction_id": name, "event_time": time, "reasons": why}
            for name, time, why in zip(
                ["ok", "ok", "n\0l", "long", "ok", "l\0ng"], [0, 0, 0, -(2**62), -(2**62), 0], reasons, strict=True
            )
        ),
        {"reasons": pa.list_(pa.string())},
    )
    for offset in (0, 1):
        rows = rows_of(batch.slice(offset).rows, "decisions", False)
        refused = [(each.at + offset, each.reason) for each in refuse(rows, {"transaction_id": 3}, counts_bytes=True)]
        assert refused == [
            (1, "nul_character"),
            (2, "nul_character"),
            (3, "text_too_long"),
            (4, "time_out_of_range"),
            (5, "nul_character"),
        ]


@pytest.mark.parametrize(("counts_bytes", "refused"), [(True, [1]), (False, [])])
def test_lengths_are_counted_as_the_database_counts_them(counts_bytes: bool, refused: list[int]) -> None:
    """Redshift counts bytes, PostgreSQL characters."""
    rows = rows_of(from_rows([{**ROW, "transaction_id": name} for name in ("aaa", "üüü")]).rows, "decisions", False)
    assert [each.at for each in refuse(rows, {"transaction_id": 3}, counts_bytes)] == refused


def test_good_rows_are_all_passed() -> None:
    """However long where there is no limit."""
    rows = rows_of(from_rows([{**ROW, "transaction_id": "x" * n} for n in range(100)]).rows, "decisions", False)
    assert refuse(rows, {}, counts_bytes=True) == []
