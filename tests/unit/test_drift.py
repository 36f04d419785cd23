"""Drift, calibration and references as plain functions, against the slow, obvious way of computing the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from model_artifacts.artifact import load_model, model_reference, save_model, shipped_models
from model_artifacts.reference import (
    NumberReference,
    Reference,
    column_references,
    load_reference,
    number_reference,
    text_reference,
    write_reference,
)
from pipelines.monitor.watched import watched
from pipelines.settings import Monitor
from transforms.batch import TransactionBatch, from_rows
from transforms.calibration import EDGES, Calibration
from transforms.drift import Alarm, Cells, Drift, column_drifts, ks, psi, window_counts
from transforms.durations import DAY, HOUR
from transforms.errors import UserError
from transforms.monitor import Measured, WindowCounts, WindowCountsCoder
from transforms.open_windows import Kind
from transforms.window_counts import Windows

DAYS = Windows(DAY, DAY)
NUMBERS = st.one_of(st.none(), st.just(float("nan")), st.floats(-1e6, 1e6), st.sampled_from([0.0, 1.0, 2.0]))


def reference_of(values: Sequence[float], texts: Sequence[str | None] = ("a",)) -> Reference:
    columns = (number_reference("x", np.array(values, dtype=np.float64)), text_reference("t", pa.array(texts)))
    return Reference(model_id="m", fingerprint="f", made_from="memory", columns=columns)


def batch_of(rows: Sequence[dict[str, Any]]) -> TransactionBatch:
    blank = {"transaction_id": "t", "event_time": 0, "amount_minor": 1}
    kinds = {"x": pa.float64(), "t": pa.string(), "score": pa.float64()}
    return from_rows([{**blank, **row} for row in rows], kinds)


def drifts(reference: Reference, rows: Sequence[dict[str, Any]], alarm: Alarm | None = None) -> dict[str, Any]:
    cells = Cells(reference)
    ((start, counts),) = window_counts(batch_of(rows), cells, DAYS)
    return {drift.column: drift for drift in column_drifts(counts, cells, start, start + DAY, alarm or Alarm())}


def test_the_same_values_have_no_drift() -> None:
    """What lies as the reference does is at distance 0 of it in both measures."""
    values = np.random.default_rng(0).normal(size=2000)
    found = drifts(reference_of(values.tolist()), [{"x": x, "t": "a"} for x in values])
    assert (found["x"].psi, found["x"].ks, found["x"].drifted) == (0.0, 0.0, False)
    assert (found["t"].psi, found["t"].ks, found["t"].unknown) == (0.0, None, 0.0)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5, 2.0])
def test_ks_is_that_of_the_plain_values(shift: float) -> None:
    """To two hundredths: one for the bins that the edges leave between them, one for those they cut."""
    rng = np.random.default_rng(3)
    before, now = rng.normal(size=5000), rng.normal(size=3000) + shift
    found = drifts(reference_of(before.tolist()), [{"x": x, "t": "a"} for x in now])["x"]
    assert found.ks == pytest.approx(ks_2samp(before, now).statistic, abs=0.02)


@pytest.mark.parametrize(("shift", "low", "high", "drifted"), [(0.0, 0.0, 0.02, False), (1.0, 0.8, 1.2, True)])
def test_psi_is_that_of_tenths(shift: float, low: float, high: float, drifted: bool) -> None:
    """A normal distribution moved by its standard deviation has an index of about 1 by definition: shift squared."""
    rng = np.random.default_rng(4)
    found = drifts(
        reference_of(rng.normal(size=5000).tolist()), [{"x": x, "t": "a"} for x in rng.normal(size=5000) + shift]
    )["x"]
    assert low <= found.psi <= high
    assert found.drifted == drifted


def test_few_rows_raise_no_alarm() -> None:
    """Of ten rows the index is noise, however large."""
    reference = reference_of(np.arange(1000).tolist())
    rows = [{"x": 5000.0, "t": "a"}] * 10
    assert drifts(reference, rows)["x"].psi > 1
    assert not drifts(reference, rows)["x"].drifted
    assert drifts(reference, rows, Alarm(rows=10))["x"].drifted


def test_missing_and_unknown_values_are_shares_and_drift() -> None:
    """A source that stops filling a field, or fills it with a new value, shows in its share and its index."""
    reference = reference_of(np.arange(100).tolist(), ["food"] * 60 + ["fuel"] * 40)
    rows = [{"x": None, "t": None}] * 25 + [{"x": float("nan"), "t": "crypto"}] * 25 + [{"x": 1.0, "t": "food"}] * 50
    found = drifts(reference, rows)
    assert (found["x"].missing, found["t"].missing, found["t"].unknown) == (0.5, 0.25, 0.25)
    assert found["t"].psi > 1
    assert drifts(reference, [{"x": None, "t": "food"}])["x"].ks is None


@given(st.lists(NUMBERS, min_size=1, max_size=60), st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_cells_count_what_a_loop_counts(values: list[float | None], trained: list[float]) -> None:
    """Each row is in one cell a column, of the bin whose edges it lies between, or among the missing."""
    reference = reference_of(trained, ["a", "b"])
    rows: list[dict[str, Any]] = [
        {"x": x, "t": (None, "a", "z")[at % 3], "event_time": at * HOUR} for at, x in enumerate(values)
    ]
    edges, expected = reference.columns[0], dict[tuple[int, str, int], int]()
    assert isinstance(edges, NumberReference)
    for row in rows:
        start, x, t = row["event_time"] // DAY * DAY, row["x"], row["t"]
        number = len(edges.counts) if x is None or np.isnan(x) else sum(edge < x for edge in edges.edges)
        text = 3 if t is None else ("a", "b", "z").index(t)
        for key in ((start, "x", number), (start, "t", text)):
            expected[key] = expected.get(key, 0) + 1
    found = dict[tuple[int, str, int], int]()
    for start, counts in window_counts(batch_of(rows), Cells(reference), DAYS):
        for column, part in Cells(reference).columns(counts):
            found |= {(start, column.name, int(at)): int(part[at]) for at in np.flatnonzero(part)}
    assert found == expected


def test_a_row_counts_in_each_sliding_window_that_covers_it() -> None:
    """Counts of sliding windows are those of the rows in each."""
    cells = Cells(reference_of([0.0, 1.0]))
    rows = [{"x": 0.0, "t": "a", "event_time": hour * HOUR} for hour in (1, 13, 25)]
    found = {
        start: int(counts.sum()) // 2 for start, counts in window_counts(batch_of(rows), cells, Windows(DAY, DAY // 2))
    }
    assert found == {-DAY // 2: 1, 0: 2, DAY // 2: 2, DAY: 1}


def test_distances_of_known_histograms() -> None:
    """By hand: (0.9 - 0.5) ln 1.8 + (0.1 - 0.5) ln 0.2, and the largest step between the cumulative shares."""
    assert psi(np.array([5, 5]), np.array([9, 1])) == pytest.approx(0.4 * np.log(1.8) - 0.4 * np.log(0.2))
    assert ks(np.array([2, 2, 4]), np.array([0, 6, 2])) == 0.25


def test_calibration_is_counted_by_bin_and_rows_without_label_count_for_nothing() -> None:
    """Against the mean score and the share of frauds of each bin, worked out row by row."""
    rng = np.random.default_rng(5)
    rows: list[dict[str, Any]] = [
        {"score": round(float(score), 9), "is_fraud": None if at % 5 == 0 else int(rng.random() < score)}
        for at, score in enumerate(rng.random(500) ** 3)
    ]
    ((start, counts),) = Calibration().count(batch_of(rows), DAYS)
    (told,) = Calibration().tell(counts, start, DAY)
    known = [row for row in rows if row["is_fraud"] is not None]
    assert (told.rows, told.frauds) == (400, sum(row["is_fraud"] or 0 for row in known))
    error = 0.0
    for part in told.bins:
        high = (*EDGES, 2.0)[EDGES.index(part.low) + 1]
        mine = [row for row in known if part.low <= (row["score"] or 0) < high]
        predicted, observed = (float(np.mean([row[name] for row in mine])) for name in ("score", "is_fraud"))
        assert part.rows == len(mine)
        assert part.predicted == pytest.approx(predicted, abs=1e-9)
        assert part.observed == pytest.approx(observed, abs=1e-9)
        error += len(mine) / 400 * abs(predicted - observed)
    assert told.error == pytest.approx(error, abs=1e-8)


def test_rows_without_labels_count_for_no_calibration() -> None:
    """A batch in which no label is known gives no counts, whatever its size."""
    assert list(Calibration().count(batch_of([{"score": 0.5}, {"score": 0.1}]), DAYS)) == []


@given(st.lists(st.integers(0, 2**40), max_size=50))
def test_counts_survive_their_coder(values: list[int]) -> None:
    """Zeros, which are not written, among them."""
    counts = np.array(values, dtype=np.int64)
    assert WindowCountsCoder().decode(WindowCountsCoder().encode(WindowCounts(counts))).values.tolist() == values


@pytest.mark.parametrize("name", shipped_models())
def test_shipped_models_have_references_of_their_features(name: str) -> None:
    """Each of their features, their text columns and the score can be watched."""
    reference, manifest = model_reference(name), load_model(name).manifest
    assert reference is not None
    assert reference.model_id == manifest.model_id
    assert {*manifest.feature_names, "score"} <= {column.name for column in reference.columns}


def test_a_model_without_a_reference_says_how_to_make_one(tmp_path: Path) -> None:
    """Models that were saved before there were references load, and what is missing is told with the command."""
    model = load_model("handbook")
    save_model(tmp_path / "old", (Path("model_artifacts/handbook/model.onnx")).read_bytes(), model.manifest, "", {})
    assert model_reference(str(tmp_path / "old")) is None
    found = watched(Monitor(), str(tmp_path / "old"), model.manifest, ["score"])
    assert found.reference is None
    assert "python -m pipelines.monitor reference --decisions DIR --model" in found.why_not
    with pytest.raises(UserError, match="does not exist; make it"):
        watched(Monitor(reference=str(tmp_path / "none.json")), "handbook", model.manifest, [])


def test_a_reference_is_read_as_it_was_written_and_refused_when_it_is_not_the_models(tmp_path: Path) -> None:
    """One of other features, one that contradicts itself, and one of a later version."""
    manifest = load_model("handbook").manifest
    good = msgspec.structs.replace(reference_of([1.0, 2.0]), fingerprint=manifest.fingerprint)
    path = tmp_path / "reference.json"
    write_reference(path, good)
    assert load_reference(path, manifest) == good
    number = good.columns[0]
    bad = {
        "of the features f,": msgspec.structs.replace(good, fingerprint="f"),
        "must be finite and rise": msgspec.structs.replace(
            good, columns=(msgspec.structs.replace(number, edges=(2.0, 1.0)),)
        ),
        "edges or values and": msgspec.structs.replace(good, columns=(msgspec.structs.replace(number, counts=(1,)),)),
        "each once": msgspec.structs.replace(good, columns=()),
        "format_version is 9": msgspec.structs.replace(good, format_version=9),
    }
    for error, reference in bad.items():
        write_reference(path, reference)
        with pytest.raises(UserError, match=error):
            load_reference(path, manifest)


def test_a_column_without_a_value_is_no_reference() -> None:
    """Nothing can be compared with nothing, and an absent column is named."""
    with pytest.raises(UserError, match="column x has no finite value in 2 rows"):
        number_reference("x", np.array([np.nan, np.inf]))
    with pytest.raises(UserError, match="there is no column y; found x"):
        column_references(pa.table({"x": [1.0]}), ["y"], [])


def test_windows_of_another_reference_tell_nothing() -> None:
    """A savepoint may hold counts that were made for the model of before: they are not compared with this one's."""
    told = Measured(Drift(Cells(reference_of([1.0, 2.0]))))
    text = told.measure.width - 3  # the cell of "a"; behind it unknown and missing ones
    counts = np.array([[0, 0, 3, 0], [0, 1, 4, 0], [0, text, 7, 0], [DAY, 0, 5, 0], [DAY, text, 5, 0]])
    kinds = [Kind("reference", key, DAY, DAY) for key in (told.measure.key, "another")]
    assert [[(d.column, d.window_start, d.rows) for d in told.tell(kind, counts)[:1]] for kind in kinds] == [
        [("x", 0, 7)],
        [],
    ]
    assert told.rows(counts) == 12
