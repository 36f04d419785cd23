"""Features computed the slow, obvious way: what every fast path is held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transforms.features import Feature

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
