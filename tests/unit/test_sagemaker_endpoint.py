"""A model behind a SageMaker endpoint, against a server on loopback that speaks InvokeEndpoint."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import numpy as np
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from io_connectors.retry import Backoff
from model_artifacts.artifact import SHIPPED, load_model
from pipelines.sagemaker import endpoint, inference
from pipelines.sagemaker.endpoint import EndpointAnswerError, EndpointModel, endpoint_model
from transforms.errors import UserError

MODEL = load_model("handbook")
MATRIX = np.random.default_rng(0).random((50, len(MODEL.manifest.feature_names))) * 100


class Endpoint(ThreadingHTTPServer):
    """Serves the shipped model by the functions that a container calls; `failing` says what goes wrong before."""

    failing: list[tuple[int, str, dict[str, object]]]
    calls: list[str]


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.calls.append(self.path)
        if self.server.failing:
            status, code, more = self.server.failing.pop(0)
            self.answer(status, json.dumps({"Message": "no", **more}).encode(), {"x-amzn-ErrorType": code})
            return
        model = inference.model_fn(str(SHIPPED / "handbook"))
        matrix = inference.input_fn(body, self.headers["Content-Type"])
        content, kind = inference.output_fn(inference.predict_fn(matrix, model), self.headers["Accept"])
        self.answer(200, content, {"Content-Type": kind})

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "local")
    with Endpoint(("127.0.0.1", 0), Handler) as running:
        running.failing, running.calls = [], []
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def model_at(server: Endpoint) -> EndpointModel:
    url = f"http://127.0.0.1:{server.server_port}"
    found = endpoint_model("fraud", MODEL.manifest, region="eu-west-1", url=url)
    return replace(found, backoff=Backoff(give_up_after=5, sleep=lambda seconds: None))


def test_an_endpoint_scores_to_the_last_bit_as_the_model_does(server: Endpoint) -> None:
    """Also rows that have no score, and a batch of none."""
    matrix = MATRIX.copy()
    matrix[3, 2] = np.nan
    np.testing.assert_array_equal(model_at(server).score(matrix), MODEL.score(matrix))
    np.testing.assert_array_equal(model_at(server).log_odds(matrix), MODEL.log_odds(matrix))
    assert set(server.calls) == {"/endpoints/fraud/invocations"}
    assert len(model_at(server).score(MATRIX[:0])) == 0


def test_a_large_batch_is_asked_for_in_parts(server: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each within what SageMaker takes, in the rows' order."""
    monkeypatch.setattr(endpoint, "MOST_BYTES", 8 * MATRIX.shape[1] * 20)
    np.testing.assert_array_equal(model_at(server).score(MATRIX), MODEL.score(MATRIX))
    assert len(server.calls) == 3


def test_what_passes_is_asked_again(server: Endpoint) -> None:
    """Throttled, not ready, the service's own fault, a container that fell over."""
    server.failing = [
        (429, "ThrottlingException", {}),
        (429, "ModelNotReadyException", {}),
        (503, "ServiceUnavailable", {}),
        (424, "ModelError", {"OriginalStatusCode": 500}),
    ]
    assert len(model_at(server).score(MATRIX)) == len(MATRIX)
    assert len(server.calls) == 5


@pytest.mark.parametrize(
    "failure",
    [
        (400, "ValidationError", {}),
        (403, "AccessDeniedException", {}),
        (424, "ModelError", {"OriginalStatusCode": 400}),
    ],
)
def test_what_does_not_pass_is_asked_once(server: Endpoint, failure: tuple[int, str, dict[str, object]]) -> None:
    """A request that is wrong is wrong the second time, and boto3 does not try again by itself."""
    server.failing = [failure] * 3
    with pytest.raises(ClientError):
        model_at(server).score(MATRIX)
    assert len(server.calls) == 1


def test_it_gives_up_when_it_is_time(server: Endpoint) -> None:
    """The bundle fails with the endpoint's own error, and the source waits."""
    server.failing = [(503, "ServiceUnavailable", {})] * 9
    clock = iter(range(100))
    patience = Backoff(give_up_after=3, sleep=lambda seconds: None, clock=lambda: next(clock))
    with pytest.raises(ClientError, match="ServiceUnavailable"):
        replace(model_at(server), backoff=patience).score(MATRIX)
    assert 1 < len(server.calls) < 9


def test_an_endpoint_of_another_model_is_refused(server: Endpoint) -> None:
    """Its scores would be decided on by thresholds that are not its own."""
    other = msgspec.structs.replace(MODEL.manifest, model_id="other-0123456789ab")
    with pytest.raises(EndpointAnswerError, match=f"serves {MODEL.manifest.model_id}, not other-0123456789ab"):
        replace(model_at(server), manifest=other).score(MATRIX)


def test_names_and_shapes_are_checked_before_a_call(server: Endpoint, tmp_path: Path) -> None:
    """What cannot be right is not sent."""
    with pytest.raises(UserError, match="cannot be the name of a SageMaker endpoint"):
        endpoint_model("../x", MODEL.manifest, region="eu-west-1")
    with pytest.raises(ValueError, match="expected a matrix of shape"):
        model_at(server).score(MATRIX[:, 1:])
    assert server.calls == []
    assert endpoint.may_pass(ReadTimeoutError(endpoint_url="http://127.0.0.1"))
