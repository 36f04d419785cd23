"""A package for EMR: its jar on a cluster of this machine, its files in a strict S3, its calls against a stand-in."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError

from pipelines.fraud import main as fraud
from runners.emr.artefacts import Artefact, Package, artefact, read_package
from runners.emr.bucket import Prefix, upload
from runners.emr.calls import Calls
from runners.emr.cluster import ClusterWish, create_cluster
from runners.emr.command import main as emr
from runners.emr.sizes import node_sizes
from runners.emr.steps import Job
from runners.emr.submit import Patience, submit, wait_for_step
from runners.flink.cluster import FlinkCluster
from runners.flink.distribution import CLIENT, flink_java
from runners.flink.submit import FlinkJob
from runners.local import S3, Aws
from runners.local.ports import HOST
from tests.command import decisions_of
from tests.integration.conftest import at_hand
from transforms.errors import UserError

SOURCE = "simulator:?customers=200&terminals=100&days=5"


@pytest.fixture(scope="module")
def made(flink: FlinkCluster, tmp_path_factory: pytest.TempPathFactory) -> Package:
    """A package as `python -m runners.emr package` makes it, into a `dist` of its own."""
    directory = tmp_path_factory.mktemp("emr")
    jar = directory / "dist" / "fraud-detection.jar"
    flags = [flag for flag in flink.flags if not flag.startswith("--runner")]
    own = ["--source", SOURCE, "--output", str(directory / "output"), "--parallelism=2"]

    def make() -> Package:
        if emr(["package", "--jar", str(jar), "--allow_local", *own, *flags]) != 0:
            raise UserError("the package cannot be made here: a registry did not answer")
        return read_package(jar)

    return at_hand(make)


def ran_by_flinks_client(flink: FlinkCluster, package: Package) -> FlinkJob:
    """Start a package's jar as the step on EMR does, but for the kind of cluster."""
    where = ["-d", "-m", f"{HOST}:{flink.description.ports['rest']}"]
    settings = [f"-D{key}={value}" for key, value in package.description.flink.items()]
    argv = flink_java(flink.description.version, CLIENT, "run", *where, *settings, str(package.jar.path))
    environment = {**os.environ, "FLINK_CONF_DIR": str(flink.directory / "conf")}
    said = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=120)
    found = re.search(r"JobID ([0-9a-f]{32})", said.stdout)
    assert found is not None, said.stdout + said.stderr
    return FlinkJob(flink.rest, found[1])


def table_of(output: Path) -> pa.Table:
    """All decisions, less the moments at which they were made."""
    table = decisions_of(output / "decisions")
    return table.drop_columns([name for name in ("ingest_time", "decided_at") if name in table.column_names])


def test_the_packaged_jar_decides_as_the_command_does(flink: FlinkCluster, made: Package, tmp_path: Path) -> None:
    """Flink's own client runs the jar from dist: decisions, scores and reasons are those that are had without Flink."""
    assert fraud(["--source", SOURCE, "--output", str(tmp_path), "--quiet"]) == 0
    assert ran_by_flinks_client(flink, made).wait_until_finish() == "FINISHED"
    output = made.jar.path.parents[1] / "output"
    assert table_of(output).num_rows > 500
    assert table_of(output).equals(table_of(tmp_path))


def test_the_package_holds_all_that_nodes_install(made: Package) -> None:
    """The wheel, the pins of the lock with a wheel for each, the bootstrap action and its unit; nothing else."""
    names = [each.path.name for each in made.nodes]
    (requirements,) = [each.path for each in made.nodes if each.path.name == "requirements.txt"]
    pins = [line.split(" ")[0] for line in requirements.read_text("utf-8").splitlines()]
    wheels = [name for name in names if name.endswith(".whl")]
    assert {"bootstrap.sh", "fraud-workers.service", "requirements.txt"} == set(names) - set(wheels)
    found = {"==".join(name.split("-")[:2]).lower().replace("_", "-") for name in wheels}
    assert found - {pin.lower() for pin in pins} == {"fraud-detection-beam==0.1.0"}
    assert len(wheels) == len(pins) + 1


def test_files_go_to_a_strict_bucket_once(s3: S3, made: Package) -> None:
    """The server compares each with its checksum; the second time nothing is sent, and what is there is the file."""
    s3.create_bucket("emr-artefacts")
    calls, place = Calls(connect=lambda service, region: s3.client()), Prefix("emr-artefacts", "fraud/production")
    small = [made.sums, *(each for each in made.nodes if each.path.stat().st_size < 1 << 20)]
    assert upload(calls, place, small) == len(small)
    assert upload(calls, place, small) == 0
    there = s3.client().get_object(Bucket=place.bucket, Key=place.key(made.bootstrap))
    assert there["Body"].read() == made.bootstrap.path.read_bytes()


def test_a_file_that_changes_on_the_way_is_not_taken(s3: S3, tmp_path: Path) -> None:
    """The bucket refuses content whose sum is another than its name says."""
    s3.create_bucket("emr-changed")
    path = tmp_path / "job.jar"
    path.write_bytes(b"one")
    before = artefact(path)
    path.write_bytes(b"two")
    calls, place = Calls(connect=lambda service, region: s3.client()), Prefix("emr-changed", "")
    with pytest.raises(UserError, match="s3 put_object: "):
        upload(calls, place, [before])
    with pytest.raises(ClientError):
        s3.client().head_object(Bucket=place.bucket, Key=place.key(before))


def test_from_a_cluster_to_a_step(aws: Aws, s3: S3, made: Package) -> None:
    """A stand-in for EMR takes all the calls in their order, and remembers what the nodes were told to install.

    It starts no nodes: what those do is tested on its own.
    """
    s3.create_bucket("emr-cluster")

    def connect(service: str, region: str | None) -> Any:
        return s3.client() if service == "s3" else aws.client(service)

    calls, place = Calls(connect=connect), Prefix("emr-cluster", "fraud")
    wish = ClusterWish(
        name="fraud",
        release="emr-7.12.0",
        instance_type="m6i.xlarge",
        nodes=1,
        primaries=1,
        subnet="subnet-1",
        instance_profile="nodes",
        service_role="emr",
        logs=Prefix("emr-cluster", "logs"),
        sizes=node_sizes("m6i.xlarge", made.description.slots, made.description.workers),
    )
    light = _without_wheels(made)
    cluster = create_cluster(calls, light, place, wish)
    step = submit(calls, light, place, cluster, Job("fraud", made.description.flink))
    calls("emr", "describe_step", ClusterId=cluster, StepId=step)
    wait_for_step(calls, cluster, step, Patience(seconds=10, every=0.1))
    listed = aws.client("emr").list_steps(ClusterId=cluster)["Steps"]
    assert [each["Name"] for each in listed] == ["run fraud"]
    other = Package(light.jar, Artefact(light.sums.path, "0" * 64), light.nodes, light.description)
    with pytest.raises(UserError, match="have not installed what this package was made with"):
        submit(calls, other, place, cluster, Job("fraud", {}))


def _without_wheels(package: Package) -> Package:
    """The package with the files that matter here: 330 MB of wheels say nothing new."""
    light = tuple(each for each in package.nodes if each.path.suffix != ".whl")
    return Package(package.bootstrap, package.sums, light, package.description)
