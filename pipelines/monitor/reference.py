"""A reference for a model that has none, or a later one: from decisions of days that were as they should be."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from model_artifacts.manifest import Manifest
from model_artifacts.reference import Reference, column_references
from transforms.batch import CANONICAL_FIELDS
from transforms.decide import DECIDE_COLUMNS
from transforms.errors import UserError
from transforms.score import SCORE_COLUMNS

_NOT_WATCHED = {*(field.name for field in CANONICAL_FIELDS), *SCORE_COLUMNS, *DECIDE_COLUMNS}


def reference_of_decisions(decisions: pa.Table, manifest: Manifest, made_from: str) -> Reference:
    """The distributions of a model's features, of the schema's text columns, and of its scores.

    Args:
        decisions: of that model alone.
        manifest: the model's.
        made_from: where they came from, for people.

    Raises:
        UserError: they are of another model, or lack a column.
    """
    if not decisions.num_rows or "model_id" not in decisions.column_names:
        raise UserError(f"{made_from} holds no decisions: a reference is made of what a run of this pipeline decided")
    models = sorted(str(name) for name in pc.unique(decisions.column("model_id")).to_pylist())
    if models != [manifest.model_id]:
        raise UserError(
            f"{made_from} holds decisions of {', '.join(models)}, not only of {manifest.model_id}: scores of two "
            "models are not comparable; decide on these days with the one that is to be watched"
        )
    texts = [f.name for f in decisions.schema if pa.types.is_string(f.type) and f.name not in _NOT_WATCHED]
    return Reference(
        model_id=manifest.model_id,
        fingerprint=manifest.fingerprint,
        made_from=made_from,
        columns=column_references(decisions, [*manifest.feature_names, "score"], texts),
    )
