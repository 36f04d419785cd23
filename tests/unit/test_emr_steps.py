"""The command lines that EMR's primary node runs, run for real with stand-ins for what only that node has."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from runners.emr.steps import RUN, STOP, Job, run_arguments, run_step, stop_step
from transforms.errors import UserError

JAR = b"the job"
SUM = hashlib.sha256(JAR).hexdigest()
#: What `yarn application -list` writes, as Hadoop 3.4 does.
HEADING = """Total number of applications (application-types: [], states: [RUNNING] and tags: []):1
                Application-Id\t    Application-Name\t    Application-Type\t      User\t             State
"""
RUNNING = (
    "application_17_0001\t             {name}\t        Apache Flink\t    hadoop\troot.default\t           RUNNING\n"
)


class Node:
    """Programs of a primary node: `aws` copies a file, `flink` notes what it is told, `yarn` lists what runs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "bin").mkdir()
        (directory / "job.jar").write_bytes(JAR)
        self.program("aws", 'cp "$HERE/job.jar" "$5"')
        self.program("flink", 'printf "%s\\n" "$@" >> "$HERE/flink.log"\ncp "${@: -1}" "$HERE/ran.jar" || true')
        self.runs("")

    def program(self, name: str, text: str) -> None:
        path = self.directory / "bin" / name
        path.write_text(f"#!/bin/bash\nset -eu\nHERE={self.directory}\n{text}\n", "utf-8")
        path.chmod(0o755)

    def runs(self, *names: str) -> None:
        listed = HEADING + "".join(RUNNING.format(name=name) for name in names)
        (self.directory / "list").write_text(listed, "utf-8")
        self.program("yarn", '[ "$1 $2" = "application -list" ]\ncat "$HERE/list"')

    def step(self, step: dict[str, object]) -> subprocess.CompletedProcess[str]:
        jar = step["HadoopJarStep"]
        assert isinstance(jar, dict)
        assert jar["Jar"] == "command-runner.jar"
        path = f"{self.directory / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(jar["Args"], env={"PATH": path}, capture_output=True, text=True, check=False)

    @property
    def told(self) -> list[str]:
        """What Flink's client was told, word for word."""
        log = self.directory / "flink.log"
        return log.read_text("utf-8").splitlines() if log.exists() else []


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


JOB = Job("fraud", {"parallelism.default": "4", "a.key": "with blanks; $HOME `id`"}, "s3://state/savepoint-1", True)


def test_the_jar_is_brought_checked_and_run(node: Node) -> None:
    """Flink's client gets each setting as one word, whatever is in it, the savepoint, and the jar last."""
    done = node.step(run_step(JOB, "s3://artefacts/job.jar", SUM))
    assert done.returncode == 0, done.stderr
    *arguments, jar = node.told
    assert arguments == ["run-application", *run_arguments(JOB)]
    assert "-Da.key=with blanks; $HOME `id`" in arguments
    assert arguments[-3:] == ["-s", "s3://state/savepoint-1", "-n"]
    assert (node.directory / "ran.jar").read_bytes() == JAR
    assert not Path(jar).exists()  # it is 160 MB: it does not stay


def test_another_jar_is_not_run(node: Node) -> None:
    """What came from the bucket is compared with what was packaged."""
    done = node.step(run_step(JOB, "s3://artefacts/job.jar", hashlib.sha256(b"another").hexdigest()))
    assert done.returncode != 0
    assert "FAILED" in done.stdout + done.stderr
    assert node.told == []


def test_a_job_of_a_name_runs_once(node: Node) -> None:
    """A second one would read the same records; one whose name only begins like it is no obstacle."""
    node.runs("fraud")
    done = node.step(run_step(JOB, "s3://artefacts/job.jar", SUM))
    assert done.returncode == 2
    assert "fraud runs already, as application_17_0001" in done.stderr
    assert node.told == []
    node.runs("fraud-2")
    assert node.step(run_step(JOB, "s3://artefacts/job.jar", SUM)).returncode == 0


def test_a_list_that_cannot_be_had_stops_the_step(node: Node) -> None:
    """Not knowing what runs is no reason to start another."""
    node.program("yarn", "exit 255")
    assert node.step(run_step(JOB, "s3://artefacts/job.jar", SUM)).returncode == 255
    assert node.told == []


def test_a_job_is_stopped_with_a_savepoint(node: Node) -> None:
    """The job's id is asked of Flink, its application's of YARN, and the step lasts until that is gone."""
    node.runs("other", "fraud")
    node.program("sleep", f'printf "%s" {shlex.quote(HEADING)} > "$HERE/list"; echo >> "$HERE/waited"')
    node.program(
        "flink",
        'printf "%s\\n" "$@" >> "$HERE/flink.log"\n'
        '[ "$1" != list ] || echo "24.11.2026 16:00:00 : 0123456789abcdef0123456789abcdef : BeamApp (RUNNING)"',
    )
    done = node.step(stop_step("fraud", "s3://state/stopped"))
    assert done.returncode == 0, done.stderr
    at = ["-t", "yarn-application", "-Dyarn.application.id=application_17_0001"]
    where = ["--savepointPath", "s3://state/stopped", "0123456789abcdef0123456789abcdef"]
    assert node.told == ["list", "-r", *at, "stop", *at, *where]
    assert (node.directory / "waited").exists()


def test_an_application_without_a_job_is_not_stopped(node: Node) -> None:
    """One that is starting, or failing, has nothing to save."""
    node.runs("fraud")
    node.program("flink", "echo There are no running jobs.")
    done = node.step(stop_step("fraud", "s3://state/stopped"))
    assert done.returncode == 2
    assert "application_17_0001 runs, but no job does in it" in done.stderr


def test_what_does_not_run_cannot_be_stopped(node: Node) -> None:
    """The step fails and says so."""
    done = node.step(stop_step("fraud", "s3://state/stopped"))
    assert done.returncode == 2
    assert "no application fraud runs" in done.stderr


@pytest.mark.parametrize("script", [RUN, STOP])
def test_the_scripts_are_bash(script: str) -> None:
    """Bash reads them to their ends."""
    checked = subprocess.run(["/bin/bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert checked.stderr == ""


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"name": "fraud detection"}, "--name: 'fraud detection' is no name"),
        ({"savepoint": "/home/savepoint"}, "--savepoint: '/home/savepoint' is not where the nodes could read it"),
        ({"allow_non_restored_state": True}, "--savepoint names none"),
    ],
)
def test_what_makes_no_sense_is_refused(job: dict[str, object], said: str) -> None:
    """Before anything is uploaded."""
    with pytest.raises(UserError, match=said):
        Job(**{"name": "fraud", "flink": {}, **job})  # type: ignore[arg-type]  # parametrized
