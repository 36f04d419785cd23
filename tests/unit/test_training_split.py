"""Periods follow one another in time, apart by the label delay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.training.split import SplitRequest, day, split_by_time, warm_up
from transforms.durations import DAY
from transforms.errors import UserError
from transforms.features import load_feature_set

START = 17_000 * DAY


def _times(days: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return START + np.arange(days * 24) * (DAY // 24)


@given(days=st.integers(1, 400), delay=st.integers(0, 30), history=st.integers(0, 60))
def test_periods_are_ordered_and_apart(days: int, delay: int, history: int) -> None:
    """Whatever the data: periods in order, a full delay before the test, nothing outside the data; or a refusal."""
    if days < 7 + delay + 1:  # a week of test, the delay, a day of training
        with pytest.raises(UserError, match=f"{days} days"):
            split_by_time(_times(days), delay * DAY, history * DAY)
        return
    found = split_by_time(_times(days), delay * DAY, history * DAY)
    assert START <= found.train_from < found.fit_to <= found.calibrate_from < found.train_to
    assert found.test_from - found.train_to == delay * DAY
    assert found.test_from < found.test_to == START + days * DAY
    assert found.test_days >= 7
    assert found.calibrate_from - found.fit_to in (0, delay * DAY)
    mature = found.train_from >= START + history * DAY
    assert mature or found.notes, "features made of part of a history are admitted in the card"


def test_defaults_on_ample_data() -> None:
    """Of 157 days the last 31 test, 7 are the gap, 37 warm up, and a quarter of the rest calibrates after a gap."""
    found = split_by_time(_times(157), 7 * DAY, warm_up(load_feature_set("handbook")))
    edges = [found.train_from, found.fit_to, found.calibrate_from, found.train_to, found.test_from, found.test_to]
    assert [(edge - START) // DAY for edge in edges] == [37, 92, 99, 119, 126, 157]
    assert found.notes == ()


def test_the_handbooks_dates() -> None:
    """Fixed dates are kept: seven days of training, seven of gap, seven of test."""
    train_from = START + 115 * DAY
    request = SplitRequest(train_from=train_from, train_to=train_from + 7 * DAY, test_days=7)
    found = split_by_time(_times(157), 7 * DAY, 37 * DAY, request)
    assert (found.train_from, found.train_to) == (train_from, train_from + 7 * DAY)
    assert (found.test_from, found.test_to) == (train_from + 14 * DAY, train_from + 21 * DAY)
    assert "too short for a gap between fitting and calibration" in found.notes[0]


def test_a_short_history_is_admitted() -> None:
    """With forty days the warm-up is cut to keep a fortnight of training, and the note says so."""
    found = split_by_time(_times(40), 7 * DAY, 37 * DAY)
    assert found.train_to - found.train_from == 14 * DAY
    assert found.notes[0].startswith("11 days of input precede training, fewer than the 37 days")


@pytest.mark.parametrize(
    "request_",
    [
        SplitRequest(train_to=START + 60 * DAY),
        SplitRequest(train_from=START + 58 * DAY),
        SplitRequest(train_from=START + 20 * DAY, train_to=START + 20 * DAY),
        SplitRequest(test_days=60),
    ],
)
def test_impossible_dates_are_refused(request_: SplitRequest) -> None:
    """Dates that leave no training or no test are refused with the periods they would give."""
    with pytest.raises(UserError, match=r"the data runs from 2016-07-18 to 2016-09-16, 60 days: training would be"):
        split_by_time(_times(60), 7 * DAY, 0, request_)


def test_day_writes_utc() -> None:
    """Midnight is a date, other instants have their time."""
    assert day(START) == "2016-07-18"
    assert day(START + DAY // 4) == "2016-07-18T06:00:00Z"
