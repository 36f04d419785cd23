"""Features are declared once; names, order, the streaming computation and the manifest follow.

A declaration says what to compute, for which entity, over which windows:

    [[features]]
    kind = "mean"
    entity = "customer_id"
    column = "amount"
    windows = ["1d", "7d", "30d"]

declares `customer_amount_mean_1d`, `..._7d` and `..._30d`. A window of length w is (t-w, t] on event
time and includes the transaction itself; with a delay d it is (t-d-w, t-d].

A feature may be made of features declared above it:

    [[features]]
    kind = "ratio"
    name = "amount_to_usual"
    column = "amount"
    by = "customer_amount_mean_30d"

`feature_order.py` says what may be built upon what.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import msgspec

from transforms.durations import format_duration, parse_duration
from transforms.errors import UserError, did_you_mean
from transforms.feature_order import Layer, layers_of, places_of

SHIPPED = Path(__file__).parent / "feature_sets"

#: Raised when the meaning of a declaration changes, so that old models refuse new features.
SEMANTICS_VERSION = 1

RowKind = Literal["amount", "weekend", "night", "number", "category"]
DerivedKind = Literal["ratio", "above"]
WindowKind = Literal[
    "count", "sum", "mean", "min", "max", "distinct", "time_since_last", "risk", "known_frauds", "time_since_fraud"
]
DERIVED_KINDS: tuple[DerivedKind, ...] = get_args(DerivedKind)
WINDOW_KINDS: tuple[WindowKind, ...] = get_args(WindowKind)
#: Kinds that look at labels: they need a delay no shorter than the labels'.
LABEL_KINDS: tuple[WindowKind, ...] = ("risk", "known_frauds", "time_since_fraud")
_WITH_COLUMN = ("sum", "mean", "min", "max", "distinct", "number", "category", *DERIVED_KINDS)
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """One feature: a float64 column of that name.

    Attributes:
        name: the column's name.
        kind: what is computed; `risk` is the share of known frauds, 0 for an empty window, and `known_frauds`
            their number; `time_since_last` is in seconds, at most the window's length, which also stands for
            "never"; `time_since_fraud` is the time since the newest known fraud, in seconds, at most window and
            delay together, which also stand for "none".
        entity: the column whose values have a history each; None for features of the row alone.
        column: what is aggregated: `amount`, a column of the schema, or a feature declared above this one.
        window: the window's length in microseconds.
        delay: how far before the transaction the window ends, in microseconds.
        last_hour: for `night`: hours 0 up to and including this one (UTC) count as night.
        value: for `category`: the value whose presence is 1.
    """

    name: str
    kind: RowKind | DerivedKind | WindowKind
    entity: str | None = None
    column: str | None = None
    window: int = 0
    delay: int = 0
    last_hour: int = 6
    value: str | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns or features it is made of, for a windowed or derived feature."""
        return (self.column,) if self.entity and self.column else ()


class DerivedFeature(Feature, frozen=True, kw_only=True):
    """A feature of a row made of other features of it.

    A struct of its own, so that what it adds is no part of the other features' fingerprints.

    Attributes:
        by: for `ratio`: the feature that `column` is divided by; 0 where that is not above 0.
        threshold: for `above`: 1 where `column` exceeds it, else 0.
    """

    by: str | None = None
    threshold: float = 0.0

    @property
    def inputs(self) -> tuple[str, ...]:
        """The features it is made of."""
        return tuple(name for name in (self.column, self.by) if name)


class Declaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One `[[features]]` entry: a `Feature` for each of its windows or values."""

    kind: RowKind | DerivedKind | WindowKind
    name: str | None = None
    entity: str | None = None
    column: str | None = None
    windows: tuple[str, ...] = ()
    delay: str = "0"
    last_hour: int = 6
    values: tuple[str, ...] = ()
    by: str | None = None
    threshold: float | None = None

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
        if self.kind in DERIVED_KINDS:
            threshold = self.threshold or 0.0
            return (
                DerivedFeature(
                    name=str(self.name), kind=self.kind, column=self.column, by=self.by, threshold=threshold
                ),
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
        self._check_has("column", self.column, self.kind in _WITH_COLUMN)
        self._check_has("values", list(self.values), self.kind == "category")
        self._check_has("name", self.name, self.kind in DERIVED_KINDS)
        self._check_has("by", self.by, self.kind == "ratio")
        self._check_has("threshold", self.threshold, self.kind == "above")
        if self.name and not _NAME.fullmatch(self.name):
            raise UserError(f"feature name {self.name!r}: use small letters, digits and '_', such as 'amount_to_usual'")
        if any(parse_duration(window) <= 0 for window in self.windows):
            raise UserError(f"feature of kind {self.kind} of {self.entity}: a window must be longer than 0")
        if self.kind == "time_since_last" and self.delay != "0":
            raise UserError("feature of kind time_since_last takes no delay")
        if not 0 <= self.last_hour <= 23:
            raise UserError(f"feature of kind night: last_hour must be 0 to 23; found {self.last_hour}")

    def _check_has(self, name: str, found: object, needed: bool) -> None:
        if needed != (found is not None and found != []):
            takes = "needs" if needed else "takes no"
            raise UserError(f"feature of kind {self.kind} {takes} {name}; found {found!r}")


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

    def layers(self, entity: str) -> tuple[Layer, ...]:
        """What the stage of one entity computes, step by step."""
        return layers_of(self.features, entity)

    @cached_property
    def of_row(self) -> tuple[Feature, ...]:
        """The features that need no history, in order."""
        places = places_of(self.features)
        return tuple(feature for feature in self.features if places[feature.name].stage == 0)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns a batch must have: entities and aggregated columns, but for `amount` and features."""
        made = {"amount", *(f.name for f in self.features if f.kind != "number")}
        used = [name for f in self.features for name in (f.entity, f.column) if name and name not in made]
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
    """Refuse a set with no features, with two of one name, or with one made of what is not there yet.

    Raises:
        UserError: names the feature.
    """
    names = feature_set.names
    if not names:
        raise UserError(f"feature set {feature_set.name} declares no features")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"feature set {feature_set.name} declares {', '.join(twice)} more than once")
    places_of(feature_set.features)


def check_label_delay(feature_set: FeatureSet, label_delay: int) -> None:
    """Refuse features that would see a label before it could have arrived.

    Args:
        feature_set: the declared features.
        label_delay: how long after a transaction its label becomes known, in microseconds.

    Raises:
        UserError: the delay of a feature of `LABEL_KINDS` is shorter than that.
    """
    for feature in feature_set.features:
        if feature.kind in LABEL_KINDS and feature.delay < label_delay:
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
    if isinstance(feature, DerivedFeature):
        if feature.kind == "ratio":
            return f"{feature.column} as a multiple of {feature.by}"
        return f"whether {feature.column} is above {feature.threshold:g}"
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
    "known_frauds": "known frauds",
    "time_since_fraud": "seconds since the newest known fraud",
}
