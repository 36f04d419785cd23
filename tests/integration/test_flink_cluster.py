"""A Flink cluster on this machine and the command that runs the pipeline on it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from io_connectors.kafka.connect import LOOKERS
from pipelines.fraud import main
from runners.flink.cluster import FlinkCluster
from runners.flink.command import main as flink_command
from runners.flink.job_server import find_class_path_jar
from runners.flink.rest import FlinkError
from runners.flink.submit import submit
from runners.local import Kafka
from runners.local.ports import HOST
from tests.integration.test_worker_pool import Silent, serving

ROOT = Path(__file__).parents[2]
SOURCE = "simulator:?customers=300&terminals=100&days=10"


def decisions(output: Path) -> list[dict[str, object]]:
    """Everything decided, in the order of ids, but for when it was read and decided."""
    table = pq.read_table(output / "decisions")
    moments = [name for name in ("ingest_time", "decided_at") if name in table.column_names]
    rows: list[dict[str, object]] = table.drop_columns(moments).sort_by("transaction_id").to_pylist()
    return rows


def test_what_ends_gives_the_same_on_flink_and_here(flink: FlinkCluster, tmp_path: Path) -> None:
    """The same command with another runner: every decision, feature and score is the same, and so is the report."""
    flags = ["--source", SOURCE, "--quiet"]
    assert main([*flags, "--output", str(tmp_path / "here")]) == 0
    assert main([*flags, "--output", str(tmp_path / "flink"), *flink.flags]) == 0
    assert decisions(tmp_path / "flink") == decisions(tmp_path / "here")
    figures = [json.loads((tmp_path / name / "summary.json").read_bytes()) for name in ("here", "flink")]
    for name in ("read", "transactions", "alerts", "average_precision"):
        assert figures[0].get(name) == figures[1].get(name), name
    alerts = [sorted((tmp_path / name / "alerts.jsonl").read_text().splitlines()) for name in ("here", "flink")]
    assert [json.loads(line)["alert_id"] for line in alerts[0]] == [json.loads(line)["alert_id"] for line in alerts[1]]


def test_the_cluster_has_the_classes_of_jobs(flink: FlinkCluster) -> None:
    """They need not come with each: its JVMs load Beam's from the jar that a job would bring."""
    assert str(find_class_path_jar(flink.description.version)) in flink.rest.class_path()


def test_more_slots_than_there_are_is_refused_before_anything_is_touched(
    flink: FlinkCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With how many there are, and what can be done."""
    assert (
        main(
            [
                "--source",
                SOURCE,
                "--output",
                str(tmp_path / "o"),
                *flink.flags,
                "--parallelism=64",
                "--set",
                "pipeline.shards=64",
            ]
        )
        == 2
    )
    assert "of 2 slots of the cluster" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_stream_whose_workers_do_not_come_is_given_up(flink: FlinkCluster, kafka: Kafka, tmp_path: Path) -> None:
    """It would wait without end: after a while it is cancelled, and the error says where to look."""
    with serving(Silent()) as silent:
        jar = tmp_path / "job.jar"
        flags = [flag for flag in flink.flags if not flag.startswith("--environment_config")]
        flags += [f"--environment_config={silent}", f"--output_executable_path={jar}", "--output", str(tmp_path / "o")]
        kafka.create_topic("never-read", 1)
        source = ["--source", f"kafka://{kafka.bootstrap}/never-read", "--schema", "transaction-events"]
        assert main([*source, *flags]) == 0
        LOOKERS.close()
        job = submit(flink.rest, jar)
        with pytest.raises(FlinkError, match=r"was cancelled: .* their Python workers did not connect"):
            job.wait_until_running(patience=10.0)
        assert job.wait_until_finish() == "CANCELED"


def test_a_dead_worker_pool_is_found_before_the_job_is_submitted(
    flink: FlinkCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the address, and how to bring it back; which then works."""
    pool = flink.processes()["workers"]
    pool.kill()
    try:
        assert main(["--source", SOURCE, "--output", str(tmp_path / "o"), *flink.flags]) == 2
        assert f"no worker pool answers at {pool.address}" in capsys.readouterr().err
        assert not (tmp_path / "o").exists()
    finally:
        pool.start()


def test_up_is_idempotent_and_status_tells(flink: FlinkCluster, capsys: pytest.CaptureFixture[str]) -> None:
    """What runs is let be; every process listens on the loopback interface only."""
    before = [process.is_running() for process in flink.processes().values()]
    assert flink_command(["up", "--directory", str(flink.directory)]) == 0
    assert capsys.readouterr().out.count("was running") == len(before) == 4
    assert flink_command(["status", "--directory", str(flink.directory)]) == 0
    told = capsys.readouterr().out
    assert told.count(" runs\n") == 4
    assert "of 2 slots in use" in told
    assert flink_command(["logs", "taskmanager-1", "--lines", "5", "--directory", str(flink.directory)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    for port in (flink.description.ports["rest"], flink.description.ports["workers"]):
        assert listeners(port) == {HOST}


def listeners(port: int) -> set[str]:
    """The addresses that a port is listened to at."""
    found = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, _, number = local.partition(":")
            if state == "0A" and int(number, 16) == port:
                raw = b"".join(bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8))
                found.add(socket.inet_ntop(family, raw).removeprefix("::ffff:"))
    return found


def test_another_kind_of_cluster_in_the_same_place_is_refused(
    flink: FlinkCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its jobs would be lost: it is to be stopped first."""
    assert flink_command(["up", "--slots", "3", "--directory", str(flink.directory)]) == 2
    assert "python -m runners.flink down" in capsys.readouterr().err


def test_a_port_that_is_taken_is_an_error(flink: FlinkCluster, tmp_path: Path) -> None:
    """Of the second cluster, and the first one's processes stay."""
    port = str(flink.description.ports["rest"])
    argv = ["up", "--port", port, "--workers_port", "0", "--directory", str(tmp_path / "second")]
    try:
        result = _command(argv)
        assert result.returncode == 2
        assert f"port {port} of 127.0.0.1, which jobmanager would listen on, is taken" in result.stderr
        assert flink.rest.is_ready()
    finally:
        assert _command(["down", "--purge", "--directory", str(tmp_path / "second")]).returncode == 0


def test_without_java_it_is_said_what_to_install(tmp_path: Path) -> None:
    """A newcomer's first stumbling block has a sentence of its own."""
    result = _command(["up", "--port", "0", "--workers_port", "0", "--directory", str(tmp_path / "f")], PATH="/nowhere")
    assert result.returncode == 2
    assert "java, which is not on the PATH: apt install default-jdk-headless" in result.stderr
    assert _command(["down", "--purge", "--directory", str(tmp_path / "f")]).returncode == 0


def _command(argv: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own, which nothing of ours outlives."""
    return subprocess.run(
        [sys.executable, "-m", "runners.flink", *argv],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
