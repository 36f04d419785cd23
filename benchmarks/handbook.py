"""`python -m benchmarks.handbook`: the Fraud Detection Handbook's baseline, published and as measured here.

Chapter 3, "Baseline fraud detection system": models are trained on seven days, 2018-07-25 to 31, and
tested on seven, 2018-08-08 to 14, with the seven days in between left out because their labels are not
known yet. Cards known to be compromised are removed from each test day. Features, split, export and
metrics are the pipeline's own; only the models' settings are the Handbook's.

The data is the Handbook's simulated set (https://github.com/Fraud-Detection-Handbook), as one Parquet or
CSV file; see the schema `handbook`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from model_artifacts.manifest import ModelKind
from model_artifacts.onnx_graph import OnnxGraph
from pipelines.training.dataset import LabelledRows, labelled_rows
from pipelines.training.fit import fit_model
from pipelines.training.metrics import auc_roc, average_precision, card_precision_at_k, known_compromised
from pipelines.training.split import within
from transforms.durations import DAY
from transforms.errors import UserError
from transforms.features import load_feature_set

_DELAY = 7 * DAY


@dataclass(frozen=True)
class Result:
    """AUC ROC, average precision and card precision@100 of one model."""

    auc: float
    precision: float
    at_100: float


#: The Handbook's table, chapter 3, "Performance assessment" and "Comparison with other models".
PUBLISHED: Mapping[ModelKind, Result] = {
    "logistic": Result(0.871, 0.606, 0.291),
    "forest": Result(0.867, 0.658, 0.287),
    "xgboost": Result(0.862, 0.639, 0.273),
}

#: The libraries' defaults of its time. XGBoost has since changed its own, so they are written out.
SETTINGS: Mapping[ModelKind, Mapping[str, Any]] = {
    "logistic": {},
    "forest": {},
    "xgboost": {
        "tree_method": "exact",
        "base_score": 0.5,
        "n_estimators": 100,
        "max_depth": 6,
        "learning_rate": 0.3,
    },
}


def handbook_parts(rows: LabelledRows) -> tuple[LabelledRows, LabelledRows]:
    """The Handbook's training and test transactions of its whole data."""
    train_from, test_from = _instant("2018-07-25"), _instant("2018-08-08")
    in_test = within(rows.event_time, test_from, test_from + 7 * DAY)
    known = known_compromised(rows.event_time, rows.cards, rows.labels, train_from, _DELAY)
    train, test = rows.part(within(rows.event_time, train_from, train_from + 7 * DAY)), rows.part(in_test & ~known)
    if not train.frauds or not test.frauds:
        raise UserError("the data holds no frauds in 2018-07-25 to 31 or in 2018-08-08 to 14: is it the Handbook's?")
    return train, test


def measure(kind: ModelKind, train: LabelledRows, test: LabelledRows) -> Result:
    """Fit one model with the Handbook's settings and measure its exported form."""
    fitted = fit_model(kind, train.matrix, train.labels, settings=SETTINGS[kind])
    scores = OnnxGraph(fitted.onnx).log_odds(test.matrix)
    return Result(
        auc=auc_roc(scores, test.labels),
        precision=average_precision(scores, test.labels),
        at_100=card_precision_at_k(test.event_time, test.cards, scores, test.labels, 100),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print both tables side by side; 2 after a mistake of the user's."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.handbook", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", required=True, metavar="FILE", help="the Handbook's transactions, Parquet or CSV")
    options = parser.parse_args(argv)
    try:
        _compare(_features(options.data))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _features(file: str) -> pa.Table:
    from pipelines.matrix import build_matrix  # not at the top: it brings Beam

    started = time.perf_counter()
    table: pa.Table = build_matrix(
        source=f"file:{file}",
        schema="handbook",
        feature_set=load_feature_set("handbook"),
        label_delay_us=_DELAY,
        labels=None,
    )
    print(f"{table.num_rows:,} transactions with features after {time.perf_counter() - started:.0f} s", flush=True)
    return table


def _compare(table: pa.Table) -> None:
    train, test = handbook_parts(labelled_rows(table, load_feature_set("handbook")))
    print(f"training: {len(train):,} transactions, {train.frauds:,} frauds")
    print(f"test:     {len(test):,} transactions, {test.frauds:,} frauds\n")
    print(f"{'':<10}{'AUC ROC':>16}{'average precision':>22}{'card precision@100':>22}{'':>8}")
    print(f"{'':<10}{'Handbook  here':>16}{'Handbook  here':>22}{'Handbook  here':>22}{'seconds':>9}")
    for kind, published in PUBLISHED.items():
        started = time.perf_counter()
        here = measure(kind, train, test)
        pairs = [(published.auc, here.auc), (published.precision, here.precision), (published.at_100, here.at_100)]
        cells = [f"{theirs:.3f}  {ours:.3f}" for theirs, ours in pairs]
        seconds = time.perf_counter() - started
        print(f"{kind:<10}{cells[0]:>16}{cells[1]:>22}{cells[2]:>22}{seconds:>9.1f}", flush=True)


def _instant(date: str) -> int:
    """UTC midnight of an ISO date, in microseconds."""
    return int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp()) * 1_000_000


if __name__ == "__main__":
    sys.exit(main())
