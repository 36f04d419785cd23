"""A cluster of EMR that runs packages: as the request that creates it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runners.emr.artefacts import Package
from runners.emr.bucket import Prefix, upload
from runners.emr.calls import Calls
from runners.emr.sizes import Sizes, architecture_of
from transforms.errors import UserError

#: EMR's releases with Flink 1.20; none has 2.x.
RELEASES = {"1.20": tuple(f"emr-7.{minor}.0" for minor in range(7, 14))}
_ATTEMPTS = "10"
_SECRET = re.compile(r"PASSW|SECRET|TOKEN|CREDENTIAL|_KEY\b", re.IGNORECASE)


@dataclass(frozen=True)
class ClusterWish:
    """What a cluster is to be like.

    Attributes:
        name: of the cluster.
        release: of EMR, such as `emr-7.12.0`.
        instance_type: of every node.
        nodes: core nodes, each with one TaskManager.
        primaries: 1, or 3 for one that survives the loss of its primary node.
        subnet: where it lies.
        instance_profile, service_role: names of IAM roles: of the nodes, and of EMR itself.
        logs: where EMR keeps logs.
        sizes: the shares of a node's memory.
        environment: variables of the workers.
        security_configuration: EMR's, by name: encryption and the like.
        tags: by key.
    """

    name: str
    release: str
    instance_type: str
    nodes: int
    primaries: int
    subnet: str
    instance_profile: str
    service_role: str
    logs: Prefix
    sizes: Sizes
    environment: Mapping[str, str] = field(default_factory=dict)
    security_configuration: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


def check_release(release: str, flink_version: str) -> None:
    """Refuse a release that has another Flink than the package was made for.

    Raises:
        UserError: names the releases that have it.
    """
    known = RELEASES.get(flink_version, ())
    if release not in known:
        has = f"is had by {known[0]} to {known[-1]}" if known else "is in no release of EMR that is known here"
        raise UserError(
            f"the package is for Flink {flink_version}, which {has}; found {release}. Make the package for the "
            "cluster's Flink (--flink_version), or choose another release (--release)"
        )


def check_architecture(instance_type: str, architecture: str) -> None:
    """Refuse nodes whose processors the package's wheels are not for.

    Raises:
        UserError: says which they are for.
    """
    if architecture_of(instance_type) != architecture:
        raise UserError(
            f"--instance_type: {instance_type} is {architecture_of(instance_type)}, and the package has wheels for "
            f"{architecture}; make it with --instance_type {instance_type}"
        )


def check_environment(environment: Mapping[str, str]) -> None:
    """Refuse secrets: whoever may describe a cluster sees what its bootstrap action was told.

    Raises:
        UserError: names the variable.
    """
    for name in environment:
        if _SECRET.search(name):
            raise UserError(
                f"--environment {name}: it would be shown to all who may describe the cluster; keep it in AWS Secrets "
                "Manager and name it by secret= in the URL"
            )


def nodes_needed(package: Package) -> int:
    """How many nodes run all parts of a package's job, one TaskManager a node."""
    return -(-package.description.parallelism // package.description.slots)


def create_cluster(calls: Calls, package: Package, place: Prefix, wish: ClusterWish) -> str:
    """Upload what nodes install and create the cluster; its id, or nothing when calls are only printed.

    Raises:
        UserError: the wish does not go with the package, or AWS refused.
    """
    check_release(wish.release, package.description.flink_version)
    check_architecture(wish.instance_type, package.description.architecture)
    check_environment(wish.environment)
    upload(calls, place, [package.sums, *package.nodes])
    made = calls("emr", "run_job_flow", **cluster_request(package, place, wish))
    return str(made.get("JobFlowId", ""))


def cluster_request(package: Package, place: Prefix, wish: ClusterWish) -> dict[str, Any]:
    """The parameters of EMR's `RunJobFlow`."""
    optional = {"SecurityConfiguration": wish.security_configuration} if wish.security_configuration else {}
    return {
        "Name": wish.name,
        "ReleaseLabel": wish.release,
        "LogUri": f"{wish.logs}/",
        "Applications": [{"Name": name} for name in ("Hadoop", "Flink", "ZooKeeper")],
        "Configurations": configurations(wish.sizes),
        "BootstrapActions": [bootstrap_action(package, place, wish)],
        "Instances": {
            "Ec2SubnetId": wish.subnet,
            "InstanceGroups": [
                _group("MASTER", wish.instance_type, wish.primaries),
                _group("CORE", wish.instance_type, wish.nodes),
            ],
            "KeepJobFlowAliveWhenNoSteps": True,
            "TerminationProtected": True,
            "UnhealthyNodeReplacement": True,
        },
        "JobFlowRole": wish.instance_profile,
        "ServiceRole": wish.service_role,
        "Tags": [{"Key": key, "Value": value} for key, value in wish.tags.items()],
        **optional,
    }


def bootstrap_action(package: Package, place: Prefix, wish: ClusterWish) -> dict[str, Any]:
    """The action that each node runs before it joins; the sum says exactly what it installs."""
    arguments = [str(place), package.sums.sha256, *(f"{name}={value}" for name, value in wish.environment.items())]
    return {
        "Name": "fraud-workers",
        "ScriptBootstrapAction": {"Path": place.url(package.bootstrap), "Args": arguments},
    }


def configurations(sizes: Sizes) -> Sequence[dict[str, Any]]:
    """What EMR writes into the configuration of YARN and Flink on every node."""
    yarn = {
        # The rest of a node is the Python workers', of which YARN knows nothing.
        "yarn.nodemanager.resource.memory-mb": str(sizes.yarn),
        "yarn.scheduler.maximum-allocation-mb": str(sizes.yarn),
        "yarn.resourcemanager.am.max-attempts": _ATTEMPTS,
    }
    flink = {
        "taskmanager.memory.process.size": f"{sizes.task_manager}m",
        "taskmanager.numberOfTaskSlots": str(sizes.slots),
        "jobmanager.memory.process.size": f"{sizes.job_manager}m",
        # A JobManager that dies is started again by YARN and goes on from the last checkpoint that ZooKeeper names.
        "high-availability.type": "zookeeper",
        "high-availability.zookeeper.quorum": "%{hiera('hadoop::zk')}",
        "high-availability.storageDir": "hdfs:///user/flink/recovery",
        "yarn.application-attempts": _ATTEMPTS,
        # Only what fails often in a short time is given up.
        "yarn.application-attempt-failures-validity-interval": "600000",
        # A node that is gone is noticed in 10 s, not in Flink's 50.
        "heartbeat.interval": "2000",
        "heartbeat.timeout": "10000",
        "heartbeat.rpc-failure-threshold": "2",
        "state.checkpoints.num-retained": "3",  # see runners/flink/configuration.py; a job cannot set it
    }
    return [{"Classification": "yarn-site", "Properties": yarn}, {"Classification": "flink-conf", "Properties": flink}]


def _group(role: str, instance_type: str, count: int) -> dict[str, Any]:
    name = {"MASTER": "primary", "CORE": "core"}[role]
    return {
        "Name": name,
        "InstanceRole": role,
        "InstanceType": instance_type,
        "InstanceCount": count,
        "Market": "ON_DEMAND",
    }
