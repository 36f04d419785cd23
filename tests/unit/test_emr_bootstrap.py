"""The bootstrap action, run as it stands: only the system's own pieces (dnf, systemctl, the bucket) are stand-ins."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from runners.emr.artefacts import Artefact, artefact, write_sums
from runners.emr.nodes import ROOT, SCRIPTS, build_wheel
from runners.flink.check_workers import check_workers
from runners.local.ports import HOST, free_port

UNIT = "fraud-workers.service"
#: Programs that an EMR node has and this machine may not, or must not be touched with.
STAND_INS = {
    "aws": 'cp "$BUCKET/${4#s3://bucket/}" "$5"',
    "dnf": 'echo "$*" >> "$HERE/dnf.log"; mv "$HERE/python" "$HERE/bin/emr-python3.11"',
    "id": '[ "$1" = -u ] && exec /usr/bin/id -u; [ -e "$HERE/user" ]',
    "useradd": 'echo "$*" >> "$HERE/useradd.log"; touch "$HERE/user"',
    "sudo": '[ "$1" != -u ] || shift 2; exec "$@"',
    "sysctl": "true",
    "systemctl": 'echo "$*" >> "$HERE/systemctl.log"; [ "$1" != restart ] || { "$HERE/restart" > /dev/null 2>&1 & }',
    "journalctl": "echo words of the service",
}


def deps_wheel(directory: Path) -> Path:
    """A wheel that stands for the locked dependencies: it brings those of this environment into the one it is in."""
    name, info = "locked_deps-1.0-py3-none-any.whl", "locked_deps-1.0.dist-info"
    files = {
        "locked_deps.pth": f"{sysconfig.get_paths()['purelib']}\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: locked-deps\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        rows.append(f"{path},sha256={digest},{len(text)}\n")
    with zipfile.ZipFile(directory / name, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "".join(rows) + f"{info}/RECORD,,\n")
    return directory / name


class Node:
    """A node before it joins: a root directory of its own, a bucket, and a service manager that starts ExecStart."""

    def __init__(self, here: Path, wheel: Path) -> None:
        self.here, self.root, self.bucket = here, here / "root", here / "bucket"
        self.port = free_port()
        self.nodes = here / "nodes"
        self.nodes.mkdir()
        for script in (ROOT / SCRIPTS).iterdir():
            # The one thing about a node that a shared machine cannot give: the port.
            text = script.read_text("utf-8").replace("50000", str(self.port))
            (self.nodes / script.name).write_text(text, "utf-8")
        shutil.copy(wheel, self.nodes)
        deps = artefact(deps_wheel(self.nodes))
        (self.nodes / "requirements.txt").write_text(f"locked-deps==1.0 --hash=sha256:{deps.sha256}\n", "utf-8")
        self.sums = self.publish()
        (here / "bin").mkdir()
        python = f'exec {shlex.quote(sys.executable)} "$@"'
        for name, text in {**STAND_INS, "restart": self._restart(), "python": python}.items():
            path = here / ("bin" if name in STAND_INS else ".") / name
            path.write_text(f"#!/bin/bash\nHERE={here} BUCKET={self.bucket}\n{text}\n", "utf-8")
            path.chmod(0o755)

    def publish(self) -> Artefact:
        """Put the node's files into the bucket, under the names of their content."""
        files = [artefact(path) for path in self.nodes.iterdir() if path.name != "SHA256SUMS"]
        sums = write_sums(self.nodes, files)
        for each in (*files, sums):
            target = self.bucket / "prefix" / each.key
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(each.path, target)
        return sums

    def _restart(self) -> str:
        """What systemd makes of the unit: its environment, its directory, and ExecStart, with our root before paths."""
        unit = (self.nodes / UNIT).read_text("utf-8")
        (command,) = re.findall("(?m)^ExecStart=(.*)$", unit)
        variables = re.findall("(?m)^Environment=(.*)$", unit)
        (file,) = re.findall("(?m)^EnvironmentFile=-(.*)$", unit)
        (where,) = re.findall("(?m)^WorkingDirectory=(.*)$", unit)
        rooted = re.sub(r"/(?=opt/|var/)", f"{self.root}/", " ".join(variables))
        return f"""
            [ ! -e $HERE/pid ] || kill $(cat $HERE/pid)
            mkdir -p {self.root}{where} && cd {self.root}{where}
            export {rooted}
            set -a; . {self.root}{file}; set +a
            echo $$ > $HERE/pid
            exec {self.root}{command}"""

    def bootstrap(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{self.here / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.here),
            "FRAUD_ROOT": str(self.root),
            "FRAUD_PYTHON": "emr-python3.11",
            "FRAUD_PATIENCE": "20",
            **variables,
        }
        argv = ["/bin/bash", str(self.nodes / "bootstrap.sh"), "s3://bucket/prefix", self.sums.sha256, *arguments]
        return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=300)

    def log(self, name: str) -> str:
        path = self.here / f"{name}.log"
        return path.read_text("utf-8") if path.exists() else ""

    def end(self) -> None:
        pid = self.here / "pid"
        if pid.exists():
            subprocess.run(["/bin/kill", pid.read_text().strip()], capture_output=True, check=False)
            deadline = time.monotonic() + 20
            while is_listening(self.port) and time.monotonic() < deadline:
                time.sleep(0.1)


def is_listening(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex((HOST, port)) == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def node(tmp_path: Path, wheel: Path) -> Iterator[Node]:
    made = Node(tmp_path, wheel)
    yield made
    made.end()


def test_the_life_of_a_node(node: Node) -> None:
    """From nothing to a worker that connects; then a second run, and one whose pool does not start.

    One test, since each installation takes as long as all the rest.
    """
    done = node.bootstrap("AWS_REGION=eu-west-1", "LOG_LEVEL=1")
    assert done.returncode == 0, done.stderr
    check_workers(f"{HOST}:{node.port}")
    base = node.root / "opt" / "fraud-detection"
    assert (base / "current").resolve() == (base / node.sums.sha256 / "venv").resolve()
    assert list((base / "current").glob("lib/python*/site-packages/runners/flink/worker_pool.py"))
    assert (base / "environment").read_text("utf-8") == "AWS_REGION=eu-west-1\nLOG_LEVEL=1\n"
    assert node.log("dnf") == "install --assumeyes --quiet emr-python3.11\n"
    assert node.log("useradd") == "--system --no-create-home --shell /sbin/nologin fraud-detection\n"
    services = "daemon-reload\nenable --quiet fraud-workers.service\nrestart fraud-workers.service\n"
    assert node.log("systemctl") == services

    shutil.rmtree(node.bucket)  # nothing can be fetched a second time
    made = (base / node.sums.sha256 / "complete").stat().st_mtime_ns
    again = node.bootstrap()
    assert again.returncode == 0, again.stderr
    assert (base / node.sums.sha256 / "complete").stat().st_mtime_ns == made
    assert node.log("dnf").count("\n") == node.log("useradd").count("\n") == 1

    node.end()
    (node.here / "restart").write_text("#!/bin/bash\nexit 1\n", "utf-8")
    dead = node.bootstrap(FRAUD_PATIENCE="0")
    assert dead.returncode == 1
    assert f"error: no worker pool answers at {HOST}:{node.port}" in dead.stderr
    assert dead.stderr.endswith("words of the service\nbootstrap: the worker pool starts no workers\n")


@pytest.mark.parametrize("changed", ["SHA256SUMS", "requirements.txt"])
def test_what_was_replaced_in_the_bucket_is_not_installed(node: Node, changed: str) -> None:
    """Neither the list nor a file of it may be another than was packaged: the node ends."""
    (path,) = node.bucket.glob(f"prefix/*/{changed}")
    path.write_text(path.read_text("utf-8") + "\n", "utf-8")
    done = node.bootstrap()
    assert done.returncode != 0
    assert "FAILED" in done.stdout + done.stderr
    assert not (node.root / "opt" / "fraud-detection" / "current").exists()


def test_a_dependency_that_is_not_the_locked_one_is_not_installed(node: Node) -> None:
    """Beyond the sums, each wheel is compared with the lock."""
    (node.nodes / "requirements.txt").write_text(f"locked-deps==1.0 --hash=sha256:{'0' * 64}\n", "utf-8")
    node.sums = node.publish()
    done = node.bootstrap()
    assert done.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr
    assert not (node.root / "opt" / "fraud-detection" / node.sums.sha256 / "complete").exists()


def test_the_wheel_is_the_same_whenever_it_is_built(wheel: Path, tmp_path: Path) -> None:
    """Its name in the bucket is its content's: a cluster that has this code is known to have it."""
    assert build_wheel(tmp_path).read_bytes() == wheel.read_bytes()


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    """Where systemd is at hand, its own tool knows every setting of the unit."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is Linux's")
    text = (ROOT / SCRIPTS / UNIT).read_text("utf-8")
    unit = tmp_path / UNIT
    unit.write_text(text.replace("/opt/fraud-detection/current/bin/python", sys.executable), "utf-8")
    said = subprocess.run([tool, "verify", unit], capture_output=True, text=True, check=False)
    assert [line for line in said.stderr.splitlines() if UNIT in line] == []
