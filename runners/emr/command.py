"""The pipeline on Amazon EMR: packages of it, clusters for them, and their jobs: the command."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence

from runners.emr import arguments
from runners.emr.artefacts import Description, artefact, description_of, read_package
from runners.emr.bucket import parse_prefix, upload
from runners.emr.calls import Calls
from runners.emr.cluster import ClusterWish, create_cluster, nodes_needed
from runners.emr.kubernetes import Deployment, flink_deployment
from runners.emr.sizes import architecture_of, node_sizes
from runners.emr.steps import Job
from runners.emr.submit import find_savepoint, stop, submit, wait_for_step
from runners.local.tools import say
from transforms.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """The command.

    Returns:
        Its exit code: 0, or 2 when what was asked for cannot be done.
    """
    try:
        given, rest = arguments.parse(sys.argv[1:] if argv is None else argv)
        _ACTIONS[given.command](given, rest)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _package(given: argparse.Namespace, rest: Sequence[str]) -> None:
    from runners.emr.job import write_job
    from runners.emr.nodes import write_nodes

    made = write_job(rest, given.jar, given.allow_local)
    architecture = architecture_of(given.instance_type)
    sums = write_nodes(given.jar.parent, architecture)
    description = Description(
        jar=artefact(given.jar).sha256,
        nodes=sums.sha256,
        architecture=architecture,
        flink_version=made.flink_version,
        parallelism=made.parallelism,
        slots=given.slots,
        workers=made.workers,
        flink=made.flink,
    )
    text = json.dumps({name: getattr(description, name) for name in description.__struct_fields__}, indent=2)
    description_of(given.jar).write_text(f"{text}\n", "utf-8")
    print(f"{given.jar}: for Flink {made.flink_version}, parallelism {made.parallelism}; beside it what nodes install")


def _cluster(given: argparse.Namespace, rest: Sequence[str]) -> None:
    package, place = read_package(given.jar), parse_prefix(given.bucket, "--bucket")
    calls = _calls(given)
    environment = dict(given.environment)
    region = calls.client("emr").meta.region_name
    wish = ClusterWish(
        name=given.name,
        release=given.release,
        instance_type=given.instance_type,
        nodes=given.nodes or nodes_needed(package),
        primaries=given.primaries,
        subnet=given.subnet,
        instance_profile=given.instance_profile,
        service_role=given.service_role,
        logs=parse_prefix(given.logs or f"{place}/logs", "--logs"),
        sizes=node_sizes(
            given.instance_type,
            package.description.slots,
            package.description.workers,
            given.worker_memory,
            given.node_memory,
        ),
        environment={"AWS_REGION": region, **environment},
        security_configuration=given.security_configuration,
        tags=dict(given.tag),
    )
    made = create_cluster(calls, package, place, wish)
    if made:
        print(made)


def _submit(given: argparse.Namespace, rest: Sequence[str]) -> None:
    arguments.check_target(given)
    package, place = read_package(given.jar), parse_prefix(given.bucket, "--bucket")
    state = parse_prefix(given.state or f"{place}/state/{given.name}", "--state")
    flink = {
        "parallelism.default": str(package.description.parallelism),
        "state.checkpoints.dir": f"{state}/checkpoints",
        "state.savepoints.dir": f"{state}/savepoints",
        **package.description.flink,
        **dict(given.set),
    }
    job = Job(given.name, flink, given.savepoint, given.allow_non_restored_state)
    calls = _calls(given)
    if given.target == "emr-on-eks":
        upload(calls, place, [package.jar])
        deployment = Deployment(given.release, given.role, given.worker_image, state, given.worker_memory)
        manifest = given.jar.with_suffix(".kubernetes.json")
        manifest.write_text(json.dumps(flink_deployment(package, place, job, deployment), indent=2) + "\n", "utf-8")
        say(f"kubectl apply -f {manifest}")
        return
    step = submit(calls, package, place, given.cluster_id, job)
    if step:
        print(step)
        _wait(calls, given, step, f"YARN runs {given.name}")


def _stop(given: argparse.Namespace, rest: Sequence[str]) -> None:
    calls = _calls(given)
    step, place = stop(calls, given.cluster_id, given.name, given.savepoints)
    if step:
        print(step)
        if _wait(calls, given, step, f"{given.name} has stopped"):
            print(find_savepoint(calls, place))


def _wait(calls: Calls, given: argparse.Namespace, step: str, then: str) -> bool:
    if given.wait:
        wait_for_step(calls, given.cluster_id, step)
        say(then)
    return bool(given.wait)


def _calls(given: argparse.Namespace) -> Calls:
    return Calls(given.region, given.dry_run)


_ACTIONS: dict[str, Callable[[argparse.Namespace, Sequence[str]], None]] = {
    "package": _package,
    "cluster": _cluster,
    "submit": _submit,
    "stop": _stop,
}
