"""An ONNX graph that scores transactions: checked for safety, run on one thread, the same for every batching."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model_artifacts.manifest import Calibration
from transforms.errors import UserError

#: Probabilities have nine decimals: `exp` may differ in its last bit between processors, scores must not.
SCORE_DECIMALS = 9

_OUTPUTS = ("log_odds", "probability")
_DTYPES = {"tensor(double)": np.float64, "tensor(float)": np.float32}
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
_LEAST_PROBABILITY = 1e-7  # a forest may answer exactly 0 or 1, whose log-odds are infinite
_MOST_LOG_ODDS = 50.0  # sigmoid(50) is 1 in double precision


class OnnxGraph:
    """An ONNX file's bytes, ready to run on one thread.

    Scores depend on nothing but their own row: one thread, and the graph exactly as it was written, so
    that no fusion or split of the work changes the order of a sum.

    Attributes:
        width: the number of features it takes.

    Raises:
        UserError: `content` is not an ONNX model of the form this module describes.
    """

    def __init__(self, content: bytes) -> None:
        refuse_unsafe(content)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise UserError(f"ONNX Runtime cannot open it: {str(error).splitlines()[0]}") from error
        self._check_form()

    def _check_form(self) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 2 or not isinstance(inputs[0].shape[1], int):
            found = ", ".join(f"{value.name} {value.shape}" for value in inputs)
            raise UserError(f"it must take one input of shape (rows, features); found {found}")
        if len(outputs) != 1 or outputs[0].name not in _OUTPUTS:
            found = ", ".join(value.name for value in outputs)
            raise UserError(f"it must have one output called {' or '.join(_OUTPUTS)}; found {found}")
        for value in (inputs[0], outputs[0]):
            if value.type not in _DTYPES:
                raise UserError(f"{value.name} must be double or float; found {value.type}")
        self.width = int(inputs[0].shape[1])
        self._input, self._dtype, self._output = inputs[0].name, _DTYPES[inputs[0].type], outputs[0].name

    def log_odds(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log-odds of fraud before calibration, shape (rows,); NaN where a feature is not finite."""
        features = np.ascontiguousarray(matrix, dtype=self._dtype)
        raw = np.asarray(self._session.run(None, {self._input: features})[0], dtype=np.float64).reshape(-1)
        if self._output == "probability":
            share = np.clip(raw, _LEAST_PROBABILITY, 1.0 - _LEAST_PROBABILITY)
            raw = np.log(share / (1.0 - share))
        # Trees would send a NaN down one branch and answer with a number that means nothing.
        return np.where(np.isfinite(matrix).all(axis=1), raw, np.nan)


def calibrate(log_odds: NDArray[np.float64], calibration: Calibration) -> NDArray[np.float64]:
    """Calibrated log-odds of raw ones."""
    return calibration.slope * log_odds + calibration.intercept


def sigmoid(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability of some log-odds, to nine decimals; NaN stays NaN.

    Example:
        >>> sigmoid(np.array([-1000.0, 0.0, 3.0])).tolist()
        [0.0, 0.5, 0.952574127]
    """
    # Contiguous, because NumPy's exp takes another routine for strided input.
    bounded = np.ascontiguousarray(np.clip(log_odds, -_MOST_LOG_ODDS, _MOST_LOG_ODDS))
    return np.asarray(np.round(1.0 / (1.0 + np.exp(-bounded)), SCORE_DECIMALS))


def refuse_unsafe(content: bytes) -> None:
    """Refuse an ONNX file that reaches outside itself: data in other files, code of its own.

    Raises:
        UserError: says which.
    """
    import onnx  # not at the top: what decodes a manifest need not pay for it

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # the protobuf library's exceptions differ between its implementations
        raise UserError(f"it is not an ONNX file: {error}") from error
    for domain in [entry.domain for entry in model.opset_import] + [function.domain for function in model.functions]:
        if domain not in _DOMAINS:
            raise UserError(f"it needs operators of {domain!r}; only ONNX's own are run ({', '.join(_DOMAINS[1:])})")
    for message in _messages(model):
        if isinstance(message, onnx.TensorProto) and (message.external_data or message.data_location):
            raise UserError(f"its tensor {message.name!r} lies in another file; save the model with all data inside")
        if isinstance(message, onnx.NodeProto) and message.domain not in _DOMAINS:
            raise UserError(f"its node {message.name!r} is of {message.domain!r}; only ONNX's own operators are run")


def _messages(message: Any) -> Iterator[Any]:
    """`message` and every protobuf message below it, whatever field it hides in."""
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for child in value if field.is_repeated else [value]:
                yield from _messages(child)
