"""The steps of EMR, word for word, on a real YARN: a job is started, guarded, stopped with a savepoint and resumed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.produce import main as produce
from runners.emr import steps
from runners.emr.artefacts import artefact
from runners.emr.job import write_job
from runners.emr.steps import Job, run_step, stop_step
from runners.flink.cluster import FlinkCluster
from runners.local import Kafka, free_port
from runners.local.ports import HOST
from tests.integration.conftest import at_hand
from tests.integration.kafka_topics import held
from tests.integration.yarn_cluster import Yarn

PATIENCE = 180.0
_SETTINGS = {
    "rest.bind-address": HOST,
    "jobmanager.bind-host": HOST,
    "jobmanager.memory.process.size": "1600m",
    "taskmanager.bind-host": HOST,
    "taskmanager.host": HOST,
    "taskmanager.memory.process.size": "2304m",
    "taskmanager.numberOfTaskSlots": "1",
}


@pytest.fixture(scope="module")
def yarn(servers: Path) -> Yarn:
    """YARN with the Flink that EMR has; `.programs` are what its primary node has on its PATH."""
    return at_hand(lambda: Yarn(servers / "yarn").start("1.20", _SETTINGS))


class Steps:
    """Runs steps as command-runner.jar does."""

    def __init__(self, yarn: Yarn) -> None:
        self.yarn = yarn

    def __call__(self, step: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": f"{self.yarn.programs}{os.pathsep}{os.environ['PATH']}"}
        argv = step["HadoopJarStep"]["Args"]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def test_a_job_is_started_stopped_and_resumed(
    yarn: Yarn, flink: FlinkCluster, kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost or decided twice over a savepoint, and a second job of the name is refused meanwhile."""
    monkeypatch.setattr(steps, "_SAVEPOINT", re.compile(".*"))  # no S3 here: a directory holds the savepoint
    name, decided = f"fraud-{free_port()}", f"decided-{free_port()}"
    source = f"transactions-{free_port()}"
    for topic in (source, decided):
        kafka.create_topic(topic, 1)
    pool = flink.description.ports["workers"]
    flags = ["--source", f"kafka://{kafka.bootstrap}/{source}", "--schema", "transaction-events"]
    flags += ["--sink", f"kafka://{kafka.bootstrap}/{decided}", "--output", str(tmp_path / "output")]
    jar = tmp_path / "job.jar"
    own = ["--parallelism=1", "--sdk_worker_parallelism=1", f"--environment_config={HOST}:{pool}"]
    made = write_job([*flags, *own], jar, allow_local=True)
    target = yarn.bucket / "job.jar"
    shutil.copy(jar, target)
    settings = {"parallelism.default": "1", "state.checkpoints.dir": (tmp_path / "checkpoints").as_uri(), **made.flink}
    sha256, run = artefact(jar).sha256, Steps(yarn)

    def send(count: int) -> None:
        assert produce(["--sink", f"kafka://{kafka.bootstrap}/{source}", "--count", str(count), "--quiet"]) == 0

    def ids() -> list[str]:
        return [json.loads(message.value())["transaction_id"] for message in held(kafka.bootstrap, decided, 1)]

    started = run(run_step(Job(name, settings), "s3://job.jar", sha256))
    assert started.returncode == 0, started.stderr
    send(500)
    wait_until(lambda: len(ids()) >= 500, "the job decided on too little")
    second = run(run_step(Job(name, settings), "s3://job.jar", sha256))
    assert second.returncode == 2
    assert f"{name} runs already, as application_" in second.stderr

    stopped = run(stop_step(name, (tmp_path / "savepoints").as_uri()))
    assert stopped.returncode == 0, stopped.stderr
    (savepoint,) = (tmp_path / "savepoints").glob("savepoint-*")
    resumed = run(run_step(Job(name, settings, savepoint.as_uri()), "s3://job.jar", sha256))
    assert resumed.returncode == 0, resumed.stderr
    before = len(ids())
    send(300)
    wait_until(lambda: len(ids()) >= before + 300, "the job decided on too little after the savepoint")
    assert len(ids()) == len(set(ids())) == 800
    assert run(stop_step(name, (tmp_path / "last").as_uri())).returncode == 0
