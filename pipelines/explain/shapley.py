"""What each feature of a transaction did to its score: Shapley values against a typical transaction.

The score's log-odds are a game of the features: those in a set have the transaction's values, the others their
typical ones (the manifest's baseline, the medians of the training data). A feature's Shapley value is what it adds,
averaged over all orders in which the features could join. Together they are the transaction's log-odds less those of
the typical transaction. Shapley, "A value for n-person games", 1953; Lundberg and Lee, "A unified approach to
interpreting model predictions", 2017; that absent features take values, whatever the others' are, is the
interventional form of Janzing, Minorics and Bloebaum, "Feature relevance quantification", 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np

from model_artifacts.artifact import Model

#: So many features that are not typical are taken in every combination: 65,536 scores. Of more, orders are drawn.
MOST_EXACT = 16
#: Orders that are drawn, each with its reverse.
PAIRS = 512

Floats = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, eq=False)
class Contributions:
    """Shapley values, in log-odds.

    Attributes:
        values: float64 (features,). They sum to `log_odds` - `typical` to within 1e-9, also where they are estimates.
        errors: their standard errors, 0 where they are exact.
        log_odds: of the transaction.
        typical: of a transaction whose features all have their typical values.
        method: how they were computed, in words.
    """

    values: Floats
    errors: Floats
    log_odds: float
    typical: float
    method: str


def contributions(
    row: Floats, model: Model, seed: int = 0, most_exact: int = MOST_EXACT, pairs: int = PAIRS
) -> Contributions:
    """The Shapley value of each feature of one transaction.

    A feature that has its typical value changes nothing and gets 0. Of up to `most_exact` others all combinations
    are scored. Of more, `pairs` orders and their reverses are drawn (Castro, Gomez and Tejada, 2009; Mitchell, Cooper,
    Frank and Holmes, 2022): along each order the additions telescope, so the estimates too sum to the whole. A
    linear model needs one order, because a feature adds the same in all.

    Args:
        row: float64 (features,), finite.
        model: what scored it.
        seed: of the orders.
        most_exact, pairs: see above.
    """
    typical = np.asarray(model.manifest.baseline, dtype=np.float64)
    moved = np.flatnonzero(row != typical)
    linear = model.manifest.kind == "logistic"

    def worth(present: Bools) -> Floats:
        """Log-odds with the features in each row of `present`, bool (n, moved), as they are and the rest typical."""
        matrix = np.tile(typical, (len(present), 1))
        matrix[:, moved] = np.where(present, row[moved], typical[moved])
        return np.asarray(model.log_odds(matrix))

    ends = worth(np.array([[False], [True]]).repeat(len(moved), axis=1))
    values, errors = np.zeros(len(row)), np.zeros(len(row))
    if linear or len(moved) > most_exact:
        values[moved], errors[moved] = _over_orders(worth, len(moved), 1 if linear else pairs, seed)
    elif len(moved):
        values[moved] = _over_subsets(worth, len(moved))
    if linear:
        errors[:], method = 0.0, "exact: the model is linear"
    elif len(moved) > most_exact:
        method = f"estimated over {2 * pairs:,} orders of {len(moved)} features that are not typical"
    else:
        method = f"exact: all combinations of the {len(moved)} features that are not typical"
    return Contributions(values, errors, float(ends[1]), float(ends[0]), method)


def _over_subsets(worth: Any, count: int) -> Floats:
    """Exact values: for each feature, what it adds to every set of the others, by how many orders form that set."""
    sets = np.arange(1 << count)
    present = (sets[:, np.newaxis] >> np.arange(count)) & 1 == 1
    found, sizes = worth(present), present.sum(axis=1)
    share = np.array([1.0 / (count * comb(count - 1, size)) for size in range(count)])
    values = np.empty(count)
    for at in range(count):
        without = sets[~present[:, at]]
        values[at] = np.sum(share[sizes[without]] * (found[without | (1 << at)] - found[without]))
    return values


def _over_orders(worth: Any, count: int, pairs: int, seed: int) -> tuple[Floats, Floats]:
    """Estimates over orders and their reverses, and the standard errors of the pairs' means."""
    rng = np.random.default_rng(seed)
    forward = np.stack([rng.permutation(count) for _ in range(pairs)])
    orders = np.concatenate([forward, forward[:, ::-1]])
    # A feature's place in each order; those in places below n are the first n to have joined.
    places = np.argsort(orders, axis=1)
    present = places[:, np.newaxis, :] < np.arange(count + 1)[:, np.newaxis]
    walked = worth(present.reshape(-1, count)).reshape(len(orders), count + 1)
    added = np.take_along_axis(np.diff(walked, axis=1), places, axis=1)
    of_pairs = (added[:pairs] + added[pairs:]) / 2
    spread = of_pairs.std(axis=0, ddof=1) if pairs > 1 else np.zeros(count)
    return of_pairs.mean(axis=0), spread / np.sqrt(pairs)
