"""A model on disk: verified before it is opened, scored the same however its rows are batched.

A model is a directory:

    model.onnx       the graph: `features` (rows, features) in, `log_odds` or `probability` (rows,) out
    manifest.json    what the graph expects and how its scores are used, see `manifest.py`
    MODEL_CARD.md    the same for people, with plots/*.png
    reference.json   optional: how features and scores lay in training, see `reference.py`

Nothing in it is ever unpickled.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from model_artifacts.manifest import FORMAT_VERSION, Manifest
from model_artifacts.onnx_graph import OnnxGraph, calibrate, sigmoid
from model_artifacts.reference import REFERENCE_FILE, Reference, load_reference, reference_bytes
from transforms.errors import UserError, did_you_mean

SHIPPED = Path(__file__).parent
REGISTRY_SCHEME, ENDPOINT_SCHEME = "registry:", "sagemaker:"
MODEL_FILE, MANIFEST_FILE, CARD_FILE, PLOTS = "model.onnx", "manifest.json", "MODEL_CARD.md", "plots"


class Model(Protocol):
    """What the pipeline asks of a model, wherever it runs."""

    @property
    def manifest(self) -> Manifest:
        """What is known of it."""

    def score(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probability of fraud, shape (rows,), of a matrix of shape (rows, features)."""

    def log_odds(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """The calibrated log-odds that `score` is the sigmoid of, same shapes."""


class OnnxModel:
    """A verified model directory; see `load_model`."""

    def __init__(self, manifest: Manifest, graph: OnnxGraph) -> None:
        self._manifest = manifest
        self._graph = graph

    @property
    def manifest(self) -> Manifest:
        """What is known of it."""
        return self._manifest

    def score(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probability of fraud of each row, to nine decimals.

        A row's score is the same to the last bit whichever rows it is scored with.

        Args:
            matrix: float64 of shape (rows, features), columns as `manifest.feature_names`.

        Returns:
            float64 of shape (rows,); NaN for a row with a feature that is not a finite number.

        Raises:
            ValueError: the matrix has another number of columns.
        """
        return sigmoid(self.log_odds(matrix))

    def log_odds(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """What `score` is the sigmoid of: calibrated log-odds, in which a linear model's features add up."""
        if matrix.ndim != 2 or matrix.shape[1] != self._graph.width:
            raise ValueError(f"expected a matrix of shape (rows, {self._graph.width}); found {matrix.shape}")
        return calibrate(self._graph.log_odds(matrix), self._manifest.calibration)


def shipped_models() -> tuple[str, ...]:
    """Names of the models that come with the product."""
    return tuple(sorted(path.parent.name for path in SHIPPED.glob(f"*/{MANIFEST_FILE}")))


def load_model(uri: str, public_key: bytes | None = None) -> Model:
    """The model of that name, directory, place in a registry or endpoint, verified.

    Args:
        uri: a shipped model's name, a directory, `file:DIRECTORY`, a registry's `registry:DIRECTORY#champion` or
            `registry:s3://bucket/prefix#champion`, in which an alias or a version is named, or `sagemaker:ENDPOINT`.
        public_key: whose signature a registry's model must have; None: none is asked for. See `signing`.

    Raises:
        UserError: no such model, or its files disagree; the message names the file and the difference.
    """
    if is_registered(uri):
        from model_artifacts.registry_uri import load_registered

        return load_registered(uri, public_key)
    if is_endpoint(uri):
        from model_artifacts.sagemaker_endpoint import load_endpoint

        return load_endpoint(uri)
    directory = model_directory(uri)
    return open_model(lambda file: _read(directory / file), str(directory))


def is_registered(uri: str) -> bool:
    """Whether a model's URI names one of a registry."""
    return uri.startswith(REGISTRY_SCHEME)


def is_endpoint(uri: str) -> bool:
    """Whether a model's URI names a SageMaker endpoint."""
    return uri.startswith(ENDPOINT_SCHEME)


def open_model(read: Callable[[str], bytes], place: str) -> OnnxModel:
    """A model of its files, the manifest checked before the graph is opened.

    Args:
        read: the content of `MANIFEST_FILE` or `MODEL_FILE`.
        place: where these are, for messages.

    Raises:
        UserError: the files disagree; the message names the file and the difference.
    """
    manifest_file, model_file = f"{place}/{MANIFEST_FILE}", f"{place}/{MODEL_FILE}"
    try:
        manifest = read_manifest(read(MANIFEST_FILE))
    except UserError as error:
        raise UserError(f"model manifest {manifest_file}: {error}") from error
    content = read(MODEL_FILE)
    found = hashlib.sha256(content).hexdigest()
    if found != manifest.model_sha256:
        raise UserError(
            f"model file {model_file}: its sha256 is {found}, but {MANIFEST_FILE} says {manifest.model_sha256}: "
            "the file was changed or belongs to another model; copy the directory again or train anew"
        )
    try:
        graph = OnnxGraph(content)
    except UserError as error:
        raise UserError(f"model file {model_file}: {error}") from error
    if graph.width != len(manifest.feature_names):
        raise UserError(
            f"model file {model_file} takes {graph.width} features, "
            f"but {MANIFEST_FILE} names {len(manifest.feature_names)}"
        )
    return OnnxModel(manifest, graph)


def read_manifest(content: bytes) -> Manifest:
    """The manifest of its JSON.

    Raises:
        UserError: it is none, of another version, or contradicts itself.
    """
    manifest = _decode(content)
    _check_manifest(manifest)
    return manifest


def model_directory(uri: str) -> Path:
    """Where the model lies that a user calls `uri`.

    Raises:
        UserError: no model lies there.
    """
    scheme = re.match(r"([a-z][a-z0-9+.-]+):", uri)
    if scheme and scheme[1] != "file":
        raise UserError(
            f"model {uri!r}: {scheme[1]}: is not supported; give a name, a directory, registry:DIRECTORY#champion or "
            "sagemaker:ENDPOINT"
        )
    bare = re.sub(r"^file:(//)?", "", uri)
    if not scheme and bare in shipped_models():
        return SHIPPED / bare
    path = Path(bare)
    if not path.is_dir():
        known = ", ".join(shipped_models()) or "none"
        hint = did_you_mean(bare, shipped_models())
        raise UserError(f"model {uri!r} is neither a directory nor a shipped model ({known}){hint}")
    if not (path / MANIFEST_FILE).is_file():
        raise UserError(f"model directory {path} has no {MANIFEST_FILE}; python -m pipelines.training makes one")
    return path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


class _Versioned(msgspec.Struct):
    format_version: int


def _decode(content: bytes) -> Manifest:
    """The manifest of its JSON, its version looked at first: a later one may have other fields."""
    try:
        version = msgspec.json.decode(content, type=_Versioned).format_version
        if version != FORMAT_VERSION:
            raise UserError(f"format_version is {version}; this release reads {FORMAT_VERSION}: train the model anew")
        return msgspec.json.decode(content, type=Manifest)
    except msgspec.DecodeError as error:
        raise UserError(str(error)) from error


def _check_manifest(manifest: Manifest) -> None:
    """Refuse a manifest that contradicts itself.

    Raises:
        UserError: names the entry and the difference.
    """
    _check_names(manifest.feature_names, manifest.feature_set.names)
    if manifest.fingerprint != manifest.feature_set.fingerprint:
        raise UserError(
            f"fingerprint is {manifest.fingerprint}, but its feature_set has {manifest.feature_set.fingerprint}: "
            "the features mean something else than when the model was trained; train it anew"
        )
    if len(manifest.baseline) != len(manifest.feature_names):
        raise UserError(f"baseline has {len(manifest.baseline)} values for {len(manifest.feature_names)} feature_names")
    review, decline = manifest.thresholds.review, manifest.thresholds.decline
    if not 0.0 < review <= decline <= 1.0:  # NaN fails every comparison
        raise UserError(f"thresholds must satisfy 0 < review <= decline <= 1; found {review} and {decline}")
    slope, intercept = manifest.calibration.slope, manifest.calibration.intercept
    if not (0.0 < slope < math.inf and math.isfinite(intercept)):
        raise UserError(f"calibration needs a slope above 0 and a finite intercept; found {slope} and {intercept}")
    if not all(map(math.isfinite, manifest.baseline)):
        raise UserError("baseline holds a value that is not a finite number")
    if not manifest.model_id.endswith(f"-{manifest.model_sha256[:12]}"):
        raise UserError(
            f"model_id {manifest.model_id} should end in -{manifest.model_sha256[:12]}, as its model_sha256 begins"
        )


def _check_names(found: tuple[str, ...], declared: tuple[str, ...]) -> None:
    for at, (name, expected) in enumerate(zip(found, declared, strict=False)):
        if name != expected:
            raise UserError(f"feature_names[{at}] is {name}, but its feature_set declares {expected} there")
    if len(found) != len(declared):
        more, where = (found, "feature_names") if len(found) > len(declared) else (declared, "its feature_set")
        first = more[min(len(found), len(declared))]
        raise UserError(f"feature_names has {len(found)}, its feature_set {len(declared)}: {first} is only in {where}")


def model_reference(uri: str) -> Reference | None:
    """How features and scores of a model lay in training; None of a model that was saved without.

    Raises:
        UserError: no such model, or its reference is broken or not its own.
    """
    if is_registered(uri):
        from model_artifacts.registry_uri import registered_reference

        return registered_reference(uri)
    if is_endpoint(uri):
        return None  # it is asked for scores and says what they are of; what it learnt from stays with the model
    return load_reference(model_directory(uri) / REFERENCE_FILE, load_model(uri).manifest)


def save_model(
    directory: Path,
    onnx_bytes: bytes,
    manifest: Manifest,
    card: str,
    plots: Mapping[str, bytes],
    reference: Reference | None = None,
) -> None:
    """Write a model directory, whole or not at all; a model already there is replaced.

    Args:
        directory: where; its parents are made.
        onnx_bytes: the graph.
        manifest: what is known of it.
        card: the model card, Markdown.
        plots: PNG files by name, such as `roc.png`.
        reference: what later data is compared with; None: its drift cannot be told.

    Raises:
        UserError: something that is not a model lies at `directory`, or it cannot be written.
    """
    directory = Path(os.path.abspath(directory))
    refuse_foreign(directory)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as scratch:
            fresh = Path(scratch) / "new"
            (fresh / PLOTS).mkdir(parents=True)
            (fresh / MODEL_FILE).write_bytes(onnx_bytes)
            manifest_json = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
            (fresh / MANIFEST_FILE).write_bytes(manifest_json + b"\n")
            (fresh / CARD_FILE).write_text(card, "utf-8")
            if reference is not None:
                (fresh / REFERENCE_FILE).write_bytes(reference_bytes(reference))
            for name, content in plots.items():
                (fresh / PLOTS / name).write_bytes(content)
            load_model(f"file:{fresh}")  # what cannot be loaded must not replace what can
            _swap(fresh, directory, aside=Path(scratch) / "old")
    except OSError as error:
        raise UserError(f"model directory {directory} cannot be written: {error}") from error


def _swap(fresh: Path, directory: Path, aside: Path) -> None:
    """Move `fresh` to `directory`; what was there goes to `aside`, and back again should that fail."""
    replaced = directory.exists()
    if replaced:
        os.replace(directory, aside)
    try:
        os.replace(fresh, directory)
    except OSError:
        if replaced:
            os.replace(aside, directory)
        raise


def refuse_foreign(directory: Path) -> None:
    """Refuse a place that `save_model` would not write to because something else is there.

    Raises:
        UserError: names what it found.
    """
    if not os.path.lexists(directory):
        return
    if directory.is_symlink() or not directory.is_dir():
        raise UserError(f"{directory} exists and is not a directory; choose another place for the model")
    own = {MODEL_FILE, MANIFEST_FILE, CARD_FILE, PLOTS, REFERENCE_FILE}
    foreign = sorted(entry.name for entry in directory.iterdir() if entry.name not in own)
    if foreign:
        raise UserError(
            f"{directory} is not a model directory: it holds {', '.join(foreign[:3])}; "
            "choose another place for the model, it would replace everything there"
        )
