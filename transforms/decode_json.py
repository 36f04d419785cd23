"""JSON records, one object each, into columns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any, Union

import msgspec
import numpy as np
import pyarrow as pa

from transforms.convert import Mask
from transforms.dead_letters import DeadLetter, safe_payload
from transforms.schema import ColumnType, Schema
from transforms.validate import RecordError

MAX_RECORD_BYTES = 1 << 20  # longer records are refused without being decoded

# Text stays text: "7" is an id, and an amount only in decimal digits. A record with another type in one
# of its fields is decoded again, loosely, to say what it holds.
_JSON_TYPES: dict[ColumnType, frozenset[type]] = {
    "id": frozenset((str, int)),
    "category": frozenset((str, int, bool)),
    "amount": frozenset((str, float)),  # whole numbers too: they become floats
    "time": frozenset((str, float)),
    "label": frozenset((str, float, bool)),
    "number": frozenset((str, float)),
}
_ARROW_TYPES = {str: pa.string(), float: pa.float64(), int: pa.int64(), bool: pa.bool_()}
_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_LONE_SURROGATE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)


@dataclass(frozen=True)
class JsonRecords:
    """Decoded JSON records.

    Attributes:
        payloads: the records as read.
        columns: the schema's fields by name, each of one type in this batch.
        sure: for each record whether its values are all in `columns`.
        fields: the names of the schema's fields.
        max_record_bytes: the longest record that is decoded.
    """

    payloads: Sequence[bytes]
    columns: dict[str, pa.Array]
    sure: Mask
    fields: tuple[str, ...]
    max_record_bytes: int

    def record(self, at: int) -> dict[str, Any]:
        """The fields of one record, whatever their types.

        Raises:
            RecordError: it is too long, or no JSON object.
        """
        return decode_record(self.payloads[at], self.fields, self.max_record_bytes)

    def payload(self, at: int) -> bytes:
        """One record as a dead letter keeps it."""
        return self.payloads[at]


def decode_json(payloads: Sequence[bytes], schema: Schema, max_record_bytes: int = MAX_RECORD_BYTES) -> JsonRecords:
    """Decode a batch; a record that cannot be is not `sure`, and its neighbours are as if it were not there.

    Fields that the schema does not name are passed over; of a key given twice the last value counts.

    Example:
        >>> from transforms.schema import load_schema
        >>> decoded = decode_json([b'{"user_id": "u7"}', b'{"user_id": '], load_schema("transaction-events"))
        >>> decoded.columns["user_id"].to_pylist(), decoded.sure.tolist()
        (['u7', None], [True, False])
    """
    types = _field_types(schema)
    decoder, names = _strict_decoder(types)
    rows, unfit = _decode(payloads, decoder, max_record_bytes)
    sure = np.ones(len(payloads), dtype=np.bool_)
    sure[list(unfit)] = False
    fields = tuple(field for field, _ in types)
    columns = {field: _column(list(map(attrgetter(name), rows))) for name, field in zip(names, fields, strict=True)}
    return JsonRecords(payloads, columns, sure, fields, max_record_bytes)


def decode_record(payload: bytes, fields: tuple[str, ...], max_record_bytes: int) -> dict[str, Any]:
    """The named fields of one JSON object; those it does not have are None.

    Raises:
        RecordError: it is too long, not UTF-8, no JSON, or no object.
    """
    if len(payload) > max_record_bytes:
        raise too_large(len(payload), max_record_bytes)
    decoder, names = _loose_decoder(fields)
    try:
        str(payload, "utf-8")
        row = decoder.decode(payload)
    except UnicodeDecodeError as error:
        raise RecordError("parse", "utf8_invalid", f"byte {error.start} is not UTF-8; expected a JSON object") from None
    except RecursionError:
        raise RecordError("parse", "json_too_deep", "nested too deeply; expected a flat JSON object") from None
    except msgspec.ValidationError as error:
        raise _unusable(str(error)) from None
    except msgspec.DecodeError as error:
        raise _malformed(payload, str(error)) from None
    return {field: getattr(row, name) for name, field in zip(names, fields, strict=True)}


def too_large(length: int, max_record_bytes: int) -> RecordError:
    """Why a record longer than the limit is refused."""
    return RecordError("parse", "record_too_large", f"{length} bytes long; expected at most {max_record_bytes}")


def too_large_letter(head: bytes, length: int, max_record_bytes: int, source: str, position: int) -> DeadLetter:
    """The dead letter of a record of which the reader kept only the beginning."""
    why = too_large(length, max_record_bytes)
    payload = safe_payload(head)
    return DeadLetter(
        stage=why.stage, reason=why.reason, error=why.error, payload=payload, source=source, position=position
    )


def _unusable(message: str) -> RecordError:
    if "out of range" in message:
        return RecordError("parse", "number_out_of_range", f"{message}; expected a number of ordinary size")
    return RecordError("parse", "json_not_object", f"{message}; expected one JSON object a record")


def _malformed(payload: bytes, message: str) -> RecordError:
    if _LONE_SURROGATE.search(payload):
        return RecordError(
            "parse", "json_lone_surrogate", "half of a surrogate pair in text; expected whole characters"
        )
    return RecordError("parse", "json_invalid", f"{message}; expected a JSON object")


def _decode(
    payloads: Sequence[bytes], decoder: msgspec.json.Decoder[Any], max_record_bytes: int
) -> tuple[list[Any], set[int]]:
    """Each payload decoded, and the places of those that cannot be, where a blank one stands."""
    unfit = _unfit(payloads, max_record_bytes)
    decode, rows = decoder.decode, list[Any]()
    if not unfit:
        try:
            return list(map(decode, payloads)), unfit  # nearly always, and without a line of Python a record
        except _UNDECODABLE:
            pass
    blank = decoder.type()
    for at, payload in enumerate(payloads):
        try:
            rows.append(blank if at in unfit else decode(payload))
        except _UNDECODABLE:
            rows.append(blank)
            unfit.add(at)
    return rows, unfit


def _unfit(payloads: Sequence[bytes], max_record_bytes: int) -> set[int]:
    """Places of records too long or not UTF-8; the decoder itself does not look into text that no column needs."""
    if all(map(bytes.isascii, payloads)) and max(map(len, payloads), default=0) <= max_record_bytes:
        return set()
    return {at for at, payload in enumerate(payloads) if len(payload) > max_record_bytes or not _is_utf8(payload)}


def _is_utf8(payload: bytes) -> bool:
    try:
        str(payload, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _column(values: list[Any]) -> pa.Array:
    """Values in the type of the first, or as text where they are of several types or too long for one."""
    first = next((type(value) for value in values if value is not None), str)
    try:
        return pa.array(values, _ARROW_TYPES[first])
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([_text(value) for value in values], pa.string())


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)


def _field_types(schema: Schema) -> tuple[tuple[str, Any], ...]:
    """Each field once with the JSON types that all of its columns take."""
    types: dict[str, frozenset[type]] = {}
    for column in schema.columns.values():
        if column.field is not None:
            taken = _JSON_TYPES[column.type]
            types[column.field] = types.get(column.field, taken) & taken
    return tuple((field, Union[(None, *sorted(taken, key=str))]) for field, taken in types.items())


@lru_cache(maxsize=64)
def _strict_decoder(types: tuple[tuple[str, Any], ...]) -> tuple[msgspec.json.Decoder[Any], tuple[str, ...]]:
    """A decoder of the fields in their expected types, and the attributes that hold them."""
    names = tuple(f"f{at}" for at in range(len(types)))
    fields = [
        (name, kind, msgspec.field(name=field, default=None)) for name, (field, kind) in zip(names, types, strict=True)
    ]
    return msgspec.json.Decoder(msgspec.defstruct("Record", fields, gc=False)), names


@lru_cache(maxsize=64)
def _loose_decoder(fields: tuple[str, ...]) -> tuple[msgspec.json.Decoder[Any], tuple[str, ...]]:
    return _strict_decoder(tuple((field, Any) for field in fields))
