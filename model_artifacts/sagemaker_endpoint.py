"""A model that runs on a SageMaker endpoint, to the pipeline a model like any other.

    sagemaker:NAME?region=eu-west-1#<model_id>

The endpoint says itself what it serves: it gives the manifest when it is asked, and its model's name with every answer.
An answer of another model is refused, since features, thresholds and reasons are the first one's.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from numpy.typing import NDArray

from io_connectors.aws import client, error_code, is_transient
from io_connectors.retry import Backoff
from io_connectors.urls import ConnectorUrl, Scheme, parse_url
from model_artifacts.artifact import read_manifest
from model_artifacts.manifest import Manifest
from model_artifacts.onnx_graph import sigmoid
from model_artifacts.sagemaker_wire import ANSWER_TYPE, DESCRIBE_TYPE, REQUEST_TYPE, Answer, matrix_bytes
from transforms.errors import UserError

LOG = logging.getLogger(__name__)

#: SageMaker takes 6 MB a request; some is left for what surrounds the matrix.
MOST_BYTES = 5_500_000
#: What the URI of an endpoint's model may have.
PLACES = {"sagemaker": Scheme("an endpoint's name", ("region", "endpoint"))}
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
#: Seconds for an answer. SageMaker gives a model 60; a decision that waits longer for one call than for another try is
#: late twice.
_ANSWER_WITHIN = 15.0
#: Seconds after which an endpoint that does not say what it serves is given up: whoever asks can ask again.
_PATIENCE = 20.0


class EndpointAnswerError(Exception):
    """An endpoint answered, but not with one number a row of the model that was asked for."""


def parse_endpoint(uri: str) -> tuple[ConnectorUrl, str]:
    """The parts of an endpoint's URI: where it is, and the `model_id` it must serve, which may be empty.

    Raises:
        UserError: the name cannot be an endpoint's, or there is a parameter it does not take.

    Example:
        >>> parse_endpoint("sagemaker:fraud?region=eu-west-1#handbook-0123456789ab")[0].path
        'fraud'
    """
    place, _, model_id = uri.partition("#")
    url = parse_url(place, PLACES, "--model")
    if not _NAME.fullmatch(url.path):
        raise UserError(f"{url.path!r} cannot be the name of a SageMaker endpoint: letters, digits and '-', 63 at most")
    return url, model_id


def pin_endpoint(uri: str) -> str:
    """The URI with the model that the endpoint serves now: it means the same model for ever, or none."""
    url, model_id = parse_endpoint(uri)
    return f"{url}#{model_id or load_endpoint(uri).manifest.model_id}"


def load_endpoint(uri: str) -> EndpointModel:
    """The model that an endpoint serves, described by itself.

    Args:
        uri: `sagemaker:NAME`, with `region` and `endpoint` (a server that stands for SageMaker's) as parameters, and
            `#model_id` where it must serve that model.

    Raises:
        UserError: there is no such endpoint, it is out of reach, serves no model of this project, or another one.
    """
    url, model_id = parse_endpoint(uri)
    limits = Config(connect_timeout=2, read_timeout=_ANSWER_WITHIN)
    runtime = client("sagemaker-runtime", url.parameters.get("region"), url.parameters.get("endpoint"), limits)
    try:
        content = _invoke(runtime, url.path, DESCRIBE_TYPE, b"describe", Backoff(give_up_after=_PATIENCE))
    except (ClientError, BotoCoreError) as error:
        raise UserError(f"endpoint {url.path}: {error}") from error
    try:
        manifest = read_manifest(content)
    except UserError as error:
        raise UserError(
            f"endpoint {url.path} does not say which model of this project it serves (docs/sagemaker.md): {error}"
        ) from error
    if model_id not in ("", manifest.model_id):
        raise UserError(
            f"endpoint {url.path} serves {manifest.model_id}, not {model_id}: start a job anew for another model, and "
            "give a new model an endpoint of its own"
        )
    return EndpointModel(url.path, manifest, runtime)


@dataclass(frozen=True, eq=False)
class EndpointModel:
    """See `load_endpoint`.

    A call is made at a time, and the next batch waits for it: what an endpoint cannot take, the source is not asked
    for. What it refuses for a moment (it is throttled, not ready, or its container fell over) is asked again, with
    waits that grow, until `backoff` gives up and the bundle fails.

    Attributes:
        name: the endpoint's.
        manifest: of the model that it serves.
        runtime: boto3's client of `sagemaker-runtime`, which makes one attempt a call.
        backoff: how long to go on trying.
    """

    name: str
    manifest: Manifest
    runtime: Any
    backoff: Backoff = field(default_factory=Backoff)
    _counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def score(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probability of fraud of each row, as `OnnxModel.score` gives it."""
        return sigmoid(self.log_odds(matrix))

    def log_odds(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """The calibrated log-odds that `score` is the sigmoid of.

        Raises:
            ValueError: the matrix has another number of columns.
            EndpointAnswerError: the endpoint serves another model, or answered with other than a number a row.
            Exception: boto3's, of a call that failed for good.
        """
        width = len(self.manifest.feature_names)
        if matrix.ndim != 2 or matrix.shape[1] != width:
            raise ValueError(f"expected a matrix of shape (rows, {width}); found {matrix.shape}")
        rows = max(1, MOST_BYTES // (8 * width))
        parts = [self._ask(matrix[at : at + rows]) for at in range(0, len(matrix), rows)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def take_counts(self) -> Mapping[str, int]:
        """Since this was asked last: calls that were `retried`."""
        if not self._counts:
            return {}
        with self._lock:
            counts = dict(self._counts)
            self._counts.clear()
        return counts

    def _ask(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        body = matrix_bytes(np.ascontiguousarray(matrix))
        content = _invoke(self.runtime, self.name, REQUEST_TYPE, body, self.backoff, self._retried)
        try:
            answer = msgspec.json.decode(content, type=Answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._wrong(f"did not answer as a model of this project: {error}") from error
        if answer.model_id != self.manifest.model_id:
            raise self._wrong(
                f"serves {answer.model_id}, not {self.manifest.model_id}: its scores would be decided on by another "
                "model's thresholds"
            )
        log_odds = np.array([np.nan if each is None else each for each in answer.log_odds], dtype=np.float64)
        if len(log_odds) != len(matrix):
            raise self._wrong(f"gave {len(log_odds)} numbers for {len(matrix)} rows")
        if (np.isfinite(log_odds) != np.isfinite(matrix).all(axis=1)).any():
            raise self._wrong("gave no number for a row of numbers, or one for a row that has none")
        return log_odds

    def _wrong(self, what: str) -> EndpointAnswerError:
        return EndpointAnswerError(f"endpoint {self.name} {what}")

    def _retried(self, error: Exception) -> None:
        with self._lock:
            self._counts["retried"] += 1
        LOG.warning("endpoint %s is asked again: %s", self.name, error)


def _invoke(runtime: Any, name: str, kind: str, body: bytes, backoff: Backoff, on_retry: Any = lambda _: None) -> bytes:
    """The content of an answer, however often it takes."""

    def attempt() -> bytes:
        answer = runtime.invoke_endpoint(EndpointName=name, Body=body, ContentType=kind, Accept=ANSWER_TYPE)
        content: bytes = answer["Body"].read()
        return content

    return backoff.call(attempt, may_pass, on_retry)


def may_pass(error: Exception) -> bool:
    """Whether a call that failed may succeed later: as for any service, or the model's container failed or was away."""
    if isinstance(error, ClientError) and error_code(error) == "ModelError":
        return int(error.response.get("OriginalStatusCode", 0)) >= 500
    return error_code(error) == "ModelNotReadyException" or is_transient(error)
