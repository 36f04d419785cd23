"""Versions to MLflow's model registry and back, in a store of MLflow's own in a directory."""

from __future__ import annotations

import re
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from model_artifacts.__main__ import main
from model_artifacts.registry import Registry, open_registry
from tests.small_models import make_model

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tracking URI of MLflow without a server; skipped where MLflow is not installed."""
    pytest.importorskip("mlflow", reason="mlflow-skinny is not installed: the extra [mlflow], or requirements-dev.txt")
    monkeypatch.setenv(
        "MLFLOW_ALLOW_FILE_STORE", "true"
    )  # MLflow would have a database, for which skinny has no client
    return f"file://{tmp_path}/mlruns"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return open_registry(str(tmp_path / "registry"))


@pytest.fixture
def other(tmp_path: Path) -> Registry:
    return open_registry(str(tmp_path / "other"))


def add(registry: Registry, directory: Path, key: Ed25519PrivateKey | None = None, weight: float = 0.001) -> str:
    make_model(directory, "one", weight=weight)
    return registry.add(directory, "ann", NOW, key).version


def client(uri: str) -> Any:
    import mlflow

    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def test_a_version_comes_back_byte_for_byte(
    uri: str, registry: Registry, other: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its name, index and signature, so that whoever asks for the signature has it there too."""
    key = Ed25519PrivateKey.generate()
    public = tmp_path / "public.pem"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    version = add(registry, tmp_path / "one", key)
    assert main(["export", version, "--mlflow", uri, "--registry", registry.url]) == 0
    assert capsys.readouterr().out == "models:/one/1\n"
    words = ["import", "models:/one/1", "--mlflow", uri, "--registry", other.url, "--public_key", str(public)]
    assert main(words) == 0
    assert capsys.readouterr().out == f"{version}\n"
    assert other.contents(version) == registry.contents(version)
    assert other.is_signed(version, key.public_key().public_bytes_raw())
    assert main(words) == 0  # again: nothing changes
    assert other.versions() == [version]


def test_an_export_is_made_once_and_tells_what_is_known(
    uri: str, registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLflow shows its figures; another version is the next one there, and a name of one's own can be given."""
    first = add(registry, tmp_path / "one")
    words = ["--mlflow", uri, "--registry", registry.url]
    assert main(["export", first, *words]) == main(["export", first, *words]) == 0
    second = add(registry, tmp_path / "two", weight=0.002)
    assert main(["export", second, *words]) == main(["export", second, "--mlflow_name", "cards", *words]) == 0
    assert capsys.readouterr().out.split() == ["models:/one/1", "models:/one/1", "models:/one/2", "models:/cards/1"]
    there = client(uri).get_model_version("one", "2")
    assert there.tags["fraud.version"] == second
    run = client(uri).get_run(there.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == registry.manifest(second).metrics
    assert run.data.params["fingerprint"] == registry.manifest(second).fingerprint


def test_aliases_and_logged_directories_are_imported(
    uri: str, registry: Registry, other: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By an alias of MLflow's, or out of a run whose owner logged a model directory and has no registry."""
    version = add(registry, tmp_path / "one")
    words = ["--mlflow", uri, "--registry"]
    assert main(["export", version, *words, registry.url]) == 0
    client(uri).set_registered_model_alias("one", "champion", "1")
    assert main(["import", "models:/one@champion", *words, other.url]) == 0
    run = client(uri).create_run(client(uri).create_experiment("notebook")).info.run_id
    client(uri).log_artifacts(run, str(tmp_path / "one"), "fraud")
    third = open_registry(str(tmp_path / "third"))
    assert main(["import", f"runs:/{run}/fraud", *words, third.url]) == 0
    assert capsys.readouterr().out.split() == ["models:/one/1", version, version]
    assert third.version(version).files == registry.version(version).files


def test_foreign_models_are_refused_and_not_fetched(
    uri: str, registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flavour of MLflow's, pickle and all: its names suffice."""
    foreign = tmp_path / "foreign"
    shutil.copytree(_directory(tmp_path), foreign)
    (foreign / "MLmodel").write_text("flavors: {python_function: {loader_module: mlflow.sklearn}}")
    (foreign / "model.pkl").write_bytes(b"\x80\x04.")
    run = client(uri).create_run(client(uri).create_experiment("foreign")).info.run_id
    client(uri).log_artifacts(run, str(foreign), "model")
    import mlflow.artifacts

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", lambda **given: pytest.fail("fetched"))
    assert main(["import", f"runs:/{run}/model", "--mlflow", uri, "--registry", registry.url]) == 2
    said = capsys.readouterr().err
    assert "is no model of this project: it holds MLmodel" in said
    assert "never loaded" in said
    assert registry.versions() == []


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("model.onnx", "model.onnx of version one-.* is missing or was changed"),
        ("manifest.json", "manifest.json of version one-.* is missing or was changed"),
        ("version.json", "version.json is damaged"),
        ("SIGNATURE", "the signature of version one-.* is not of the public key's owner"),
    ],
)
def test_what_was_changed_in_mlflow_is_refused(
    uri: str,
    registry: Registry,
    other: Registry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    told: str,
) -> None:
    """Each file is compared with the index, and the index with the signature; the registry stays empty."""
    key = Ed25519PrivateKey.generate()
    public = tmp_path / "public.pem"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    version = add(registry, tmp_path / "one", key)
    assert main(["export", version, "--mlflow", uri, "--registry", registry.url]) == 0
    (stored,) = (tmp_path / "mlruns").rglob(file)
    stored.write_bytes(b"changed")
    words = ["import", "models:/one/1", "--mlflow", uri, "--registry", other.url, "--public_key", str(public)]
    assert main(words) == 2
    assert re.search(told, capsys.readouterr().err)
    assert other.versions() == []


def test_an_unsigned_version_is_refused_where_a_signature_is_asked_for(
    uri: str, registry: Registry, other: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is put into the registry before that is known."""
    key = Ed25519PrivateKey.generate()
    public = tmp_path / "public.pem"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    version = add(registry, tmp_path / "one")
    assert main(["export", version, "--mlflow", uri, "--registry", registry.url]) == 0
    words = ["import", "models:/one/1", "--mlflow", uri, "--registry", other.url, "--public_key", str(public)]
    assert main(words) == 2
    assert "is not signed" in capsys.readouterr().err
    assert other.versions() == []


def test_mistakes_are_told_in_a_line(
    uri: str, registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No such model, no such name, no server named, credentials in a URL."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mistakes = {
        ("import", "models:/nothing/1", "--mlflow", uri): "MLflow at file://",
        ("import", "s3://bucket/model", "--mlflow", uri): "write models:/NAME/VERSION",
        ("import", "models:/one/latest", "--mlflow", uri): "write models:/NAME/VERSION",
        ("import", "models:/one/1"): "no MLflow: give --mlflow",
        ("import", "models:/one/1", "--mlflow", "https://me:secret@host"): "the URL holds credentials",
    }
    for words, told in mistakes.items():
        assert main([*words, "--registry", registry.url]) == 2
        said = capsys.readouterr().err
        assert told in said
        assert "secret" not in said
        assert said.count("\n") == 1


def test_without_mlflow_it_is_said_what_to_install(
    registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an extra: everything else goes without it."""
    version = add(registry, tmp_path / "one")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert main(["export", version, "--mlflow", "http://127.0.0.1:1", "--registry", registry.url]) == 2
    assert "pip install mlflow-skinny" in capsys.readouterr().err


def _directory(tmp_path: Path) -> Path:
    make_model(tmp_path / "mine", "mine")
    return tmp_path / "mine"
