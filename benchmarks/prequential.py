"""The Handbook's prequential protocol: four weeks of test one after another, each with training of its own.

Chapter 5 of the Fraud Detection Handbook, "Prequential validation": a model is fitted, seven days pass until the
labels of its last training day are known, and the seven days after those are the test. Here the training weeks begin
on 2018-07-25, 08-01, 08-08 and 08-15. A model with more days of training has them before the end of that week. Cards
known to be compromised are left out of each test day, the same ones for every model.

Settings were chosen on four folds whose test weeks end before 2018-08-01, see `VALIDATION_WEEKS`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_artifacts.manifest import ModelKind
from model_artifacts.onnx_graph import OnnxGraph
from pipelines.training.dataset import LabelledRows
from pipelines.training.fit import RECIPES, fit_model
from pipelines.training.metrics import auc_roc, average_precision, card_precision_at_k, known_compromised
from pipelines.training.split import within
from transforms.durations import DAY
from transforms.errors import UserError

TEST_WEEKS = ("2018-07-25", "2018-08-01", "2018-08-08", "2018-08-15")
VALIDATION_WEEKS = ("2018-06-20", "2018-06-27", "2018-07-04", "2018-07-11")
DELAY = 7 * DAY
LONG = 75  # days of training


@dataclass(frozen=True)
class Result:
    """AUC ROC, average precision and card precision@100 of one model."""

    auc: float
    precision: float
    at_100: float


@dataclass(frozen=True)
class Entry:
    """A row of the table: what is fitted, on which features, on how many days."""

    name: str
    kind: ModelKind
    feature_set: str
    days: int
    settings: Mapping[str, Any]


#: The best published for each measure, whatever the model.
PUBLISHED = Result(0.879, 0.687, 0.305)


def entries(baseline: Mapping[ModelKind, Mapping[str, Any]]) -> tuple[Entry, ...]:
    """The table's rows: the Handbook's three models, then the project's own.

    Args:
        baseline: the Handbook's settings by model.
    """
    handbook = [Entry(f"{kind}, Handbook's settings", kind, "handbook", 7, told) for kind, told in baseline.items()]
    own = [
        Entry("xgboost", "xgboost", "handbook", LONG, RECIPES["xgboost"]),
        Entry("xgboost", "xgboost", "handbook-extended", 7, RECIPES["xgboost"]),
        Entry("xgboost", "xgboost", "handbook-extended", LONG, RECIPES["xgboost"]),
        Entry("average", "average", "handbook-extended", LONG, RECIPES["average"]),
        Entry("neural", "neural", "handbook-extended", LONG, RECIPES["neural"]),
    ]
    return (*handbook, *own)


def fold(rows: LabelledRows, week: str, days: int) -> tuple[LabelledRows, LabelledRows]:
    """The training and test transactions of the fold whose training week begins on that date.

    Raises:
        UserError: one of them holds no frauds.
    """
    start = instant(week)
    end = start + 7 * DAY
    in_test = within(rows.event_time, end + DELAY, end + DELAY + 7 * DAY)
    known = known_compromised(rows.event_time, rows.cards, rows.labels, start, DELAY)
    train, test = rows.part(within(rows.event_time, end - days * DAY, end)), rows.part(in_test & ~known)
    if not train.frauds or not test.frauds:
        raise UserError(f"the data holds no frauds in the week of {week} or two weeks later: is it the Handbook's?")
    return train, test


def score_result(scores: NDArray[np.float64], test: LabelledRows) -> Result:
    """The three measures of some scores."""
    return Result(
        auc=auc_roc(scores, test.labels),
        precision=average_precision(scores, test.labels),
        at_100=card_precision_at_k(test.event_time, test.cards, scores, test.labels, 100),
    )


def measure_fold(entry: Entry, rows: LabelledRows, week: str) -> Result:
    """Fit on one fold and measure the exported model on its test week."""
    train, test = fold(rows, week, entry.days)
    fitted = fit_model(entry.kind, train.matrix, train.labels, settings=entry.settings)
    return score_result(OnnxGraph(fitted.onnx).log_odds(test.matrix), test)


def measure(
    rows: Mapping[str, LabelledRows], chosen: Sequence[Entry], say: Callable[[str], None]
) -> Iterator[tuple[Entry, list[Result]]]:
    """Each entry's results on the four test weeks, as soon as they are there.

    Args:
        rows: by feature set.
        chosen: the entries.
        say: is told what is being done.
    """
    for entry in chosen:
        started, results = time.perf_counter(), []
        for at, week in enumerate(TEST_WEEKS):
            results.append(measure_fold(entry, rows[entry.feature_set], week))
            say(f"{entry.name}, {entry.feature_set}: {at + 1} of 4 folds, {time.perf_counter() - started:.0f} s")
        yield entry, results


def knowable(
    rows: LabelledRows,
    terminals: NDArray[np.int64],
    scenarios: NDArray[np.int64],
    weeks: Sequence[str] = TEST_WEEKS,
) -> list[Result]:
    """What a scorer reaches that is told all that can be known when a transaction is scored, and no more.

    It knows every fraud but those at a compromised terminal of which no fraud is known yet: nothing sets the first
    week's transactions there apart from others. Those it ranks with the good ones.

    Args:
        rows: all transactions.
        terminals: a number for each row's terminal.
        scenarios: how each row's fraud was simulated, 0 for no fraud; 2 is a compromised terminal.
        weeks: the folds.
    """
    told = (scenarios == 1) | (scenarios == 3)
    # One rising axis: a terminal's days, then, further apart than any window, the next one's.
    span = np.ptp(rows.event_time) + 30 * DAY
    place = (terminals - terminals.min()) * span + rows.event_time - rows.event_time.min()
    frauds = np.sort(place[scenarios == 2])
    until = np.searchsorted(frauds, place - DELAY, side="right")
    since = np.searchsorted(frauds, place - 28 * DAY, side="right")
    told |= (scenarios == 2) & (until > since)
    results = []
    for week in weeks:
        start = instant(week)
        known = known_compromised(rows.event_time, rows.cards, rows.labels, start, DELAY)
        part = within(rows.event_time, start + 14 * DAY, start + 21 * DAY) & ~known
        results.append(score_result(told[part].astype(np.float64), rows.part(part)))
    return results


HEAD = f"{'':<30}{'features':<19}{'days':>4}{'AUC ROC':>15}{'average precision':>19}{'card precision@100':>20}"


def line(name: str, features: str, days: str, results: Sequence[Result]) -> str:
    """A row of the table: mean and standard deviation of each measure over the folds."""
    cells = [
        _cell([r.auc for r in results]),
        _cell([r.precision for r in results]),
        _cell([r.at_100 for r in results]),
    ]
    return f"{name:<30}{features:<19}{days:>4}{cells[0]:>15}{cells[1]:>19}{cells[2]:>20}"


def _cell(values: Sequence[float]) -> str:
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else " " * 8
    return f"{fmean(values):.3f}{spread}".replace("0.", ".")


def instant(date: str) -> int:
    """UTC midnight of an ISO date, in microseconds."""
    return int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp()) * 1_000_000
