"""Model directories: verified, scored alike for every batching, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_artifacts import artifact
from model_artifacts.artifact import OnnxModel, load_model, save_model
from model_artifacts.manifest import Calibration, Costs, Manifest, ModelKind, Thresholds, TrainingFacts
from model_artifacts.onnx_export import forest_trees, linear_to_onnx, trees_to_onnx
from model_artifacts.onnx_graph import OnnxGraph, sigmoid
from pipelines.training.fit import RECIPES, fit_model
from tests.training_table import FEATURES, needs_keras
from transforms.errors import UserError

#: Odd and not small: libraries add up four numbers in order, but fifteen in an order of their own.
WIDTH = 15
KINDS: tuple[ModelKind, ...] = ("logistic", "forest", "xgboost", "average")
SMALL: dict[ModelKind, dict[str, Any]] = {
    "logistic": {},
    "forest": {"n_estimators": 20, "max_depth": 6},
    "xgboost": {"n_estimators": 20, "max_depth": 4, "tree_method": "hist"},
    "average": {"n_estimators": 20, "max_depth": (2, 4), "subsample": 0.8, "tree_method": "hist"},
    "neural": {**RECIPES["neural"], "hidden": (16, 8), "epochs": 3},
}


def _data(rows: int = 600) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    rng = np.random.default_rng(5)
    matrix = rng.normal(size=(rows, WIDTH)) * np.linspace(0.1, 50.0, WIDTH)
    return matrix, (matrix[:, 0] * 10 + matrix[:, -1] / 50 + rng.normal(size=rows) > 1.5).astype(np.int8)


@pytest.fixture(scope="module", params=[*KINDS, pytest.param("neural", marks=needs_keras)])
def graph(request: pytest.FixtureRequest) -> bytes:
    """An exported model of each kind."""
    return fit_model(request.param, *_data(), settings=SMALL[request.param]).onnx


LINEAR = linear_to_onnx(np.array([0.01, 0.5, 0.1, 2.0]), -3.0)


def _manifest(content: bytes = LINEAR) -> Manifest:
    sha256 = hashlib.sha256(content).hexdigest()
    return Manifest(
        model_id=f"small-{sha256[:12]}",
        kind="logistic",
        schema="handbook",
        feature_set=FEATURES,
        feature_names=FEATURES.names,
        fingerprint=FEATURES.fingerprint,
        model_sha256=sha256,
        calibration=Calibration(slope=0.9, intercept=0.1),
        thresholds=Thresholds(review=0.1, decline=0.8),
        costs=Costs(),
        baseline=(50.0, 0.0, 3.0, 0.0),
        training=TrainingFacts(
            source="memory",
            train_from="2018-07-25",
            train_to="2018-08-01",
            test_from="2018-08-08",
            test_to="2018-08-15",
            label_delay="7d",
            rows=1,
            frauds=0,
        ),
        metrics={"auc_roc": 0.9},
    )


def _write(directory: Path, content: bytes, manifest: Any) -> Path:
    """A model directory as somebody else may have left it, right or wrong."""
    directory.mkdir()
    (directory / "model.onnx").write_bytes(content)
    (directory / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return directory


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 90), at=st.integers(0, 90), scale=st.sampled_from([1, 1e3]))
def test_scores_do_not_depend_on_batching(graph: bytes, seed: int, rows: int, at: int, scale: float) -> None:
    """A row scores the same to the last bit alone, in any part of a batch, and in the whole."""
    model = OnnxModel(_manifest(graph), OnnxGraph(graph))
    matrix = np.random.default_rng(seed).normal(size=(rows, WIDTH)) * scale
    for answer in (model.score, model.log_odds):
        whole = answer(matrix)
        parts = np.concatenate([answer(matrix[:at]), answer(matrix[at:])])
        single = np.concatenate([answer(matrix[row : row + 1]) for row in range(rows)])
        assert whole.tobytes() == parts.tobytes() == single.tobytes()


def test_scores_do_not_depend_on_memory_layout(graph: bytes) -> None:
    """A transposed, strided or column-major matrix scores as its plain copy does."""
    model = OnnxModel(_manifest(graph), OnnxGraph(graph))
    matrix, _ = _data()
    expected = model.score(matrix)
    assert model.score(np.asfortranarray(matrix)).tobytes() == expected.tobytes()
    assert model.score(matrix[::-3]).tobytes() == expected[::-3].tobytes()


def test_rows_that_are_not_finite_score_nan_alone(graph: bytes) -> None:
    """NaN or an infinity in a feature gives that row no score and leaves its neighbours theirs."""
    model = OnnxModel(_manifest(graph), OnnxGraph(graph))
    matrix, _ = _data(5)
    expected = model.score(matrix)
    matrix[1, 2], matrix[3, 0] = np.nan, -np.inf
    scores = model.score(matrix)
    assert np.isnan(scores).tolist() == [False, True, False, True, False]
    assert scores[[0, 2, 4]].tobytes() == expected[[0, 2, 4]].tobytes()


def test_no_rows_score_to_nothing(graph: bytes) -> None:
    """An empty matrix gives an empty array and not an error."""
    assert OnnxModel(_manifest(graph), OnnxGraph(graph)).score(np.empty((0, WIDTH))).shape == (0,)


def test_score_is_the_calibrated_probability() -> None:
    """The linear model's score is sigmoid(slope * (weights . x + intercept) + intercept), to nine decimals."""
    model = OnnxModel(_manifest(), OnnxGraph(LINEAR))
    matrix = np.array([[100.0, 1.0, 2.0, 0.5]])
    raw = 0.01 * 100 + 0.5 * 1 + 0.1 * 2 + 2.0 * 0.5 - 3.0
    assert model.score(matrix)[0] == round(1 / (1 + np.exp(-(0.9 * raw + 0.1))), 9)


def test_score_refuses_another_width() -> None:
    """A matrix with a column too many is an error that says what was expected."""
    with pytest.raises(ValueError, match=r"\(rows, 4\); found \(2, 5\)"):
        OnnxModel(_manifest(), OnnxGraph(LINEAR)).score(np.zeros((2, 5)))


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=40))
def test_sigmoid_never_falls_and_stays_within_0_and_1(values: list[float]) -> None:
    """The sigmoid keeps order and range for every finite log-odds, without a warning."""
    probabilities = sigmoid(np.sort(np.array(values)))
    assert (np.diff(probabilities) >= 0).all()
    assert 0.0 <= probabilities[0] <= probabilities[-1] <= 1.0


def test_forest_takes_the_fitted_branch_at_every_threshold() -> None:
    """A value exactly on, just below or just above a split goes the way it goes in scikit-learn."""
    from sklearn.ensemble import RandomForestClassifier

    matrix, labels = _data()
    single = matrix.astype(np.float32)
    forest = RandomForestClassifier(n_estimators=5, max_depth=8, random_state=0).fit(single, labels)
    exported = OnnxGraph(trees_to_onnx(forest_trees(forest), WIDTH, "probability", "<="))
    splits = [(int(f), t) for e in forest.estimators_ for f, t in zip(e.tree_.feature, e.tree_.threshold, strict=True)]
    rows = []
    for at, (feature, threshold) in enumerate((f, t) for f, t in splits if f >= 0):
        nearest = np.float32(threshold)
        for value in (nearest, np.nextafter(nearest, np.float32(-np.inf)), np.nextafter(nearest, np.float32(np.inf))):
            row = single[at % len(single)].copy()
            row[feature] = value
            rows.append(row)
    edges = np.array(rows, dtype=np.float32)
    expected = np.clip(forest.predict_proba(edges)[:, 1], 1e-7, 1 - 1e-7)
    np.testing.assert_allclose(sigmoid(exported.log_odds(edges.astype(np.float64))), expected, atol=1e-6)


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    """What was saved loads by directory and by file: URL, with the same manifest and scores."""
    save_model(tmp_path / "deep" / "model", LINEAR, _manifest(), "# card\n", {"roc.png": b"png"})
    matrix = np.random.default_rng(1).normal(size=(10, 4))
    expected = OnnxModel(_manifest(), OnnxGraph(LINEAR)).score(matrix)
    for uri in (f"{tmp_path}/deep/model", f"file:{tmp_path}/deep/model", f"file://{tmp_path}/deep/model"):
        model = load_model(uri)
        assert model.manifest == _manifest()
        assert model.score(matrix).tobytes() == expected.tobytes()
    assert (tmp_path / "deep/model/MODEL_CARD.md").read_text() == "# card\n"
    assert (tmp_path / "deep/model/plots/roc.png").read_bytes() == b"png"
    assert [entry.name for entry in (tmp_path / "deep").iterdir()] == ["model"], "nothing temporary is left"


def test_shipped_models_load_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with a manifest beside the module is a shipped model, called by its name."""
    monkeypatch.setattr(artifact, "SHIPPED", tmp_path)
    save_model(tmp_path / "small", LINEAR, _manifest(), "", {})
    (tmp_path / "notes").mkdir()
    assert artifact.shipped_models() == ("small",)
    assert load_model("small").manifest.model_id == _manifest().model_id
    with pytest.raises(UserError, match=r"model 'smal' is neither .* \(small\); did you mean small\?"):
        load_model("smal")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://bucket/model", "s3: is not supported"),
        ("file:/nowhere/at/all", "neither a directory nor a shipped model"),
        (str(Path(__file__).parent), "has no manifest.json; python -m pipelines.training makes one"),
    ],
)
def test_unknown_models_are_refused(uri: str, message: str) -> None:
    """A URI that leads to no model is refused with what would."""
    with pytest.raises(UserError, match=message):
        load_model(uri)


REPLACE = msgspec.structs.replace
TAMPERED: dict[str, tuple[Callable[[Manifest], Manifest], str]] = {
    "order": (
        lambda m: REPLACE(
            m, feature_names=(m.feature_names[0], m.feature_names[2], m.feature_names[1], m.feature_names[3])
        ),
        r"feature_names\[1\] is customer_count_1d, but its feature_set declares night there",
    ),
    "missing name": (
        lambda m: REPLACE(m, feature_names=m.feature_names[:3]),
        "feature_names has 3, its feature_set 4: terminal_risk_7d_delay_7d is only in its feature_set",
    ),
    "extra name": (
        lambda m: REPLACE(m, feature_names=(*m.feature_names, "moon")),
        "moon is only in feature_names",
    ),
    "fingerprint": (lambda m: REPLACE(m, fingerprint="0" * 16), "fingerprint is 0000000000000000, but its feature_set"),
    "baseline length": (lambda m: REPLACE(m, baseline=(1.0,)), "baseline has 1 values for 4 feature_names"),
    "thresholds swapped": (
        lambda m: REPLACE(m, thresholds=Thresholds(review=0.8, decline=0.1)),
        r"0 < review <= decline <= 1; found 0\.8 and 0\.1",
    ),
    "threshold zero": (lambda m: REPLACE(m, thresholds=Thresholds(review=0.0, decline=0.5)), "0 < review"),
    "falling calibration": (lambda m: REPLACE(m, calibration=Calibration(slope=-1.0)), "slope above 0"),
    "model id": (lambda m: REPLACE(m, model_id="small-1234"), "model_id small-1234 should end in -"),
    "sha256": (
        lambda m: REPLACE(m, model_sha256="ab" * 32, model_id=f"small-{'ab' * 6}"),
        "its sha256 is [0-9a-f]{64}, but manifest.json says abab",
    ),
    "version": (lambda m: REPLACE(m, format_version=2), "format_version is 2; this release reads 1"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_manifests_that_disagree_are_refused_before_the_model_is_opened(tmp_path: Path, case: str) -> None:
    """Each contradiction is named with its file, whatever model.onnx holds: it was not opened yet."""
    change, message = TAMPERED[case]
    directory = _write(tmp_path / "m", b"not even ONNX", change(_manifest()))
    with pytest.raises(UserError, match=message) as caught:
        load_model(str(directory))
    assert str(directory) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "manifest.json: Input data was truncated"),
        (b'{"format_version": 1, "model_id": 3}', r"manifest.json: Expected `str`, got `int` - at `\$.model_id`"),
        (b'{"name": "x"}', "manifest.json: Object missing required field `format_version`"),
    ],
)
def test_manifests_that_are_no_manifests_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """Broken JSON and wrong types are named with their place."""
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_model(str(tmp_path))


def test_a_manifest_with_nan_thresholds_is_refused(tmp_path: Path) -> None:
    """JSON has no NaN: msgspec writes null for it, and null is no threshold."""
    bad = REPLACE(_manifest(), thresholds=Thresholds(review=float("nan"), decline=0.5))
    with pytest.raises(UserError, match=r"thresholds\.review"):
        load_model(str(_write(tmp_path / "m", LINEAR, bad)))


def test_a_width_that_disagrees_is_refused(tmp_path: Path) -> None:
    """A graph of three features under a manifest of four is named with both numbers."""
    narrow = linear_to_onnx(np.ones(3), 0.0)
    with pytest.raises(UserError, match=r"takes 3 features, but manifest\.json names 4"):
        load_model(str(_write(tmp_path / "m", narrow, _manifest(narrow))))


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was loaded",))


def _with(change: Callable[[onnx.ModelProto], None]) -> bytes:
    model = onnx.load_model_from_string(LINEAR)
    change(model)
    return bytes(model.SerializeToString())


def _outside(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secrets.bin")


def _outside_in_an_attribute(model: onnx.ModelProto) -> None:
    hidden = onnx.helper.make_node("Constant", [], ["unused"], value=onnx.numpy_helper.from_array(np.zeros(1), "h"))
    hidden.attribute[0].t.external_data.add(key="location", value="secrets.bin")
    model.graph.node.append(hidden)


def _custom_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.example"


def _custom_set(model: onnx.ModelProto) -> None:
    model.opset_import.add(domain="com.example", version=1)


def _other_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "fraudiness"
    model.graph.node[-1].output[0] = "fraudiness"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(_Bomb()), "it is not an ONNX file|ONNX Runtime cannot open it"),
        (b"", "ONNX Runtime cannot open it"),
        (LINEAR[:-40], "it is not an ONNX file"),
        (_with(_outside), "its tensor 'weights' lies in another file"),
        (_with(_outside_in_an_attribute), "its tensor 'h' lies in another file"),
        (_with(_custom_operator), "its node 'weigh' is of 'com.example'"),
        (_with(_custom_set), "it needs operators of 'com.example'"),
        (_with(_other_output), "one output called log_odds or probability; found fraudiness"),
    ],
)
def test_files_that_reach_outside_themselves_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """Pickles, truncated files, external data, foreign operators and other forms are refused, checksum or not."""
    directory = _write(tmp_path / "m", content, _manifest(content))
    with pytest.raises(UserError, match=message) as caught:
        load_model(str(directory))
    assert f"model file {directory / 'model.onnx'}" in str(caught.value)


def test_saving_replaces_a_model_whole(tmp_path: Path) -> None:
    """A newer model takes the place of an older one, and no file of the older stays."""
    place = tmp_path / "m"
    save_model(place, LINEAR, _manifest(), "old", {"old.png": b"1"})
    newer = linear_to_onnx(np.ones(4), 1.0)
    save_model(place, newer, _manifest(newer), "new", {"new.png": b"2"})
    assert load_model(str(place)).manifest == _manifest(newer)
    assert [path.name for path in (place / "plots").iterdir()] == ["new.png"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_failed_save_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    """When a rename fails, the model that was there is there again, and nothing temporary is left."""
    place = tmp_path / "m"
    save_model(place, LINEAR, _manifest(), "old", {})
    moves: list[Any] = []
    real = os.replace

    def replace(source: Any, target: Any) -> None:
        moves.append(target)
        if len(moves) == failing:
            raise OSError("disk full")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    newer = linear_to_onnx(np.ones(4), 1.0)
    with pytest.raises(UserError, match=r"cannot be written: disk full"):
        save_model(place, newer, _manifest(newer), "new", {})
    assert load_model(str(place)).manifest == _manifest()
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


def test_a_model_that_could_not_be_loaded_is_not_saved(tmp_path: Path) -> None:
    """Saving verifies: a manifest of other bytes is refused and nothing is written."""
    with pytest.raises(UserError, match="sha256"):
        save_model(tmp_path / "m", linear_to_onnx(np.ones(4), 1.0), _manifest(), "", {})
    assert list(tmp_path.iterdir()) == []


def test_saving_refuses_what_is_not_a_model(tmp_path: Path) -> None:
    """A directory with other files, and a file, are left alone."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"home is not a model directory: it holds thesis\.tex"):
        save_model(tmp_path / "home", LINEAR, _manifest(), "", {})
    with pytest.raises(UserError, match="is not a directory"):
        save_model(tmp_path / "file", LINEAR, _manifest(), "", {})
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"


def test_the_same_model_exports_to_the_same_bytes(graph: bytes) -> None:
    """Exporting leaves no time, version of a producer or random name behind."""
    model = onnx.load_model_from_string(graph)
    kind = "xgboost" if model.graph.output[0].name == "log_odds" else "forest"
    kind = "logistic" if model.graph.node[0].op_type == "Mul" else kind
    kind = "average" if any(node.op_type == "Div" for node in model.graph.node) else kind
    kind = "neural" if any(node.op_type == "MatMul" for node in model.graph.node) else kind
    assert fit_model(kind, *_data(), settings=SMALL[kind]).onnx == graph  # type: ignore[index,arg-type]  # a ModelKind
    assert (model.producer_name, model.producer_version, model.doc_string) == ("", "", "")
