"""Histograms of fixed bins, so that two can be added and neither grows with what it counts."""

from __future__ import annotations

from typing import Any

import numpy as np

#: Scores are binned by their log-odds: even bins from -16 to 16, finest where scores are decided on.
#: Within a bin log-odds differ by 1/64 at most, probabilities by 1.6 % of the smaller of p and 1 - p.
SCORE_BINS = 2048
_LOG_ODDS_LIMIT = 16.0
_BINS_PER_UNIT = SCORE_BINS / (2 * _LOG_ODDS_LIMIT)

#: Durations are binned by their logarithm: eight bins to a doubling, from a microsecond to a year.
DURATION_BINS = 8 * 45
_BINS_PER_DOUBLING = 8

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


def score_bins(scores: Floats) -> Ints:
    """The bin of each score, 0 to `SCORE_BINS` - 1; what lies beyond the outer bins counts in them.

    Raises:
        ValueError: a score is not a number: no score may be lost in a bin.

    Example:
        >>> score_bins(np.array([0.0, 0.5, 1.0])).tolist()
        [0, 1024, 2047]
    """
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores are not numbers")
    with np.errstate(divide="ignore"):  # 0 and 1 have infinite log-odds: they go to the outer bins
        log_odds = np.log(scores) - np.log1p(-scores)
    places = np.floor((log_odds + _LOG_ODDS_LIMIT) * _BINS_PER_UNIT)
    return np.clip(places, 0, SCORE_BINS - 1).astype(np.int64)


def score_at(place: np.ndarray[Any, Any] | float) -> Floats:
    """The probability at a place on the bins' axis: bin b reaches from place b to b + 1.

    Example:
        >>> float(score_at(1024))
        0.5
    """
    return 1.0 / (1.0 + np.exp(_LOG_ODDS_LIMIT - np.asarray(place, dtype=np.float64) / _BINS_PER_UNIT))


def duration_bins(micros: Ints) -> Ints:
    """The bin of each duration in microseconds, 0 to `DURATION_BINS` - 1; a negative one counts as 0."""
    places = np.log2(np.maximum(micros, 1)) * _BINS_PER_DOUBLING
    return np.minimum(places.astype(np.int64), DURATION_BINS - 1)


def duration_at(place: np.ndarray[Any, Any] | float) -> Floats:
    """The microseconds at a place on the bins' axis: bin b reaches from place b to b + 1."""
    return np.exp2(np.asarray(place, dtype=np.float64) / _BINS_PER_DOUBLING)


def quantile_bin(counts: Ints, share: float) -> int | None:
    """The lowest bin that, with those below it, holds at least `share` of everything; None of nothing.

    Example:
        >>> quantile_bin(np.array([1, 0, 2, 1]), 0.5), quantile_bin(np.array([0, 0]), 0.5)
        (2, None)
    """
    running = np.cumsum(counts)
    if not running[-1]:
        return None
    # The epsilon undoes rounding: 0.07 * 100 is 7.000000000000001, yet seven of a hundred are enough.
    return int(np.searchsorted(running, share * float(running[-1]) * (1 - 1e-12)))
