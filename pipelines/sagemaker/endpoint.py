"""A model that runs on a SageMaker endpoint, to the pipeline a model like any other."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from botocore.config import Config
from botocore.exceptions import ClientError
from numpy.typing import NDArray

from io_connectors.aws import client, error_code, is_transient
from io_connectors.retry import Backoff
from model_artifacts.manifest import Manifest
from model_artifacts.onnx_graph import sigmoid
from pipelines.sagemaker.wire import ANSWER_TYPE, REQUEST_TYPE, Answer, matrix_bytes
from transforms.errors import UserError

#: SageMaker takes 6 MB a request; some is left for what surrounds the matrix.
MOST_BYTES = 5_500_000
_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")


class EndpointAnswerError(Exception):
    """An endpoint answered, but not with one number a row of the model that was asked for."""


def endpoint_model(name: str, manifest: Manifest, region: str | None = None, url: str | None = None) -> EndpointModel:
    """The model of `manifest` as the endpoint of that name serves it.

    Args:
        name: the endpoint's.
        manifest: of the model it serves; answers of another are refused.
        region: such as `eu-west-1`; None: as configured.
        url: of a server that stands for SageMaker's.

    Raises:
        UserError: the name cannot be an endpoint's, or no region is configured.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} cannot be the name of a SageMaker endpoint: letters, digits and '-', 63 at most")
    # SageMaker gives a model 60 seconds; a decision that waits longer for one call than for another try is late twice.
    limits = Config(connect_timeout=2, read_timeout=15)
    return EndpointModel(name, manifest, client("sagemaker-runtime", region, url, limits))


@dataclass(frozen=True, eq=False)
class EndpointModel:
    """See `endpoint_model`.

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

    def _ask(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        body = matrix_bytes(np.ascontiguousarray(matrix))
        content = self.backoff.call(lambda: self._call(body), may_pass)
        try:
            answer = msgspec.json.decode(content, type=Answer)
        except msgspec.DecodeError as error:
            raise EndpointAnswerError(
                f"endpoint {self.name} did not answer as a model of this project: {error}"
            ) from error
        if answer.model_id != self.manifest.model_id:
            raise EndpointAnswerError(
                f"endpoint {self.name} serves {answer.model_id}, not {self.manifest.model_id}: its scores would be "
                "decided on by another model's thresholds"
            )
        if len(answer.log_odds) != len(matrix):
            raise EndpointAnswerError(
                f"endpoint {self.name} gave {len(answer.log_odds)} numbers for {len(matrix)} rows"
            )
        return np.array([np.nan if each is None else each for each in answer.log_odds], dtype=np.float64)

    def _call(self, body: bytes) -> bytes:
        answer = self.runtime.invoke_endpoint(
            EndpointName=self.name, Body=body, ContentType=REQUEST_TYPE, Accept=ANSWER_TYPE
        )
        content: bytes = answer["Body"].read()
        return content


def may_pass(error: Exception) -> bool:
    """Whether a call that failed may succeed later: as for any service, or the model's container failed or was away."""
    if isinstance(error, ClientError) and error_code(error) == "ModelError":
        return int(error.response.get("OriginalStatusCode", 0)) >= 500
    return error_code(error) == "ModelNotReadyException" or is_transient(error)
