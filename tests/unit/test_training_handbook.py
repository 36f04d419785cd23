"""The Handbook benchmark's split, against the Handbook's own procedure day by day."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from benchmarks.handbook import PUBLISHED, SETTINGS, handbook_parts, main
from benchmarks.prequential import Result, entries, fold, knowable, line
from pipelines.training.dataset import LabelledRows
from transforms.durations import DAY
from transforms.errors import UserError

TRAIN_FROM = int(datetime(2018, 7, 25, tzinfo=UTC).timestamp()) * 1_000_000


def _rows(frauds: float) -> LabelledRows:
    rng = np.random.default_rng(2)
    rows = 4_000
    return LabelledRows(
        ids=pa.chunked_array([pa.array([str(at) for at in range(rows)])]),
        event_time=np.sort(TRAIN_FROM + rng.integers(-10 * DAY, 30 * DAY, rows)),
        amounts=np.ones(rows, np.int64),
        cards=rng.integers(0, 300, rows),
        labels=(rng.random(rows) < frauds).astype(np.int8),
        matrix=np.zeros((rows, 1)),
    )


def test_the_split_is_the_handbooks() -> None:
    """Seven days train; each test day loses the cards with a fraud from training on, up to eight days before it."""
    rows = _rows(0.05)
    train, test = handbook_parts(rows)
    frame = pd.DataFrame({"id": rows.ids.to_pylist(), "card": rows.cards, "label": rows.labels})
    frame["day"] = (rows.event_time - TRAIN_FROM) // DAY
    known = set(frame[frame.day.between(0, 6) & (frame.label == 1)].card)
    expected: list[str] = []
    for day in range(7):
        known |= set(frame[(frame.day == 7 + day - 1) & (frame.label == 1)].card)
        expected += list(frame[(frame.day == 14 + day) & ~frame.card.isin(known)].id)
    assert train.ids.to_pylist() == list(frame[frame.day.between(0, 6)].id)
    assert test.ids.to_pylist() == expected


def test_every_published_model_has_settings() -> None:
    """Each row of the table can be measured, XGBoost's with the defaults of its day."""
    assert PUBLISHED.keys() == SETTINGS.keys()
    assert SETTINGS["xgboost"]["tree_method"] == "exact"
    assert SETTINGS["xgboost"]["base_score"] == 0.5


def test_other_data_is_refused() -> None:
    """Data without frauds on those days is not the Handbook's."""
    with pytest.raises(UserError, match="is it the Handbook's"):
        handbook_parts(_rows(0.0))


def test_a_missing_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not there ends with one line and exit code 2."""
    assert main(["--data", "/nowhere/handbook.parquet"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_more_days_of_training_end_where_seven_do() -> None:
    """A longer training period reaches further back; the test transactions are the same."""
    rows = _rows(0.05)
    train, test = fold(rows, "2018-07-25", 7)
    longer, same = fold(rows, "2018-07-25", 17)
    assert test.ids.to_pylist() == same.ids.to_pylist()
    assert longer.event_time.max() == train.event_time.max()
    assert longer.event_time.min() == rows.event_time.min() < TRAIN_FROM


def test_what_can_be_known_is_what_was_known_a_week_before() -> None:
    """A fraud at a compromised terminal is told by another one there from 7 to 28 days before it, and by no other."""
    later = TRAIN_FROM + 15 * DAY
    for before, told in ((8, True), (6, False), (29, False)):
        rows = LabelledRows(
            ids=pa.chunked_array([pa.array(["earlier", "later", "good"])]),
            event_time=np.array([later - before * DAY, later, later + 1]),
            amounts=np.ones(3, np.int64),
            cards=np.arange(3),
            labels=np.array([1, 1, 0], np.int8),
            matrix=np.zeros((3, 1)),
        )
        (result,) = knowable(rows, np.array([4, 4, 9]), np.array([2, 2, 0]), ["2018-07-25"])
        assert (result.auc == 1.0) == told, before


def test_the_table_has_the_published_models_and_our_own() -> None:
    """A row for each, with mean and spread over the weeks; what is fitted is named."""
    table = entries(SETTINGS)
    assert {entry.kind for entry in table} == {"logistic", "forest", "xgboost", "average", "neural"}
    printed = line("made", "small", "7", [Result(0.8, 0.5, 0.25), Result(0.9, 0.7, 0.35)])
    assert printed.split() == ["made", "small", "7", ".850", "±", ".071", ".600", "±", ".141", ".300", "±", ".071"]
