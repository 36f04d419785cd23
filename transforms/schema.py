"""How a source's fields become the canonical columns: small TOML files a user can copy and change."""

from __future__ import annotations

import tomllib
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from transforms.errors import UserError, did_you_mean

SHIPPED = Path(__file__).parent / "schemas"

ColumnType = Literal["id", "time", "amount", "label", "category", "number"]


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One column of the pipeline and the field of the source it comes from.

    Attributes:
        field: the source's name for it; `None` on `transaction_id` makes an id of source and position.
        type: `id` (text or integer, kept as text), `time`, `amount` (decimal major units, kept as
            integer minor units), `label` (0/1 or true/false), `category` (text), `number` (float).
        required: whether a record without it is refused.
        unit: for `time`: `iso` (ISO 8601 text or a typed timestamp; UTC when no offset is given) or
            the unit of a number: `s`, `ms`, `us`.
        epoch: for `time` as a number: the instant of 0.
        minor_digits: for `amount`: decimals of the currency.
    """

    type: ColumnType
    field: str | None = None
    required: bool = True
    unit: Literal["iso", "s", "ms", "us"] = "iso"
    epoch: datetime | None = None
    minor_digits: int = 2


class Schema(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A source's fields.

    Attributes:
        name: what `--schema` and the reports call it.
        columns: pipeline column to source field. `transaction_id`, `event_time` and `amount_minor`
            must be there; `customer_id`, `terminal_id`, `is_fraud` and, for sources of labels,
            `label_time` (when the label became known) may be; other names are the schema's own and
            must be of type `id`, `category` or `number`.
        default_model: the shipped model that fits these columns, if there is one.
        earliest: records older than this are refused as a broken clock.
        latest_ahead_seconds: how far after its ingest a record's event time may lie.
        most_amount_minor: amounts above this are refused as a broken field.
    """

    name: str
    columns: dict[str, Column]
    description: str = ""
    default_model: str | None = None
    earliest: datetime = datetime.fromisoformat("2000-01-01T00:00:00+00:00")
    latest_ahead_seconds: int = 86_400
    most_amount_minor: int = 10**12

    @property
    def own_columns(self) -> tuple[str, ...]:
        """The columns beyond the canonical ones, in the file's order."""
        return tuple(name for name in self.columns if name not in _PLACED)


_PLACED: dict[str, ColumnType] = {
    "transaction_id": "id",
    "event_time": "time",
    "customer_id": "id",
    "terminal_id": "id",
    "amount_minor": "amount",
    "is_fraud": "label",
}
_RESERVED = (
    "late",
    "source",
    "position",
    "ingest_time",
    "label_arrival",
    "score",
    "decision",
    "reasons",
    "model_id",
    "feature_set",
)
_NEEDED = ("transaction_id", "event_time", "amount_minor")


def shipped_schemas() -> tuple[str, ...]:
    """Names of the schemas that come with the product."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.toml")))


def load_schema(name_or_file: str) -> Schema:
    """The schema of that name, or of that TOML file.

    Raises:
        UserError: no such schema, or the file breaks a rule; the message names the place.

    Example:
        >>> load_schema("handbook").columns["amount_minor"].field
        'TX_AMOUNT'
    """
    shipped = SHIPPED / f"{name_or_file}.toml"
    path = shipped if shipped.is_file() and "/" not in name_or_file else Path(name_or_file)
    if not path.is_file():
        hint = did_you_mean(name_or_file, shipped_schemas())
        raise UserError(f"schema {name_or_file!r} is neither a file nor one of {', '.join(shipped_schemas())}{hint}")
    try:
        schema = msgspec.convert(tomllib.loads(path.read_text("utf-8")), Schema)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise UserError(f"schema file {path}: {error}") from error
    _check(schema, path)
    return schema


def _check(schema: Schema, path: Path) -> None:
    """Refuse a schema that could not work, before anything is read with it."""
    for name in _NEEDED:
        if name not in schema.columns:
            raise UserError(f"schema file {path}: column {name} is missing; every schema needs {', '.join(_NEEDED)}")
    for name, column in schema.columns.items():
        expected = _PLACED.get(name)
        if expected and column.type != expected:
            raise UserError(f"schema file {path}: column {name} must be of type {expected}, found {column.type}")
        if name in _RESERVED:
            raise UserError(f"schema file {path}: the pipeline has a column {name} of its own; choose another name")
        if name == "label_time" and column.type == "time":
            continue
        if not expected and column.type not in ("id", "category", "number"):
            raise UserError(
                f"schema file {path}: column {name} may be of type id, category or number, found {column.type}"
            )
        if column.field is None and name != "transaction_id":
            raise UserError(f"schema file {path}: column {name} names no field of the source")
        if column.unit != "iso" and column.epoch is not None and column.epoch.tzinfo is None:
            raise UserError(f"schema file {path}: the epoch of {name} needs an offset, such as 2013-09-01T00:00:00Z")
