"""Served features against recomputed ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_artifacts.artifact import load_model
from pipelines.monitor.__main__ import main
from pipelines.monitor.skew import compare_features
from transforms.errors import UserError

NAMES = load_model("handbook").manifest.feature_names
ROWS = 300


def features(seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    columns = {name: rng.integers(0, 50, ROWS) / 4 for name in NAMES}
    return pa.table({"transaction_id": [f"t{at}" for at in range(ROWS)], **columns})


def planted(table: pa.Table, name: str, rows: range, add: float) -> pa.Table:
    values = table.column(name).to_numpy().copy()
    values[rows] += add
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def written(directory: Path, table: pa.Table, parts: int = 3) -> str:
    directory.mkdir()
    for at in range(parts):
        pq.write_table(table.slice(at * ROWS // parts, ROWS // parts), directory / f"part-{at}.parquet")
    return str(directory)


def test_the_same_features_in_another_order_have_no_skew() -> None:
    """Rows are matched by their transactions, two missing values are equal, and repeated rows change nothing."""
    table = planted(features(), NAMES[0], range(3), float("nan"))
    shuffled = table.take(np.random.default_rng(1).permutation(ROWS))
    skew = compare_features(table, pa.concat_tables([shuffled, shuffled.slice(0, 9)]), NAMES)
    assert (skew.rows, skew.only_served, skew.only_recomputed, skew.columns) == (ROWS, 0, 0, ())
    assert not skew.found


def test_a_planted_skew_is_found_where_it_was_planted() -> None:
    """The feature, in how many transactions, the worst of them and its values, to the last bit of a double."""
    table = features()
    once = planted(planted(table, NAMES[2], range(10, 17), 2.0), NAMES[2], range(12, 13), 1.0)
    value = table.column(NAMES[4]).to_numpy().max()
    skew = compare_features(table, planted(once, NAMES[4], range(ROWS), np.spacing(value)), NAMES)
    worst, least = skew.columns[1], skew.columns[0]
    assert (worst.name, worst.rows, worst.largest, worst.example) == (NAMES[2], 7, 3.0, "t12")
    assert worst.recomputed - worst.served == 3.0
    assert (least.name, least.largest) == (NAMES[4], np.spacing(value))
    assert not compare_features(table, planted(table, NAMES[4], range(ROWS), 1e-12), NAMES, tolerance=1e-9).found


def test_a_value_against_none_is_an_infinite_distance() -> None:
    """A feature that one side lacks differs whatever the tolerance."""
    skew = compare_features(features(), planted(features(), NAMES[1], range(1), float("nan")), NAMES, tolerance=1e9)
    assert [(column.name, column.rows, column.largest) for column in skew.columns] == [(NAMES[1], 1, float("inf"))]


def test_transactions_of_one_side_are_counted_and_other_days_refused() -> None:
    """Nothing in common is a mistake, a part in common is a finding."""
    skew = compare_features(features().slice(0, 200), features().slice(50), NAMES)
    assert (skew.rows, skew.only_served, skew.only_recomputed, skew.found) == (150, 50, 100, True)
    with pytest.raises(UserError, match="not one transaction_id is in both of 10 served and 20 recomputed"):
        compare_features(features().slice(0, 10), features().slice(10, 20), NAMES)


def test_the_command_says_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0 and 1 for a scheduler, a table for people, 2 for a mistake."""
    served = written(tmp_path / "served", features())
    same = ["skew", "--model", "handbook", "--served", served, "--recomputed"]
    assert main([*same, served]) == 0
    other = written(tmp_path / "recomputed", planted(features(), NAMES[3], range(3), 1.0))
    assert main([*same, other]) == 1
    assert f"{NAMES[3]}" in capsys.readouterr().out
    assert main([*same, str(tmp_path)]) == 1  # both directories: of each transaction the first row counts
    assert main([*same, str(tmp_path / "served" / "none")]) == 2
    assert main([*same, served, "--tolerance", "-1"]) == 2
    assert "cannot be read as Parquet" in capsys.readouterr().err
