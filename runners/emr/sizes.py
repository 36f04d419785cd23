"""How the memory of a node is shared out between YARN, and with it Flink, and the Python workers beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from transforms.errors import UserError

#: GiB per vCPU of EC2's families, and vCPUs by size. What is not among them is given in numbers.
_FAMILIES = {"c": 2, "m": 4, "r": 8}
_SIZES = {"large": 2, "xlarge": 4}
_TYPE = re.compile(r"([cmr])[4-9](?:g|i|a|gd|id|ad|in|gn|idn)?\.(large|xlarge|(\d+)xlarge)")

#: MiB that the system, HDFS and YARN's own daemon take of each node.
_SYSTEM = 2560
#: MiB of the JobManager's container, which shares a node with a TaskManager.
JOB_MANAGER = 2048
#: Below that much (MiB) a TaskManager has no room for its network buffers, RocksDB and two jobs' classes.
_LEAST_TASK_MANAGER = 2560
#: MiB: YARN gives memory out in such pieces.
_STEP = 256


@dataclass(frozen=True)
class Sizes:
    """The shares of a node, in MiB.

    Attributes:
        yarn: what YARN may give out. The rest is the workers' and the system's: YARN does not know of them.
        task_manager: one of them to a node, so that a node's one pool serves one TaskManager.
        job_manager: fits beside it on any node.
        slots: of the TaskManager.
    """

    yarn: int
    task_manager: int
    job_manager: int
    slots: int


def node_sizes(instance_type: str, slots: int, workers: int, worker: int = 1536, memory: int | None = None) -> Sizes:
    """The shares of a node of that type.

    Args:
        instance_type: such as `m6i.xlarge`.
        slots: of the node's TaskManager.
        workers: Python processes beside it.
        worker: MiB for each of these.
        memory: MiB of the node, for a type whose name does not say.

    Raises:
        UserError: the type is not known, or too small.

    Example:
        >>> node_sizes("m6i.xlarge", slots=4, workers=4)
        Sizes(yarn=7680, task_manager=5632, job_manager=2048, slots=4)
    """
    has = memory if memory is not None else memory_of(instance_type)
    yarn = (has - _SYSTEM - workers * worker) // _STEP * _STEP
    task_manager = yarn - JOB_MANAGER
    if task_manager < _LEAST_TASK_MANAGER:
        raise UserError(
            f"{instance_type} has {has} MiB: less {_SYSTEM} for the system, {workers} x {worker} for workers and "
            f"{JOB_MANAGER} for a JobManager, {task_manager} are left for a TaskManager, which needs "
            f"{_LEAST_TASK_MANAGER}; take a larger type, or fewer workers (--sdk_worker_parallelism of the package)"
        )
    cores = _vcpus(instance_type)
    if cores is not None and cores < slots:
        raise UserError(
            f"{instance_type} has {cores} vCPUs for {slots} slots, each of which can keep one busy; take a larger "
            "type, or make the package with fewer --slots"
        )
    return Sizes(yarn, task_manager, JOB_MANAGER, slots)


def memory_of(instance_type: str) -> int:
    """The memory of an instance type in MiB.

    Raises:
        UserError: it is not among those whose name says so.

    Example:
        >>> memory_of("r6g.2xlarge")
        65536
    """
    cores = _vcpus(instance_type)
    if cores is None:
        raise UserError(
            f"how much memory {instance_type} has is not known here: give it in MiB with --node_memory "
            "(aws ec2 describe-instance-types tells)"
        )
    return cores * _FAMILIES[instance_type[0]] * 1024


def architecture_of(instance_type: str) -> str:
    """The processors of an instance type: `aarch64` for Graviton, `x86_64` for others.

    Example:
        >>> architecture_of("m7g.xlarge"), architecture_of("m6i.xlarge"), architecture_of("g5.xlarge")
        ('aarch64', 'x86_64', 'x86_64')
    """
    return "aarch64" if re.match(r"[a-z]+\d+g", instance_type) else "x86_64"


def _vcpus(instance_type: str) -> int | None:
    match = _TYPE.fullmatch(instance_type)
    if match is None:
        return None
    return int(match[3]) * 4 if match[3] else _SIZES[match[2]]
