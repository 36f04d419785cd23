"""The functions that SageMaker's script-mode containers call to serve a model directory.

The directory is what `python -m pipelines.training` writes, so an endpoint runs the very ONNX file and calibration that
the pipeline would run itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_artifacts.artifact import OnnxModel, load_model
from pipelines.sagemaker.wire import ANSWER_TYPE, REQUEST_TYPE, answer_bytes, matrix_of


def model_fn(model_dir: str) -> OnnxModel:
    """The model of a directory, verified."""
    return load_model(f"file:{model_dir}")


def input_fn(request_body: bytes, content_type: str) -> NDArray[np.float64]:
    """The matrix of a request."""
    if content_type != REQUEST_TYPE:
        raise ValueError(f"content type must be {REQUEST_TYPE}; found {content_type}")
    return matrix_of(request_body)


def predict_fn(matrix: NDArray[np.float64], model: OnnxModel) -> tuple[str, NDArray[np.float64]]:
    """The model's id, and the calibrated log-odds of each row."""
    return model.manifest.model_id, model.log_odds(matrix)


def output_fn(prediction: tuple[str, NDArray[np.float64]], accept: str) -> tuple[bytes, str]:
    """The answer's body and its type."""
    return answer_bytes(*prediction), ANSWER_TYPE
