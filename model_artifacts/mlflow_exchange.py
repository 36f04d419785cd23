"""Versions of a registry to MLflow's model registry and back: the same files, byte for byte.

MLflow holds what a version consists of (the ONNX file, the manifest, the card, the index with its sums, the signature)
as artifacts of a run, shows its figures, and lets people find it. It gets no flavour: what MLflow would serve would be
the graph without its calibration. What comes back is checked as what is added from a directory; of another origin
nothing is even fetched, since many of MLflow's flavours are pickles.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from model_artifacts.artifact import MANIFEST_FILE, MODEL_FILE
from model_artifacts.manifest import Manifest
from model_artifacts.registry import Registry
from model_artifacts.registry_files import FILE_NAME, INDEX_FILE, SIGNATURE_FILE
from transforms.errors import UserError

EXPERIMENT = "fraud-detection"
#: The tag that says which of our versions one of MLflow's is.
VERSION_TAG = "fraud.version"
_FOLDER = "model"
_MODEL = re.compile(r"models:/([^/@]+)(?:/([0-9]+)|@([^/@]+))")
_RUN = re.compile(r"runs:/[0-9a-f]{32}/.+")


@dataclass(frozen=True)
class Server:
    """MLflow, where it keeps runs and models.

    Attributes:
        uri: `http://host:port` or what else MLflow takes; credentials come from where MLflow looks for them.
        mlflow: its package.
        client: of that server.
    """

    uri: str
    mlflow: ModuleType
    client: Any


def open_server(uri: str) -> Server:
    """MLflow under a tracking URI.

    Raises:
        UserError: MLflow is not installed, or the URI holds a password.
    """
    if urlsplit(uri).username:
        raise UserError(
            "--mlflow: the URL holds credentials, which would end up in logs and process lists; leave them out and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    # MLflow reports its use to its makers, asks a server that is away for minutes, and prints addresses of its own,
    # unless it is told otherwise.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        import mlflow
        import mlflow.artifacts
    except ImportError as error:
        raise UserError(
            "MLflow is not installed: pip install mlflow-skinny, which the extra of this package names: "
            "fraud-detection-beam[mlflow]"
        ) from error
    with _telling(uri):
        return Server(uri, mlflow, mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri))


def export_version(registry: Registry, version: str, server: Server, name: str | None = None) -> str:
    """Put a version into MLflow; one that is there already stays as it is.

    Args:
        registry: that has it.
        version: its name.
        server: MLflow.
        name: of the registered model; None: the version's own name, less the digits.

    Returns:
        MLflow's name of it, such as `models:/handbook/3`.

    Raises:
        UserError: the version is damaged, or MLflow refuses or is away.
    """
    contents, manifest = registry.contents(version), registry.manifest(version)
    name = name or version.rpartition("-")[0]
    with _telling(server.uri):
        for there in server.client.search_model_versions(f"name = '{name}'"):
            if there.tags.get(VERSION_TAG) == version:
                return f"models:/{name}/{there.version}"
        run = _run(server, version, manifest)
        source = _log(server, run, contents)
        if not server.client.search_registered_models(f"name = '{name}'"):
            server.client.create_registered_model(name)
        made = server.client.create_model_version(
            name, source, run, tags={VERSION_TAG: version}, description=f"{version}, {manifest.kind}"
        )
    return f"models:/{name}/{made.version}"


def import_version(
    registry: Registry, model: str, server: Server, by: str, now: datetime, public_key: bytes | None = None
) -> str:
    """Take a version out of MLflow into a registry.

    Args:
        registry: to put it in.
        model: `models:/NAME/VERSION`, `models:/NAME@ALIAS`, or `runs:/RUN/PATH` of a model directory that was logged.
        server: MLflow.
        by, now: who adds it and when, of a directory that was never a version.
        public_key: whose signature it must have; None: none is asked for.

    Returns:
        The version's name.

    Raises:
        UserError: it is no model of this project, was changed, is not signed as asked, or MLflow is away.
    """
    with _telling(server.uri), tempfile.TemporaryDirectory() as scratch:
        place = _place(server, model)
        names = _names(server, place)
        _check_names(model, names)
        directory = Path(server.mlflow.artifacts.download_artifacts(
            artifact_uri=place, dst_path=scratch, tracking_uri=server.uri
        ))  # fmt: skip
        if INDEX_FILE in names:
            contents = {name: (directory / name).read_bytes() for name in names}
            return registry.restore(contents, public_key).version
        if public_key is not None:
            raise UserError(f"{model} is not signed, and --public_key is given")
        return registry.add(directory, by, now.astimezone(UTC)).version


def _run(server: Server, version: str, manifest: Manifest) -> str:
    """A run with a version's figures; its id."""
    client, training = server.client, manifest.training
    known = client.get_experiment_by_name(EXPERIMENT)
    experiment = known.experiment_id if known else client.create_experiment(EXPERIMENT)
    run: str = client.create_run(experiment, run_name=version, tags={VERSION_TAG: version}).info.run_id
    facts = {
        "kind": manifest.kind,
        "schema": manifest.schema,
        "feature_set": manifest.feature_set.name,
        "fingerprint": manifest.fingerprint,
        "model_sha256": manifest.model_sha256,
        "source": training.source,
        "train_from": training.train_from,
        "train_to": training.train_to,
        "test_from": training.test_from,
        "test_to": training.test_to,
        "review_from": f"{manifest.thresholds.review:g}",
        "decline_from": f"{manifest.thresholds.decline:g}",
    }
    for key, value in facts.items():
        client.log_param(run, key, value)
    for key, number in manifest.metrics.items():
        client.log_metric(run, re.sub(r"[^\w. /-]", "_", key), number)
    return run


def _log(server: Server, run: str, contents: dict[str, bytes]) -> str:
    """Log a version's files as artifacts of a run; where they are."""
    client = server.client
    with tempfile.TemporaryDirectory() as scratch:
        for name, content in contents.items():
            path = Path(scratch) / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        try:
            client.log_artifacts(run, scratch, _FOLDER)
        except Exception:
            client.set_terminated(run, "FAILED")
            raise
    client.set_terminated(run, "FINISHED")
    return f"{client.get_run(run).info.artifact_uri}/{_FOLDER}"


def _place(server: Server, model: str) -> str:
    """Where the files are that a model's name in MLflow stands for."""
    if _RUN.fullmatch(model):
        return model
    named = _MODEL.fullmatch(model)
    if named is None:
        raise UserError(f"{model!r}: write models:/NAME/VERSION, models:/NAME@ALIAS or runs:/RUN_ID/PATH")
    name, version, alias = named.groups()
    if version is None:
        version = server.client.get_model_version_by_alias(name, alias).version
    place: str = server.client.get_model_version_download_uri(name, version)
    return place


def _names(server: Server, place: str) -> list[str]:
    """The names of all files of a model, relative to it."""
    root = f"{place.rstrip('/').rpartition('/')[2]}/"

    def below(uri: str, prefix: str) -> Iterator[str]:
        for each in server.mlflow.artifacts.list_artifacts(artifact_uri=uri, tracking_uri=server.uri):
            last = each.path.rpartition("/")[2]
            if each.is_dir:
                yield from below(f"{uri}/{last}", f"{prefix}{last}/")
            else:
                yield f"{prefix}{last}"

    return sorted(name.removeprefix(root) for name in below(place, ""))


def _check_names(model: str, names: list[str]) -> None:
    """Refuse what holds anything but a version's files.

    Raises:
        UserError: names what it holds.
    """
    foreign = [name for name in names if not FILE_NAME.fullmatch(name) and name not in (INDEX_FILE, SIGNATURE_FILE)]
    if foreign or MODEL_FILE not in names or MANIFEST_FILE not in names:
        why = f"it holds {foreign[0]}" if foreign else f"it has no {MODEL_FILE} and {MANIFEST_FILE}"
        raise UserError(
            f"{model} is no model of this project: {why}. Only what export has written is taken, or the directory of "
            "python -m pipelines.training logged as it is: MLflow's own flavours may be pickles, which are never loaded"
        )


@contextmanager
def _telling(uri: str) -> Iterator[None]:
    """Inside, what MLflow raises is told as one line."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise UserError(f"MLflow at {uri}: {' '.join(str(error).split())[:500]}") from error
