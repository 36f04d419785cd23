"""Features computed the slow, obvious way: what every fast path is held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transforms.features import DerivedFeature, Feature

Row = Mapping[str, Any]


def window_feature(feature: Feature, row: Row, past: Sequence[Row], minor_digits: int = 2) -> float:
    """One feature of `row`, given its entity's rows up to and including it, in order.

    Rows are mappings with `event_time` in microseconds, `amount_minor`, `is_fraud` (1 where a label had
    arrived and said so) and the schema's own columns.
    """
    now = row["event_time"]
    if feature.kind == "time_since_last":
        before = past[:-1]
        longest = feature.window / 1e6
        return min(longest, (now - before[-1]["event_time"]) / 1e6) if before else longest
    until = now - feature.delay
    inside = [r for r in past if until - feature.window < r["event_time"] <= until]
    if feature.kind == "count":
        return float(len(inside))
    if feature.kind == "risk":
        return sum(r["is_fraud"] for r in inside) / len(inside) if inside else 0.0
    if feature.kind == "known_frauds":
        return float(sum(r["is_fraud"] for r in inside))
    if feature.kind == "time_since_fraud":
        frauds = [r["event_time"] for r in inside if r["is_fraud"]]
        return (now - max(frauds)) / 1e6 if frauds else (feature.window + feature.delay) / 1e6
    column = "amount_minor" if feature.column == "amount" else str(feature.column)
    values = [r[column] for r in inside]
    if feature.kind == "distinct":
        return float(len(set(values)))
    if not values:
        return 0.0
    scale = 10**minor_digits if feature.column == "amount" else 1
    if feature.kind == "mean":
        return float(sum(values) / (scale * len(values)))
    return float({"sum": sum(values), "min": min(values), "max": max(values)}[feature.kind] / scale)


def derived_feature(feature: DerivedFeature, row: Row) -> float:
    """One feature of `row` made of others that it has."""
    value = row[str(feature.column)]
    if feature.kind == "above":
        return float(value > feature.threshold)
    by = row[str(feature.by)]
    return float(value / by) if by > 0 else 0.0


def all_features(features: Sequence[Feature], rows: Sequence[Row], minor_digits: int = 2) -> list[dict[str, Any]]:
    """The rows, which come in this order, each with its features as they were when it came.

    A row that comes late stands among the others at its time, after those of the same time. Of kinds of the row alone
    only `amount` is known here.
    """
    taken: list[dict[str, Any]] = []
    for given in rows:
        row = dict(given)
        for f in features:
            if isinstance(f, DerivedFeature):
                row[f.name] = derived_feature(f, row)
            elif f.entity:
                mine = sorted((r for r in [*taken, row] if r[f.entity] == row[f.entity]), key=lambda r: r["event_time"])
                upto = mine[: next(at for at, r in enumerate(mine) if r is row) + 1]
                row[f.name] = window_feature(f, row, upto, minor_digits)
            else:
                row[f.name] = row["amount_minor"] / 10**minor_digits
        taken.append(row)
    return taken
