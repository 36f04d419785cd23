"""Whole columns at once: the fast twin of `transforms.validate`.

Every function gives null where it is not sure, and is sure only of values that `validate` accepts with
the same result; the caller looks at the other rows one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.batch import EVENT_TIME
from transforms.schema import Column, ColumnType
from transforms.validate import (
    AMOUNT_NOISE,
    LABEL_TEXTS,
    MICROS,
    MOST_AMOUNT_NOISE,
    Rules,
    epoch_micros,
    is_needed,
)

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Floats = np.ndarray[Any, np.dtype[np.float64]]

#: The Arrow type of each kind of column after conversion.
ARROW_TYPES: dict[ColumnType, pa.DataType] = {
    "id": pa.string(),
    "category": pa.string(),
    "amount": pa.int64(),
    "time": EVENT_TIME,
    "label": pa.int8(),
    "number": pa.float64(),
}

_EXACT = float(2**53)  # whole numbers up to here are exact as floats
_MOST_MINOR = float(2**42)  # below it floats lie closer together than the noise that amounts may have
_FEW = 16  # rows that are not worth another attempt together
_LABELS = pa.array(LABEL_TEXTS)
_TEXT = (pa.string(), pa.large_string(), pa.string_view())
_BYTES = (pa.binary(), pa.large_binary(), pa.binary_view())


def convert(values: pa.Array, name: str, column: Column, rules: Rules) -> tuple[pa.Array, Mask]:
    """One column of the pipeline from one of the source.

    Args:
        values: as read: text, bytes or typed.
        name: the pipeline's name of the column.
        column: its declaration.
        rules: what to judge by.

    Returns:
        The column, of type `ARROW_TYPES[column.type]`, and for each row whether its value is certain.
        A row that is not may be good or bad: ask `validate_record`.
    """
    decoded = _decode(values)
    sure = present(decoded) | ~present(values)
    filled = _blanks_to_null(decoded, column)
    converted = _CONVERT[column.type](filled, column, rules)
    sure &= present(converted) if is_needed(name, column) else present(converted) | ~present(filled)
    return converted, sure


def widen(values: pa.Array) -> pa.Array:
    """Short floats as what they were written for: 57.16 as a 32-bit float is 57.15999984..., but reads 57.16."""
    if pa.types.is_float16(values.type) or pa.types.is_float32(values.type):
        return values.cast(pa.float32()).cast(pa.string()).cast(pa.float64())
    return values


def present(values: pa.Array) -> Mask:
    """For each value whether it is there."""
    if values.null_count == 0:
        return np.ones(len(values), dtype=np.bool_)
    return np.asarray(values.is_valid())


def _decode(values: pa.Array) -> pa.Array:
    """Text of whatever kind as plain Arrow text, null where it is not UTF-8; the rest as it is."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if values.type in _TEXT:  # Parquet readers do not look whether text is UTF-8
        return _cast(values.cast(pa.string()).cast(pa.binary()), pa.string())
    if values.type in _BYTES or pa.types.is_fixed_size_binary(values.type):
        return _cast(values.cast(pa.binary()), pa.string())
    return values


def _blanks_to_null(values: pa.Array, column: Column) -> pa.Array:
    """Empty text is a missing value, and so is NaN where a number is not what is asked for."""
    if len(values) == 0:
        return values
    if pa.types.is_string(values.type):
        length = pc.binary_length(values)
        return pc.if_else(pc.equal(length, 0), None, values) if pc.min(length).as_py() == 0 else values
    if pa.types.is_floating(values.type) and column.type not in ("amount", "number"):
        gaps = pc.is_nan(values)
        return pc.if_else(gaps, None, values) if pc.any(gaps).as_py() else values
    return values


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """`values` as `kind`, null where that cannot be: halved until what fails stands among few."""
    try:
        return values.cast(kind)
    except pa.ArrowInvalid:
        if len(values) <= _FEW:
            return pa.nulls(len(values), kind)
        half = len(values) // 2
        return pa.concat_arrays([_cast(values.slice(0, half), kind), _cast(values.slice(half), kind)])


def _floats(values: pa.Array) -> pa.Array | None:
    """Numbers and text of numbers as float64; None when the column holds something else."""
    kind = values.type
    if pa.types.is_string(kind):
        return _cast(values, pa.float64())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return values.cast(pa.float64(), safe=False)
    if pa.types.is_decimal(kind):
        return values.cast(pa.string()).cast(pa.float64())  # by itself Arrow's cast is an ulp off at times
    return None


def _to_text(values: pa.Array, column: Column, rules: Rules) -> pa.Array:
    kind = values.type
    if pa.types.is_string(kind):
        return values
    whole_decimal = pa.types.is_decimal(kind) and kind.scale == 0
    if pa.types.is_integer(kind) or whole_decimal or (pa.types.is_boolean(kind) and column.type == "category"):
        return values.cast(pa.string())
    if pa.types.is_floating(kind) and rules.typed:
        numbers = _numpy(values.cast(pa.float64()))
        whole = (np.abs(numbers) <= _EXACT) & (np.rint(numbers) == numbers)
        return pa.array(np.where(whole, numbers, 0).astype(np.int64), mask=~whole).cast(pa.string())
    return pa.nulls(len(values), pa.string())


def _to_minor_units(values: pa.Array, column: Column, rules: Rules) -> pa.Array:
    """Exact: up to `_MOST_MINOR` the nearest float of an amount scales to the same nearest integer."""
    floats = _floats(values)
    if floats is None:
        return pa.nulls(len(values), pa.int64())
    major = _numpy(floats)
    most = min(float(rules.schema.most_amount_minor), _MOST_MINOR)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite amounts are not sure, no more
        exact = major * 10.0**column.minor_digits
        minor = np.rint(exact)
        # Half the tolerance: what lies at its very edge is left to decimal arithmetic.
        noise = np.minimum(AMOUNT_NOISE * np.maximum(minor, 1), MOST_AMOUNT_NOISE) / 2
        sure = ~np.signbit(major) & (minor <= most) & (np.abs(exact - minor) <= noise)
    return pa.array(np.where(sure, minor, 0).astype(np.int64), mask=~sure)


def _to_time(values: pa.Array, column: Column, rules: Rules) -> pa.Array:
    kind = values.type
    if pa.types.is_string(kind) and column.unit == "iso":
        times = _iso_times(values)
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        times = _typed_times(values)
    elif column.unit != "iso" and (floats := _floats(values)) is not None:
        times = _numeric_times(floats, column)
    else:
        return pa.nulls(len(values), EVENT_TIME)
    micros = times.fill_null(rules.earliest - 1).to_numpy(zero_copy_only=False)
    sure = (micros >= rules.earliest) & (micros <= rules.latest)
    return pa.array(micros, mask=~sure).view(EVENT_TIME)


def _iso_times(text: pa.Array) -> pa.Array:
    """Microseconds; Arrow reads text with an offset as one type and text without as another."""
    zoned, local = EVENT_TIME, pa.timestamp("us")
    first = text.drop_null().slice(0, 1)
    try:
        first.cast(zoned)
        kinds = (zoned, local)
    except pa.ArrowInvalid:
        kinds = (local, zoned)
    times = _cast(text, kinds[0]).view(pa.int64())
    left = present(text) & ~present(times)
    if left.any():
        others = _cast(text.filter(pa.array(left)), kinds[1]).view(pa.int64())
        times = pc.replace_with_mask(times, pa.array(left), others)
    return times


def _typed_times(values: pa.Array) -> pa.Array:
    """Microseconds of timestamps and dates; without a zone they are UTC."""
    kind = values.type
    if pa.types.is_date32(kind):
        counts, factor = values.view(pa.int32()).cast(pa.int64()), 86_400_000_000
    elif pa.types.is_date64(kind):
        counts, factor = values.view(pa.int64()), MICROS["ms"]
    else:
        counts, factor = values.view(pa.int64()), MICROS.get(kind.unit, 0)
    ticks = counts.fill_null(0).to_numpy(zero_copy_only=False)
    if factor == 0:
        return pa.array(ticks // 1000, mask=~present(values))
    # What overflows must not wrap round into a time that looks right.
    fits = np.abs(ticks.astype(np.float64)) < 2.0**63 / factor
    return pa.array(np.where(fits, ticks, 0) * factor, mask=~(fits & present(values)))


def _numeric_times(floats: pa.Array, column: Column) -> pa.Array:
    with np.errstate(over="ignore"):  # an infinite time is not sure, no more
        micros = np.rint(_numpy(floats) * MICROS[column.unit])
    fits = np.abs(micros) <= _EXACT
    return pa.array(np.where(fits, micros, 0).astype(np.int64) + epoch_micros(column), mask=~fits)


def _to_label(values: pa.Array, column: Column, rules: Rules) -> pa.Array:
    kind = values.type
    if pa.types.is_boolean(kind):
        return values.cast(pa.int8())
    if pa.types.is_string(kind):
        places = pc.index_in(values, value_set=_LABELS)
        return pc.bit_wise_and(places, 1).cast(pa.int8())
    floats = _floats(values)
    if floats is None:
        return pa.nulls(len(values), pa.int8())
    numbers = _numpy(floats)
    sure = (numbers == 0) | (numbers == 1)
    return pa.array(np.where(sure, numbers, 0).astype(np.int8), mask=~sure)


def _to_number(values: pa.Array, column: Column, rules: Rules) -> pa.Array:
    floats = _floats(values)
    if floats is None:
        return pa.nulls(len(values), pa.float64())
    numbers = _numpy(floats)
    finite = np.isfinite(numbers)
    return floats if floats.null_count == 0 and finite.all() else pa.array(numbers, mask=~finite)


def _numpy(floats: pa.Array) -> Floats:
    """Floats with NaN for null."""
    return np.asarray(floats.to_numpy(zero_copy_only=False), dtype=np.float64)


_CONVERT: dict[ColumnType, Callable[[pa.Array, Column, Rules], pa.Array]] = {
    "id": _to_text,
    "category": _to_text,
    "amount": _to_minor_units,
    "time": _to_time,
    "label": _to_label,
    "number": _to_number,
}
