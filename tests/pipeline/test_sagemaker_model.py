"""The command with a model on a SageMaker endpoint, against a server on loopback that speaks InvokeEndpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from io_connectors.retry import Backoff
from model_artifacts import sagemaker_endpoint
from model_artifacts.artifact import load_model
from pipelines.explain.__main__ import main as explain
from pipelines.replay.__main__ import main as replay
from tests.command import Run, run_command
from tests.sagemaker_server import Fault, Refuse, Runtime, Say, Wait, endpoint
from transforms.batch import TransactionBatch
from transforms.score import score_batch

SOURCE = ("--source", "simulator:?customers=150&terminals=300&days=12&seed=3", "--set", "policy.review=0.05")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What the same model does here."""
    return run_command(tmp_path_factory.mktemp("local") / "out", *SOURCE, "--model", "handbook")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "local")
    with endpoint("handbook") as running:
        yield running


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that are short: what takes five minutes takes a second."""
    load = sagemaker_endpoint.load_endpoint
    monkeypatch.setattr(sagemaker_endpoint, "_ANSWER_WITHIN", 0.3)
    monkeypatch.setattr(
        sagemaker_endpoint,
        "load_endpoint",
        lambda uri: replace(load(uri), backoff=Backoff(first=0.001, give_up_after=1.0)),
    )


def test_an_endpoint_decides_as_the_model_does_here(server: Runtime, local: Run, tmp_path: Path) -> None:
    """Scores, decisions, reasons and the model's name are the same, to the bit, and so are alerts."""
    run = run_command(tmp_path / "out", *SOURCE, "--model", server.uri)
    assert run.code == 0, run.stderr
    assert run.decisions.equals(local.decisions)
    assert len(run.alerts) == len(local.alerts) > 0
    assert any(run.decisions["reasons"].to_pylist())
    assert run.summary["model_id"] == local.summary["model_id"]


def test_what_passes_changes_nothing(
    server: Runtime, local: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that is throttled, slow beyond the time-out, away, or whose container falls over: asked again."""
    impatient(monkeypatch)
    server.faults = [
        Refuse(429, "ThrottlingException"),
        Wait(0.6),
        Refuse(503, "ServiceUnavailable"),
        Refuse(424, "ModelError", {"OriginalStatusCode": 500}),
        Wait(0.1),
    ]
    run = run_command(tmp_path / "out", *SOURCE, "--model", server.uri)
    assert run.code == 0, run.stderr
    assert server.faults == []
    assert run.decisions.equals(local.decisions)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Refuse(429, "ThrottlingException"), "ThrottlingException"),
        (Refuse(400, "ValidationError"), "ValidationError"),
        (Wait(2.0), "Read timeout"),
        (Say(lambda answer: b"<html>busy</html>"), "endpoint fraud did not answer as a model of this project"),
        (Say(lambda answer: answer.replace(b"handbook-", b"other-")), "endpoint fraud serves other-"),
    ],
)
def test_what_does_not_pass_stops_the_run(
    server: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, told: str
) -> None:
    """It says why and leaves no decision: no record is lost, all are still to be read."""
    impatient(monkeypatch)
    server.always = fault
    run = run_command(tmp_path / "out", *SOURCE, "--model", server.uri)
    assert run.code == 1
    assert "error: the run failed" in run.stderr
    assert told in run.stderr
    assert not list(run.output.glob("decisions/*.parquet"))


def test_a_row_without_a_number_is_a_dead_letter(server: Runtime, local: Run) -> None:
    """The others of its batch are decided on, as with the model here."""
    rows = local.decisions.slice(0, 20).combine_chunks().to_batches()[0]
    amounts = rows.column("amount").to_numpy().copy()
    amounts[7] = np.nan
    read = {"source": pa.repeat("here", 20), "position": pa.array(range(20))}  # decisions do not keep where
    batch = TransactionBatch(rows).with_columns({"amount": pa.array(amounts), **read})
    there, letters = score_batch(batch, load_model(server.uri))
    here, same = score_batch(batch, load_model("handbook"))
    assert there is not None
    assert here is not None
    assert there.rows.equals(here.rows)
    assert len(there) == 19
    assert [letter.reason for letter in letters] == ["score_not_finite"]
    assert letters == same


def test_a_past_day_is_replayed_on_an_endpoint_as_here(server: Runtime, local: Run, tmp_path: Path) -> None:
    """What serves is any model to the commands that look back: nothing differs from what was served."""
    words = ["--from", "2026-01-05", "--to", "2026-01-09", "--served", str(local.output), *SOURCE]
    told = ["--output", str(tmp_path / "replayed"), "--quiet", "--fail_on_difference"]
    assert replay([*words, "--model", server.uri, *told]) == 0
    assert server.asked_for_scores > 0


def test_a_decision_is_explained_by_an_endpoint_as_by_the_model_here(
    server: Runtime, local: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same features, contributions and score, in JSON."""
    name = str(local.alerts[0]["transaction_id"])
    told = []
    for model in ("handbook", server.uri):
        assert explain([name, *SOURCE, "--model", model, "--format", "json", "--quiet"]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert told[0] == told[1]
    assert server.asked_for_scores > 0


def test_a_candidate_may_be_on_an_endpoint(server: Runtime, local: Run, tmp_path: Path) -> None:
    """Beside the champion, whose decisions stay what they are."""
    run = run_command(tmp_path / "out", *SOURCE, "--model", "handbook", "--shadow", server.uri)
    assert run.code == 0, run.stderr
    assert run.decisions.equals(local.decisions)
    assert len(list((run.output / "shadow").glob("*.parquet"))) > 0
