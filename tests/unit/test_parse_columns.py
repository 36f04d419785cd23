"""Typed and text columns: what each type becomes, that whole columns agree with single values, and real data."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.batch import to_rows
from transforms.convert import convert
from transforms.dead_letters import DeadLetter
from transforms.errors import UserError
from transforms.parse import parse
from transforms.raw_batch import RawBatch
from transforms.schema import Column, ColumnType, Schema, load_schema
from transforms.validate import LABEL_TEXTS, RecordError, Rules, validate_record

NOW = 1_770_000_000_000_000  # 2026-02-02T02:40:00Z
SCHEMA = load_schema("handbook")
GOOD: dict[str, Any] = {
    "TRANSACTION_ID": 7,
    "TX_DATETIME": datetime(2018, 4, 1, 0, 0, 31),
    "CUSTOMER_ID": 596,
    "TERMINAL_ID": 3156,
    "TX_AMOUNT": 57.16,
    "TX_FRAUD": 0,
}
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def raw_batch(columns: dict[str, pa.Array]) -> RawBatch:
    rows = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    return RawBatch("day.parquet", NOW, np.arange(1, rows.num_rows + 1), columns=rows)


def parse_columns(schema: Schema = SCHEMA, **changed: pa.Array) -> tuple[list[dict[str, Any]], list[DeadLetter]]:
    """Rows and dead letters of good records whose columns in `changed` are replaced."""
    rows = len(next(iter(changed.values())))
    columns = {name: pa.array([value] * rows) for name, value in GOOD.items()} | changed
    batch, dead = parse(raw_batch(columns), schema)
    assert len(batch or ()) + len(dead) == rows
    if batch is not None:
        batch.rows.validate(full=True)
    return (to_rows(batch) if batch else []), dead


IDS = [
    (pa.array([12, 13], pa.uint64()), ["12", "13"]),
    (pa.array([12.0, 13.0]), ["12", "13"]),
    (pa.array([12.0, 13.0], pa.float32()), ["12", "13"]),
    (pa.array([Decimal(12), Decimal(10**30)], pa.decimal128(38, 0)), ["12", str(10**30)]),
    (pa.array([Decimal("12.00"), Decimal(13)], pa.decimal128(9, 2)), ["12", "13"]),
    (pa.array(["a", "é"], pa.large_string()), ["a", "é"]),
    (pa.array(["a", "a"]).dictionary_encode(), ["a", "a"]),
    (pa.array([b"a", b"b"]), ["a", "b"]),
    (pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
    (pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(16)] * 2, pa.binary(16))), [str(UUID(int=0))] * 2),
]


@pytest.mark.parametrize(("column", "texts"), IDS, ids=[str(case[0].type) for case in IDS])
def test_ids_of_any_type_become_text(column: pa.Array, texts: list[str]) -> None:
    """Whole numbers of every type, text of every type and UUIDs are ids."""
    rows, dead = parse_columns(CUSTOMER_ID=column)
    assert not dead
    assert [row["customer_id"] for row in rows] == texts


TIMES = [
    pa.array([1_522_540_831], pa.timestamp("s")),
    pa.array([1_522_540_831_000], pa.timestamp("ms")),
    pa.array([1_522_540_831_000_000], pa.timestamp("us")),
    pa.array([1_522_540_831_000_000_999], pa.timestamp("ns")),
    pa.array([1_522_540_831_000_000], pa.timestamp("us", "Europe/Brussels")),
    pa.array(["2018-04-01 00:00:31"]),
    pa.array([b"2018-04-01T02:00:31+02:00"]),
]


@pytest.mark.parametrize("column", TIMES, ids=[str(column.type) for column in TIMES])
def test_timestamps_of_any_unit_become_utc_microseconds(column: pa.Array) -> None:
    """A timestamp of any unit is an instant; without a zone it is in UTC."""
    rows, dead = parse_columns(TX_DATETIME=column)
    assert not dead
    assert rows[0]["event_time"] == datetime(2018, 4, 1, 0, 0, 31, tzinfo=UTC)


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_dates_are_midnight(kind: pa.DataType) -> None:
    """A date stands for its first instant in UTC."""
    rows, _ = parse_columns(TX_DATETIME=pa.array([date(2018, 4, 1)], kind))
    assert rows[0]["event_time"] == datetime(2018, 4, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**60], pa.timestamp("s")),
        pa.array([2**58 + 1_522_540_831], pa.timestamp("s")),  # in 64 bits of microseconds this is April 2018
        pa.array([2**62], pa.timestamp("us")),
        pa.array([-(2**63)], pa.timestamp("ms")),
        pa.array([2**30], pa.date32()),
    ],
    ids=lambda column: str(column.type),
)
def test_timestamps_beyond_the_calendar_are_refused(column: pa.Array) -> None:
    """A time that no calendar has does not wrap round into one it has."""
    _, dead = parse_columns(TX_DATETIME=column)
    assert [letter.reason for letter in dead] == ["time_invalid"]


AMOUNTS = [
    (pa.array([57], pa.int32()), 5700),
    (pa.array([57.16]), 5716),
    (pa.array([57.16], pa.float32()), 5716),
    (pa.array([16777.17], pa.float32()), 1_677_717),
    (pa.array([np.float16(57.25)], pa.float16()), 5725),
    (pa.array([Decimal("57.16")]), 5716),
    (pa.array([Decimal("9999999999.99")]), 10**12 - 1),
    (pa.array([" 57.16"]), 5716),
    (pa.array(["57.16"]).dictionary_encode(), 5716),
]


@pytest.mark.parametrize(("column", "minor"), AMOUNTS, ids=[str(case[0].type) for case in AMOUNTS])
def test_amounts_of_any_type_become_exact_minor_units(column: pa.Array, minor: int) -> None:
    """Numbers of every type and text give the same minor units."""
    rows, dead = parse_columns(TX_AMOUNT=column)
    assert not dead
    assert rows[0]["amount_minor"] == minor


@pytest.mark.parametrize("text", ["9517198729533.3597", "8253229840362.3421"])
def test_amounts_near_the_end_of_floats_are_not_rounded(text: str) -> None:
    """Where floats lie too far apart to tell a fourth decimal, decimals decide."""
    schema = msgspec.structs.replace(SCHEMA, most_amount_minor=10**18)
    rows, dead = parse_columns(schema, TX_AMOUNT=pa.array([text, text[:-2]]))
    assert [letter.reason for letter in dead] == ["amount_precision"]
    assert [row["amount_minor"] for row in rows] == [int(text[:-2].replace(".", ""))]


def test_labels_of_any_type_are_0_1_or_null() -> None:
    """Booleans, integers, floats with gaps and text are labels."""
    columns = (
        pa.array([True, False, None]),
        pa.array([1, 0, None], pa.int64()),
        pa.array([1.0, 0.0, float("nan")]),
        pa.array(["1", "false", ""]),
    )
    for column in columns:
        rows, dead = parse_columns(TX_FRAUD=column)
        assert not dead
        assert [row["is_fraud"] for row in rows] == [1, 0, None]


def test_own_columns_are_text_and_floats() -> None:
    """A schema's categories become text and its numbers float64, null where they are missing and may be."""
    extra = {
        "channel": Column(type="category", field="CHANNEL", required=False),
        "distance": Column(type="number", field="KM", required=False),
    }
    schema = msgspec.structs.replace(SCHEMA, columns={**SCHEMA.columns, **extra})
    rows, dead = parse_columns(schema, CHANNEL=pa.array([True, None]), KM=pa.array([7, None], pa.int8()))
    assert not dead
    assert [(row["channel"], row["distance"]) for row in rows] == [("true", 7.0), (None, None)]


def test_absent_optional_columns_are_null() -> None:
    """A source without an optional field gives null for it."""
    columns = {name: pa.array([value]) for name, value in GOOD.items() if name != "TX_FRAUD"}
    batch, dead = parse(raw_batch(columns), SCHEMA)
    assert not dead
    assert batch is not None
    assert to_rows(batch)[0]["is_fraud"] is None


@pytest.mark.parametrize(
    ("found", "hint"),
    [
        (["TX_AMONT"], "did you mean TX_AMONT?"),
        (["tx_amount"], "did you mean tx_amount?"),
        ([], "found TRANSACTION_ID"),
    ],
)
def test_a_missing_required_column_is_one_error(found: list[str], hint: str) -> None:
    """A batch without a column that every record needs is a mistake of the user, not of its records."""
    columns = {name: pa.array([value]) for name, value in GOOD.items() if name != "TX_AMOUNT"}
    columns |= {name: pa.array([57.16]) for name in found}
    with pytest.raises(UserError, match=r"day\.parquet: field TX_AMOUNT is missing.*amount_minor") as raised:
        parse(raw_batch(columns), SCHEMA)
    assert hint in str(raised.value)


BAD_COLUMNS: list[tuple[str, str, pa.Array, str, str]] = [
    ("a null id", "CUSTOMER_ID", pa.array([1, None]), "validate", "missing_customer_id"),
    ("a gap among float ids", "CUSTOMER_ID", pa.array([1.0, float("nan")]), "validate", "missing_customer_id"),
    ("a float id", "CUSTOMER_ID", pa.array([1.0, 1.5]), "validate", "id_invalid"),
    ("an infinite id", "CUSTOMER_ID", pa.array([1.0, float("inf")]), "validate", "id_invalid"),
    ("empty text", "CUSTOMER_ID", pa.array([b"1", b""]), "validate", "missing_customer_id"),
    ("broken UTF-8", "CUSTOMER_ID", pa.array([b"1", b"\xff"]), "parse", "utf8_invalid"),
    ("text that is not UTF-8", "CUSTOMER_ID", pa.array([b"1", b"\xff"]).view(pa.string()), "parse", "utf8_invalid"),
    ("a NaN amount", "TX_AMOUNT", pa.array([1.0, float("nan")]), "validate", "amount_not_finite"),
    ("an infinite amount", "TX_AMOUNT", pa.array([1.0, float("inf")]), "validate", "amount_not_finite"),
    ("a negative amount", "TX_AMOUNT", pa.array([1, -1]), "validate", "amount_negative"),
    ("a negative amount too small for a float", "TX_AMOUNT", pa.array(["1", "-1e-400"]), "validate", "amount_negative"),
    ("an amount of 2**63", "TX_AMOUNT", pa.array([1, 2**63], pa.uint64()), "validate", "amount_too_large"),
    ("a third decimal", "TX_AMOUNT", pa.array([Decimal("1.000"), Decimal("1.001")]), "validate", "amount_precision"),
    ("a word", "TX_AMOUNT", pa.array(["1", "one"]), "validate", "amount_not_a_number"),
    ("a null time", "TX_DATETIME", pa.array([10**18, None], pa.timestamp("ns")), "validate", "missing_event_time"),
    ("a time of 1970", "TX_DATETIME", pa.array([10**9, 0], pa.timestamp("s")), "validate", "time_ancient"),
    ("a time of 2096", "TX_DATETIME", pa.array([10**9, 4 * 10**9], pa.timestamp("s")), "validate", "time_future"),
    ("a label of 2", "TX_FRAUD", pa.array([1, 2]), "validate", "label_invalid"),
]


@pytest.mark.parametrize(
    ("field", "column", "stage", "reason"), [case[1:] for case in BAD_COLUMNS], ids=[case[0] for case in BAD_COLUMNS]
)
def test_a_bad_value_in_a_column_costs_its_row_alone(field: str, column: pa.Array, stage: str, reason: str) -> None:
    """The row with the bad value becomes a dead letter with the row as JSON; the row before it stays."""
    rows, dead = parse_columns(**{field: column})
    assert [row["position"] for row in rows] == [1]
    assert [(letter.stage, letter.reason, letter.position) for letter in dead] == [(stage, reason, 2)]
    assert field in dead[0].error
    assert set(msgspec.json.decode(dead[0].payload)) == set(GOOD)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([{"a": 1}]),
        pa.array([[1]]),
        pa.array([5], pa.time64("us")),
        pa.array([2**62], pa.duration("us")),
        pa.array([{"t": 2**62}], pa.struct([("t", pa.timestamp("us"))])),
    ],
    ids=lambda column: str(column.type),
)
@pytest.mark.parametrize("field", list(GOOD))
def test_columns_of_types_nobody_expects_are_refused_row_by_row(field: str, column: pa.Array) -> None:
    """A list, an object or a time of day where a plain value should be is a dead letter, whatever it holds."""
    rows, dead = parse_columns(**{field: column})
    assert not rows
    assert dead[0].stage == "validate"
    assert dead[0].error.startswith(f"{field} is ")


def test_rows_keep_their_order_around_bad_ones_and_rescued_ones() -> None:
    """Rows that columns could not tell (blanks, other writings) come out in their place."""
    amounts = [str(at) for at in range(1, 101)]
    amounts[1], amounts[2], amounts[60], amounts[61] = " 2", "x", "61 ", "-62"
    rows, dead = parse_columns(TX_AMOUNT=pa.array(amounts))
    good = [at for at in range(1, 101) if at not in (3, 62)]
    assert [row["amount_minor"] for row in rows] == [at * 100 for at in good]
    assert [row["position"] for row in rows] == good
    assert [letter.position for letter in dead] == [3, 62]


NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 10**7).map(lambda minor: minor / 100),
    st.floats(),
    st.floats(width=32),
    st.sampled_from([-0.0, 0.1 + 0.2, 57.160000000000004, 1e10, 1e10 + 0.005, 2.0**53, 1_522_540_831.5]),
)
TEXTS = st.one_of(
    NUMBERS.map(str),
    st.text("0123456789.+-eE ", max_size=8),
    st.sampled_from([*LABEL_TEXTS, "nan", "-1e-400", "", "2", " 1"]),
    st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1)).map(str),
    st.from_regex(
        r"20[0-3]\d-[01]\d-[0-3]\d([T ][0-2]\d:[0-5]\d(:[0-6]\d(\.\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?)?", fullmatch=True
    ),
    st.text(max_size=3),
)
ARRAYS = st.one_of(
    st.lists(st.none() | TEXTS, min_size=1, max_size=40).map(lambda values: pa.array(values, pa.string())),
    st.lists(st.none() | TEXTS.map(str.encode) | st.binary(max_size=2), min_size=1).map(pa.array),
    st.lists(st.none() | NUMBERS.map(float), min_size=1).map(lambda values: pa.array(values, pa.float64())),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1).flatmap(
        lambda values: st.sampled_from(
            [pa.int64(), pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("ms", "UTC")]
        ).map(lambda kind: pa.array(values, pa.int64()).view(kind))
    ),
    st.lists(st.none() | st.decimals(-10, 10**12, places=3), min_size=1).map(
        lambda values: pa.array(values, pa.decimal128(20, 3))
    ),
    st.lists(st.none() | st.booleans(), min_size=1).map(lambda values: pa.array(values, pa.bool_())),
)


@settings(max_examples=100)
@given(
    ARRAYS,
    st.sampled_from(["id", "category", "amount", "time", "label", "number"]),
    st.sampled_from(["iso", "s", "ms", "us"]),
    st.integers(0, 3),
    st.booleans(),
)
def test_whole_columns_are_sure_only_of_what_single_values_say_too(
    values: pa.Array, kind: ColumnType, unit: Any, digits: int, required: bool
) -> None:
    """Where the fast way is sure of a value, the slow way accepts it and gives the same."""
    column = Column(type=kind, field="f", unit=unit, minor_digits=digits, required=required)
    rules = Rules.of(Schema(name="s", columns={"c": column}), NOW, typed=True)
    converted, sure = convert(values, "c", column, rules)
    times = pa.types.is_timestamp(values.type)
    ours = converted.cast(pa.int64()) if kind == "time" else converted
    for value, got, certain in zip(
        (values.cast(pa.string()) if times else values).to_pylist(), ours.to_pylist(), sure, strict=True
    ):
        if certain:
            expected, refused = validate_record({"f": value}, rules)
            assert refused is None, f"{value!r} was taken for {got!r}, but: {refused}"
            assert expected["c"] == got


def test_an_error_is_a_sentence_with_a_code() -> None:
    """What a refusal says reaches its dead letter unchanged."""
    error = RecordError("validate", "amount_negative", "TX_AMOUNT is -1; expected an amount of 0 or more")
    _, dead = parse_columns(TX_AMOUNT=pa.array([-1]))
    assert (dead[0].stage, dead[0].reason, dead[0].error) == (error.stage, error.reason, error.error)


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"needs {name} in ../shared/data, which is not part of the project")
    return path


def test_every_row_of_the_handbook_file_is_good() -> None:
    """All 1,504,628 transactions of the Handbook parse, with the frauds and the money that the file has."""
    path = shared("handbook_2018-04-01_2018-09-04.parquet")
    rows = frauds = minor = 0
    with pq.ParquetFile(path) as file:
        for columns in file.iter_batches(131_072, columns=list(GOOD)):
            raw = RawBatch("handbook", NOW, np.arange(rows, rows + columns.num_rows), columns=columns)
            batch, dead = parse(raw, SCHEMA)
            assert not dead
            assert batch is not None
            rows += len(batch)
            frauds += int(batch.numpy("is_fraud").sum())
            minor += int(batch.numpy("amount_minor").sum())
    assert (rows, frauds) == (1_504_628, 12_484)
    amounts = pq.read_table(path, columns=["TX_AMOUNT"])["TX_AMOUNT"].to_numpy()
    assert minor == int(np.rint(amounts * 100).sum())


def test_the_row_cut_short_in_the_creditcard_file_is_one_dead_letter() -> None:
    """Of the credit-card rows only the one that ends in the middle is refused; ids are made of its place."""
    with pq.ParquetFile(shared("creditcard_first_7973_rows.parquet")) as file:
        columns = next(file.iter_batches(10_000))
    positions = np.arange(1, columns.num_rows + 1)
    batch, dead = parse(RawBatch("cc.parquet", NOW, positions, columns=columns), load_schema("creditcard"))
    assert batch is not None
    assert Counter(letter.reason for letter in dead) == {"missing_amount_minor": 1}
    assert (dead[0].position, len(batch)) == (7973, 7972)
    assert int(batch.numpy("is_fraud").sum()) == 25
    row = to_rows(batch)[0]
    assert (row["transaction_id"], row["amount_minor"], row["v1"]) == ("cc.parquet:1", 14_962, -1.3598071336738)
