"""Comparing decisions, on tables small enough to count by hand; and what cannot be replayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from io_connectors.sources import Source
from pipelines.past import check_past
from pipelines.plan import make_plan
from pipelines.replay.compare import Comparison, How, compare_day
from pipelines.replay.decisions import decision_files, open_decisions
from pipelines.replay.period import midnight, period_of
from pipelines.settings import load_settings
from transforms.batch import CANONICAL_FIELDS, PROVENANCE_COLUMNS
from transforms.durations import DAY
from transforms.errors import UserError

COLUMNS = pa.schema(
    [
        *(field for field in CANONICAL_FIELDS if field.name not in PROVENANCE_COLUMNS),
        pa.field("shop", pa.string()),
        pa.field("speed", pa.float64()),
        pa.field("score", pa.float64()),
        pa.field("model_id", pa.string()),
        pa.field("decision", pa.string()),
        pa.field("reasons", pa.list_(pa.string())),
    ]
)
HOW = How(features=["speed"], mature_before=10 * DAY, by="shop")


def table(*rows: dict[str, Any]) -> pa.Table:
    """Decisions of day 5: each approved, at its own second, unless a row says otherwise."""
    usual = {
        "amount_minor": 1000, "is_fraud": 0, "late": False, "shop": "a", "speed": 1.0, "score": 0.1, "model_id": "m",
        "decision": "approve", "reasons": [],
    }  # fmt: skip
    filled = [{**usual, "event_time": 5 * DAY + at, "transaction_id": f"t{at}", **row} for at, row in enumerate(rows)]
    return pa.Table.from_pylist(filled, COLUMNS)


def compared(served: Sequence[dict[str, Any]], replayed: Sequence[dict[str, Any]], how: How = HOW) -> Comparison:
    return compare_day(5, table(*served), table(*replayed), how)[0]


def test_the_same_decisions_are_identical() -> None:
    """Also where a value is no number: it is the same bits."""
    rows: list[dict[str, Any]] = [
        {},
        {"decision": "decline", "score": 0.9, "reasons": ["x: y"]},
        {"speed": float("nan")},
    ]
    same = compared(rows, rows)
    assert same.identical
    assert same.on_time.transactions == 3
    assert same.features["speed"].rows == 3


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"decision": "review"}, "decision"),
        ({"speed": np.nextafter(1.0, 2.0)}, "features"),
        ({"speed": float("nan")}, "features"),
        ({"score": 0.1 + 1e-9}, "scores"),
        ({"reasons": ["speed: high"]}, "reasons"),
        ({"transaction_id": "other"}, "only_served"),
        ({"event_time": 5 * DAY + 7}, "only_served"),
    ],
)
def test_any_difference_is_seen(change: dict[str, Any], where: str) -> None:
    """One bit of one value of one transaction is enough."""
    found = compared([{}, {}], [{}, change])
    assert not found.identical
    counts = {
        "decision": found.on_time.changed,
        "features": found.features["speed"].differ,
        "scores": found.scores.differ,
        "reasons": found.reasons.differ,
        "only_served": found.only_served,
    }
    assert {name for name, count in counts.items() if count} == {where}
    assert counts[where] == 1


def test_scores_of_another_model_are_no_difference_of_values() -> None:
    """Of two models scores and reasons differ by nature; decisions are what counts."""
    found = compared([{}], [{"model_id": "n", "score": 0.2, "reasons": ["x: y"]}])
    assert found.identical
    assert found.scores.rows == found.reasons.rows == 0
    assert found.models == {"m": 1}


def test_late_rows_are_counted_apart() -> None:
    """They were decided against another past: what differs there is neither a flip nor skew, and fails nothing."""
    late = {"late": True, "decision": "decline", "speed": 7.0}
    found = compared([{}, late], [{}, {}])
    assert (found.on_time.transactions, found.late.transactions) == (1, 1)
    assert found.late.changed == found.late.alerts_lost == 1
    assert found.features["speed"].differ == 0
    assert found.identical


def test_the_first_of_rows_that_were_served_again_stands() -> None:
    """A runner that recovers may write a row once more: it is counted, and compared once."""
    found = compared([{}, {"transaction_id": "t0", "event_time": 5 * DAY, "decision": "review"}], [{}])
    assert (found.repeated, found.on_time.transactions, found.on_time.changed) == (1, 1, 0)


def test_labels_that_are_not_known_yet_are_valued_by_nobody() -> None:
    """A label counts when it was known by then, whatever the log says of it now."""
    rows: list[dict[str, Any]] = [{"is_fraud": 1}, {"is_fraud": None}, {"is_fraud": 0}]
    known = compared(rows, rows).on_time.of("served").counts.sum(axis=0).tolist()
    unknown = compared(rows, rows, replace(HOW, mature_before=5 * DAY)).on_time.of("served").counts.sum(axis=0).tolist()
    assert (known, unknown) == ([1, 1, 1], [0, 0, 3])


def test_segments_add_up_and_know_rows_without_a_value() -> None:
    """Every transaction is in one segment."""
    found = compared([{}, {"shop": None}, {"shop": "b"}], [{}, {"shop": None, "decision": "review"}, {"shop": "b"}])
    assert {name: (came.transactions, came.changed) for name, came in found.segments.items()} == {
        "a": (1, 0), "(none)": (1, 1), "b": (1, 0),
    }  # fmt: skip


def test_a_column_of_too_many_values_is_no_segment() -> None:
    """It would fill the report and say nothing."""
    rows = [{"shop": f"shop {at}"} for at in range(201)]
    with pytest.raises(UserError, match="--by shop has 201 values"):
        compared(rows, rows)


def test_days_add_up() -> None:
    """Two days together are the sum of both, features of one day alone among them."""
    day = compared([{}, {}], [{}, {"decision": "review", "speed": 3.0}])
    both = day + replace(day, features={}, daily={6: (1, 1, 0)})
    assert both.on_time.changed == 2 * day.on_time.changed == 2
    assert both.features["speed"] == day.features["speed"]
    assert both.features["speed"].largest == 2.0
    assert list(both.daily) == [5, 6]
    assert both.segments["a"].transactions == 4


def test_a_day_on_one_side_only_is_counted() -> None:
    """What was served and is not in the source, or the other way round, is lost on the way to nowhere."""
    assert compare_day(5, table({}, {}), None, HOW)[0].only_served == 2
    assert compare_day(5, None, table({}), HOW)[0].only_replayed == 1


def test_files_of_two_feature_sets_are_one(tmp_path: Path) -> None:
    """A feature that was not served on some days is compared on the others."""
    pq.write_table(table({}), tmp_path / "a.parquet")
    pq.write_table(table({"transaction_id": "x"}).drop(["speed"]), tmp_path / "b.parquet")
    served = decision_files(sorted(tmp_path.glob("*.parquet")), "here").day(5)
    found, _ = compare_day(5, served, table({}, {"transaction_id": "x", "event_time": 5 * DAY}), HOW)
    assert (found.on_time.transactions, found.features["speed"].rows) == (2, 1)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "no readable Parquet file"), (None, "it has no column late, score, model_id, decision, reasons")],
)
def test_what_holds_no_decisions_is_refused(content: bytes | None, said: str, tmp_path: Path) -> None:
    """The file is named, and what it lacks."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({name: [1] for name in ("transaction_id", "event_time", "amount_minor")}), path)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path.name}.*{said}"):
        open_decisions(str(tmp_path))


def test_nothing_served_is_said(tmp_path: Path) -> None:
    """A directory without Parquet files, and one that is not there, hold no decisions."""
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="there are no Parquet files of decisions"):
            open_decisions(str(path))


def test_a_source_is_read_again_only_where_that_changes_nothing() -> None:
    """One that never ends, and one that commits what it reads, are refused."""
    plan = make_plan(load_settings(flags={"source": "simulator:?days=1"}))
    check_past(plan)
    with pytest.raises(UserError, match="until=latest"):
        check_past(replace(plan, source=Source(plan.source.read, bounded=False)))
    with pytest.raises(UserError, match="leave out group="):
        check_past(replace(plan, source=Source(plan.source.read, bounded=True, commit=plan.source.read)))


def test_reading_begins_where_features_and_ids_need_it() -> None:
    """Longest window and delay before the first day, and before that as long as ids are remembered."""
    plan = make_plan(load_settings(flags={"source": "simulator:?days=1"}, sets=["pipeline.deduplicate_window=5d"]))
    start = midnight("--from", "2026-03-01")
    period = period_of(start, start + 2 * DAY, plan)
    assert (period.start - period.warm, period.warm - period.first) == (37 * DAY, 5 * DAY)
    assert len(period.days) == 2
