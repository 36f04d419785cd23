"""A model behind a SageMaker endpoint, against a server on loopback that speaks InvokeEndpoint."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from io_connectors.retry import Backoff
from model_artifacts import sagemaker_endpoint
from model_artifacts.artifact import SHIPPED, load_model, model_reference
from model_artifacts.registry_uri import pin
from model_artifacts.sagemaker_endpoint import EndpointAnswerError, EndpointModel, load_endpoint, may_pass
from model_artifacts.sagemaker_wire import DESCRIBE_TYPE, REQUEST_TYPE, Answer, matrix_bytes
from pipelines.sagemaker.serve import ModelServer
from pipelines.sagemaker.serve import main as serve
from pipelines.settings import load_settings
from runners.emr.reach import check_reach
from tests.sagemaker_server import Refuse, Runtime, Say, endpoint
from transforms.errors import UserError
from transforms.score import SharedModel

MODEL = load_model("handbook")
NAME = MODEL.manifest.model_id
MATRIX = np.random.default_rng(0).random((50, len(MODEL.manifest.feature_names))) * 100


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "local")


@pytest.fixture
def server() -> Iterator[Runtime]:
    with endpoint("handbook") as running:
        yield running


def model_at(server: Runtime) -> EndpointModel:
    return replace(load_endpoint(server.uri), backoff=Backoff(give_up_after=5, sleep=lambda seconds: None))


def test_an_endpoint_scores_to_the_last_bit_as_the_model_does(server: Runtime) -> None:
    """Also rows that have no score, and a batch of none; its manifest is the model's own."""
    matrix = MATRIX.copy()
    matrix[3, 2] = np.nan
    assert load_model(server.uri).manifest == MODEL.manifest
    np.testing.assert_array_equal(model_at(server).score(matrix), MODEL.score(matrix))
    np.testing.assert_array_equal(model_at(server).log_odds(matrix), MODEL.log_odds(matrix))
    assert {path for path, _ in server.calls} == {"/endpoints/fraud/invocations"}
    assert len(model_at(server).score(MATRIX[:0])) == 0


def test_a_large_batch_is_asked_for_in_parts(server: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each within what SageMaker takes, in the rows' order."""
    monkeypatch.setattr(sagemaker_endpoint, "MOST_BYTES", 8 * MATRIX.shape[1] * 20)
    np.testing.assert_array_equal(model_at(server).score(MATRIX), MODEL.score(MATRIX))
    assert server.asked_for_scores == 3


def test_what_passes_is_asked_again(server: Runtime) -> None:
    """Throttled, not ready, the service's own fault, a container that fell over; each is counted, once."""
    server.faults = [
        Refuse(429, "ThrottlingException"),
        Refuse(429, "ModelNotReadyException"),
        Refuse(503, "ServiceUnavailable"),
        Refuse(424, "ModelError", {"OriginalStatusCode": 500}),
    ]
    model = model_at(server)
    assert len(model.score(MATRIX)) == len(MATRIX)
    assert server.asked_for_scores == 5
    assert model.take_counts() == {"retried": 4}
    assert model.take_counts() == {}


def test_what_is_asked_again_is_counted_by_the_pipeline(server: Runtime) -> None:
    """The stage that scores takes the count from the model that its process shares."""
    shared = SharedModel(pin(server.uri))
    assert shared.take_counts() == {}
    server.faults = [Refuse(429, "ThrottlingException")]
    assert len(shared().score(MATRIX)) == len(MATRIX)
    assert shared.take_counts() == {"retried": 1}


@pytest.mark.parametrize(
    "fault",
    [
        Refuse(400, "ValidationError"),
        Refuse(403, "AccessDeniedException"),
        Refuse(424, "ModelError", {"OriginalStatusCode": 400}),
    ],
)
def test_what_does_not_pass_is_asked_once(server: Runtime, fault: Refuse) -> None:
    """A request that is wrong is wrong the second time, and boto3 does not try again by itself."""
    server.always = fault
    with pytest.raises(ClientError):
        model_at(server).score(MATRIX)
    assert server.asked_for_scores == 1


def test_it_gives_up_when_it_is_time(server: Runtime) -> None:
    """The bundle fails with the endpoint's own error, and the source waits."""
    server.always = Refuse(503, "ServiceUnavailable")
    clock = iter(range(100))
    patience = Backoff(give_up_after=3, sleep=lambda seconds: None, clock=lambda: next(clock))
    with pytest.raises(ClientError, match="ServiceUnavailable"):
        replace(model_at(server), backoff=patience).score(MATRIX)
    assert 1 < server.asked_for_scores < 9
    assert may_pass(ReadTimeoutError(endpoint_url="http://127.0.0.1"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"<html>", "did not answer as a model of this project"),
        (b'{"model_id": "other-0123456789ab", "log_odds": []}', f"serves other-0123456789ab, not {NAME}"),
        (json.dumps({"model_id": NAME, "log_odds": [0.5]}).encode(), "gave 1 numbers for 50 rows"),
        (json.dumps({"model_id": NAME, "log_odds": [None] * 50}).encode(), "no number for a row of numbers"),
        (f'{{"model_id": "{NAME}", "log_odds": [{"1e999," * 49}1]}}'.encode(), "did not answer|no number"),
    ],
)
def test_nonsense_is_refused(server: Runtime, content: bytes, told: str) -> None:
    """Another model, too few numbers, none, or no JSON: nothing is decided on by it, and it is not asked for twice."""
    server.always = Say(lambda answer: content)
    with pytest.raises(EndpointAnswerError, match=told):
        model_at(server).score(MATRIX)
    assert server.asked_for_scores == 1


def test_a_uri_is_pinned_to_the_model_that_is_served(server: Runtime) -> None:
    """A worker that starts after the endpoint was updated to another model says so, and does not begin."""
    assert pin(server.uri) == f"{server.uri}#{NAME}"
    assert pin(f"{server.uri}#x-0123456789ab").endswith("#x-0123456789ab")
    assert load_model(pin(server.uri)).manifest == MODEL.manifest
    with pytest.raises(UserError, match=f"endpoint fraud serves {NAME}, not other-0123456789ab"):
        load_model(f"{server.uri}#other-0123456789ab")
    assert model_reference(server.uri) is None


def test_what_cannot_be_an_endpoint_is_said(server: Runtime) -> None:
    """Names, parameters, addresses where nothing listens, servers of other models, and shapes."""
    with pytest.raises(UserError, match="cannot be the name of a SageMaker endpoint"):
        load_model("sagemaker:../x?region=eu-west-1")
    with pytest.raises(UserError, match="unknown parameter 'regoin'"):
        load_model("sagemaker:fraud?regoin=eu-west-1")
    with pytest.raises(ValueError, match="expected a matrix of shape"):
        model_at(server).score(MATRIX[:, 1:])
    assert server.asked_for_scores == 0


def test_an_endpoint_out_of_reach_is_told_when_the_run_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, after a few attempts, not at the first batch."""
    monkeypatch.setattr(sagemaker_endpoint, "_PATIENCE", 0.2)
    with pytest.raises(UserError, match="endpoint fraud: Could not connect"):
        load_model("sagemaker:fraud?region=eu-west-1&endpoint=http://127.0.0.1:9")


def test_an_endpoint_of_something_else_is_refused(server: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that answers, but knows nothing of manifests."""
    monkeypatch.setattr(sagemaker_endpoint, "DESCRIBE_TYPE", REQUEST_TYPE)
    with pytest.raises(UserError, match=r"endpoint fraud: .*ModelError"):
        load_model(server.uri)
    monkeypatch.setattr(sagemaker_endpoint, "DESCRIBE_TYPE", "text/csv")
    server.always = Say(lambda answer: b"0.5,0.5")
    with pytest.raises(UserError, match="endpoint fraud"):
        load_model(server.uri)


def test_nodes_of_a_cluster_reach_an_endpoint_but_not_this_machines() -> None:
    """It may be packaged for a cluster; a server that stands for SageMaker here may not."""

    def settings(model: str) -> None:
        url = "s3://results/x"
        check_reach(
            load_settings(
                sets=[f"output.summaries={url}", f"output.drift={url}"],
                flags={
                    "source": "kafka://broker:9092/t",
                    "sink": [url],
                    "alert": ["lambda://f"],
                    "dead_letters": url,
                    "model": model,
                },
            )
        )

    settings("sagemaker:fraud?region=eu-west-1")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:8080 is each node itself"):
        settings("sagemaker:fraud?endpoint=http://127.0.0.1:8080")


@pytest.fixture(scope="module")
def container() -> Iterator[int]:
    """The port of a real process as SageMaker starts it."""
    variables = {"SM_MODEL_DIR": str(SHIPPED / "handbook"), "FRAUD_SERVE_HOST": "127.0.0.1"}
    with subprocess.Popen(
        [sys.executable, "-m", "pipelines.sagemaker.serve"],
        env={**os.environ, **variables, "SAGEMAKER_BIND_TO_PORT": "0"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith(f"serving {NAME} on port ")
        yield int(said.split()[-1])
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def ask(port: int, method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body, {"Content-Type": kind} if kind else {})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def test_a_container_serves_as_sagemaker_asks(container: int) -> None:
    """Health, a matrix, the manifest; and what is wrong with a request is said with a status of 400 or more."""
    assert ask(container, "GET", "/ping") == (200, b"")
    status, content = ask(container, "POST", "/invocations", matrix_bytes(MATRIX), REQUEST_TYPE)
    answer = msgspec.json.decode(content, type=Answer)
    assert (status, answer.model_id, answer.log_odds) == (200, NAME, MODEL.log_odds(MATRIX).tolist())
    assert ask(container, "POST", "/invocations", b"describe", DESCRIBE_TYPE)[0] == 200
    assert ask(container, "POST", "/invocations", b"1,2", "text/csv")[0] == 400
    assert ask(container, "POST", "/invocations", b"\x93NUMPY", REQUEST_TYPE)[0] == 400
    assert ask(container, "POST", "/invocations", matrix_bytes(MATRIX[:, 1:]), REQUEST_TYPE)[0] == 400
    assert ask(container, "POST", "/other", b"", REQUEST_TYPE)[0] == 404
    assert ask(container, "GET", "/ping") == (200, b"")


def test_a_container_without_a_model_ends_at_once(tmp_path: Path) -> None:
    """With the reason on its log, before SageMaker has waited for its health."""
    assert serve({"SM_MODEL_DIR": str(tmp_path)}) == 2


def test_a_container_refuses_what_it_has_no_place_for() -> None:
    """More requests than may wait get a status that the pipeline takes for 'later'."""
    with ModelServer(("127.0.0.1", 0), MODEL) as full:
        thread = threading.Thread(target=full.serve_forever, args=(0.01,))
        thread.start()
        while full.waiting.acquire(blocking=False):
            pass
        status, said = ask(full.server_port, "POST", "/invocations", b"describe", DESCRIBE_TYPE)
        full.shutdown()
        thread.join()
    assert (status, said) == (503, b"too many requests wait already")
