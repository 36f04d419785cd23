"""Features are declared once; names, order, the streaming computation and the manifest follow.

A declaration says what to compute, for which entity, over which windows:

    [[features]]
    kind = "mean"
    entity = "customer_id"
    column = "amount"
    windows = ["1d", "7d", "30d"]

declares `customer_amount_mean_1d`, `..._7d` and `..._30d`. A window of length w is (t-w, t] on event
time and includes the transaction itself; with a delay d it is (t-d-w, t-d].
"""

from __future__ import annotations

import hashlib
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Literal

import msgspec

from transforms.durations import format_duration, parse_duration
from transforms.errors import UserError, did_you_mean

SHIPPED = Path(__file__).parent / "feature_sets"

#: Raised when the meaning of a declaration changes, so that old models refuse new features.
SEMANTICS_VERSION = 1

RowKind = Literal["amount", "weekend", "night", "number", "category"]
WindowKind = Literal["count", "sum", "mean", "min", "max", "distinct", "time_since_last", "risk"]
WINDOW_KINDS: tuple[WindowKind, ...] = ("count", "sum", "mean", "min", "max", "distinct", "time_since_last", "risk")
_WITH_COLUMN = ("sum", "mean", "min", "max", "distinct", "number", "category")


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """One feature: a float64 column of that name.

    Attributes:
        name: the column's name.
        kind: what is computed; `risk` is the share of known frauds, 0 for an empty window;
            `time_since_last` is in seconds, at most the window's length, which also stands for "never".
        entity: the column whose values have a history each; None for features of the row alone.
        column: what is aggregated: `amount`, or a column of the schema.
        window: the window's length in microseconds.
        delay: how far before the transaction the window ends, in microseconds.
        last_hour: for `night`: hours 0 up to and including this one (UTC) count as night.
        value: for `category`: the value whose presence is 1.
    """

    name: str
    kind: RowKind | WindowKind
    entity: str | None = None
    column: str | None = None
    window: int = 0
    delay: int = 0
    last_hour: int = 6
    value: str | None = None


class Declaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One `[[features]]` entry: a `Feature` for each of its windows or values."""

    kind: RowKind | WindowKind
    entity: str | None = None
    column: str | None = None
    windows: tuple[str, ...] = ()
    delay: str = "0"
    last_hour: int = 6
    values: tuple[str, ...] = ()

    def expand(self) -> tuple[Feature, ...]:
        """The features this entry declares, in the order of its windows or values.

        Raises:
            UserError: the entry lacks something its kind needs, or has something it cannot use.
        """
        self._check()
        if self.kind in ("amount", "weekend", "night"):
            return (Feature(name=self.kind, kind=self.kind, last_hour=self.last_hour),)
        if self.kind == "number":
            return (Feature(name=str(self.column), kind="number", column=self.column),)
        if self.kind == "category":
            return tuple(
                Feature(name=f"{self.column}_is_{_slug(value)}", kind="category", column=self.column, value=value)
                for value in self.values
            )
        return tuple(self._windowed(window) for window in self.windows)

    def _windowed(self, window: str) -> Feature:
        length, delay = parse_duration(window), parse_duration(self.delay)
        entity = str(self.entity).removesuffix("_id")
        parts = [entity, self.column or "", self.kind, format_duration(length)]
        if delay:
            parts += ["delay", format_duration(delay)]
        return Feature(
            name="_".join(part for part in parts if part),
            kind=self.kind,
            entity=self.entity,
            column=self.column,
            window=length,
            delay=delay,
        )

    def _check(self) -> None:
        windowed = self.kind in WINDOW_KINDS
        if windowed and not self.entity:
            raise UserError(f"feature of kind {self.kind}: entity is missing; name the column whose history counts")
        if windowed and not self.windows:
            raise UserError(f"feature of kind {self.kind} of {self.entity}: windows is missing, such as ['1d', '7d']")
        if not windowed and (self.entity or self.windows or self.delay != "0"):
            raise UserError(f"feature of kind {self.kind} looks at one row: it takes no entity, windows or delay")
        if (self.kind in _WITH_COLUMN) != bool(self.column):
            takes = "needs" if self.kind in _WITH_COLUMN else "takes no"
            raise UserError(f"feature of kind {self.kind} {takes} column; found {self.column!r}")
        if (self.kind == "category") != bool(self.values):
            takes = "needs" if self.kind == "category" else "takes no"
            raise UserError(f"feature of kind {self.kind} {takes} values; found {list(self.values)!r}")
        if any(parse_duration(window) <= 0 for window in self.windows):
            raise UserError(f"feature of kind {self.kind} of {self.entity}: a window must be longer than 0")
        if self.kind == "time_since_last" and self.delay != "0":
            raise UserError("feature of kind time_since_last takes no delay")
        if not 0 <= self.last_hour <= 23:
            raise UserError(f"feature of kind night: last_hour must be 0 to 23; found {self.last_hour}")


class FeatureSet(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, dict=True):
    """All features of a model, in the order its matrix has them.

    Attributes:
        name: what models and reports call it.
        declared: the `[[features]]` entries.
        minor_digits: decimals of the currency: `amount` features are in major units.

    Example:
        >>> load_feature_set("handbook").names[:4]
        ('amount', 'weekend', 'night', 'customer_count_1d')
    """

    name: str
    declared: tuple[Declaration, ...] = msgspec.field(name="features")
    minor_digits: int = 2

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """Every declared feature, in order."""
        return tuple(feature for declaration in self.declared for feature in declaration.expand())

    @property
    def names(self) -> tuple[str, ...]:
        """The features' names, in order."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def entities(self) -> tuple[str, ...]:
        """The entity columns that have a history, in the order they first appear."""
        return tuple(dict.fromkeys(f.entity for f in self.features if f.entity))

    def of_entity(self, entity: str) -> tuple[Feature, ...]:
        """The windowed features of one entity, in order."""
        return tuple(feature for feature in self.features if feature.entity == entity)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns a batch must have: entities and aggregated columns, `amount` aside."""
        used = [name for f in self.features for name in (f.entity, f.column) if name and name != "amount"]
        return tuple(dict.fromkeys(used))

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when any name, order or meaning changes."""
        meaning = msgspec.json.encode([SEMANTICS_VERSION, self.minor_digits, self.features], order="sorted")
        return hashlib.sha256(meaning).hexdigest()[:16]


def shipped_feature_sets() -> tuple[str, ...]:
    """Names of the feature sets that come with the product."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.toml")))


def load_feature_set(name_or_file: str) -> FeatureSet:
    """The feature set of that name, or of that TOML file.

    Raises:
        UserError: no such set, or a declaration breaks a rule; the message names the place.
    """
    shipped = SHIPPED / f"{name_or_file}.toml"
    path = shipped if shipped.is_file() and "/" not in name_or_file else Path(name_or_file)
    if not path.is_file():
        hint = did_you_mean(name_or_file, shipped_feature_sets())
        known = ", ".join(shipped_feature_sets())
        raise UserError(f"feature set {name_or_file!r} is neither a file nor one of {known}{hint}")
    try:
        declared = msgspec.convert(tomllib.loads(path.read_text("utf-8")), FeatureSet)
        check_feature_set(declared)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, UserError) as error:
        raise UserError(f"feature set file {path}: {error}") from error
    return declared


def check_feature_set(feature_set: FeatureSet) -> None:
    """Refuse a set with no features, or with two of one name.

    Raises:
        UserError: names the feature.
    """
    names = feature_set.names
    if not names:
        raise UserError(f"feature set {feature_set.name} declares no features")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"feature set {feature_set.name} declares {', '.join(twice)} more than once")


def check_label_delay(feature_set: FeatureSet, label_delay: int) -> None:
    """Refuse features that would see a label before it could have arrived.

    Args:
        feature_set: the declared features.
        label_delay: how long after a transaction its label becomes known, in microseconds.

    Raises:
        UserError: a `risk` feature's delay is shorter than that.
    """
    for feature in feature_set.features:
        if feature.kind == "risk" and feature.delay < label_delay:
            raise UserError(
                f"feature {feature.name} sees labels {format_duration(feature.delay)} after the transaction, but "
                f"labels are known only after {format_duration(label_delay)} (labels.delay): in production the "
                f"value would differ from the one trained on. Declare delay = '{format_duration(label_delay)}' or more"
            )


def _slug(value: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in value.lower())


def describe(feature: Feature) -> str:
    """A feature in a few words, for reasons, model cards and documentation.

    Example:
        >>> describe(load_feature_set("handbook").features[14])
        'share of known frauds of the terminal within 30d, up to 7d before'
    """
    if feature.kind in _ROW_WORDS:
        return _ROW_WORDS[feature.kind]
    if feature.kind == "number":
        return f"value of {feature.column}"
    if feature.kind == "category":
        return f"whether {feature.column} is {feature.value!r}"
    who = str(feature.entity).removesuffix("_id").replace("_", " ")
    what = _WINDOW_WORDS[feature.kind].format(column=feature.column)
    within = f"within {format_duration(feature.window)}"
    until = f", up to {format_duration(feature.delay)} before" if feature.delay else ""
    return f"{what} of the {who} {within}{until}"


_ROW_WORDS = {"amount": "amount", "weekend": "whether it is a weekend", "night": "whether it is night"}
_WINDOW_WORDS = {
    "count": "transactions",
    "sum": "sum of {column}",
    "mean": "mean {column}",
    "min": "smallest {column}",
    "max": "largest {column}",
    "distinct": "different values of {column}",
    "time_since_last": "seconds since the last transaction",
    "risk": "share of known frauds",
}
