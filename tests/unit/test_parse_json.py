"""JSON payloads: what is accepted, what is refused and why, and that no record touches its neighbours."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.batch import CANONICAL_FIELDS, TransactionBatch, to_rows
from transforms.dead_letters import DeadLetter
from transforms.parse import parse, parsed_fields
from transforms.raw_batch import RawBatch
from transforms.schema import Column, Schema, load_schema

NOW = 1_770_000_000_000_000  # 2026-02-02T02:40:00Z
SCHEMA = load_schema("transaction-events")
GOOD: dict[str, Any] = {
    "transaction_id": "3f0c7c0e-0000-4000-8000-000000000001",
    "user_id": "u1",
    "amount": 57.16,
    "timestamp": "2026-01-02T03:04:05Z",
    "merchant_category": "grocery",
    "location": "Ghent",
    "payment_method": "debit_card",
    "is_fraud": False,
}


def raw_batch(payloads: list[bytes], **fields: Any) -> RawBatch:
    return RawBatch("topic-0", NOW, np.arange(100, 100 + len(payloads)), payloads=payloads, **fields)


def parse_payloads(*payloads: bytes, schema: Schema = SCHEMA) -> tuple[list[dict[str, Any]], list[DeadLetter]]:
    """Rows and dead letters of `payloads`, after checking that none is lost."""
    batch, dead = parse(raw_batch(list(payloads)), schema)
    assert len(batch or ()) + len(dead) == len(payloads)
    return (to_rows(batch) if batch else []), dead


def record(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def parse_one(**changes: Any) -> dict[str, Any]:
    """The row of the good record with `changes`."""
    rows, dead = parse_payloads(record(**changes))
    assert not dead, dead
    return rows[0]


def refuse_one(payload: bytes, schema: Schema = SCHEMA) -> DeadLetter:
    """The dead letter of `payload`, which must leave the good records around it alone."""
    good = record()
    rows, dead = parse_payloads(good, payload, good, schema=schema)
    assert [row["position"] for row in rows] == [100, 102]
    assert (dead[0].source, dead[0].position) == ("topic-0", 101)
    return dead[0]


def test_parse_gives_the_canonical_columns_first_and_the_schemas_own_after_them() -> None:
    """A parsed batch has the exact canonical fields in order, then the schema's columns as text or float64."""
    batch, _ = parse(raw_batch([record()]), SCHEMA)
    assert batch is not None
    own = ["merchant_category", "location", "payment_method"]
    assert list(batch.rows.schema) == [*CANONICAL_FIELDS, *(pa.field(name, pa.string()) for name in own)]
    assert tuple(batch.rows.schema) == parsed_fields(SCHEMA)


def test_parse_fills_every_column() -> None:
    """Values, provenance and the late flag of a good record are what the record and the raw batch say."""
    batch, _ = parse(raw_batch([record()]), SCHEMA)
    assert batch is not None
    assert batch.numpy("event_time").tolist() == [1_767_323_045_000_000]
    assert batch.numpy("ingest_time").tolist() == [NOW]
    row = to_rows(batch)[0]
    assert row["transaction_id"] == GOOD["transaction_id"]
    assert (row["customer_id"], row["terminal_id"]) == ("u1", None)
    assert (row["amount_minor"], row["is_fraud"], row["late"]) == (5716, 0, False)
    assert (row["source"], row["position"]) == ("topic-0", 100)
    assert (row["merchant_category"], row["location"], row["payment_method"]) == ("grocery", "Ghent", "debit_card")


def test_parse_of_nothing_is_nothing() -> None:
    """A batch without records gives no transactions and no dead letters."""
    assert parse(raw_batch([]), SCHEMA) == (None, [])


def test_what_the_reader_rejected_is_forwarded() -> None:
    """Records the reader rejected are among the dead letters, with and without others in their batch."""
    letter = DeadLetter(stage="read", reason="file_corrupt", error="e", payload="", source="f", position=1)
    batch, dead = parse(raw_batch([record()], rejected=(letter,)), SCHEMA)
    assert (len(batch or ()), dead) == (1, [letter])
    assert parse(raw_batch([], rejected=(letter,)), SCHEMA) == (None, [letter])


@pytest.mark.parametrize(
    ("amount", "minor"),
    [
        (57.16, 5716),
        (57.160000000000004, 5716),
        (0.1 + 0.2, 30),
        (5, 500),
        (0, 0),
        (-0.0, 0),
        ("57.16", 5716),
        (" 57.16 ", 5716),
        ("+57.1", 5710),
        ("5.716e1", 5716),
        ("57.160000000000004", 5716),
        (10_000_000_000, 10**12),
        (9_999_999_999.99, 10**12 - 1),
        ("9999999999.99", 10**12 - 1),
    ],
)
def test_amounts_become_exact_minor_units(amount: object, minor: int) -> None:
    """JSON numbers and decimal text become integer minor units; the noise of floats does not count."""
    assert parse_one(amount=amount)["amount_minor"] == minor


def test_amounts_follow_the_currencys_decimals() -> None:
    """A currency without decimals takes whole amounts only, one with three takes three."""
    for digits, amount, minor in ((0, 57, 57), (3, 57.164, 57_164)):
        schema = with_column("amount_minor", Column(type="amount", field="amount", minor_digits=digits))
        rows, _ = parse_payloads(record(amount=amount), schema=schema)
        assert rows[0]["amount_minor"] == minor
    whole = with_column("amount_minor", Column(type="amount", field="amount", minor_digits=0))
    assert parse_payloads(record(amount=57.5), schema=whole)[1][0].reason == "amount_precision"


def with_column(name: str, column: Column) -> Schema:
    return msgspec.structs.replace(SCHEMA, columns={**SCHEMA.columns, name: column})


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05"),
        ("2026-01-02 03:04:05", "2026-01-02T03:04:05"),
        ("2026-01-02T03:04:05.123456Z", "2026-01-02T03:04:05.123456"),
        ("2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05.123456"),
        ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05"),
        ("2026-01-02T03:04:05-0530", "2026-01-02T08:34:05"),
        ("2026-01-02t03:04:05z", "2026-01-02T03:04:05"),
        (" 2026-01-02T03:04 ", "2026-01-02T03:04:00"),
        ("2026-01-02", "2026-01-02T00:00:00"),
    ],
)
def test_times_are_iso_8601_and_utc_without_an_offset(timestamp: str, expected: str) -> None:
    """Date-times with T or a blank, any offset or none, any fraction of a second become UTC microseconds."""
    assert parse_one(timestamp=timestamp)["event_time"] == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("unit", "timestamp"),
    [
        ("s", 1_767_323_045),
        ("s", 1_767_323_045.0),
        ("s", "1767323045"),
        ("ms", 1_767_323_045_000),
        ("us", 1_767_323_045_000_000),
        ("us", "2026-01-02T03:04:05Z"),
    ],
)
def test_times_may_be_numbers_where_the_schema_gives_their_unit(unit: Any, timestamp: object) -> None:
    """Epoch numbers, as numbers or text, count in the column's unit; ISO text stays readable beside them."""
    schema = with_column("event_time", Column(type="time", field="timestamp", unit=unit))
    rows, _ = parse_payloads(record(timestamp=timestamp), schema=schema)
    assert rows[0]["event_time"] == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_times_may_count_from_another_instant() -> None:
    """A column's epoch is the instant of 0."""
    column = Column(type="time", field="timestamp", unit="s", epoch=datetime(2026, 1, 1, tzinfo=UTC))
    rows, _ = parse_payloads(record(timestamp=1.5), schema=with_column("event_time", column))
    assert rows[0]["event_time"] == datetime(2026, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("label", "expected"),
    [(0, 0), (1, 1), (True, 1), (False, 0), ("0", 0), ("1", 1), ("true", 1), (None, None), ("", None)],
)
def test_labels_are_0_1_or_unknown(label: object, expected: int | None) -> None:
    """0, 1, true and false, as numbers or text, are labels; null and nothing mean unknown."""
    assert parse_one(is_fraud=label)["is_fraud"] == expected


def test_absent_optional_fields_are_null() -> None:
    """A record may leave out what the schema does not require."""
    needed = ("transaction_id", "user_id", "amount", "timestamp")
    rows, dead = parse_payloads(json.dumps({name: GOOD[name] for name in needed}).encode())
    assert not dead
    assert [rows[0][name] for name in ("is_fraud", "merchant_category", "location", "payment_method")] == [None] * 4


@pytest.mark.parametrize(("value", "text"), [(17, "17"), (2**70, str(2**70)), ("017", "017"), (-3, "-3")])
def test_ids_are_text_or_whole_numbers(value: object, text: str) -> None:
    """An id is kept as text, digit for digit, however many digits it has."""
    assert parse_one(transaction_id=value)["transaction_id"] == text


def test_ids_may_be_text_in_one_record_and_numbers_in_the_next() -> None:
    """A batch of mixed ids keeps every record, in order."""
    rows, dead = parse_payloads(*(record(user_id=user) for user in ("a", 7, "b", 2**64)))
    assert not dead
    assert [row["customer_id"] for row in rows] == ["a", "7", "b", str(2**64)]


def test_a_field_may_feed_two_columns() -> None:
    """Of a field that two columns take, a value must suit both, whatever stands in the records beside it."""
    schema = with_column("account_type", Column(type="category", field="user_id"))
    payloads = [record(user_id=user) for user in ("a", 7, True)]
    rows, dead = parse_payloads(*payloads, schema=schema)
    assert [(row["customer_id"], row["account_type"]) for row in rows] == [("a", "a"), ("7", "7")]
    assert [(letter.reason, letter.position) for letter in dead] == [("id_invalid", 102)]
    assert [parse_payloads(payload, schema=schema)[1] != [] for payload in payloads] == [False, False, True]


def test_unknown_fields_are_passed_over_and_the_last_of_equal_keys_counts() -> None:
    """Fields the schema does not name change nothing; of a repeated key the last value counts."""
    payload = record()[:-1] + b', "extra": {"deep": [1, 2]}, "amount": 1.25}'
    rows, dead = parse_payloads(payload)
    assert not dead
    assert rows[0]["amount_minor"] == 125


BAD_VALUES: list[tuple[str, dict[str, Any], str]] = [
    ("a negative amount", {"amount": -57.16}, "amount_negative"),
    ("a negative amount in text", {"amount": "-0.01"}, "amount_negative"),
    ("a NaN in text", {"amount": "NaN"}, "amount_not_finite"),
    ("an infinite amount in text", {"amount": "-Infinity"}, "amount_not_finite"),
    ("an amount above the limit", {"amount": 10_000_000_000.01}, "amount_too_large"),
    ("an amount of 300 digits", {"amount": 10**300}, "amount_too_large"),
    ("an amount of 9999 zeros", {"amount": "1e9999"}, "amount_too_large"),
    ("a third decimal", {"amount": 57.165}, "amount_precision"),
    ("a third decimal in text", {"amount": "57.165"}, "amount_precision"),
    ("a third decimal of a large amount", {"amount": 1_234_567.895}, "amount_precision"),
    ("a third decimal of a large amount in text", {"amount": "1234567.895"}, "amount_precision"),
    ("an amount in words", {"amount": "fifty"}, "amount_not_a_number"),
    ("an amount with a thousands comma", {"amount": "1,234.56"}, "amount_not_a_number"),
    ("an amount with an underscore", {"amount": "1_000"}, "amount_not_a_number"),
    ("an amount in other digits", {"amount": "\u0665\u0667"}, "amount_not_a_number"),
    ("a true amount", {"amount": True}, "amount_not_a_number"),
    ("an amount that is an object", {"amount": {"value": 57.16}}, "amount_not_a_number"),
    ("no amount", {"amount": None}, "missing_amount_minor"),
    ("a blank amount", {"amount": ""}, "missing_amount_minor"),
    ("no id", {"transaction_id": None}, "missing_transaction_id"),
    ("an empty id", {"transaction_id": ""}, "missing_transaction_id"),
    ("a float id", {"transaction_id": 1.5}, "id_invalid"),
    ("a whole float id", {"transaction_id": 1.0}, "id_invalid"),
    ("a true id", {"user_id": True}, "id_invalid"),
    ("a list of ids", {"user_id": ["u1"]}, "id_invalid"),
    ("no customer", {"user_id": None}, "missing_customer_id"),
    ("no time", {"timestamp": None}, "missing_event_time"),
    ("a time in words", {"timestamp": "yesterday"}, "time_invalid"),
    ("the 30th of February", {"timestamp": "2026-02-30T00:00:00Z"}, "time_invalid"),
    ("an hour 24", {"timestamp": "2026-01-02T24:00:00Z"}, "time_invalid"),
    ("an offset of 25 hours", {"timestamp": "2026-01-02T03:04:05+25:00"}, "time_invalid"),
    ("a number for ISO text", {"timestamp": 1_767_323_045}, "time_invalid"),
    ("a time long ago", {"timestamp": "1999-12-31T23:59:59Z"}, "time_ancient"),
    ("the year 1", {"timestamp": "0001-01-01T00:00:00Z"}, "time_ancient"),
    ("a time two days ahead", {"timestamp": "2026-02-04T02:40:00Z"}, "time_future"),
    ("the year 9999", {"timestamp": "9999-12-31T23:59:59Z"}, "time_future"),
    ("a label of 2", {"is_fraud": 2}, "label_invalid"),
    ("a label in words", {"is_fraud": "maybe"}, "label_invalid"),
    ("a category that is an object", {"location": {"lat": 1, "lon": 2}}, "category_invalid"),
    ("a category with decimals", {"location": 1.5}, "category_invalid"),
]


@pytest.mark.parametrize(("changes", "reason"), [case[1:] for case in BAD_VALUES], ids=[c[0] for c in BAD_VALUES])
def test_unacceptable_values_are_refused_at_validate(changes: dict[str, Any], reason: str) -> None:
    """A decoded record with an unacceptable value is one dead letter that names the field and what was expected."""
    letter = refuse_one(record(**changes))
    assert (letter.stage, letter.reason) == ("validate", reason)
    field = next(iter(changes))
    assert letter.error.startswith(f"{field} is ")
    assert "expected" in letter.error or "every record needs" in letter.error
    assert json.loads(letter.payload) == {**GOOD, **changes}


UNDECODABLE: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "json_invalid"),
    ("cut short", record()[:-20], "json_invalid"),
    ("two objects", record() + record(), "json_invalid"),
    ("a NaN literal", record().replace(b"57.16", b"NaN"), "json_invalid"),
    ("an Infinity literal", record().replace(b"57.16", b"-Infinity"), "json_invalid"),
    ("a NUL", record() + b"\0", "json_invalid"),
    ("a list", b"[" + record() + b"]", "json_not_object"),
    ("a text", b'"57.16"', "json_not_object"),
    ("a null", b"null", "json_not_object"),
    ("broken UTF-8 in a known field", record().replace(b"Ghent", b"Gh\xff"), "utf8_invalid"),
    ("broken UTF-8 in a field of no interest", record()[:-1] + b', "x": "\xc3("}', "utf8_invalid"),
    ("an encoded surrogate", record().replace(b"Ghent", b"\xed\xa0\x80"), "utf8_invalid"),
    ("a lone high surrogate", record().replace(b"Ghent", b"\\ud800"), "json_lone_surrogate"),
    ("a lone low surrogate", record().replace(b"Ghent", b"\\udc00"), "json_lone_surrogate"),
    ("deep nesting", record()[:-1] + b', "x": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", "json_too_deep"),
    ("deep nesting in a known field", b'{"user_id": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", "json_too_deep"),
    ("deep nesting without an end", b'{"a":' * 10**5, "json_too_deep"),
    ("a float beyond all floats", record().replace(b"57.16", b"1e999"), "number_out_of_range"),
    ("a number of 5000 digits", record().replace(b"57.16", b"9" * 5000), "number_out_of_range"),
    ("a record of 10 MB", record()[:-1] + b', "x": "' + b"y" * 10_000_000 + b'"}', "record_too_large"),
]


@pytest.mark.parametrize(("payload", "reason"), [case[1:] for case in UNDECODABLE], ids=[c[0] for c in UNDECODABLE])
def test_undecodable_records_are_refused_at_parse(payload: bytes, reason: str) -> None:
    """A record that is no JSON object becomes one dead letter of bounded size with a stable reason."""
    letter = refuse_one(payload)
    assert (letter.stage, letter.reason) == ("parse", reason)
    assert "expected" in letter.error
    assert len(letter.payload) < 5000
    assert len(letter.error) < 300


def test_the_longest_record_is_a_setting() -> None:
    """A record of just the limit is parsed, one byte more is refused."""
    payload = record()
    assert parse(raw_batch([payload]), SCHEMA, max_record_bytes=len(payload))[1] == []
    _, dead = parse(raw_batch([payload]), SCHEMA, max_record_bytes=len(payload) - 1)
    assert [letter.reason for letter in dead] == ["record_too_large"]


def test_required_labels_are_required() -> None:
    """A schema may require the label; then a record without one is refused."""
    schema = with_column("is_fraud", Column(type="label", field="is_fraud"))
    assert parse_payloads(record(is_fraud=None), schema=schema)[1][0].reason == "missing_is_fraud"


def test_dead_letters_carry_what_was_known() -> None:
    """A dead letter has the id and the event time when they were good."""
    letter = refuse_one(record(amount=-1))
    assert (letter.transaction_id, letter.event_time) == (GOOD["transaction_id"], 1_767_323_045_000_000)
    assert refuse_one(record(timestamp="never")).event_time is None


def test_no_part_of_a_dead_letter_shows_a_card_number() -> None:
    """A card number is masked in the payload, in the sentence and where it stands as the id."""
    letter = refuse_one(record(transaction_id="4111111111111111", amount="4111 1111 1111 1111"))
    assert "4111111111111111" not in letter.to_json().decode()
    assert "4111 1111" not in letter.to_json().decode()
    assert letter.transaction_id == "************1111"


def test_a_batch_of_bad_records_has_no_transactions() -> None:
    """Where no record is good there is no batch, and a dead letter each, in order."""
    batch, dead = parse(raw_batch([b"{", b"[", record(amount=-1)]), SCHEMA)
    assert batch is None
    assert [letter.position for letter in dead] == [100, 101, 102]


def one_by_one(payloads: list[bytes]) -> list[dict[str, Any] | DeadLetter]:
    """What becomes of each record when it is the only one of its batch."""
    outcomes: list[dict[str, Any] | DeadLetter] = []
    for at, payload in enumerate(payloads):
        raw = replace(raw_batch([payload]), positions=np.array([100 + at]))
        batch, dead = parse(raw, SCHEMA)
        outcomes += to_rows(batch) if batch else dead
    return outcomes


def together(payloads: list[bytes]) -> list[dict[str, Any] | DeadLetter]:
    """What becomes of each record when all are in one batch, in order."""
    batch, dead = parse(raw_batch(payloads), SCHEMA)
    assert len(batch or ()) + len(dead) == len(payloads)
    outcomes: dict[int, dict[str, Any] | DeadLetter] = {letter.position: letter for letter in dead}
    outcomes |= {row["position"]: row for row in (to_rows(batch) if batch else ())}
    return [outcomes[position] for position in sorted(outcomes)]


JSON_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(0, 10**6, places=2).map(float),
    st.decimals(-1, 10**6, places=3).map(str),
    st.sampled_from(["", "0", "1", " 5 ", "true", "NaN", "2026-01-02T03:04:05Z", "2026-01-02 03:04:05+01:00"]),
    st.text(max_size=5),
    st.just([1]),
    st.just({"a": 1}),
)
RECORDS = st.fixed_dictionaries({}, optional={name: st.just(value) | JSON_VALUES for name, value in GOOD.items()})
ENCODED = RECORDS.map(lambda changes: msgspec.json.encode({**GOOD, **changes}))


@st.composite
def mutated(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A record as it was and as it became by changing, cutting or inserting bytes."""
    before: bytes = draw(ENCODED)
    at = draw(st.integers(0, len(before)))
    cut = draw(st.integers(0, 3))
    put = draw(st.binary(max_size=3))
    return before, before[:at] + put + before[at + cut :]


@settings(max_examples=40)
@given(st.lists(mutated(), min_size=1, max_size=8), st.data())
def test_bytes_changed_in_some_records_leave_the_others_alone(
    pairs: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    """Whatever bytes of whichever records change, nothing is lost and the untouched records parse as before."""
    touched = [data.draw(st.booleans()) for _ in pairs]
    before = together([pair[0] for pair in pairs])
    after = together([pair[changed] for pair, changed in zip(pairs, touched, strict=True)])
    kept = [at for at, changed in enumerate(touched) if not changed]
    assert [after[at] for at in kept] == [before[at] for at in kept]


@settings(max_examples=40)
@given(st.lists(ENCODED | mutated().map(lambda pair: pair[1]), min_size=1, max_size=8))
def test_a_record_becomes_the_same_alone_and_among_others(payloads: list[bytes]) -> None:
    """The whole columns of a batch and the single record give the same row or the same dead letter."""
    assert together(payloads) == one_by_one(payloads)


def test_parse_gives_one_type_of_batch_whatever_the_records() -> None:
    """Batches that took different ways through parsing have the same Arrow schema."""
    ways = [[record()], [record(amount="5")], [record(), b"{"], [record(user_id=1), record()]]
    batches = [parse(raw_batch(payloads), SCHEMA)[0] for payloads in ways]
    assert all(isinstance(batch, TransactionBatch) for batch in batches)
    assert len({batch.rows.schema.to_string() for batch in batches if batch}) == 1
