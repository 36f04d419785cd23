"""Features made of other features: what may be declared, and the stages against the slow oracle."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracle import all_features
from transforms.batch import TransactionBatch, from_rows
from transforms.enrich import EntityEngine
from transforms.errors import UserError
from transforms.features import FeatureSet, check_feature_set, check_label_delay, describe, load_feature_set
from transforms.labels import as_labels

SECOND = 1_000_000
DECLARED: list[dict[str, Any]] = [
    {"kind": "amount"},
    {"kind": "above", "name": "large", "column": "amount", "threshold": 0.03},
    {"kind": "mean", "entity": "customer_id", "column": "amount", "windows": ["60s"]},
    {"kind": "ratio", "name": "high", "column": "amount", "by": "customer_amount_mean_1m"},
    {"kind": "above", "name": "unusual", "column": "high", "threshold": 1.25},
    {"kind": "sum", "entity": "customer_id", "column": "unusual", "windows": ["5s", "20s"]},
    {"kind": "mean", "entity": "customer_id", "column": "large", "windows": ["20s"]},
    {"kind": "above", "name": "often", "column": "customer_unusual_sum_20s", "threshold": 1},
    {"kind": "max", "entity": "customer_id", "column": "often", "windows": ["30s"]},
    {"kind": "mean", "entity": "terminal_id", "column": "unusual", "windows": ["20s"]},
    {"kind": "sum", "entity": "terminal_id", "column": "unusual", "windows": ["20s"], "delay": "5s"},
    {"kind": "known_frauds", "entity": "terminal_id", "windows": ["20s"], "delay": "5s"},
    {"kind": "time_since_fraud", "entity": "terminal_id", "windows": ["20s"], "delay": "5s"},
]


def made(*declared: dict[str, Any]) -> FeatureSet:
    """A feature set of these entries, checked."""
    feature_set = msgspec.convert({"name": "small", "features": list(declared)}, FeatureSet)
    check_feature_set(feature_set)
    return feature_set


FEATURES = made(*DECLARED)

rows_strategy = st.lists(
    st.fixed_dictionaries(
        {
            "customer_id": st.sampled_from("ab"),
            "terminal_id": st.sampled_from("xy"),
            "second": st.integers(0, 90),
            "amount_minor": st.integers(1, 6),
            "is_fraud": st.integers(0, 1),
        }
    ),
    min_size=1,
    max_size=30,
)


def numbered(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with ids and times."""
    return [{**r, "event_time": r["second"] * SECOND, "transaction_id": f"{at:03}"} for at, r in enumerate(rows)]


def as_batch(rows: Sequence[dict[str, Any]]) -> TransactionBatch:
    return from_rows([{key: value for key, value in row.items() if key != "second"} for row in rows])


def engines(inline_labels: bool = True) -> list[EntityEngine]:
    return [EntityEngine(FEATURES, entity, 90 * SECOND, inline_labels) for entity in FEATURES.entities]


def enriched(rows: Sequence[dict[str, Any]], stages: Sequence[EntityEngine]) -> tuple[Any, list[list[Any]]]:
    """The matrix of the rows taken in this order, and each stage's log."""
    batch, logs = as_batch(rows), list[list[Any]]()
    for engine in stages:
        taken = engine.take(batch, None)
        assert taken.rows is not None
        batch = taken.rows
        logs.append(taken.log)
    return np.column_stack([batch.numpy(name) for name in FEATURES.names]), logs


def expected(rows: Sequence[dict[str, Any]]) -> Any:
    found = all_features(FEATURES.features, rows)
    return np.array([[row[name] for name in FEATURES.names] for row in found])


@given(rows_strategy)
@settings(max_examples=40, deadline=None)
def test_features_of_features_match_the_oracle_in_any_order(rows: list[dict[str, Any]]) -> None:
    """Layer upon layer and stage after stage, for rows in order and late ones, all is equal to the bit."""
    for order in (sorted(rows, key=lambda r: int(r["second"])), rows):
        arrived = numbered(order)
        np.testing.assert_array_equal(enriched(arrived, engines())[0], expected(arrived))


@given(rows_strategy, st.lists(st.integers(0, 30), max_size=3), st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_cutting_and_restoring_changes_no_bit(
    rows: list[dict[str, Any]], cuts: list[int], compact: bool, in_order: bool
) -> None:
    """However rows are cut, with every stage rebuilt from its log or its snapshot in between, all is equal."""
    arrived = numbered(sorted(rows, key=lambda r: int(r["second"])) if in_order else rows)
    once, _ = enriched(arrived, engines())
    stages, logs, parts = engines(), [[], []], []  # type: tuple[list[EntityEngine], list[list[Any]], list[Any]]
    edges = [0, *sorted(min(cut, len(arrived)) for cut in cuts), len(arrived)]
    for start, end in pairwise(edges):
        if start == end:
            continue
        part, more = enriched(arrived[start:end], stages)
        parts.append(part)
        newest = max(row["event_time"] for row in arrived[:end])
        for at, engine in enumerate(stages):
            logs[at] = [engine.snapshot(newest)] if compact else [*logs[at], *more[at]]
        stages = engines()
        for engine, log in zip(stages, logs, strict=True):
            engine.restore(log)
    np.testing.assert_array_equal(np.concatenate(parts), once)


@given(rows_strategy)
@settings(max_examples=30, deadline=None)
def test_a_label_taken_back_is_as_if_it_had_never_been(rows: list[dict[str, Any]]) -> None:
    """Labels that arrive and are corrected leave what the corrected ones alone would have left."""
    ordered = numbered(sorted(rows, key=lambda r: int(r["second"])))
    now = {"second": 95, "amount_minor": 2, "is_fraud": 0, "customer_id": "a"}
    last = numbered([{**now, "terminal_id": terminal} for terminal in "xy"])
    last = [{**row, "transaction_id": f"last{at}"} for at, row in enumerate(last)]
    stages = engines(inline_labels=False)
    enriched(ordered, stages)
    told = [as_labels(as_batch([{**r, "is_fraud": 1} for r in ordered]), delay=1)[0]]
    told.append(as_labels(as_batch(ordered), delay=1)[0])
    for engine in stages:
        for labels in told:
            engine.take(None, labels)
    np.testing.assert_array_equal(enriched(last, stages)[0], expected([*ordered, *last])[-2:])


def test_the_columns_of_a_schema_are_what_no_feature_makes() -> None:
    """A batch need bring only entities and columns that are no features."""
    assert FEATURES.columns == ("customer_id", "terminal_id")


def test_names_and_words() -> None:
    """A windowed feature over a feature is named after it, and each is told in words."""
    assert "customer_unusual_sum_20s" in FEATURES.names
    words = {f.name: describe(f) for f in FEATURES.features}
    assert words["high"] == "amount as a multiple of customer_amount_mean_1m"
    assert words["unusual"] == "whether high is above 1.25"
    assert words["terminal_known_frauds_20s_delay_5s"] == "known frauds of the terminal within 20s, up to 5s before"


def test_shipped_feature_sets_keep_their_fingerprints() -> None:
    """What models in use were trained on means the same as ever."""
    found = {name: load_feature_set(name).fingerprint for name in ("handbook", "transaction-events", "creditcard")}
    assert found == FINGERPRINTS


FINGERPRINTS = {
    "handbook": "94828c4470086fb8",
    "transaction-events": "1e43e74e49890c81",
    "creditcard": "196788550e93a569",
}

AMOUNT = {"kind": "amount"}
RATIO = {"kind": "ratio", "name": "high", "column": "amount", "by": "customer_amount_mean_1m"}
BAD: list[tuple[list[dict[str, Any]], str]] = [
    ([AMOUNT, RATIO], "high is made of customer_amount_mean_1m, which is not a feature declared above it"),
    ([{"kind": "above", "name": "x", "column": "amount", "threshold": 1}], "not a feature declared above"),
    ([AMOUNT, {"kind": "above", "name": "x", "column": "amount"}], "above needs threshold; found None"),
    ([AMOUNT, {"kind": "ratio", "name": "x", "column": "amount"}], "ratio needs by; found None"),
    ([AMOUNT, {"kind": "above", "column": "amount", "threshold": 1}], "above needs name; found None"),
    ([AMOUNT, {"kind": "above", "name": "Not good", "column": "amount", "threshold": 1}], "use small letters"),
    ([{"kind": "amount", "name": "x"}], "amount takes no name"),
    (
        [
            {"kind": "count", "entity": "customer_id", "windows": ["1d"]},
            {"kind": "count", "entity": "terminal_id", "windows": ["1d"]},
            {"kind": "above", "name": "busy", "column": "terminal_count_1d", "threshold": 3},
            {"kind": "sum", "entity": "customer_id", "column": "busy", "windows": ["1d"]},
        ],
        "customer_busy_sum_1d looks at busy, but the history of customer_id is taken before that is known",
    ),
]


@pytest.mark.parametrize(("declared", "message"), BAD)
def test_what_cannot_be_computed_is_refused(declared: list[dict[str, Any]], message: str) -> None:
    """The error names the feature and what it lacks."""
    with pytest.raises(UserError, match=message):
        made(*declared)


@pytest.mark.parametrize("kind", ["known_frauds", "time_since_fraud"])
def test_features_of_labels_wait_for_them(kind: str) -> None:
    """A kind that looks at labels is refused with a delay shorter than theirs."""
    features = made({"kind": kind, "entity": "terminal_id", "windows": ["7d"], "delay": "1d"})
    with pytest.raises(UserError, match="sees labels 1d after the transaction"):
        check_label_delay(features, 7 * 86_400 * SECOND)
