"""A model is promoted while a stream runs on Flink: it serves without a restart, and one that is damaged does not."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from io_connectors.kafka.connect import COMMITTERS, LOOKERS, READERS
from model_artifacts.aliases import Move, history, promote
from model_artifacts.registry import open_registry
from runners.flink.cluster import FlinkCluster
from runners.flink.rest import FlinkRest
from runners.local import Kafka
from tests.integration.flink_versions import PARTITIONS, Row, Versions, ids_of, rows_of, split_at
from tests.integration.kafka_topics import held
from tests.small_models import make_model

SOURCE = "simulator:?customers=40&terminals=60&days=12"
DAY = 86_400_000


@pytest.fixture
def versions(kafka: Kafka, flink: FlinkCluster, tmp_path: Path) -> Iterator[Versions]:
    """A topic and its job, which ends with the test."""
    made = Versions(kafka, flink, tmp_path, "hot-swap")
    yield made
    made.cancel()
    for pool in (READERS, LOOKERS, COMMITTERS):
        pool.close()


def _models(directory: Path) -> tuple[str, list[str]]:
    """A registry of three versions, the first of which is the champion, and the third damaged."""
    url = str(directory / "registry")
    registry = open_registry(url)
    made = [
        registry.add(directory / name, "test", datetime(2026, 11, 1, tzinfo=UTC)).version
        for name in ("one", "two", "three")
        if make_model(directory / name, name, intercept=-3.0 if name == "one" else -2.0)
    ]
    _promote(url, made[0])
    model = directory / "registry" / "versions" / made[2] / "model.onnx"
    model.chmod(0o644)
    model.write_bytes(model.read_bytes()[:-1])
    return url, made


def _promote(url: str, version: str) -> None:
    registry = open_registry(url)
    move = Move(action="promote", version=version, at="", by="test")
    promote(registry, "champion", move, history(registry, "champion"))


def _metric(rest: FlinkRest, job: str, name: str) -> int:
    """A counter as Flink shows it while a job runs, of all subtasks; a dot in its name is a line there."""
    total, end = 0.0, f".{name.replace('.', '_')}"
    for vertex in rest.job(job)["vertices"]:
        metrics = f"/jobs/{job}/vertices/{vertex['id']}/subtasks/metrics"
        names = [each["id"] for each in rest.get(metrics) if each["id"].endswith(end)]
        if names:
            total += sum(each["sum"] for each in rest.get(f"{metrics}?agg=sum&get={quote(','.join(names))}"))
    return int(total)


def _model_of(versions: Versions, rows: list[Row]) -> dict[str, str]:
    found = versions.wait_for_decisions(ids_of(rows))
    return {name: json.loads(found[name])["model_id"] for name in ids_of(rows)}


def test_a_stream_takes_the_promoted_model_and_refuses_a_damaged_one(versions: Versions) -> None:
    """Each row is decided on once, by the champion of its time; the job is the same one all the while."""
    url, (one, two, three) = _models(versions.directory)
    first = int(time.time() * 1000) - 12 * DAY
    rows = split_at(rows_of(SOURCE, first), *(first + days * DAY for days in range(1, 12)))
    late = ("--set", "pipeline.allowed_lateness=30d")  # each is decided on as it comes
    versions.start(None, *late, "--model", f"registry:{url}#champion", "--set", "model.refresh=1s")
    assert versions.job is not None
    versions.send(rows[0])
    assert set(_model_of(versions, rows[0]).values()) == {one}

    _promote(url, two)
    sent = 1
    while True:
        versions.send(rows[sent])
        models = set(_model_of(versions, rows[sent]).values())
        sent += 1
        if models == {two}:
            break
        assert models <= {one, two}

    _promote(url, three)
    rest = versions.flink.rest
    job = versions.job.id
    while not _metric(rest, job, "model.refused"):
        assert sent < len(rows), "no refusal in the metrics"
        versions.send(rows[sent])
        assert set(_model_of(versions, rows[sent]).values()) == {two}
        sent += 1
        time.sleep(5.0)  # Flink asks its TaskManagers for metrics every ten seconds
    assert _metric(rest, job, "model.swapped") >= 1
    assert versions.job.state() == "RUNNING"
    assert rest.root_cause(job) == ""
    decided = list(held(versions.kafka.bootstrap, versions.topic("flink-decisions"), PARTITIONS))
    assert len(decided) == sum(map(len, rows[:sent]))
