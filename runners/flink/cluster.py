"""A Flink cluster on this machine: ZooKeeper, a JobManager, TaskManagers, and the pool that starts Beam's workers.

ZooKeeper keeps what a JobManager must know to go on after it was killed: the jobs and their last checkpoints. All
processes listen on the loopback interface only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from runners.flink.class_archive import keep_class_archives, with_class_archive
from runners.flink.configuration import cluster_settings, java_memory, write_configuration
from runners.flink.distribution import JOB_MANAGER, TASK_MANAGER, ZOOKEEPER, flink_java, install_flink
from runners.flink.job_server import find_class_path_jar
from runners.flink.rest import FlinkRest
from runners.flink.versions import DEFAULT_FLINK
from runners.flink.worker_pool import answers as pool_answers
from runners.local.ports import HOST, free_port
from runners.local.processes import Command
from runners.local.records import stop_recorded
from runners.local.server import Server
from runners.local.tools import find_program
from transforms.errors import UserError

_FILE = "cluster.json"
#: A local cluster runs for minutes: the second compiler would use more of them than it ever gave back.
_JVM = ("-XX:+UseG1GC", "-XX:TieredStopAtLevel=1")
REST_PORT, WORKERS_PORT = 8081, 50_000
#: ZooKeeper as a single server that keeps little and speaks to this machine only.
_ZOOKEEPER = """tickTime=1000
initLimit=10
syncLimit=5
maxClientCnxns=0
minSessionTimeout=2000
clientPortAddress={host}
clientPort={port}
dataDir={data}
admin.enableServer=false
server.1={host}:{peer}:{election}
"""


class Cluster(msgspec.Struct, frozen=True):
    """What a cluster is made of, as it is kept in its directory.

    Attributes:
        version: Flink's minor version.
        ports: of `rest`, `rpc`, `zookeeper` and `workers`; and of each TaskManager by its name.
        taskmanagers: how many.
        slots: of each.
        settings: Flink settings on top of ours.
    """

    version: str
    ports: dict[str, int]
    taskmanagers: int
    slots: int
    settings: dict[str, str] = {}  # msgspec copies it for each


@dataclass(frozen=True)
class FlinkProcess(Server):
    """One process of a cluster.

    Attributes:
        directory, port: as of every server.
        cluster: that it belongs to.
    """

    cluster: Cluster = field(kw_only=True)

    @property
    def configuration(self) -> Path:
        """The directory of the cluster's `config.yaml`."""
        return self.directory.parent / "conf"

    @property
    def rest(self) -> FlinkRest:
        """The cluster's REST interface."""
        return FlinkRest(f"{HOST}:{self.cluster.ports['rest']}")

    @property
    def urls(self) -> Sequence[tuple[str, str]]:
        return ()

    def install(self) -> Path:
        return install_flink(self.cluster.version)

    def flink(self, main: str, *arguments: str, flags: tuple[str, ...] = (), jars: tuple[Path, ...] = ()) -> Command:
        """How one of Flink's programs is started."""
        logging = self.configuration / "log4j.properties"
        argv = flink_java(self.cluster.version, main, *arguments, logging=logging, flags=flags, jars=jars)
        return Command(with_class_archive(argv, self.name, self.directory), self.directory)

    def manager(self, main: str, kind: str, *arguments: str) -> Command:
        """How a program that loads the classes of jobs is started: it has Beam's from the beginning."""
        memory = java_memory(self.cluster.version, kind, self.configuration)
        own = ("--configDir", str(self.configuration), *memory.dynamic, *arguments)
        return self.flink(main, *own, flags=(*_JVM, *memory.jvm), jars=(find_class_path_jar(self.cluster.version),))


@dataclass(frozen=True)
class ZooKeeper(FlinkProcess):
    """The one that remembers."""

    name: ClassVar[str] = "zookeeper"

    def command(self, installation: Path) -> Command:
        data, settings = self.directory / "data", self.directory / "zoo.cfg"
        data.mkdir(exist_ok=True)
        settings.write_text(
            _ZOOKEEPER.format(host=HOST, port=self.port, data=data, peer=free_port(), election=free_port()), "utf-8"
        )
        return self.flink(ZOOKEEPER, "--zkConfigFile", str(settings), "--peerId", "1", flags=("-Xmx64m",))

    def answers(self) -> bool:
        return True  # it listens when it is ready


@dataclass(frozen=True)
class JobManager(FlinkProcess):
    """The one that plans jobs, triggers checkpoints and answers."""

    name: ClassVar[str] = "jobmanager"
    default_port: ClassVar[int] = REST_PORT

    @property
    def urls(self) -> Sequence[tuple[str, str]]:
        return [("--flink_master", self.address)]

    def command(self, installation: Path) -> Command:
        return self.manager(JOB_MANAGER, "JM")

    def answers(self) -> bool:
        return self.rest.is_ready()


@dataclass(frozen=True)
class TaskManager(FlinkProcess):
    """One that runs the tasks of jobs; its name is its directory's."""

    name: ClassVar[str] = "taskmanager"

    @property
    def identity(self) -> str:
        """What Flink calls it; the same after a restart, so that its predecessor is known to be dead."""
        return self.directory.name

    def command(self, installation: Path) -> Command:
        own = ("-D", f"taskmanager.rpc.port={self.port}", "-D", f"taskmanager.resource-id={self.identity}")
        return self.manager(TASK_MANAGER, "TM", *own)

    def answers(self) -> bool:
        return self.identity in self.rest.taskmanagers()


@dataclass(frozen=True)
class WorkerPool(FlinkProcess):
    """The one that starts Beam's Python workers when a TaskManager asks for them."""

    name: ClassVar[str] = "workers"
    default_port: ClassVar[int] = WORKERS_PORT

    @property
    def urls(self) -> Sequence[tuple[str, str]]:
        return [("--environment_config", self.address)]

    def install(self) -> Path:
        return Path(sys.executable)

    def command(self, installation: Path) -> Command:
        argv = (sys.executable, "-m", "runners.flink.worker_pool", "--port", str(self.port))
        root = str(Path(__file__).parents[2])  # workers import what we import, wherever they run
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        return Command(argv, self.directory, {"PYTHONPATH": os.pathsep.join(paths)})

    def answers(self) -> bool:
        return pool_answers(self.address)


def find_cluster(directory: Path) -> Cluster | None:
    """The cluster that was made in a directory, whether or not it runs.

    Raises:
        UserError: its description cannot be read.
    """
    path = directory / _FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Cluster)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}; `down --purge` removes that cluster") from error


def processes(directory: Path, cluster: Cluster) -> list[FlinkProcess]:
    """The processes of a cluster in the order in which they are started."""
    ports, directory = cluster.ports, directory.absolute()
    managers = [f"taskmanager-{number + 1}" for number in range(cluster.taskmanagers)]
    return [
        ZooKeeper(directory / "zookeeper", ports["zookeeper"], cluster=cluster),
        JobManager(directory / "jobmanager", ports["rest"], cluster=cluster),
        *(TaskManager(directory / name, ports[name], cluster=cluster) for name in managers),
        WorkerPool(directory / "workers", ports["workers"], cluster=cluster),
    ]


@dataclass(frozen=True)
class FlinkCluster:
    """A cluster that was started in a directory.

    Attributes:
        directory: of its processes, checkpoints and savepoints.
        description: what it is made of.
    """

    directory: Path
    description: Cluster

    @property
    def rest(self) -> FlinkRest:
        """Its REST interface."""
        return FlinkRest(f"{HOST}:{self.description.ports['rest']}")

    @property
    def flags(self) -> list[str]:
        """What `python -m pipelines.fraud` has to be told to run on it."""
        ports = self.description.ports
        return [
            "--runner=FlinkRunner",
            f"--flink_version={self.description.version}",
            f"--flink_master={HOST}:{ports['rest']}",
            f"--environment_config={HOST}:{ports['workers']}",
        ]

    def processes(self) -> dict[str, FlinkProcess]:
        """Its processes by name: `zookeeper`, `jobmanager`, `taskmanager-1` and so on, `workers`."""
        return {process.directory.name: process for process in processes(self.directory, self.description)}


def start_cluster(directory: Path, **how: Any) -> FlinkCluster:
    """Have a cluster running; what of it runs already stays.

    Args:
        directory: of the cluster.
        how: as of `make_cluster`.

    Raises:
        UserError: a process cannot be started.
    """
    cluster = FlinkCluster(directory, make_cluster(directory, **how))
    for _ in start_processes(cluster):
        pass
    return cluster


def start_processes(cluster: FlinkCluster) -> Iterator[tuple[FlinkProcess, float]]:
    """Start what does not run of a cluster, all at once: each looks for the others until it finds them.

    Yields:
        Each process in its turn, with the seconds it took; 0 when it was running.

    Raises:
        UserError: one of them cannot be started; the others stay.
    """
    find_program("java", "Flink")
    install_flink(cluster.description.version)  # once, before many want it; the job server's jar likewise
    find_class_path_jar(cluster.description.version)
    every = list(cluster.processes().values())
    with ThreadPoolExecutor(len(every)) as pool:
        for process, started in zip(every, [pool.submit(_start, process) for process in every], strict=True):
            yield process, started.result()


def _start(process: FlinkProcess) -> float:
    if process.is_running():
        process.start()  # wait till it is ready
        return 0.0
    began = time.monotonic()
    process.start()
    return time.monotonic() - began


def make_cluster(
    directory: Path,
    version: str = DEFAULT_FLINK,
    taskmanagers: int = 1,
    slots: int = 2,
    ports: Mapping[str, int] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Cluster:
    """Describe a cluster in its directory and write its configuration; the ports it had before stay.

    Args:
        directory: of its processes, their logs, and the checkpoints.
        version: Flink's minor version.
        taskmanagers, slots: how many, and the slots of each.
        ports: of `rest` and `workers`, where they must be others than the usual ones; 0 for any that is free.
        settings: Flink settings on top of ours.
    """
    directory = directory.absolute()
    before = find_cluster(directory)
    wanted = {"rest": REST_PORT, "workers": WORKERS_PORT, **(before.ports if before else {})}
    wanted |= {name: port or free_port() for name, port in (ports or {}).items()}
    for name in ("rpc", "zookeeper", *(f"taskmanager-{number + 1}" for number in range(taskmanagers))):
        wanted.setdefault(name, free_port())
    cluster = Cluster(version, wanted, taskmanagers, slots, dict(settings or {}))
    for name in ("conf", "checkpoints", "savepoints", "high-availability", "jars", "tmp"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    write_configuration(directory / "conf", cluster_settings(directory, wanted, slots, cluster.settings))
    aside = directory / f".{_FILE}"
    aside.write_bytes(msgspec.json.encode(cluster))
    aside.replace(directory / _FILE)
    return cluster


def stop_cluster(directory: Path) -> list[str]:
    """Stop what runs of a cluster, the TaskManagers before those they report to; the names of what was running."""
    order = {"workers": 0, "taskmanager": 1, "jobmanager": 2, "zookeeper": 3}
    places = [path.parent for path in directory.glob("*/process.json")]
    places.sort(key=lambda place: (order.get(place.name.partition("-")[0], 0), place.name))
    stopped = []
    for place in places:
        if stop_recorded(place) is not None:
            stopped.append(place.name)
        keep_class_archives(place)
    return stopped


def purge_cluster(directory: Path) -> None:
    """Remove a stopped cluster with its checkpoints, savepoints and logs."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(directory)
