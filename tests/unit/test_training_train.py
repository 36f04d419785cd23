"""Training end to end on a small table: reproducible, honest, and refusing what would flatter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from numpy.typing import NDArray

from model_artifacts.artifact import OnnxModel, load_model, save_model
from model_artifacts.manifest import Costs, ModelKind
from model_artifacts.onnx_export import linear_to_onnx
from model_artifacts.onnx_graph import OnnxGraph
from pipelines.training import SplitRequest, TrainedModel, fit, train
from pipelines.training.dataset import LabelledRows, labelled_rows
from pipelines.training.fit import fit_model
from pipelines.training.metrics import auc_roc, confusion
from pipelines.training.split import within
from tests.training_table import DAYS, FEATURES, FIRST_DAY, needs_keras, training_request, training_table
from transforms.durations import DAY
from transforms.errors import UserError
from transforms.features import FeatureSet

KINDS = ("logistic", "forest", "xgboost", "average", pytest.param("neural", marks=needs_keras))
TABLE = training_table()
ROWS = labelled_rows(TABLE, FEATURES)
TEST = ROWS.part(within(ROWS.event_time, FIRST_DAY + (DAYS - 14) * DAY, FIRST_DAY + DAYS * DAY))


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest) -> TrainedModel:
    """A model of each kind, trained once."""
    return train(TABLE, training_request(request.param))


def _set(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def test_two_runs_give_the_same_bytes(trained: TrainedModel) -> None:
    """ONNX file, manifest, card and every picture are the same again, though the rows come in another order."""
    shuffled = TABLE.take(np.random.default_rng(3).permutation(TABLE.num_rows))
    again = train(shuffled, training_request(trained.manifest.kind))
    assert again.onnx == trained.onnx
    assert msgspec.json.encode(again.manifest) == msgspec.json.encode(trained.manifest)
    assert again.card == trained.card
    assert again.plots == trained.plots


def test_it_learns(trained: TrainedModel) -> None:
    """Frauds that the features explain are ranked far better than chance, and acting on it saves money."""
    metrics = trained.manifest.metrics
    assert metrics["auc_roc"] > 0.75
    assert metrics["average_precision"] > 4 * metrics["fraud_rate"]
    assert metrics["cost_per_day"] < metrics["cost_per_day_doing_nothing"]


def test_probabilities_are_calibrated(trained: TrainedModel) -> None:
    """Over the test days the scores add up to the frauds, within sampling error."""
    assert _scores(trained, TEST).sum() == pytest.approx(TEST.frauds, rel=0.35)


def _scores(trained: TrainedModel, rows: LabelledRows) -> NDArray[np.float64]:
    return OnnxModel(trained.manifest, OnnxGraph(trained.onnx)).score(rows.matrix)


def test_the_saved_model_scores_as_its_metrics_say(trained: TrainedModel, tmp_path: Path) -> None:
    """Loaded from disk, the model gives the confusion counts in its manifest on the days it was tested on."""
    save_model(tmp_path / "m", trained.onnx, trained.manifest, trained.card, trained.plots)
    model = load_model(str(tmp_path / "m"))
    counts = confusion(model.score(TEST.matrix), TEST.labels, model.manifest.thresholds.review)
    metrics = model.manifest.metrics
    assert (counts.true_positives, counts.false_positives) == (metrics["true_positives"], metrics["false_positives"])
    assert (counts.false_negatives, counts.true_negatives) == (metrics["false_negatives"], metrics["true_negatives"])
    assert metrics["true_positives"] + metrics["false_negatives"] == TEST.frauds, "known cards count here too"


def test_the_manifest_says_what_it_learnt_from(trained: TrainedModel) -> None:
    """Dates, rows, frauds and baseline are those of the table's own periods."""
    facts = trained.manifest.training
    assert (facts.train_from, facts.train_to) == ("2018-07-02", "2018-08-06")
    assert (facts.test_from, facts.test_to, facts.label_delay) == ("2018-08-13", "2018-08-27", "7d")
    training = ROWS.part(within(ROWS.event_time, FIRST_DAY + 14 * DAY, FIRST_DAY + 49 * DAY))
    assert (facts.rows, facts.frauds) == (len(training), training.frauds)
    fitted_on = ROWS.part(within(ROWS.event_time, FIRST_DAY + 14 * DAY, FIRST_DAY + 33 * DAY))
    assert trained.manifest.baseline == tuple(np.median(fitted_on.matrix, axis=0))


def test_the_card_is_readable_and_complete(trained: TrainedModel) -> None:
    """Every picture it shows exists, every picture is shown, every feature is listed, and no clock time is in it."""
    for name, content in trained.plots.items():
        assert f"](plots/{name})" in trained.card
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert b"tIME" not in content
        assert b"Software" not in content
    assert trained.card.count("](plots/") == len(trained.plots) == 6
    assert all(f"| `{name}` |" in trained.card for name in FEATURES.names)
    assert trained.manifest.model_id in trained.card.splitlines()[0]
    assert "nan" not in trained.card


def test_balanced_classes_are_calibrated_all_the_same() -> None:
    """Weights move the raw scores, calibration moves them back: the intercept takes up the weight's log."""
    balanced = train(TABLE, replace(training_request(), class_weight="balanced"))
    assert _scores(balanced, TEST).sum() == pytest.approx(TEST.frauds, rel=0.35)
    assert balanced.manifest.calibration.intercept < -2


@pytest.fixture(scope="module")
def special() -> TrainedModel:
    """Trained on rows without customers, with dates, costs and a password given."""
    request = replace(
        training_request(),
        source="kafka://me:hunter2@broker/topic",
        split=SplitRequest(train_from=FIRST_DAY + 20 * DAY, train_to=FIRST_DAY + 40 * DAY, test_days=10),
        costs=Costs(review=1_000_000, decline=1_000_000),
    )
    return train(_set(TABLE, "customer_id", pa.nulls(TABLE.num_rows, pa.string())), request)


def test_fixed_dates_are_kept(special: TrainedModel) -> None:
    """A training period the user fixed is the one in the manifest, and the test follows a label delay later."""
    facts = special.manifest.training
    assert (facts.train_from, facts.train_to) == ("2018-07-08", "2018-07-28")
    assert (facts.test_from, facts.test_to) == ("2018-08-04", "2018-08-14")


def test_costs_choose_the_thresholds(special: TrainedModel) -> None:
    """When looking costs more than any fraud there are next to no alerts, and the manifest says which costs."""
    assert special.manifest.metrics["alerts_per_day"] == 0
    assert special.manifest.costs.review == 1_000_000


def test_passwords_in_the_source_stay_out_of_the_manifest(special: TrainedModel) -> None:
    """A URL's user and password are not written down."""
    assert special.manifest.training.source == "kafka://broker/topic"
    assert "hunter2" not in special.card


def test_a_table_without_customers_has_no_card_precision(special: TrainedModel) -> None:
    """Where no row names a customer, the metric is left out and the card says why."""
    assert "card_precision_at_100" not in special.manifest.metrics
    assert "| no customers |" in special.card


def _late_copy(table: pa.Table) -> pa.Table:
    """The first training transaction again on the last day, under the same id."""
    early = table.slice(2_000, 1)
    late = _set(early, "event_time", table.slice(table.num_rows - 1, 1)["event_time"])
    return pa.concat_tables([table, late])


def _telltale(table: pa.Table) -> pa.Table:
    """A feature that was filled in after the fraud was known."""
    labels = table["is_fraud"].to_numpy()
    return _set(table, "customer_count_1d", pa.array(labels + np.random.default_rng(0).random(len(labels)) / 2))


def _unlabelled(table: pa.Table) -> pa.Table:
    return _set(table, "is_fraud", pa.nulls(table.num_rows, pa.int8()))


def _all(label: int) -> Callable[[pa.Table], pa.Table]:
    return lambda table: _set(table, "is_fraud", pa.array(np.full(table.num_rows, label, np.int8)))


def _no_test_frauds(table: pa.Table) -> pa.Table:
    early = pc.less(table["event_time"].cast(pa.int64()), FIRST_DAY + 50 * DAY)
    return _set(table, "is_fraud", pc.if_else(early, table["is_fraud"], pa.scalar(0, pa.int8())))


def _hole(table: pa.Table) -> pa.Table:
    values = table["amount"].to_numpy().copy()
    values[[5, 9]] = np.nan, np.inf
    return _set(table, "amount", pa.array(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_late_copy, "1 transaction ids of the test period occur in the training period too, such as 't02000'"),
        (_telltale, "feature customer_count_1d alone separates frauds from the rest .AUC 1.00000."),
        (_unlabelled, "none of the 7000 transactions has a label: give --labels"),
        (_all(0), "the fit period, .* and 0 frauds; it needs at least 10 frauds"),
        (_all(1), "the fit period, .* and transactions known to be good"),
        (_no_test_frauds, "the test period, 2018-08-13 to 2018-08-27, has .* and 0 frauds; it needs at least 1"),
        (_hole, "feature amount is null, NaN or infinite in 2 of 7000 rows"),
        (lambda table: table.slice(0, 900), "the data runs from .* 9 days"),
        (lambda table: table.drop_columns(["night"]), "the training table has no column night; found transaction_id"),
    ],
)
def test_tables_that_would_flatter_or_fail_are_refused(change: Callable[[pa.Table], pa.Table], message: str) -> None:
    """Leaks and gaps in the data end as one error that names the column, the period or the transaction."""
    with pytest.raises(UserError, match=message):
        train(change(TABLE), training_request())


def test_rows_without_a_label_are_left_out() -> None:
    """Unlabelled rows neither train nor test: the arrays are those of a table without them."""
    known = pa.array(np.arange(TABLE.num_rows) % 10 != 3)
    holes = _set(TABLE, "is_fraud", pc.if_else(known, TABLE["is_fraud"], pa.scalar(None, pa.int8())))
    found, expected = labelled_rows(holes, FEATURES), labelled_rows(TABLE.filter(known), FEATURES)
    assert found.ids.equals(expected.ids)
    assert (found.matrix == expected.matrix).all()
    assert (found.labels == expected.labels).all()


def _features(*entries: dict[str, object]) -> FeatureSet:
    return msgspec.convert({"name": "bad", "features": list(entries)}, FeatureSet)


def test_features_that_see_labels_too_early_are_refused() -> None:
    """A risk over a window that ends before labels are known is refused with the delay to declare."""
    early = _features({"kind": "risk", "entity": "terminal_id", "windows": ["1d"], "delay": "3d"})
    with pytest.raises(UserError, match="sees labels 3d after the transaction, but labels are known only after 7d"):
        train(TABLE, replace(training_request(), feature_set=early))


@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "number", "column": "is_fraud"},
        {"kind": "mean", "entity": "customer_id", "column": "is_fraud", "windows": ["1d"]},
    ],
)
def test_the_label_as_a_feature_is_refused(entry: dict[str, object]) -> None:
    """The label itself, or its mean over a window, is named and refused."""
    with pytest.raises(UserError, match="is made of is_fraud, the label to be predicted"):
        train(TABLE, replace(training_request(), feature_set=_features(entry)))


def test_a_model_that_exports_wrongly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the ONNX graph's probabilities differ from the library's, nothing is saved and the distance is named."""
    monkeypatch.setattr(fit, "linear_to_onnx", lambda weights, intercept: linear_to_onnx(weights, intercept + 0.01))
    with pytest.raises(
        UserError, match=r"exported logistic model's probabilities differ from scikit-learn .* by up to"
    ):
        train(TABLE, training_request())


@pytest.mark.parametrize("kind", KINDS)
def test_exported_models_agree_with_their_libraries(kind: ModelKind) -> None:
    """Measured on every row fitted on, the difference is far below the bound, for each kind, with class weights."""
    assert fit_model(kind, ROWS.matrix, ROWS.labels, "balanced").difference < 2e-6


def test_known_cards_are_left_out_of_the_ranking_only(trained: TrainedModel) -> None:
    """The ranking metrics are those of cards without a fraud that was known when the day began."""
    fresh = []
    for at in range(len(TEST)):
        known_until = TEST.event_time[at] // DAY * DAY - 7 * DAY
        frauds = (ROWS.cards == TEST.cards[at]) & (ROWS.labels == 1) & (ROWS.event_time >= FIRST_DAY + 14 * DAY)
        fresh.append(not (frauds & (ROWS.event_time < known_until)).any())
    ranked = np.array(fresh)
    assert 0 < ranked.sum() < len(ranked)
    scores, metrics = _scores(trained, TEST), trained.manifest.metrics
    assert metrics["auc_roc"] == pytest.approx(auc_roc(scores[ranked], TEST.labels[ranked]), abs=1e-6)
