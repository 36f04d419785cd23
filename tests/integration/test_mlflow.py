"""Versions to a real MLflow server and back: its REST interface, its artifacts through the server, its database."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from model_artifacts.__main__ import main
from model_artifacts.registry import open_registry
from runners.local import MlflowServer, free_port
from tests.integration.conftest import running
from tests.small_models import make_model


@pytest.fixture(scope="module")
def mlflow(servers: Path) -> MlflowServer:
    """MLflow: `.url`."""
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed: the extra [mlflow], or requirements-dev.txt")
    return running(MlflowServer(servers / "mlflow", free_port()))


def test_a_version_comes_back_byte_for_byte(
    mlflow: MlflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the server, by version and by alias; a second export finds the first."""
    import mlflow as package

    one, two = (open_registry(str(tmp_path / name)) for name in ("one", "two"))
    make_model(tmp_path / "model", "cards")
    version = one.add(tmp_path / "model", "ann", datetime(2026, 11, 1, tzinfo=UTC)).version
    for _ in range(2):
        assert main(["export", version, "--mlflow", mlflow.url, "--registry", one.url]) == 0
    client = package.MlflowClient(tracking_uri=mlflow.url, registry_uri=mlflow.url)
    client.set_registered_model_alias("cards", "champion", "1")
    for name in ("models:/cards/1", "models:/cards@champion"):
        assert main(["import", name, "--mlflow", mlflow.url, "--registry", two.url]) == 0
    assert capsys.readouterr().out.split() == ["models:/cards/1"] * 2 + [version] * 2
    assert two.contents(version) == one.contents(version)


def test_a_server_that_is_away_is_told_in_a_line(
    mlflow: MlflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within seconds, not MLflow's minutes."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    words = ["--mlflow", f"http://127.0.0.1:{free_port()}", "--registry", str(tmp_path)]
    assert main(["import", "models:/cards/1", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: MLflow at http://127.0.0.1:")
    assert said.count("\n") == 1
