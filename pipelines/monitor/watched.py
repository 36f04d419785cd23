"""What a run watches: settings and the model's reference made concrete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from model_artifacts.artifact import model_reference
from model_artifacts.manifest import Manifest
from model_artifacts.reference import Reference, load_reference
from pipelines.settings import Monitor
from transforms.drift import Alarm
from transforms.durations import DAY, parse_duration
from transforms.errors import UserError
from transforms.features import FeatureSet
from transforms.window_counts import Windows

#: Features of the calendar alone, and the span over which their share is the same wherever it begins.
_CALENDAR = {"night": DAY, "weekend": 7 * DAY}


@dataclass(frozen=True)
class Watched:
    """What is compared with what.

    Attributes:
        windows: to compare in.
        alarm: when a column has drifted.
        reference: what drift is measured against, less what cannot be compared in such windows; None: drift is not.
        why_not: why it is not, and what to do; empty where it is.
    """

    windows: Windows
    alarm: Alarm
    reference: Reference | None
    why_not: str


def watched(monitor: Monitor, model_uri: str, manifest: Manifest, columns: Sequence[str]) -> Watched:
    """What these settings mean for a model.

    Args:
        monitor: the settings.
        model_uri, manifest: of the model.
        columns: what decisions have.

    Raises:
        UserError: the reference is broken, or of other features; one that was named does not exist.
    """
    window = parse_duration(monitor.window)
    windows = Windows(window, parse_duration(monitor.every) if monitor.every else window)
    reference, why_not = None, "switched off by monitor.drift = false"
    if monitor.drift:
        reference = _reference(monitor, model_uri, manifest)
        why_not = "" if reference else (
            f"model {manifest.model_id} has no reference.json to compare with. Make one of a good week's decisions: "
            f"python -m pipelines.monitor reference --decisions DIR --model {model_uri}"
        )  # fmt: skip
    if reference is not None:
        reference = comparable(reference, manifest.feature_set, columns, windows.size)
    return Watched(windows, Alarm(psi=monitor.psi_alert, rows=monitor.least_rows), reference, why_not)


def _reference(monitor: Monitor, model_uri: str, manifest: Manifest) -> Reference | None:
    if monitor.reference is None:
        return model_reference(model_uri)
    reference = load_reference(Path(monitor.reference), manifest)
    if reference is None:
        raise UserError(
            f"monitor.reference {monitor.reference} does not exist; make it: "
            "python -m pipelines.monitor reference --help"
        )
    return reference


def comparable(reference: Reference, feature_set: FeatureSet, columns: Sequence[str], window: int) -> Reference:
    """The reference less columns that decisions lack, and less what follows the calendar by more than a window.

    No Tuesday is like a week in its share of weekend.

    Example:
        >>> from model_artifacts.artifact import load_model
        >>> from model_artifacts.reference import TextReference
        >>> columns = tuple(TextReference(name=name, values=(), counts=(1,)) for name in ("weekend", "night", "absent"))
        >>> reference = Reference(model_id="m", fingerprint="f", made_from="", columns=columns)
        >>> features = load_model("handbook").manifest.feature_set
        >>> [column.name for column in comparable(reference, features, ["weekend", "night"], DAY).columns]
        ['night']
    """
    turns = {feature.name: _CALENDAR.get(feature.kind, 1) for feature in feature_set.features}
    kept = tuple(c for c in reference.columns if c.name in columns and window % turns.get(c.name, 1) == 0)
    return msgspec.structs.replace(reference, columns=kept)
