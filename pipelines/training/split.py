"""Training, calibration and test periods, in the order of time and apart by the label delay.

    |-- warm-up --|------ fit ------|-- gap --|-- calibrate --|-- gap --|---- test ----|
                  train_from                                  train_to  test_from      test_to

A random split would put transactions of one stolen card on both sides, and would let the model learn
from frauds that nobody had reported yet on the day it is tested on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from transforms.durations import DAY, format_duration
from transforms.errors import UserError
from transforms.features import FeatureSet

_TEST_SHARE = 0.2
_LEAST_TEST_DAYS = 7
_LEAST_TRAINING = 14 * DAY  # a shorter warm-up is the lesser evil below this


@dataclass(frozen=True)
class SplitRequest:
    """What the user fixed; None is chosen. Times in microseconds, at UTC midnights.

    Attributes:
        train_from: the first instant of the training period.
        train_to: the instant it ends before; the test period follows after the label delay.
        test_days: the test period's length.
    """

    train_from: int | None = None
    train_to: int | None = None
    test_days: int | None = None


@dataclass(frozen=True)
class Periods:
    """Half-open periods of event time, in microseconds.

    Attributes:
        train_from: the model is fitted on [train_from, fit_to).
        fit_to: the end of what it is fitted on.
        calibrate_from: calibration and thresholds use [calibrate_from, train_to).
        train_to: the end of the training period.
        test_from: metrics are measured on [test_from, test_to).
        test_to: the end of the test period.
        notes: what was given up for want of data, in sentences for the model card.
    """

    train_from: int
    fit_to: int
    calibrate_from: int
    train_to: int
    test_from: int
    test_to: int
    notes: tuple[str, ...] = ()

    @property
    def test_days(self) -> float:
        """The test period's length in days."""
        return (self.test_to - self.test_from) / DAY


def within(event_time: NDArray[np.int64], start: int, end: int) -> NDArray[np.bool_]:
    """Which times lie in [start, end)."""
    return (event_time >= start) & (event_time < end)


def warm_up(feature_set: FeatureSet) -> int:
    """How long the input must run before every window is full, in microseconds."""
    return max(feature.window + feature.delay for feature in feature_set.features)


def split_by_time(
    event_time: NDArray[np.int64], label_delay: int, history: int, request: SplitRequest | None = None
) -> Periods:
    """The periods for data of these times.

    Unless `request` says otherwise the last fifth of the days, at least seven, are the test; the label
    delay before them is left out; training starts when every window is full, or as late as leaves
    fourteen days. The last quarter of the training period calibrates.

    Args:
        event_time: int64 microseconds, shape (rows,), at least one, in any order.
        label_delay: how long after a transaction its label is known, in microseconds.
        history: the warm-up of `warm_up`, in microseconds.
        request: what the user fixed.

    Raises:
        UserError: too few days, or fixed periods that hold no time or lie outside the data.
    """
    asked = request or SplitRequest()
    first = int(event_time.min()) // DAY * DAY
    end = int(event_time.max()) // DAY * DAY + DAY
    test_from, test_to = _test_period(first, end, label_delay, asked)
    train_to = test_from - label_delay
    train_from, notes = _training_start(first, train_to, history, asked)
    if train_to - train_from < DAY or test_to <= test_from:
        raise UserError(
            f"the data runs from {day(first)} to {day(end)}, {(end - first) // DAY} days: training would be "
            f"{day(train_from)} to {day(train_to)} and the test {day(test_from)} to {day(test_to)}, after a label "
            f"delay of {format_duration(label_delay)}. Give more days, or choose --train_from, --train_to, "
            "--test_days and --label_delay to fit"
        )
    return _with_calibration(Periods(train_from, 0, 0, train_to, test_from, test_to, notes), label_delay)


def _test_period(first: int, end: int, label_delay: int, asked: SplitRequest) -> tuple[int, int]:
    if asked.train_to is not None:
        test_from = asked.train_to + label_delay
        test_to = test_from + asked.test_days * DAY if asked.test_days else end
        return test_from, min(test_to, end)
    days = asked.test_days or max(_LEAST_TEST_DAYS, round((end - first) / DAY * _TEST_SHARE))
    return end - days * DAY, end


def _training_start(first: int, train_to: int, history: int, asked: SplitRequest) -> tuple[int, tuple[str, ...]]:
    """Where training starts, and a note when windows are not full there."""
    mature = first + -(-history // DAY) * DAY
    start = max(first, min(mature, train_to - _LEAST_TRAINING) if asked.train_from is None else asked.train_from)
    if start >= mature:
        return start, ()
    missing = f"{(start - first) // DAY} days of input precede training, fewer than the {history / DAY:g} days"
    return start, (f"{missing} the longest window looks back: the first features are made of part of a history.",)


def _with_calibration(periods: Periods, label_delay: int) -> Periods:
    """`periods` with the training period divided: its last quarter, in whole days if it can be, calibrates."""
    length = periods.train_to - periods.train_from
    quarter = max(DAY, round(length / 4 / DAY) * DAY) if length >= 2 * DAY else length // 4
    calibrate_from = periods.train_to - quarter
    fit_to = calibrate_from - label_delay
    notes = periods.notes
    if fit_to - periods.train_from < quarter:
        fit_to = calibrate_from
        if label_delay:
            notes += (
                "The training period is too short for a gap between fitting and calibration: cards and terminals "
                "compromised then appear in both, and the thresholds may be somewhat too confident.",
            )
    return replace(periods, fit_to=fit_to, calibrate_from=calibrate_from, notes=notes)


def day(micros: int) -> str:
    """An instant as ISO 8601 in UTC: the date alone at midnight.

    Example:
        >>> day(1_532_476_800_000_000)
        '2018-07-25'
    """
    instant = datetime.fromtimestamp(micros / 1e6, UTC)
    return instant.date().isoformat() if micros % DAY == 0 else instant.replace(tzinfo=None).isoformat() + "Z"
