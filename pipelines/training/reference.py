"""How features and scores lay in the training period: what is compared with later, see `transforms.drift`."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model_artifacts.artifact import Model
from model_artifacts.reference import Reference, column_references, floats, number_reference
from pipelines.training.split import Periods, day
from transforms.batch import CANONICAL_FIELDS


def training_reference(table: pa.Table, model: Model, periods: Periods) -> Reference:
    """The reference of a model: features and text columns of its training period, scores of its calibration days.

    The scores are those of days it was not fitted on: of what it learnt from it is surer than it will ever be again.

    Args:
        table: canonical columns, the schema's own, and the features.
        model: calibrated.
        periods: of its training.
    """
    manifest = model.manifest
    trained = _between(table, periods.train_from, periods.train_to)
    later = _between(table, periods.calibrate_from, periods.train_to)
    matrix = np.column_stack([floats(later.column(name)) for name in manifest.feature_names])
    columns = column_references(trained, manifest.feature_names, category_columns(trained))
    return Reference(
        model_id=manifest.model_id,
        fingerprint=manifest.fingerprint,
        made_from=f"training, {day(periods.train_from)} to {day(periods.train_to)}",
        columns=(*columns, number_reference("score", model.score(matrix))),
    )


def category_columns(table: pa.Table) -> tuple[str, ...]:
    """The columns of text that the schema adds, such as `merchant_category`."""
    known = {field.name for field in CANONICAL_FIELDS}
    return tuple(f.name for f in table.schema if f.name not in known and pa.types.is_string(f.type))


def _between(table: pa.Table, start: int, end: int) -> pa.Table:
    times = table.column("event_time").cast(pa.int64())
    return table.filter(pc.and_(pc.greater_equal(times, start), pc.less(times, end)))
