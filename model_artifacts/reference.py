"""What the data looked like when a model was trained: histograms that later data is compared with.

It lies beside the model as `reference.json`. A model without one scores as ever; only drift cannot be told.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Meta
from numpy.typing import NDArray

from model_artifacts.manifest import Manifest
from transforms.errors import UserError

REFERENCE_FILE = "reference.json"
REFERENCE_VERSION = 1

#: Edges are percentiles, so that a bin holds a hundredth of the rows, or one value that is more frequent than that.
BINS = 100
#: Values of a text column that are told apart; the rest count as one.
MOST_VALUES = 100

_Count = Annotated[int, Meta(ge=0)]


class NumberReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="number"):
    """The histogram of a column of numbers.

    Attributes:
        name: the column's.
        edges: rising; bin 0 is what is at most the first, bin i what is above edge i - 1 and at most edge i, the last
            bin what is above all. The last edge is the largest value, so the last bin held nothing.
        counts: rows in each bin, one more than there are edges.
        missing: rows that had no finite value.
    """

    name: str
    edges: tuple[float, ...]
    counts: tuple[_Count, ...]
    missing: _Count = 0


class TextReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag="text"):
    """How often a column of text had which value.

    Attributes:
        name: the column's.
        values: those told apart, the most frequent first.
        counts: rows with each, and last the rows with any other.
        missing: rows that had none.
    """

    name: str
    values: tuple[str, ...]
    counts: tuple[_Count, ...]
    missing: _Count = 0


ColumnReference = NumberReference | TextReference


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The distribution of each column that is watched.

    Attributes:
        model_id: of the model whose features and scores these are.
        fingerprint: of its feature set.
        made_from: where the rows came from, for people.
        columns: of features, of text columns, and of the score.
    """

    format_version: int = REFERENCE_VERSION
    model_id: str
    fingerprint: str
    made_from: str
    columns: tuple[ColumnReference, ...]

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that differ for references that cut columns into other bins."""
        bins = [(c.name, c.edges if isinstance(c, NumberReference) else c.values) for c in self.columns]
        return hashlib.sha256(msgspec.json.encode(bins)).hexdigest()[:16]


def number_reference(name: str, values: NDArray[np.float64]) -> NumberReference:
    """The histogram of some numbers, with percentiles for edges; NaN and infinities count as missing.

    Raises:
        UserError: not one of them is a finite number.

    Example:
        >>> number_reference("night", np.array([0.0, 0.0, 1.0, np.nan]))
        NumberReference(name='night', edges=(0.0, 1.0), counts=(2, 1, 0), missing=1)
    """
    finite = np.sort(values[np.isfinite(values)])
    if not len(finite):
        raise UserError(f"column {name} has no finite value in {len(values)} rows, so there is nothing to compare with")
    places = np.ceil(np.arange(1, BINS + 1) / BINS * len(finite)).astype(np.int64) - 1
    edges = np.unique(finite[places])
    counts = np.bincount(np.searchsorted(edges, finite, side="left"), minlength=len(edges) + 1)
    missing = len(values) - len(finite)
    return NumberReference(name=name, edges=tuple(edges.tolist()), counts=tuple(counts.tolist()), missing=missing)


def text_reference(name: str, values: pa.Array | pa.ChunkedArray) -> TextReference:
    """How often each of some texts occurs.

    Example:
        >>> text_reference("merchant_category", pa.array(["Fuel", "Food", None, "Food"]))
        TextReference(name='merchant_category', values=('Food', 'Fuel'), counts=(2, 1, 0), missing=1)
    """
    found = [(row["values"], row["counts"]) for row in pc.value_counts(values.cast(pa.string())).to_pylist()]
    ranked = sorted(((text, count) for text, count in found if text is not None), key=lambda row: (-row[1], row[0]))
    told, rest = ranked[:MOST_VALUES], ranked[MOST_VALUES:]
    counts = (*(count for _, count in told), sum(count for _, count in rest))
    return TextReference(
        name=name, values=tuple(text for text, _ in told), counts=counts, missing=int(values.null_count)
    )


def column_references(rows: pa.Table, numbers: Iterable[str], texts: Iterable[str]) -> tuple[ColumnReference, ...]:
    """The references of some columns of a table.

    Raises:
        UserError: a column is absent, or has no value at all.
    """
    for name in (*numbers, *texts):
        if name not in rows.column_names:
            raise UserError(f"there is no column {name}; found {', '.join(rows.column_names)}")
    told: list[ColumnReference] = [number_reference(name, floats(rows.column(name))) for name in numbers]
    return (*told, *(text_reference(name, rows.column(name)) for name in texts))


def floats(values: pa.Array | pa.ChunkedArray) -> NDArray[np.float64]:
    """A column as floats, with NaN for null."""
    if not pa.types.is_float64(values.type):
        values = values.cast(pa.float64())
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)


def reference_bytes(reference: Reference) -> bytes:
    """The contents of `reference.json`."""
    return msgspec.json.encode(reference) + b"\n"


def write_reference(path: Path, reference: Reference) -> None:
    """Write `reference`, whole or not at all.

    Raises:
        UserError: it cannot be written there.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_bytes(reference_bytes(reference))
        os.replace(fresh, path)
    except OSError as error:
        raise UserError(f"reference {path} cannot be written: {error.strerror}") from error


def load_reference(path: Path, manifest: Manifest) -> Reference | None:
    """The reference in a file, checked against the model whose decisions are compared with it; None: no such file.

    Raises:
        UserError: it cannot be read, contradicts itself, or is of other features.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"reference {path} cannot be read: {error.strerror}") from error
    return read_reference(content, manifest, str(path))


def read_reference(content: bytes, manifest: Manifest, place: str) -> Reference:
    """The reference of its JSON, checked likewise.

    Args:
        content: what `reference_bytes` gave.
        manifest: of the model.
        place: where it is, for messages.

    Raises:
        UserError: as `load_reference`.
    """
    try:
        version = msgspec.json.decode(content, type=_Versioned).format_version
        if version != REFERENCE_VERSION:
            raise UserError(f"format_version is {version}; this release reads {REFERENCE_VERSION}")
        reference = msgspec.json.decode(content, type=Reference)
        _check(reference, manifest)
    except (msgspec.DecodeError, UserError) as error:
        raise UserError(
            f"reference {place}: {error}. Make another: python -m pipelines.monitor reference --help"
        ) from error
    return reference


class _Versioned(msgspec.Struct):
    format_version: int


def _check(reference: Reference, manifest: Manifest) -> None:
    if reference.fingerprint != manifest.fingerprint:
        raise UserError(
            f"it is of the features {reference.fingerprint}, model {manifest.model_id} has {manifest.fingerprint}"
        )
    names = [column.name for column in reference.columns]
    if not names or len(set(names)) < len(names):
        raise UserError(f"it must name columns, each once; found {', '.join(names) or 'none'}")
    for column in reference.columns:
        told: tuple[Any, ...] = column.edges if isinstance(column, NumberReference) else column.values
        if len(column.counts) != len(told) + 1 or not sum(column.counts) + column.missing:
            raise UserError(f"column {column.name} has {len(told)} edges or values and {len(column.counts)} counts")
        if isinstance(column, NumberReference) and not _rising(column.edges):
            raise UserError(f"the edges of column {column.name} must be finite and rise")


def _rising(edges: tuple[float, ...]) -> bool:
    array = np.asarray(edges)
    return bool(len(edges) and np.isfinite(array).all() and (np.diff(array) > 0).all())
