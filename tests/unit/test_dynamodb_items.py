from __future__ import annotations

import math
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_connectors.dynamodb.items import EXPIRES_AT, item_bytes, items_of, unwritable
from transforms.batch import TransactionBatch, from_rows
from transforms.errors import UserError

ROW = {"transaction_id": "t1", "event_time": 1_522_540_831_500_000, "amount_minor": 5716}


def one(extra: dict[str, pa.DataType] | None = None, **values: object) -> TransactionBatch:
    return from_rows([{**ROW, **values}], extra)


def test_a_row_keeps_its_values_and_loses_where_it_was_read() -> None:
    """Each column becomes an attribute of its type; nulls and the columns of provenance become none."""
    extra = {"score": pa.float64(), "reasons": pa.list_(pa.string()), "model_id": pa.dictionary(pa.int8(), pa.string())}
    batch = one(extra, customer_id="c", is_fraud=0, score=0.1, reasons=["a: b", "ü"], model_id="m", position=7)
    assert list(items_of(batch)) == [
        {
            "transaction_id": {"S": "t1"},
            "event_time": {"S": "2018-04-01T00:00:31.500000+00:00"},
            "customer_id": {"S": "c"},
            "amount_minor": {"N": "5716"},
            "is_fraud": {"N": "0"},
            "late": {"BOOL": False},
            "score": {"N": "0.1"},
            "reasons": {"L": [{"S": "a: b"}, {"S": "ü"}]},
            "model_id": {"S": "m"},
        }
    ]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_written_as_a_decimal_that_reads_as_the_same_float(number: float) -> None:
    """Seventeen digits suffice, DynamoDB keeps thirty-eight."""
    (item,) = items_of(one({"score": pa.float64()}, score=number))
    written = Decimal(item["score"]["N"])
    assert float(written) == number
    assert len(written.as_tuple().digits) <= 17


@given(st.integers(-(2**63), 2**63 - 1))
def test_an_integer_is_exact(number: int) -> None:
    """Amounts in minor units never pass through a float."""
    (item,) = items_of(one(amount_minor=number))
    assert int(item["amount_minor"]["N"]) == number


def test_items_expire_after_their_event_time() -> None:
    """The time of expiry is in whole seconds and depends on the row alone, so that a repeated write is the same."""
    (item,) = items_of(one(), ttl=30 * 86_400_000_000)
    assert item[EXPIRES_AT] == {"N": str(1_522_540_831 + 30 * 86_400)}


def test_a_column_called_like_the_time_of_expiry_is_refused() -> None:
    """Neither may replace the other unseen."""
    with pytest.raises(UserError, match="a column is called expires_at"):
        list(items_of(one({EXPIRES_AT: pa.int64()}), ttl=1))


def test_a_column_of_a_type_that_no_attribute_has_is_named() -> None:
    """A type that somebody adds later is not written as something else."""
    with pytest.raises(TypeError, match="column path is list<item: int64>"):
        list(items_of(one({"path": pa.list_(pa.int64())})))


def test_rows_that_no_table_takes_are_told_with_their_reasons() -> None:
    """One reason a row; null is a missing value, not a bad one."""
    rows = [
        {**ROW, "score": 0.5},
        {**ROW, "transaction_id": "", "score": math.nan},
        {**ROW, "transaction_id": "ü" * 1025},
        {**ROW, "score": -math.inf},
        {**ROW, "score": None},
    ]
    refused = unwritable(from_rows(rows, {"score": pa.float64()}))
    assert [(each.at, each.reason) for each in refused] == [
        (1, "key_empty"),
        (2, "key_too_long"),
        (3, "number_not_finite"),
    ]
    assert "score is -inf" in refused[2].error


def test_many_rows_come_in_their_order() -> None:
    """Items are made a part of the batch at a time."""
    batch = from_rows({**ROW, "transaction_id": f"t{n}"} for n in range(1_234))
    assert [item["transaction_id"]["S"] for item in items_of(batch)] == [f"t{n}" for n in range(1_234)]


def test_the_size_of_an_item_counts_names_and_values() -> None:
    """A list counts its elements."""
    assert item_bytes({"reasons": {"L": [{"S": "abc"}, {"S": "ü"}]}, "n": {"N": "1234"}}) == 7 + 3 + 4 + 3 + 1 + 3
