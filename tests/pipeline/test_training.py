"""`python -m pipelines.training` from its source to a model on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_artifacts.artifact import load_model
from pipelines.training.__main__ import main

SOURCE = "simulator:?customers=300&terminals=300&days=45&seed=7"


def _files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_the_command_makes_a_model_twice_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Simulated transactions, the pipeline's own features, and the same directory byte for byte from a second run."""
    for run in ("first", "second"):
        code = main(["--source", SOURCE, "--model", "xgboost", "--output", str(tmp_path / run), "--name", "made"])
        printed = capsys.readouterr()
        assert (code, printed.err) == (0, "")
        assert "AUC ROC" in printed.out
    assert _files(tmp_path / "first") == _files(tmp_path / "second")
    model = load_model(str(tmp_path / "first"))
    assert model.manifest.model_id.startswith("made-")
    assert model.manifest.training.source == SOURCE
    usual = np.array([model.manifest.baseline])
    dear = usual.copy()
    dear[0, model.manifest.feature_names.index("amount")] = 500.0  # the simulator's first scenario: above 220
    assert model.score(dear)[0] > model.score(usual)[0]
