"""What travels between the pipeline and an endpoint: a matrix there, log-odds and the model's name back.

Before the first matrix it is asked for its model's manifest: what to compute, and what its scores lead to.
"""

from __future__ import annotations

import io

import msgspec
import numpy as np
from numpy.typing import NDArray

#: Content types of a matrix, of the question for the manifest, and of every answer.
REQUEST_TYPE, DESCRIBE_TYPE, ANSWER_TYPE = "application/x-npy", "application/x-describe", "application/json"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint says of a matrix.

    Attributes:
        model_id: of the model that scored.
        log_odds: calibrated, one a row; None for a row with a feature that is not a finite number.
    """

    model_id: str
    log_odds: list[float | None]


def matrix_bytes(matrix: NDArray[np.float64]) -> bytes:
    """A matrix in NumPy's own format, which holds its type and shape."""
    content = io.BytesIO()
    np.save(content, matrix, allow_pickle=False)
    return content.getvalue()


def matrix_of(content: bytes) -> NDArray[np.float64]:
    """The matrix of `matrix_bytes`.

    Raises:
        ValueError: it is none of floats.

    Example:
        >>> matrix_of(matrix_bytes(np.ones((1, 2)))).tolist()
        [[1.0, 1.0]]
    """
    matrix = np.load(io.BytesIO(content), allow_pickle=False)
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype != np.float64:
        raise ValueError("the request must be a float64 matrix of shape (rows, features) in NumPy's format")
    return matrix


def answer_bytes(model_id: str, log_odds: NDArray[np.float64]) -> bytes:
    """An answer as JSON; numbers come back to the last bit, and what is no number as null."""
    return msgspec.json.encode(Answer(model_id=model_id, log_odds=log_odds.tolist()))
