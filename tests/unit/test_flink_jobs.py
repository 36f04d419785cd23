"""Jobs on Flink as far as no Flink is needed: what its answers mean, and what is made of them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from pipelines.on_flink import tally_so_far
from runners.flink.job_server import class_path_jar
from runners.flink.package import ENTRY_CLASS, package, packaged_configuration
from runners.flink.rest import FlinkError, FlinkRest, root_cause, wait_for
from runners.flink.run import is_local
from runners.flink.submit import FlinkJob, submit
from runners.local import free_port
from runners.presets import pipeline_options
from transforms.errors import UserError


@dataclass(frozen=True)
class Scripted(FlinkRest):
    """A cluster that answers from a list, the last answer for ever."""

    address: str = "flink:8081"
    answers: list[dict[str, Any]] = field(default_factory=list)
    cause: str = ""
    free: int = 2
    cancelled: list[str] = field(default_factory=list)

    def job(self, job: str) -> dict[str, Any]:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def root_cause(self, job: str) -> str:
        return self.cause

    def slots(self) -> tuple[int, int]:
        return 2, self.free

    def cancel(self, job: str) -> None:
        self.cancelled.append(job)


def state(job: str, *vertices: str) -> dict[str, Any]:
    stages = [{"name": f"stage {at}", "status": status, "parallelism": 2} for at, status in enumerate(vertices)]
    return {"state": job, "vertices": stages}


def ticking() -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += 1.0


def job_of(rest: FlinkRest) -> FlinkJob:
    clock = ticking()
    return FlinkJob(rest, "j1", clock=lambda: next(clock), sleep=lambda _: None)


def test_a_job_runs_when_all_its_stages_do() -> None:
    """Stages that are over count too: input that ends may be quick."""
    rest = Scripted(
        answers=[
            state("CREATED"),
            state("RUNNING", "SCHEDULED", "INITIALIZING"),
            state("RUNNING", "FINISHED", "INITIALIZING"),
            state("RUNNING", "FINISHED", "RUNNING"),
        ]
    )
    job_of(rest).wait_until_running(10.0)
    assert len(rest.answers) == 1
    assert not rest.cancelled


def test_a_job_whose_workers_do_not_come_is_cancelled_with_a_reason() -> None:
    """It would wait for them without end; the message says where to look."""
    rest = Scripted(answers=[state("RUNNING", "RUNNING", "INITIALIZING")])
    with pytest.raises(FlinkError, match=r"after 5 s 1 of 2 stages .* stage 1: their Python workers did not connect"):
        job_of(rest).wait_until_running(5.0)
    assert rest.cancelled == ["j1"]


def test_a_job_without_slots_says_so() -> None:
    """What is missing is not the workers."""
    rest = Scripted(answers=[state("RUNNING", "SCHEDULED")], free=0)
    with pytest.raises(FlinkError, match="no slot is free: it needs 2, 0 of 2 are free"):
        job_of(rest).wait_until_running(5.0)


def test_a_job_that_fails_gives_flinks_reason() -> None:
    """Be it while it starts or later."""
    rest = Scripted(answers=[state("FAILED", "FAILED")], cause="KeyError: 'amount'")
    for wait in (job_of(rest).wait_until_running, job_of(rest).wait_until_finish):
        with pytest.raises(FlinkError, match="KeyError: 'amount'"):
            wait()


def test_a_job_is_waited_for() -> None:
    """The state it ended in is returned, also when somebody else cancelled it."""
    rest = Scripted(answers=[state("RUNNING", "RUNNING"), state("CANCELED", "CANCELED")])
    assert job_of(rest).wait_until_finish() == "CANCELED"


def test_progress_outlives_a_cluster_that_does_not_answer() -> None:
    """It shows nothing then: whoever waits for the job is told, once."""
    assert tally_so_far(FlinkJob(FlinkRest(f"localhost:{free_port()}"), "j1")) == {}


def test_nobody_at_the_address_is_an_error_with_a_way_out() -> None:
    """It names the address, and how a cluster is started."""
    rest = FlinkRest(f"localhost:{free_port()}")
    with pytest.raises(FlinkError, match=r"no Flink answers at http://localhost:\d+: .*python -m runners.flink up"):
        rest.jobs()
    assert not rest.is_ready()
    assert rest.taskmanagers() == set()


def test_the_root_of_a_trace_is_its_last_cause() -> None:
    """With all the lines of a Python error that came through Java, without Java's own places."""
    trace = (
        "org.apache.flink.JobException: Recovery is suppressed\n\tat a.B.c(D.java:1)\nCaused by: "
        "java.lang.RuntimeException: Error received from SDK harness: Traceback:\n  File x.py\nKeyError: 'amount'\n"
        "\tat e.F.g(H.java:2)\n\t... 3 more"
    )
    assert root_cause(trace) == (
        "java.lang.RuntimeException: Error received from SDK harness: Traceback:\n  File x.py\nKeyError: 'amount'"
    )
    assert root_cause("no trace at all") == "no trace at all"


def test_waiting_for_what_does_not_come_ends() -> None:
    """With what it was, and how long."""
    with pytest.raises(FlinkError, match="a unicorn was not there after 0 s"):
        wait_for(lambda: None, 0.0, "a unicorn", pause=0.0)


@pytest.mark.parametrize(
    ("master", "local"),
    [("localhost:8081", True), ("http://127.0.0.1:8081", True), ("flink.internal:8081", False), ("[auto]", False)],
)
def test_a_cluster_on_this_machine_is_told_from_others(master: str, local: bool) -> None:
    """Only there are our files the workers' files, and its worker pool ours to check."""
    assert is_local(pipeline_options("FlinkRunner", [f"--flink_master={master}"], bounded=True)) is local


@pytest.fixture
def job_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As much of Beam's job server as the packager touches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "job-server.jar"
    with zipfile.ZipFile(path, "w") as jar:
        jar.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\r\nMain-Class: JobServer\r\n\r\n")
        jar.writestr("org/apache/beam/Some.class", b"\xca\xfe\xba\xbe")
        jar.writestr("org/apache/beam/runners/flink/FlinkPipelineRunner.class", b"entry")
        jar.writestr("org/apache/beam/runners/jobsubmission/PortablePipelineJarUtils$Inner.class", b"inner")
        jar.writestr("frauddetection/NothingToStage.class", b"ours")
    return path


def packaged(job_server: Path, jar: Path, *flags: str, class_path: Collection[str] = ()) -> None:
    own = f"--flink_job_server_jar={job_server}"
    options = pipeline_options("FlinkRunner", [own, *flags], bounded=False, shards=4)
    pipeline = beam.Pipeline(options=options)
    _ = pipeline | beam.Create([1]) | "Double" >> beam.Map(lambda x: 2 * x)
    package(pipeline, jar, class_path)


def test_a_cluster_that_has_the_job_server_gets_the_pipeline_alone(job_server: Path, tmp_path: Path) -> None:
    """With the classes that look for it where they were loaded from."""
    jar = tmp_path / "job.jar"
    packaged(job_server, jar, class_path=["/flink/lib/flink-dist.jar", str(class_path_jar(job_server))])
    with zipfile.ZipFile(jar) as content:
        classes = [name for name in content.namelist() if name.endswith(".class")]
        assert classes == [
            "org/apache/beam/runners/flink/FlinkPipelineRunner.class",
            "org/apache/beam/runners/jobsubmission/PortablePipelineJarUtils$Inner.class",
            "frauddetection/NothingToStage.class",
        ]
        assert f"Main-Class: {ENTRY_CLASS}" in content.read("META-INF/MANIFEST.MF").decode()
        assert json.loads(content.read("BEAM-PIPELINE/pipeline-manifest.json"))["defaultJobName"]


def test_a_job_jar_is_the_job_server_with_the_pipeline_in_it(job_server: Path, tmp_path: Path) -> None:
    """Beam's entry class finds the pipeline and its options; what is ours to know stays out of them."""
    jar = tmp_path / "dist" / "job.jar"
    packaged(job_server, jar, "--flink_config=a.b=c", "--parallelism=3")
    with zipfile.ZipFile(jar) as content:
        assert content.testzip() is None
        names = content.namelist()
        assert sorted(names) == sorted(set(names))
        assert content.read("org/apache/beam/Some.class") == b"\xca\xfe\xba\xbe"
        assert f"Main-Class: {ENTRY_CLASS}" in content.read("META-INF/MANIFEST.MF").decode()
        name = json.loads(content.read("BEAM-PIPELINE/pipeline-manifest.json"))["defaultJobName"]
        pipeline = json.loads(content.read(f"BEAM-PIPELINE/{name}/pipeline.json"))
        options = json.loads(content.read(f"BEAM-PIPELINE/{name}/pipeline-options.json"))
    configuration = packaged_configuration(jar)
    assert configuration["a.b"] == "c"
    assert configuration["state.backend.type"] == "rocksdb"
    assert any(transform["uniqueName"] == "Double" for transform in pipeline["components"]["transforms"].values())
    assert options["beam:option:parallelism:v1"] == "3"
    assert options["beam:option:flink_master:v1"] == "[auto]"
    assert options["beam:option:streaming:v1"] is True
    assert options["beam:option:pipeline_resources_detector_factory_class:v1"] == "frauddetection.NothingToStage"
    assert not any("flink_config" in option or "jar" in option for option in options)


def test_a_job_names_no_class_that_its_jar_does_not_have(job_server: Path, tmp_path: Path) -> None:
    """A job server that a user brings is Beam's own, without ours in it."""
    jar, theirs = tmp_path / "job.jar", tmp_path / "theirs.jar"
    with zipfile.ZipFile(job_server) as ours, zipfile.ZipFile(theirs, "w") as content:
        for name in ours.namelist():
            if not name.startswith("frauddetection/"):
                content.writestr(name, ours.read(name))
    packaged(theirs, jar)
    with zipfile.ZipFile(jar) as content:
        options = next(name for name in content.namelist() if name.endswith("pipeline-options.json"))
        assert b"detector" not in content.read(options)


def test_a_job_jar_that_cannot_be_written_is_an_error(job_server: Path, tmp_path: Path) -> None:
    """With the path and the system's reason."""
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written to .*file/job\.jar"):
        packaged(job_server, tmp_path / "file" / "job.jar")


def test_what_is_no_job_is_not_submitted(job_server: Path, tmp_path: Path) -> None:
    """With how a job's jar is made."""
    with pytest.raises(UserError, match=r"is no job's jar: .*--output_executable_path"):
        submit(Scripted(), job_server)
    with pytest.raises(UserError, match="there is no file"):
        submit(Scripted(), tmp_path / "absent.jar")


def test_a_job_server_that_is_none_is_refused(tmp_path: Path) -> None:
    """By its name, before anything is written."""
    (tmp_path / "not.jar").write_text("no")
    for name in ("not.jar", "absent.jar"):
        with pytest.raises(UserError, match=f"--flink_job_server_jar: .*{name} is not there, or is no jar"):
            packaged(tmp_path / name, tmp_path / "job.jar")
    assert not (tmp_path / "job.jar").exists()
