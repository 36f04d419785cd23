"""`python -m pipelines.training` from its source to a model on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from io_connectors.simulation import Simulation, simulate
from model_artifacts.artifact import load_model
from pipelines.matrix import build_matrix
from pipelines.training.__main__ import main
from tests.command import run_command
from transforms.durations import DAY
from transforms.features import load_feature_set

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


def test_features_of_features_are_served_as_they_were_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the extended set small batches, other shards and labels that arrive apart serve the same, to the last bit."""
    features = load_feature_set("handbook-extended")
    trained = build_matrix(SOURCE, "handbook", features, 7 * DAY)
    first = str(pc.min(trained["event_time"]).as_py().date())
    told = ["--source", SOURCE, "--features", "handbook-extended", "--model", "logistic", "--train_from", first]
    code = main([*told, "--output", str(tmp_path / "model")])
    assert (code, capsys.readouterr().err) == (0, "")
    transactions = tmp_path / "transactions.parquet"
    pq.write_table(simulate(Simulation(customers=300, terminals=300, days=45, seed=7)), transactions)
    served = run_command(
        tmp_path / "output",
        *("--model", str(tmp_path / "model"), "--source", str(transactions), "--labels", str(transactions)),
        *("--set", "pipeline.shards=3", "--set", "pipeline.batch_rows=1000"),
    ).decisions
    assert served["transaction_id"].equals(trained["transaction_id"])
    for name in features.names:
        np.testing.assert_array_equal(served[name].to_numpy(), trained[name].to_numpy(), err_msg=name)
    assert pc.max(trained["terminal_known_frauds_28d_delay_7d"]).as_py() > 0
    assert pc.sum(trained["unusual"]).as_py() > 0
