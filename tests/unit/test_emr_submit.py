"""Clusters, steps and manifests of EMR: every call is checked against AWS's own description of the service."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from io_connectors.retry import Backoff
from runners.emr.artefacts import Description, Package, artefact, description_of, read_package, write_sums
from runners.emr.bucket import Prefix, parse_prefix, upload
from runners.emr.calls import Calls
from runners.emr.cluster import ClusterWish, check_environment, create_cluster, nodes_needed
from runners.emr.command import main
from runners.emr.kubernetes import Deployment, flink_deployment
from runners.emr.sizes import node_sizes
from runners.emr.steps import Job
from runners.emr.submit import Patience, check_cluster, find_savepoint, stop, submit, wait_for_step
from transforms.errors import UserError

CLUSTER, STEP = "j-2AXXXXXXGAPLF", "s-1XXXXXXXXXXXX"
PLACE = Prefix("artefacts", "fraud")
JOB = Job("fraud", {"parallelism.default": "8"})


def make_package(directory: Path) -> Path:
    """A package with small files; the path of its jar."""
    nodes, jar = directory / "nodes", directory / "fraud-detection.jar"
    nodes.mkdir()
    for name in ("bootstrap.sh", "fraud-workers.service", "requirements.txt", "numpy-1.whl"):
        (nodes / name).write_text(name, "utf-8")
    jar.write_bytes(b"jar")
    sums = write_sums(nodes, [artefact(path) for path in nodes.iterdir()])
    fields: dict[str, Any] = {
        "architecture": "x86_64",
        "flink_version": "1.20",
        "parallelism": 8,
        "slots": 4,
        "workers": 4,
        "flink": {"a.b": "c"},
    }
    description = Description(jar=artefact(jar).sha256, nodes=sums.sha256, **fields)
    text = json.dumps({name: getattr(description, name) for name in description.__struct_fields__})
    description_of(jar).write_text(text, "utf-8")
    return jar


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return read_package(make_package(tmp_path))


class Stubs:
    """boto3's clients, which answer what a test says and nothing else."""

    def __init__(self) -> None:
        self.clients: dict[str, Any] = {}
        self.stubbers: dict[str, Stubber] = {}

    def connect(self, service: str, region: str | None) -> Any:
        if service not in self.clients:
            session = boto3.session.Session(aws_access_key_id="test", aws_secret_access_key="test")  # noqa: S106
            self.clients[service] = session.client(service, region_name=region or "eu-west-1")
            self.stubbers[service] = Stubber(self.clients[service])
            self.stubbers[service].activate()
        return self.clients[service]

    def answer(self, service: str, operation: str, response: dict[str, Any], expected: Any = None) -> None:
        self.connect(service, None)
        self.stubbers[service].add_response(operation, response, expected)

    def refuse(self, service: str, operation: str, code: str, status: int) -> None:
        self.connect(service, None)
        self.stubbers[service].add_client_error(operation, code, http_status_code=status)


@pytest.fixture
def stubs() -> Iterator[Stubs]:
    made = Stubs()
    yield made
    for stubber in made.stubbers.values():
        stubber.assert_no_pending_responses()


@pytest.fixture
def calls(stubs: Stubs) -> Calls:
    return Calls("eu-west-1", backoff=Backoff(sleep=lambda _: None), connect=stubs.connect)


def wish(package: Package, **changes: Any) -> ClusterWish:
    made = ClusterWish(
        name="fraud",
        release="emr-7.12.0",
        instance_type="m6i.xlarge",
        nodes=nodes_needed(package),
        primaries=1,
        subnet="subnet-1",
        instance_profile="fraud-nodes",
        service_role="fraud-emr",
        logs=Prefix("artefacts", "logs"),
        sizes=node_sizes("m6i.xlarge", package.description.slots, package.description.workers),
        environment={"AWS_REGION": "eu-west-1"},
        tags={"team": "fraud"},
    )
    return replace(made, **changes)


def described(state: str = "WAITING", release: str = "emr-7.12.0", *applications: str) -> dict[str, Any]:
    names = [{"Name": name} for name in applications or ("Hadoop", "Flink", "ZooKeeper")]
    return {"Cluster": {"Id": CLUSTER, "Status": {"State": state}, "ReleaseLabel": release, "Applications": names}}


def actions(package: Package) -> dict[str, Any]:
    return {"BootstrapActions": [{"Name": "fraud-workers", "Args": [str(PLACE), package.sums.sha256]}]}


def everything_is_there(stubs: Stubs, package: Package, *artefacts: Any) -> None:
    """The bucket says of each file that it has it, with its checksum."""
    import base64

    for each in artefacts:
        checksum = base64.b64encode(bytes.fromhex(each.sha256)).decode()
        expected = {"Bucket": PLACE.bucket, "Key": f"fraud/{each.sha256}/{each.path.name}", "ChecksumMode": "ENABLED"}
        stubs.answer("s3", "head_object", {"ChecksumSHA256": checksum}, expected)


def test_a_package_is_read_as_it_was_made(package: Package) -> None:
    """The jar, and every file of the nodes."""
    assert package.bootstrap.path.name == "bootstrap.sh"
    assert {each.path.name for each in package.nodes} == {
        "bootstrap.sh",
        "fraud-workers.service",
        "requirements.txt",
        "numpy-1.whl",
    }


@pytest.mark.parametrize("name", ["fraud-detection.jar", "nodes/SHA256SUMS", "nodes/numpy-1.whl"])
def test_a_package_that_was_changed_is_refused(tmp_path: Path, name: str) -> None:
    """What is uploaded is what was made: the file that differs is named."""
    jar = make_package(tmp_path)
    with (tmp_path / name).open("a") as file:
        file.write("\n")
    with pytest.raises(UserError, match=f"{Path(name).name} has changed since it was packaged"):
        read_package(jar)


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    """A jar alone, or a description of another kind."""
    (tmp_path / "job.jar").write_bytes(b"")
    with pytest.raises(UserError, match=r"is no package: cannot read .*job.json"):
        read_package(tmp_path / "job.jar")
    jar = make_package(tmp_path)
    description_of(jar).write_text('{"jar": 1}', "utf-8")
    with pytest.raises(UserError, match=r"fraud-detection.json is not what describes a package"):
        read_package(jar)


def test_only_what_is_missing_is_sent(stubs: Stubs, calls: Calls, package: Package) -> None:
    """A file that the bucket has under its name and checksum is not sent again; another is put with its checksum."""
    there, missing = package.nodes[:2]
    everything_is_there(stubs, package, there)
    stubs.refuse("s3", "head_object", "404", 404)
    key = f"fraud/{missing.sha256}/{missing.path.name}"
    put = {"Bucket": PLACE.bucket, "Key": key, "Body": ANY, "ChecksumSHA256": ANY}
    stubs.answer("s3", "put_object", {}, put)
    assert upload(calls, PLACE, [there, missing]) == 1


def test_what_was_replaced_in_the_bucket_is_told(stubs: Stubs, calls: Calls, package: Package) -> None:
    """A name says what it holds: if it holds something else, somebody has been there."""
    stubs.answer("s3", "head_object", {"ChecksumSHA256": "another"})
    with pytest.raises(UserError, match="somebody has replaced it"):
        upload(calls, PLACE, [package.jar])


def test_puts_and_reads_are_repeated(stubs: Stubs, calls: Calls, package: Package) -> None:
    """S3 asks to slow down as a matter of course."""
    stubs.refuse("s3", "head_object", "SlowDown", 503)
    stubs.refuse("s3", "head_object", "404", 404)
    stubs.refuse("s3", "put_object", "SlowDown", 503)
    stubs.answer("s3", "put_object", {})
    assert upload(calls, PLACE, [package.jar]) == 1


def test_a_step_is_added_once(stubs: Stubs, calls: Calls) -> None:
    """A call that may have been done is not made again: it would be a second job."""
    stubs.refuse("emr", "add_job_flow_steps", "ThrottlingException", 400)
    with pytest.raises(UserError, match=r"emr add_job_flow_steps: .*ThrottlingException"):
        stop(calls, CLUSTER, "fraud", "s3://state/savepoints")


def test_a_job_is_submitted(stubs: Stubs, calls: Calls, package: Package) -> None:
    """The cluster is looked at, the files are there, and the step names the jar by its content."""
    stubs.answer("emr", "describe_cluster", described(), {"ClusterId": CLUSTER})
    stubs.answer("emr", "list_bootstrap_actions", actions(package), {"ClusterId": CLUSTER})
    everything_is_there(stubs, package, package.sums, *package.nodes, package.jar)
    stubs.answer("emr", "add_job_flow_steps", {"StepIds": [STEP]}, {"JobFlowId": CLUSTER, "Steps": [ANY]})
    assert submit(calls, package, PLACE, CLUSTER, JOB) == STEP


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        (described("TERMINATED"), f"cluster {CLUSTER} is TERMINATED"),
        (described(release="emr-7.6.0"), "for Flink 1.20, which is had by emr-7.7.0 to emr-7.13.0; found emr-7.6.0"),
        (described("WAITING", "emr-7.12.0", "Hadoop", "Spark"), f"cluster {CLUSTER} has no Flink"),
    ],
)
def test_a_cluster_that_cannot_run_the_job_is_refused(
    stubs: Stubs, calls: Calls, package: Package, cluster: dict[str, Any], said: str
) -> None:
    """Before anything is uploaded."""
    stubs.answer("emr", "describe_cluster", cluster)
    stubs.answer("emr", "list_bootstrap_actions", actions(package))
    with pytest.raises(UserError, match=said):
        check_cluster(calls, package, CLUSTER)


def test_nodes_with_other_code_are_refused(stubs: Stubs, calls: Calls, package: Package) -> None:
    """The jar's transforms run in what the nodes installed: it must be what the package was made with."""
    stubs.answer("emr", "describe_cluster", described())
    stubs.answer("emr", "list_bootstrap_actions", {"BootstrapActions": [{"Name": "a", "Args": [str(PLACE), "0" * 64]}]})
    with pytest.raises(UserError, match="have not installed what this package was made with"):
        check_cluster(calls, package, CLUSTER)


def test_a_step_is_waited_for(stubs: Stubs, calls: Calls) -> None:
    """Until it is completed, with pauses."""
    pauses: list[float] = []
    for state in ("PENDING", "RUNNING", "COMPLETED"):
        answer = {"Step": {"Id": STEP, "Status": {"State": state}}}
        stubs.answer("emr", "describe_step", answer, {"ClusterId": CLUSTER, "StepId": STEP})
    wait_for_step(calls, CLUSTER, STEP, Patience(sleep=pauses.append))
    assert pauses == [5.0, 5.0]


def test_a_step_that_fails_says_why(stubs: Stubs, calls: Calls) -> None:
    """EMR's reason and the place of its log are in the message."""
    details = {"Reason": "Application failed", "LogFile": "s3://logs/stderr.gz"}
    stubs.answer("emr", "describe_step", {"Step": {"Status": {"State": "FAILED", "FailureDetails": details}}})
    with pytest.raises(UserError, match=f"step {STEP} ended as FAILED: Application failed; s3://logs/stderr.gz"):
        wait_for_step(calls, CLUSTER, STEP)


def test_waiting_ends(stubs: Stubs, calls: Calls) -> None:
    """After its time, without taking the step for failed."""
    stubs.answer("emr", "describe_step", {"Step": {"Status": {"State": "RUNNING"}}})
    with pytest.raises(UserError, match="is still RUNNING after 0 s; it goes on"):
        wait_for_step(calls, CLUSTER, STEP, Patience(seconds=0, clock=lambda: 0.0))


def test_a_savepoint_is_found(stubs: Stubs, calls: Calls) -> None:
    """Each stop has a place of its own, so what lies there is its savepoint."""
    stubs.answer("emr", "add_job_flow_steps", {"StepIds": [STEP]})
    step, place = stop(calls, CLUSTER, "fraud", "s3://state/savepoints", datetime(2026, 11, 24, 16, tzinfo=UTC))
    assert (step, str(place)) == (STEP, "s3://state/savepoints/fraud-20261124T160000Z")
    keys = [f"{place.prefix}/savepoint-1a2b/{name}" for name in ("0f", "_metadata")]
    stubs.answer("s3", "list_objects_v2", {"Contents": [{"Key": key} for key in keys]})
    assert find_savepoint(calls, place) == f"{place}/savepoint-1a2b"
    stubs.answer("s3", "list_objects_v2", {"KeyCount": 0})
    with pytest.raises(UserError, match="there is no savepoint in"):
        find_savepoint(calls, place)


def test_a_cluster_is_created(stubs: Stubs, calls: Calls, package: Package) -> None:
    """EMR takes the request; its nodes install exactly this package, and YARN leaves the workers their memory."""
    everything_is_there(stubs, package, package.sums, *package.nodes)
    stubs.answer("emr", "run_job_flow", {"JobFlowId": CLUSTER})
    requests: list[dict[str, Any]] = []
    client = stubs.connect("emr", None)
    client.meta.events.register("provide-client-params.emr.*", lambda params, **_: requests.append(params))
    assert create_cluster(calls, package, PLACE, wish(package)) == CLUSTER
    (request,) = requests
    (action,) = request["BootstrapActions"]
    assert action["ScriptBootstrapAction"] == {
        "Path": f"s3://artefacts/fraud/{package.bootstrap.sha256}/bootstrap.sh",
        "Args": ["s3://artefacts/fraud", package.sums.sha256, "AWS_REGION=eu-west-1"],
    }
    settings = {each["Classification"]: each["Properties"] for each in request["Configurations"]}
    assert int(settings["yarn-site"]["yarn.nodemanager.resource.memory-mb"]) + 4 * 1536 < 16 * 1024
    assert settings["flink-conf"]["high-availability.type"] == "zookeeper"
    assert [each["Name"] for each in request["Applications"]] == ["Hadoop", "Flink", "ZooKeeper"]
    assert [each["InstanceCount"] for each in request["Instances"]["InstanceGroups"]] == [1, 2]


def test_a_release_with_another_flink_is_refused(calls: Calls, package: Package) -> None:
    """A job's jar is for one minor version of Flink."""
    with pytest.raises(UserError, match=r"for Flink 1.20, .*found emr-6.15.0"):
        create_cluster(calls, package, PLACE, wish(package, release="emr-6.15.0"))


def test_nodes_with_other_processors_are_refused(calls: Calls, package: Package) -> None:
    """Their wheels would not install."""
    with pytest.raises(UserError, match=r"m7g.xlarge is aarch64, and the package has wheels for x86_64"):
        create_cluster(calls, package, PLACE, wish(package, instance_type="m7g.xlarge"))


@pytest.mark.parametrize("name", ["KAFKA_PASSWORD", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "API_KEY"])
def test_secrets_are_not_for_the_environment(name: str) -> None:
    """A cluster's description shows them to whoever may read it."""
    with pytest.raises(UserError, match=f"--environment {name}: .*Secrets Manager"):
        check_environment({name: "x"})
    check_environment({"AWS_REGION": "eu-west-1", "KAFKA_USERNAME": "fraud"})


def test_what_the_service_does_not_take_is_refused_before_it_is_asked(calls: Calls) -> None:
    """A dry run would otherwise print what cannot be done."""
    with pytest.raises(UserError, match=r"emr describe_step: Parameter validation failed.*ClusterId"):
        calls("emr", "describe_step", StepId=STEP)


def test_a_deployment_for_kubernetes(package: Package) -> None:
    """The operator is told the same job, with the pool in the TaskManager's own pod, where localhost is shared."""
    job = Job("fraud", {"a.b": "c"}, "s3://state/savepoint-1", True)
    deployment = Deployment(
        "emr-7.12.0", "arn:aws:iam::1:role/fraud", "registry/fraud@sha256:1", Prefix("state", "fraud")
    )
    manifest = flink_deployment(package, PLACE, job, deployment)
    assert (manifest["apiVersion"], manifest["kind"]) == ("flink.apache.org/v1beta1", "FlinkDeployment")
    spec = manifest["spec"]
    assert (spec["flinkVersion"], spec["emrReleaseLabel"]) == ("v1_20", "emr-7.12.0-flink-latest")
    assert spec["flinkConfiguration"] == {
        "taskmanager.numberOfTaskSlots": "4",
        "state.checkpoints.dir": "s3://state/fraud/checkpoints",
        "state.savepoints.dir": "s3://state/fraud/savepoints",
        "a.b": "c",
    }
    assert spec["job"] == {
        "jarURI": PLACE.url(package.jar),
        "entryClass": "org.apache.beam.runners.flink.FlinkPipelineRunner",
        "parallelism": 8,
        "upgradeMode": "savepoint",
        "state": "running",
        "allowNonRestoredState": True,
        "initialSavepointPath": "s3://state/savepoint-1",
    }
    main_container, pool = spec["taskManager"]["podTemplate"]["spec"]["containers"]
    assert main_container == {"name": "flink-main-container"}
    assert pool["command"] == ["python", "-m", "runners.flink.worker_pool", "--port", "50000"]
    assert pool["resources"]["limits"]["memory"] == "6144Mi"
    assert "podTemplate" not in spec["jobManager"]  # it starts no workers


def test_a_dry_run_prints_every_call_and_makes_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No credentials are needed for it, and each line is a call that AWS's description allows."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    jar = make_package(tmp_path)
    at = ["--dry_run", "--region", "eu-west-1"]
    bucket = ["--jar", str(jar), "--bucket", "s3://artefacts/fraud"]
    roles = ["--subnet", "subnet-1", "--instance_profile", "nodes", "--service_role", "emr"]
    assert main(["cluster", *at, *bucket, *roles]) == 0
    assert main(["submit", *at, *bucket, "--cluster-id", CLUSTER, "--savepoint", "s3://state/savepoint-1"]) == 0
    assert main(["stop", *at, "--cluster-id", CLUSTER, "--savepoints", "s3://state"]) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    operations = [each["operation"] for each in shown if each["service"] == "emr"]
    steps = "add_job_flow_steps"
    assert operations == ["run_job_flow", "describe_cluster", "list_bootstrap_actions", steps, steps]
    assert sum(each["operation"] == "put_object" for each in shown) == 5 + 6
    _check_policy({(each["service"], each["operation"]) for each in shown})
    (run,) = [each["parameters"]["Steps"][0] for each in shown if each["operation"] == steps][:1]
    arguments = run["HadoopJarStep"]["Args"]
    assert arguments[-2:] == ["-s", "s3://state/savepoint-1"]
    assert "-Dstate.checkpoints.dir=s3://artefacts/fraud/state/fraud-detection/checkpoints" in arguments


def _check_policy(made: set[tuple[str, str]]) -> None:
    """What docs/emr.md allows those who submit is what is called, and what `--wait` and creation need on top."""
    page = (Path(__file__).parents[2] / "docs" / "emr.md").read_text("utf-8")
    _, policy = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL))
    actions = {action for each in policy["Statement"] for action in _listed(each["Action"])}
    objects = {"head_object": "s3:GetObject", "put_object": "s3:PutObject"}
    pascal = {name: "elasticmapreduce:" + "".join(part.title() for part in name.split("_")) for _, name in made}
    called = {objects[name] if service == "s3" else pascal[name] for service, name in made}
    on_top = {"s3:ListBucket", "elasticmapreduce:AddTags", "elasticmapreduce:DescribeStep", "iam:PassRole"}
    assert actions == called | on_top


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_the_manifest_is_written_for_kubectl(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On EKS a job is a resource: the command leaves it beside the jar, and says what to do with it."""
    jar = make_package(tmp_path)
    target = ["--target", "emr-on-eks", "--role", "arn:aws:iam::1:role/fraud", "--worker_image", "registry/fraud:1"]
    where = ["--dry_run", "--region", "eu-west-1", "--jar", str(jar), "--bucket", "s3://artefacts"]
    assert main(["submit", *where, *target]) == 0
    manifest = tmp_path / "fraud-detection.kubernetes.json"
    assert f"kubectl apply -f {manifest}" in capsys.readouterr().err
    assert json.loads(manifest.read_text("utf-8"))["metadata"] == {"name": "fraud-detection"}


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (["--target", "emr-serverless"], "EMR Serverless takes Spark and Hive jobs only"),
        (["--target", "emr-on-eks"], "--target emr-on-eks needs --role"),
        ([], "--target emr needs --cluster-id"),
        (["--cluster-idd", "j"], "--cluster-idd is no flag of submit"),
        (["--bucket", "artefacts"], "--bucket must be of the form s3://bucket/prefix; found 'artefacts'"),
    ],
)
def test_what_is_missing_or_wrong_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], target: list[str], said: str
) -> None:
    """In one line, with exit code 2."""
    given = ["--bucket", "s3://artefacts", *target] if "--bucket" not in target else [*target, "--cluster-id", CLUSTER]
    assert main(["submit", "--dry_run", "--jar", str(make_package(tmp_path)), *given]) == 2
    assert f"error: {said}" in capsys.readouterr().err


def test_which_of_aws_services_run_flink() -> None:
    """What the refusal of EMR Serverless and the manifest for EKS rest upon: AWS's descriptions of job drivers."""
    stubs = Stubs()
    serverless = stubs.connect("emr-serverless", None).meta.service_model.shape_for("JobDriver")
    containers = stubs.connect("emr-containers", None).meta.service_model.shape_for("JobDriver")
    assert set(serverless.members) == {"sparkSubmit", "hive"}
    assert set(containers.members) == {"sparkSubmitJobDriver", "sparkSqlJobDriver"}


def test_prefixes_are_checked() -> None:
    """A bucket's name is what S3 allows."""
    assert parse_prefix("s3://artefacts", "--bucket") == Prefix("artefacts", "")
    with pytest.raises(UserError, match="--bucket must be of the form"):
        parse_prefix("s3://Artefacts/x", "--bucket")
