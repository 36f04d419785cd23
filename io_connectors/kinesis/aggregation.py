"""Records that the Kinesis Producer Library has packed into one: told by their first bytes, checked, and taken apart.

The format is public ("KPL aggregated record format"): four magic bytes, a Protocol Buffers message, and the MD5 of the
message. The message has a table of partition keys, a table of explicit hash keys, and records that name their keys by
place in the tables. Three fields need no library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

MAGIC = b"\xf3\x89\x9a\xc2"
_DIGEST = 16
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class CorruptAggregateError(ValueError):
    """What begins as an aggregate is none, or arrived damaged."""


class UserRecord(NamedTuple):
    """One record as the producer's application gave it to the library.

    Attributes:
        key: its partition key.
        data: its content.
        hash_key: the explicit hash key, where the producer set one.
    """

    key: str
    data: bytes
    hash_key: int | None = None


def is_aggregate(data: bytes) -> bool:
    """Whether a record's data begins as an aggregate does; no JSON does."""
    return data.startswith(MAGIC)


def user_records(data: bytes) -> list[UserRecord]:
    """The records in an aggregate, in their order.

    Raises:
        CorruptAggregateError: the checksum or the message is wrong.

    Example:
        >>> message = bytes.fromhex("0a026b31 1a06 0800 1a02 7b7d")
        >>> user_records(MAGIC + message + hashlib.md5(message).digest())
        [UserRecord(key='k1', data=b'{}', hash_key=None)]
    """
    message, digest = data[len(MAGIC) : -_DIGEST], data[-_DIGEST:]
    if len(data) < len(MAGIC) + _DIGEST or hashlib.md5(message, usedforsecurity=False).digest() != digest:
        raise CorruptAggregateError("its MD5 does not match its content")
    keys: list[str] = []
    hash_keys: list[int] = []
    found: list[tuple[int, int | None, bytes]] = []
    try:
        for field, value in _fields(message):
            if field == 1:
                keys.append(_bytes(value).decode())
            elif field == 2:
                hash_keys.append(int(_bytes(value)))
            elif field == 3:
                found.append(_record(_bytes(value)))
        return [UserRecord(keys[k], d, None if h is None else hash_keys[h]) for k, h, d in found]
    except (ValueError, IndexError) as error:
        raise CorruptAggregateError(f"its message cannot be read: {error}") from error


def _record(message: bytes) -> tuple[int, int | None, bytes]:
    """Place of the partition key, place of the explicit hash key, data. Tags, a fourth field, are not used."""
    key: int | None = None
    hash_key: int | None = None
    data: bytes | None = None
    for field, value in _fields(message):
        if field == 1:
            key = _integer(value)
        elif field == 2:
            hash_key = _integer(value)
        elif field == 3:
            data = _bytes(value)
    if key is None or data is None:
        raise ValueError("a record lacks its key or its data")
    return key, hash_key, data


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The number and the value of each field of a message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            length, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind} at byte {at} is unknown")
        if at + length > len(message):
            raise ValueError("it ends within a field")
        yield tag >> 3, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = 0
    for place in range(10):
        byte = message[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError(f"the number at byte {at} has no end")


def _integer(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("bytes stand where a number belongs")
    return value


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number stands where bytes belong")
    return value
