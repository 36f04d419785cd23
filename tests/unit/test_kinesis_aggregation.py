"""The aggregates of the Kinesis Producer Library, against an encoder of their own."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_connectors.kinesis.aggregation import MAGIC, CorruptAggregateError, UserRecord, is_aggregate, user_records
from tests.kinesis_stream import aggregate, text, varint

RECORDS = st.lists(
    st.tuples(st.text(min_size=1, max_size=9), st.binary(max_size=300), st.none() | st.integers(0, (1 << 128) - 1)),
    max_size=20,
)


def packed(message: bytes) -> bytes:
    return MAGIC + message + hashlib.md5(message, usedforsecurity=False).digest()


@given(RECORDS)
def test_what_was_packed_is_unpacked(records: list[tuple[str, bytes, int | None]]) -> None:
    """Keys, data and explicit hash keys, in order."""
    data = aggregate([(key, content) for key, content, _ in records], [hash_key for _, _, hash_key in records])
    assert is_aggregate(data)
    assert user_records(data) == [UserRecord(*record) for record in records]


@given(st.binary(max_size=200))
def test_any_message_is_read_or_refused(message: bytes) -> None:
    """A producer with a fault, whose checksum is right, stops nobody."""
    try:
        user_records(packed(message))
    except CorruptAggregateError:
        return


@given(RECORDS, st.integers(4, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_noticed(records: list[tuple[str, bytes, int | None]], at: int, change: int) -> None:
    """By the checksum, wherever it is behind the magic."""
    data = bytearray(aggregate([(key, content) for key, content, _ in records]))
    data[4 + at % (len(data) - 4)] ^= change
    with pytest.raises(CorruptAggregateError, match="MD5 does not match"):
        user_records(bytes(data))


@pytest.mark.parametrize("length", range(4, 20))
def test_one_that_was_cut_short_is_noticed(length: int) -> None:
    """Down to the magic alone."""
    with pytest.raises(CorruptAggregateError, match="MD5 does not match"):
        user_records(aggregate([("k", b"data")])[:length])


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (text(1, b"k") + text(3, b"\x08\x05" + text(3, b"d")), "index out of range"),
        (text(1, b"k") + text(3, b"\x08\x00"), "lacks its key or its data"),
        (text(3, text(3, b"d")), "lacks its key or its data"),
        (b"\x0a\x05k", "ends within a field"),
        (b"\x0b", "wire type 3"),
        (b"\x08\x01", "a number stands where bytes belong"),
        (text(1, b"k") + text(3, text(1, b"k") + text(3, b"d")), "bytes stand where a number belongs"),
        (b"\xff" * 12, "has no end"),
        (text(1, b"\xff"), "invalid start byte"),
        (text(1, b"k") + text(2, b"x") + text(3, b"\x08\x00" + text(3, b"d")), "invalid literal"),
    ],
)
def test_a_message_that_makes_no_sense_says_why(message: bytes, complaint: str) -> None:
    """What is wrong with it goes into the dead letter."""
    with pytest.raises(CorruptAggregateError, match=complaint):
        user_records(packed(message))


def test_fields_that_are_not_needed_are_passed_over() -> None:
    """Tags, and what a later release of the library may add, of any wire type."""
    tag = text(4, text(1, b"name") + text(2, b"value"))
    later = varint(9 << 3 | 1) + bytes(8) + varint(10 << 3 | 5) + bytes(4) + varint(11 << 3) + varint(300)
    message = text(1, b"k") + later + text(3, b"\x08\x00" + text(3, b"d") + tag) + later
    assert user_records(packed(message)) == [UserRecord("k", b"d")]


def test_json_is_no_aggregate() -> None:
    """Nothing that begins as JSON does begins as one."""
    assert not is_aggregate(b'{"transaction_id": "t1"}')
