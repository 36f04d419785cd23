"""A package on EMR on EKS: what its Flink operator is told, with the worker pool beside each TaskManager."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runners.emr.artefacts import Package
from runners.emr.bucket import Prefix
from runners.emr.steps import Job
from runners.flink.package import ENTRY_CLASS

POOL_PORT = 50_000


@dataclass(frozen=True)
class Deployment:
    """What a job on Kubernetes is to be like.

    Attributes:
        release: of EMR on EKS, such as `emr-7.12.0`.
        role: ARN of the IAM role of the job.
        worker_image: a container image with the project installed; see docs/emr.md.
        state: where checkpoints, savepoints and what the JobManager must remember are kept.
        worker: MiB for each Python worker.
    """

    release: str
    role: str
    worker_image: str
    state: Prefix
    worker: int = 1536


def flink_deployment(package: Package, place: Prefix, job: Job, deployment: Deployment) -> dict[str, Any]:
    """The `FlinkDeployment`, for `kubectl apply`: JSON, which is YAML too.

    The worker pool is a container of the TaskManager's own pod: containers of a pod share the loopback interface, so
    the job finds its workers at localhost as it does on YARN.
    """
    slots, workers = package.description.slots, package.description.workers
    restore = {"initialSavepointPath": job.savepoint} if job.savepoint else {}
    return {
        "apiVersion": "flink.apache.org/v1beta1",
        "kind": "FlinkDeployment",
        "metadata": {"name": job.name},
        "spec": {
            "flinkVersion": f"v{package.description.flink_version.replace('.', '_')}",
            "emrReleaseLabel": f"{deployment.release}-flink-latest",
            "executionRoleArn": deployment.role,
            "flinkConfiguration": {
                "taskmanager.numberOfTaskSlots": str(slots),
                "state.checkpoints.dir": f"{deployment.state}/checkpoints",
                "state.savepoints.dir": f"{deployment.state}/savepoints",
                **job.flink,
            },
            "jobManager": {
                "storageDir": f"{deployment.state}/recovery",
                "resource": {"memory": "2048m", "cpu": 1},
            },
            "taskManager": {
                "resource": {"memory": "4096m", "cpu": slots},
                "podTemplate": _pod(deployment, workers),
            },
            "job": {
                "jarURI": place.url(package.jar),
                "entryClass": ENTRY_CLASS,
                "parallelism": package.description.parallelism,
                "upgradeMode": "savepoint",
                "state": "running",
                "allowNonRestoredState": job.allow_non_restored_state,
                **restore,
            },
        },
    }


def _pod(deployment: Deployment, workers: int) -> dict[str, Any]:
    command = ["python", "-m", "runners.flink.worker_pool", "--port", str(POOL_PORT)]
    pool = {
        "name": "workers",
        "image": deployment.worker_image,
        "command": command,
        "resources": {
            "requests": {"cpu": str(workers), "memory": f"{workers * deployment.worker}Mi"},
            "limits": {"memory": f"{workers * deployment.worker}Mi"},
        },
        "securityContext": {
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    # Flink puts its own container in the place of the one of this name.
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "taskmanager"},
        "spec": {"containers": [{"name": "flink-main-container"}, pool]},
    }
