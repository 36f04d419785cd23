"""EntityHistory against the slow oracle, for every aggregate, order and interruption."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.oracle import window_feature
from transforms.features import Declaration, Feature
from transforms.hashing import stable_hash
from transforms.history import EntityHistory, log_of, value_column
from transforms.history_kernels import Rows
from transforms.history_late import Labels

SECOND = 1_000_000
DECLARED = [
    Declaration(kind="count", entity="customer_id", windows=("5s", "60s")),
    Declaration(kind="count", entity="customer_id", windows=("20s",), delay="10s"),
    Declaration(kind="sum", entity="customer_id", column="amount", windows=("5s",)),
    Declaration(kind="mean", entity="customer_id", column="amount", windows=("5s", "60s")),
    Declaration(kind="mean", entity="customer_id", column="amount", windows=("20s",), delay="10s"),
    Declaration(kind="min", entity="customer_id", column="amount", windows=("5s", "60s")),
    Declaration(kind="max", entity="customer_id", column="amount", windows=("20s",), delay="10s"),
    Declaration(kind="max", entity="customer_id", column="amount", windows=("20s",)),
    Declaration(kind="distinct", entity="customer_id", column="location", windows=("5s", "60s")),
    Declaration(kind="distinct", entity="customer_id", column="location", windows=("20s",), delay="10s"),
    Declaration(kind="time_since_last", entity="customer_id", windows=("30s",)),
    Declaration(kind="risk", entity="customer_id", windows=("5s", "60s"), delay="10s"),
    Declaration(kind="known_frauds", entity="customer_id", windows=("20s",), delay="10s"),
    Declaration(kind="time_since_fraud", entity="customer_id", windows=("5s", "60s"), delay="10s"),
]
FEATURES: tuple[Feature, ...] = tuple(f for d in DECLARED for f in d.expand())

row_strategy = st.fixed_dictionaries(
    {
        "customer": st.sampled_from("abc"),
        "second": st.integers(0, 120),
        "amount_minor": st.integers(1, 5),
        "location": st.sampled_from(["x", "y", "z"]),
        "is_fraud": st.integers(0, 1),
    }
)


BLANK = {"customer": "a", "amount_minor": 1, "location": "x", "is_fraud": 0}


def as_rows(rows: Sequence[dict[str, Any]], history: EntityHistory) -> Rows:
    columns = {"amount": pa.array([r["amount_minor"] for r in rows], pa.int64())}
    columns["location"] = pa.array([r["location"] for r in rows], pa.string())
    values = [value_column(name, columns[name]) for name in history.columns]
    return Rows(
        stable_hash(pa.array([r["customer"] for r in rows], pa.string())),
        np.array([r["event_time"] for r in rows], dtype=np.int64),
        np.column_stack(values) if values else np.empty((len(rows), 0), dtype=np.int64),
        np.array([r["is_fraud"] for r in rows], dtype=np.int8),
        np.array([r["id"] for r in rows], dtype=np.uint64),
    )


def numbered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**r, "event_time": r["second"] * SECOND, "id": at + 1} for at, r in enumerate(rows)]


def expected(rows: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    past: dict[str, list[dict[str, Any]]] = {}
    result = []
    for row in rows:
        mine = past.setdefault(row["customer"], [])
        mine.append(row)
        mine.sort(key=lambda r: r["event_time"])  # stable: a late row stands after its peers
        upto = mine[: next(i for i, r in enumerate(mine) if r["id"] == row["id"]) + 1]
        result.append([window_feature(f, row, upto) for f in FEATURES])
    return np.array(result).reshape(len(rows), len(FEATURES))


@given(st.lists(row_strategy, max_size=60))
def test_rows_in_order_match_the_oracle_at_every_prefix(rows: list[dict[str, Any]]) -> None:
    """In event-time order every feature of every row equals the oracle's, and no row is late."""
    ordered = numbered(sorted(rows, key=lambda r: r["second"]))
    history = EntityHistory(FEATURES)
    out, late = history.observe(as_rows(ordered, history))
    np.testing.assert_array_equal(out, expected(ordered))
    assert not late.any()


@given(st.lists(row_strategy, max_size=40))
def test_late_rows_see_and_join_the_past_as_of_their_time(rows: list[dict[str, Any]]) -> None:
    """In any order a row's features are those of the rows that had come, as of its event time."""
    arrived = numbered(rows)
    history = EntityHistory(FEATURES, lateness=120 * SECOND)
    out, late = history.observe(as_rows(arrived, history))
    np.testing.assert_array_equal(out, expected(arrived))
    newest: dict[str, int] = {}
    for row, was_late in zip(arrived, late, strict=True):
        assert was_late == (row["event_time"] < newest.get(row["customer"], -1))
        newest[row["customer"]] = max(newest.get(row["customer"], -1), row["event_time"])


@given(
    st.lists(row_strategy, max_size=60),
    st.lists(st.integers(0, 60), max_size=3),
    st.booleans(),
    st.sampled_from([0, 60]),
)
@example([{**BLANK, "customer": name, "second": at} for name, at in [("b", 0), ("b", 20), ("a", 71)]], [2], True, 60)
def test_cutting_and_restoring_changes_no_bit(
    rows: list[dict[str, Any]], cuts: list[int], compact: bool, ahead: int
) -> None:
    """However rows are cut into calls, and if the history is rebuilt from its log between them, all is equal.

    So it is where one customer's rows, from a partition of their own, come ahead of the others' by the longest window.
    """
    ordered = numbered(sorted(rows, key=lambda r: r["second"] - (ahead if r["customer"] == "a" else 0)))
    whole = EntityHistory(FEATURES)
    once, _ = whole.observe(as_rows(ordered, whole))
    history, log, parts = EntityHistory(FEATURES), [], []
    edges = [0, *sorted(min(c, len(ordered)) for c in cuts), len(ordered)]
    for start, end in pairwise(edges):
        rows_now = as_rows(ordered[start:end], history)
        parts.append(history.observe(rows_now)[0])
        log.append(log_of(rows_now))
        if compact and end > start:
            log = [history.snapshot(max(row["event_time"] for row in ordered[:end]))]
        history = EntityHistory(FEATURES)
        history.restore(log)
    np.testing.assert_array_equal(np.concatenate(parts), once)


@given(st.lists(row_strategy, min_size=1, max_size=40), st.integers(1, 10))
@settings(deadline=None)
def test_labels_that_arrive_later_equal_labels_known_at_once(rows: list[dict[str, Any]], wait: int) -> None:
    """With a label delay no longer than the features' delay, a label stream gives what inline labels give."""
    ordered = numbered(sorted(rows, key=lambda r: r["second"]))
    inline = EntityHistory(FEATURES)
    once, _ = inline.observe(as_rows(ordered, inline))
    history = EntityHistory(FEATURES)
    told = as_rows(ordered, history)
    labels = Labels(told.time + wait * SECOND, told.entity, told.time, told.ids, told.fraud)
    out, _ = history.observe(told._replace(fraud=np.zeros_like(told.fraud)), labels)
    np.testing.assert_array_equal(out, once)
    assert history.unknown_labels == 0


def test_what_can_no_longer_matter_is_let_go() -> None:
    """An entity's rows by its own newest one; all of a quiet entity after twice as long as a row matters, 70 s here."""
    seconds = [("a", 0), ("b", 1), ("a", 70), ("b", 59)]
    rows = numbered([{**BLANK, "customer": customer, "second": second} for customer, second in seconds])
    history = EntityHistory(FEATURES)
    history.observe(as_rows(rows, history))
    kept = [sorted(history.snapshot(now * SECOND)[2] // SECOND) for now in (70, 198, 199, 209, 210)]
    assert kept == [[1, 59, 70], [1, 59, 70], [70], [70], []]


def test_a_label_of_a_transaction_that_is_not_held_is_counted() -> None:
    """Labels of a stranger and of a transaction that has expired change no feature and are counted."""
    rows = numbered([{**BLANK, "second": second} for second in (0, 99)])
    history = EntityHistory(FEATURES)
    told = as_rows(rows, history)
    history.observe(told)
    stranger = stable_hash(pa.array(["stranger"]))
    entity = np.concatenate([stranger, told.entity[:1]])
    time, ids = np.array([0, 0]), np.array([77, told.ids[0]], dtype=np.uint64)
    history.observe(as_rows([], history), Labels(time + 100 * SECOND, entity, time, ids, np.ones(2, dtype=np.int8)))
    assert history.unknown_labels == 2


def test_a_history_that_grows_after_much_has_expired_matches_the_oracle() -> None:
    """Quiet spells and bursts of one customer, late rows among them: rings wrap, expire and grow; no value is lost."""
    rng = np.random.default_rng(11)
    gaps = np.where(np.arange(900) // 90 % 2, rng.random(900) * 0.3, rng.random(900) * 12)
    seconds = np.cumsum(gaps) - 3 * (rng.random(900) < 0.02)
    rows = [
        {
            "customer": "a",
            "event_time": int(second * SECOND),
            "amount_minor": int(amount),
            "location": "xyz"[amount % 3],
            "is_fraud": int(amount == 1),
            "id": at + 1,
        }
        for at, (second, amount) in enumerate(zip(seconds, rng.integers(1, 50, 900), strict=True))
    ]
    history = EntityHistory(FEATURES, lateness=60 * SECOND)
    out, late = history.observe(as_rows(rows, history))
    np.testing.assert_array_equal(out, expected(rows))
    assert late.any()


def test_a_missing_entity_has_no_past() -> None:
    """Rows whose entity is missing share no history: their windows are empty."""
    history = EntityHistory(FEATURES)
    row = numbered([{"customer": None, "second": s, "amount_minor": 5, "location": "x", "is_fraud": 0} for s in (1, 2)])
    out, _ = history.observe(as_rows(row, history))
    since = [f.kind for f in FEATURES].index("time_since_last")
    longest = {f.name: (f.window + f.delay) / SECOND for f in FEATURES if f.kind.startswith("time_since")}
    assert {f.name: value for f, value in zip(FEATURES, out[1], strict=True) if value} == longest
    assert out[:, since].tolist() == [30.0, 30.0]


@pytest.mark.parametrize("rows", [20_000, 80_000])
def test_memory_follows_the_open_windows_not_the_input(rows: int) -> None:
    """Four times the input over the same rate holds no more entries and at most 200 bytes for each."""
    features = Declaration(kind="mean", entity="customer_id", column="amount", windows=("60s",)).expand()
    history = EntityHistory(features)
    rng = np.random.default_rng(0)
    time = np.arange(rows, dtype=np.int64) * (SECOND // 100)
    entity = rng.integers(1, 100, rows).astype(np.uint64)
    ids = np.arange(rows, dtype=np.uint64)
    history.observe(Rows(entity, time, rng.integers(1, 9, (rows, 1)), np.zeros(rows, np.int8), ids))
    assert history.live_entries < 2 * 6_000
    assert history.bytes_held <= 200 * history.live_entries
