"""Decisions as JSON, column by column, against the slow way: row by row."""

from __future__ import annotations

import json
import math
from datetime import UTC
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_connectors.decision_json import _AT_ONCE, decision_messages, rows_as_json
from transforms.batch import from_rows

KINDS = {
    "text": (pa.string(), st.text(max_size=8)),
    "word": (pa.dictionary(pa.int32(), pa.string()), st.sampled_from(["a", 'b"', "c\n"])),
    "whole": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "small": (pa.int8(), st.integers(-128, 127)),
    "number": (pa.float64(), st.floats()),
    "yes": (pa.bool_(), st.booleans()),
    "reasons": (pa.list_(pa.string()), st.lists(st.text(max_size=4), max_size=2)),
    "when": (
        pa.timestamp("us", "UTC"),
        st.datetimes(timezones=st.just(UTC)),
    ),
}
SCHEMA = pa.schema([pa.field(name, kind) for name, (kind, _) in KINDS.items()])
rows = st.fixed_dictionaries({name: st.none() | values for name, (_, values) in KINDS.items()})


def slow(row: dict[str, Any]) -> dict[str, Any]:
    """What a row must read as."""
    shown = dict(row)
    if row["number"] is not None and not math.isfinite(row["number"]):
        shown["number"] = None
    if row["when"] is not None:
        shown["when"] = row["when"].strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
    return shown


@given(st.lists(rows, max_size=5))
def test_columns_say_what_rows_say(given_rows: list[dict[str, Any]]) -> None:
    """Whatever is in them; numbers to the last bit, text with whatever needs escaping, and null where nothing is."""
    arrays = [pa.array([row[field.name] for row in given_rows], field.type) for field in SCHEMA]
    lines = rows_as_json(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA))
    assert [json.loads(line) for line in lines] == [slow(row) for row in given_rows]
    assert all(b"\n" not in line for line in lines)


def test_many_rows_say_what_few_say() -> None:
    """They become text some thousands at a time, and lists, words and gaps stand where they stood."""
    numbers = range(2 * _AT_ONCE + 3)
    columns = {
        "n": pa.array([None if n % 7 == 0 else n for n in numbers]),
        "list": pa.array([["a\n\r"] * (n % 3) for n in numbers], pa.list_(pa.string())),
        "word": pa.array([f"{n % 5}\u2028" for n in numbers]).dictionary_encode(),
    }
    rows = pa.record_batch(columns)
    assert rows_as_json(rows) == [rows_as_json(rows.slice(n, 1))[0] for n in numbers]
    assert [json.loads(line) for line in rows_as_json(rows)] == rows.to_pylist()


def test_a_decision_is_a_message() -> None:
    """Money stays whole minor units, and where a row was read is nobody's business."""
    row = {
        "transaction_id": 'odd "id"',
        "event_time": 1_767_225_600_000_001,
        "amount_minor": 2**53 + 1,
        "customer_id": None,
        "decision": "review",
        "reasons": ["amount: high"],
        "score": 0.1,
    }
    extra = {"score": pa.float64(), "decision": pa.string(), "reasons": pa.list_(pa.string())}
    (message,) = decision_messages(from_rows([row], extra))
    assert (message.id, message.transaction_id) == (
        'odd "id"',
        'odd "id"',
    )
    assert b'"amount_minor":9007199254740993' in message.body
    assert json.loads(message.body) == {
        "transaction_id": 'odd "id"',
        "event_time": "2026-01-01T00:00:00.000001Z",
        "customer_id": None,
        "terminal_id": None,
        "amount_minor": 2**53 + 1,
        "is_fraud": None,
        "late": False,
        "score": 0.1,
        "decision": "review",
        "reasons": ["amount: high"],
    }


def test_a_body_has_the_columns_that_were_named() -> None:
    """In their order; the message's id stays the transaction's."""
    batch = from_rows(
        [{"transaction_id": "t1", "event_time": 0, "amount_minor": 7, "score": 0.5}], {"score": pa.float64()}
    )
    (message,) = decision_messages(batch, ("score", "amount_minor"))
    assert (message.id, message.body) == ("t1", b'{"score":0.5,"amount_minor":7}')


def test_no_rows_are_no_messages() -> None:
    """An empty batch is no mistake."""
    assert decision_messages(from_rows([], {"decision": pa.string()})) == []


@pytest.mark.parametrize("name", ["plain", 'with "quotes"'])
def test_names_are_escaped(name: str) -> None:
    """A schema of one's own may call a column anything."""
    (line,) = rows_as_json(pa.RecordBatch.from_arrays([pa.array([1])], names=[name]))
    assert json.loads(line) == {name: 1}
