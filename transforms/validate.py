"""One record at a time: what each field must be, and the sentence that says so when it is not.

This is the authority on what is accepted. `transforms.convert` does the same on whole columns for the
values it is sure of, and leaves every other row to the functions here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from transforms.dead_letters import Stage, safe_payload
from transforms.errors import UserError, did_you_mean
from transforms.schema import Column, ColumnType, Schema

#: A currency's decimals times this much of an amount may be floating-point noise, but never more
#: than a hundredth of a minor unit: 57.160000000000004 is 57.16, and 57.165 is not.
AMOUNT_NOISE = 1e-6
MOST_AMOUNT_NOISE = 0.01

#: Label texts, in pairs: even places mean genuine, odd ones fraud.
LABEL_TEXTS = ("0", "1", "false", "true", "False", "True", "0.0", "1.0", "FALSE", "TRUE")

#: Microseconds in the units of times that are numbers.
MICROS = {"s": 1_000_000, "ms": 1_000, "us": 1}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN = 60  # characters of a value that an error shows
_NOT_NULL = ("transaction_id", "event_time", "amount_minor")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_ISO = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([0-9]{2})(?::([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?)? ?([Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)


class RecordError(Exception):
    """A record cannot be accepted.

    Attributes:
        stage: `parse` when it could not be decoded, `validate` when what it says is unacceptable.
        reason: the dead letter's short code.
        error: the dead letter's sentence.
    """

    def __init__(self, stage: Stage, reason: str, error: str) -> None:
        super().__init__(error)
        self.stage: Stage = stage
        self.reason = reason
        self.error = error


@dataclass(frozen=True)
class Rules:
    """What one batch is judged by.

    Attributes:
        schema: the fields and their limits.
        earliest: the first event time accepted, in microseconds since 1970.
        latest: the last one.
        typed: whether values come from columns with types of their own (Parquet). There a column of
            integers with gaps is stored as floats, so 12.0 is the id "12", and NaN a missing id,
            category, label or time. In JSON neither is so.
    """

    schema: Schema
    earliest: int
    latest: int
    typed: bool

    @classmethod
    def of(cls, schema: Schema, ingest_time: int, typed: bool) -> Rules:
        """The rules for records read at `ingest_time`, in microseconds since 1970."""
        latest = ingest_time + schema.latest_ahead_seconds * 1_000_000
        return cls(schema, micros_of(schema.earliest), latest, typed)


def is_needed(name: str, column: Column) -> bool:
    """Whether a record without this column's field is refused."""
    return column.required or name in _NOT_NULL


def used_fields(schema: Schema) -> tuple[str, ...]:
    """The source's fields that the schema names, each once, in the schema's order."""
    return tuple(dict.fromkeys(column.field for column in schema.columns.values() if column.field is not None))


def check_fields(found: Iterable[str], schema: Schema, source: str) -> None:
    """Refuse a source whose records all lack a field that the schema needs.

    Raises:
        UserError: names the field, the column it is for and the fields found.
    """
    names = list(found)
    for name, column in schema.columns.items():
        if column.field is None or column.field in names or not is_needed(name, column):
            continue
        listed = ", ".join(names[:40]) + (", ..." if len(names) > 40 else "")
        same = [found for found in names if found.strip().lower() == column.field.lower()]
        hint = f"; did you mean {same[0]}?" if same else did_you_mean(column.field, names)
        raise UserError(
            f"{source}: field {column.field} is missing, which schema {schema.name} needs for {name}; "
            f"found {listed or 'no fields'}{hint}"
        )


def validate_record(record: Mapping[str, Any], rules: Rules) -> tuple[dict[str, Any], RecordError | None]:
    """The pipeline's values of one record, and why it is refused, if it is.

    Args:
        record: values by the source's field names; absent and null are the same.
        rules: what to judge by.

    Returns:
        The values by column name, times in microseconds; up to the first refused column when there is one.

    Example:
        >>> from transforms.schema import load_schema
        >>> rules = Rules.of(load_schema("handbook"), ingest_time=1_600_000_000_000_000, typed=False)
        >>> record = {"TRANSACTION_ID": 7, "TX_DATETIME": "2018-04-01 00:00:31", "CUSTOMER_ID": 596,
        ...           "TERMINAL_ID": 3156, "TX_AMOUNT": -57.16}
        >>> values, refused = validate_record(record, rules)
        >>> values["transaction_id"], refused.reason, refused.error
        ('7', 'amount_negative', 'TX_AMOUNT is -57.16; expected an amount of 0 or more')
    """
    values: dict[str, Any] = {}
    try:
        for name, column in rules.schema.columns.items():
            if column.field is not None:
                values[name] = _value(record.get(column.field), name, column, rules)
    except RecordError as refused:
        return values, refused
    return values, None


def _value(value: Any, name: str, column: Column, rules: Rules) -> Any:
    if isinstance(value, bytes):
        value = _decoded(value, column)
    if value is None or value == "" or _is_gap(value, column):
        if is_needed(name, column):
            raise RecordError("validate", f"missing_{name}", f"{column.field} is missing; every record needs a value")
        return None
    if isinstance(value, str) and column.type not in ("id", "category"):
        value = value.strip()
    return _READ[column.type](value, column, rules)


def _is_gap(value: Any, column: Column) -> bool:
    return isinstance(value, float) and math.isnan(value) and column.type not in ("amount", "number")


def _decoded(value: bytes, column: Column) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError("parse", "utf8_invalid", f"{column.field} is not UTF-8: {error.reason}") from None


def _read_id(value: Any, column: Column, rules: Rules) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, UUID):
        return str(value)
    if rules.typed and isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    raise _refused(f"{column.type}_invalid", column, value, "text or a whole number")


def _read_category(value: Any, column: Column, rules: Rules) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _read_id(value, column, rules)


def _read_amount(value: Any, column: Column, rules: Rules) -> int:
    """Integer minor units; Python's decimals are exact."""
    amount = _decimal(value)
    if amount is None:
        expected = "a decimal number such as 57.16"
        if isinstance(value, float) or (isinstance(value, str) and _NOT_FINITE.fullmatch(value)):
            raise _refused("amount_not_finite", column, value, expected)
        raise _refused("amount_not_a_number", column, value, expected)
    if amount < 0:
        raise _refused("amount_negative", column, value, "an amount of 0 or more")
    most = rules.schema.most_amount_minor
    exact = amount.scaleb(column.minor_digits)
    if exact > most + 1:
        raise _refused("amount_too_large", column, value, f"at most {_major(most, column)}")
    minor = int(exact.to_integral_value())
    if abs(exact - minor) > min(AMOUNT_NOISE * max(minor, 1), MOST_AMOUNT_NOISE):
        raise _refused("amount_precision", column, value, f"at most {column.minor_digits} decimals")
    if minor > most:
        raise _refused("amount_too_large", column, value, f"at most {_major(most, column)}")
    return minor


def _read_time(value: Any, column: Column, rules: Rules) -> int:
    micros = _instant(value, column)
    if micros is None:
        as_text = "ISO 8601 text such as 2018-04-01T00:00:31Z"
        expected = as_text if column.unit == "iso" else f"a number in {column.unit} or {as_text}"
        raise _refused("time_invalid", column, value, expected)
    if micros < rules.earliest:
        raise _refused("time_ancient", column, value, f"{_iso(rules.earliest)} or later")
    if micros > rules.latest:
        expected = f"at most {_iso(rules.latest)}, {rules.schema.latest_ahead_seconds} s after it was read"
        raise _refused("time_future", column, value, expected)
    return micros


def _instant(value: Any, column: Column) -> int | None:
    """Microseconds since 1970 of ISO 8601 text, or of a number where the schema gives its unit."""
    if column.unit == "iso" or (isinstance(value, str) and not _NUMBER.fullmatch(value)):
        return _iso_micros(value) if isinstance(value, str) else None
    number = float(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float | Decimal):
        return None
    micros = number * MICROS[column.unit]
    if not isinstance(micros, int) and not math.isfinite(micros):
        return None
    return round(micros) + epoch_micros(column)


def _iso_micros(text: str) -> int | None:
    match = _ISO.fullmatch(text)
    if not match:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    fraction, offset = match[7] or "", match[8] or "Z"
    try:
        local = datetime(year, month, day, hour, minute, second, int(fraction[:6].ljust(6, "0")), tzinfo=UTC)
        return micros_of(local) - _offset_micros(offset)
    except ValueError:
        return None


def _offset_micros(offset: str) -> int:
    if offset in "Zz":
        return 0
    hours, minutes = int(offset[1:3]), int(offset[3:].lstrip(":") or 0)
    if hours > 23 or minutes > 59:
        raise ValueError(offset)
    return (hours * 60 + minutes) * 60_000_000 * (-1 if offset[0] == "-" else 1)


def _read_label(value: Any, column: Column, rules: Rules) -> int:
    if isinstance(value, str) and value in LABEL_TEXTS:
        return LABEL_TEXTS.index(value) % 2
    if isinstance(value, bool | int | float | Decimal) and value in (0, 1):
        return int(value)
    raise _refused("label_invalid", column, value, "0, 1, true, false or nothing")


def _read_number(value: Any, column: Column, rules: Rules) -> float:
    if isinstance(value, str) and _NOT_FINITE.fullmatch(value):
        raise _refused("number_not_finite", column, value, "a finite number")
    numeric = _NUMBER.fullmatch(value) if isinstance(value, str) else isinstance(value, int | float | Decimal)
    if not numeric or isinstance(value, bool):
        raise _refused("number_invalid", column, value, "a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _refused("number_not_finite", column, value, "a finite number")
    return number


_READ: dict[ColumnType, Callable[[Any, Column, Rules], Any]] = {
    "id": _read_id,
    "category": _read_category,
    "amount": _read_amount,
    "time": _read_time,
    "label": _read_label,
    "number": _read_number,
}


def _decimal(value: Any) -> Decimal | None:
    """The finite decimal number that `value` is; a float is the shortest decimal that reads back as it."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return Decimal(repr(value)) if math.isfinite(value) else None
    if isinstance(value, str):
        return Decimal(value) if _NUMBER.fullmatch(value) else None
    return Decimal(value) if isinstance(value, int | Decimal) else None


def _refused(reason: str, column: Column, value: Any, expected: str) -> RecordError:
    return RecordError("validate", reason, f"{column.field} is {_shown(value)}; expected {expected}")


def _shown(value: Any) -> str:
    """`value` as an error may show it: short, on one line, card numbers masked."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = safe_payload(repr(value) if isinstance(value, str) else str(value))
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _major(minor: int, column: Column) -> str:
    return f"{Decimal(minor).scaleb(-column.minor_digits):f}"


def _iso(micros: int) -> str:
    return (_EPOCH + timedelta(microseconds=micros)).isoformat()


def micros_of(instant: datetime) -> int:
    """Microseconds since 1970; without an offset it is UTC."""
    aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


def epoch_micros(column: Column) -> int:
    """The instant of 0 for times that are numbers, in microseconds since 1970."""
    return micros_of(column.epoch) if column.epoch else 0
