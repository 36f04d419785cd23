"""The functions that SageMaker's script-mode containers call to serve a model directory; `serve.py` calls them too.

The directory is what `python -m pipelines.training` writes, so an endpoint runs the very ONNX file and calibration that
the pipeline would run itself.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from model_artifacts.artifact import Model, load_model
from model_artifacts.manifest import Manifest
from model_artifacts.sagemaker_wire import ANSWER_TYPE, DESCRIBE_TYPE, REQUEST_TYPE, answer_bytes, matrix_of


def model_fn(model_dir: str) -> Model:
    """The model of a directory, verified."""
    return load_model(f"file:{model_dir}")


def input_fn(request_body: bytes, content_type: str) -> NDArray[np.float64] | None:
    """The matrix of a request; None of one that asks what is served.

    Raises:
        ValueError: it is neither.
    """
    if content_type == DESCRIBE_TYPE:
        return None
    if content_type != REQUEST_TYPE:
        raise ValueError(f"content type must be {REQUEST_TYPE} or {DESCRIBE_TYPE}; found {content_type}")
    return matrix_of(request_body)


def predict_fn(matrix: NDArray[np.float64] | None, model: Model) -> tuple[str, NDArray[np.float64]] | Manifest:
    """The model's id, and the calibrated log-odds of each row; the manifest of no matrix."""
    return model.manifest if matrix is None else (model.manifest.model_id, model.log_odds(matrix))


def output_fn(prediction: tuple[str, NDArray[np.float64]] | Manifest, accept: str) -> tuple[bytes, str]:
    """The answer's body and its type."""
    if isinstance(prediction, Manifest):
        return msgspec.json.encode(prediction), ANSWER_TYPE
    return answer_bytes(*prediction), ANSWER_TYPE
