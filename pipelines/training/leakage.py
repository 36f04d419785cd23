"""Refusals: what would make a model look better in training than it can ever be in production."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.training.metrics import auc_roc
from transforms.errors import UserError
from transforms.features import FeatureSet

_LABEL = "is_fraud"
_TOO_GOOD = 0.999
_ENOUGH_FRAUDS = 20  # with fewer, a strong feature may separate them by chance


def refuse_label_features(feature_set: FeatureSet) -> None:
    """Refuse features made of the label itself; `risk` sees it only through its delay.

    Raises:
        UserError: names the feature.
    """
    for feature in feature_set.features:
        if _LABEL in (feature.column, feature.name, feature.entity):
            raise UserError(
                f"feature {feature.name} is made of {_LABEL}, the label to be predicted, which is not known when a "
                "transaction is scored. Remove it, or declare a risk feature, which waits for the label delay"
            )


def refuse_shared_ids(train: pa.ChunkedArray, test: pa.ChunkedArray) -> None:
    """Refuse transactions that are in the training and in the test period.

    Args:
        train: transaction ids of the training period.
        test: those of the test period.

    Raises:
        UserError: says how many, and names one.
    """
    shared = test.filter(pc.is_in(test, value_set=train.combine_chunks()))
    if len(shared):
        raise UserError(
            f"{len(shared)} transaction ids of the test period occur in the training period too, such as "
            f"{shared[0].as_py()!r}: the model would be tested on what it has seen. Remove the duplicates"
        )


def refuse_telltales(matrix: NDArray[np.float64], names: Sequence[str], labels: NDArray[np.int8]) -> None:
    """Refuse a feature that alone tells frauds from the rest almost perfectly: nothing honest does.

    Args:
        matrix: shape (rows, features).
        names: the features' names.
        labels: 0 or 1, shape (rows,); both occur.

    Raises:
        UserError: names the feature and its AUC.
    """
    if labels.sum() < _ENOUGH_FRAUDS:
        return
    for at, name in enumerate(names):
        area = auc_roc(matrix[:, at], labels)
        area = max(area, 1.0 - area)
        if area > _TOO_GOOD:
            raise UserError(
                f"feature {name} alone separates frauds from the rest (AUC {area:.5f}): it was most likely filled in "
                "after the fraud was known, and will not be there when a transaction is scored. Remove it"
            )
