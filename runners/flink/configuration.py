"""The configuration of a local Flink cluster, and the memory that Flink's own tool makes of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runners.flink.distribution import JAVA_UTILS, flink_java
from runners.local.ports import HOST
from runners.local.tools import run_program
from transforms.errors import UserError

_RESULT = "BASH_JAVA_UTILS_EXEC_RESULT:"

#: What a cluster on one machine needs. A process that was killed is noticed as soon as its port refuses, and one that
#: hangs after ten seconds.
_SETTINGS = {
    "jobmanager.rpc.address": HOST,
    "jobmanager.bind-host": HOST,
    "jobmanager.memory.process.size": "1200m",
    "rest.address": HOST,
    "rest.bind-address": HOST,
    "taskmanager.bind-host": HOST,
    "taskmanager.host": HOST,
    "taskmanager.memory.process.size": "2560m",
    # Beam's classes are on the class path, and are the same for every job, whatever its jar holds: netty's and gRPC's
    # cannot be in one JVM twice.
    "classloader.resolve-order": "parent-first",
    # Every job brings classes of its own, some of which stay when it has ended.
    "taskmanager.memory.jvm-metaspace.size": "512m",
    "jobmanager.memory.jvm-metaspace.size": "512m",
    "heartbeat.interval": "1000",
    "heartbeat.timeout": "10000",
    "heartbeat.rpc-failure-threshold": "2",
    "cluster.registration.error-delay": "500",
    # A TaskManager that hears of a checkpoint's completion late builds the next one upon files of the one before: with
    # one retained these are gone, Flink drops the TaskManager's answer, and no other checkpoint starts until the time
    # of this one is up. By its names in Flink 1.20 and before; a job cannot set it.
    "execution.checkpointing.num-retained": "3",
    "state.checkpoints.num-retained": "3",
    "web.cancel.enable": "true",
    "high-availability.type": "zookeeper",
    "high-availability.zookeeper.client.session-timeout": "5000",
    "high-availability.zookeeper.client.connection-timeout": "3000",
    "high-availability.zookeeper.client.retry-wait": "500",
}

_LOGGING = """
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = Console
appender.console.name = Console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd HH:mm:ss,SSS} %-5p %c{1} - %m%n
logger.zookeeper.name = org.apache.flink.shaded.zookeeper3
logger.zookeeper.level = ERROR
logger.curator.name = org.apache.flink.shaded.curator5
logger.curator.level = OFF
logger.metrics.name = org.apache.flink.runtime.metrics.groups
logger.metrics.level = ERROR
"""


@dataclass(frozen=True)
class JavaMemory:
    """What Flink computes of the memory it is given.

    Attributes:
        jvm: flags of the JVM.
        dynamic: settings (`-D key=value`) that tell the process the same.
    """

    jvm: tuple[str, ...]
    dynamic: tuple[str, ...]


def cluster_settings(directory: Path, ports: Mapping[str, int], slots: int, own: Mapping[str, str]) -> dict[str, str]:
    """All settings of a cluster whose data lies in `directory`.

    Args:
        directory: absolute.
        ports: of `rest`, `rpc` and `zookeeper`.
        slots: of each TaskManager.
        own: the user's; they win.
    """
    return {
        **_SETTINGS,
        "jobmanager.rpc.port": str(ports["rpc"]),
        "high-availability.jobmanager.port": str(ports["rpc"]),
        "rest.port": str(ports["rest"]),
        "rest.bind-port": str(ports["rest"]),
        "taskmanager.numberOfTaskSlots": str(slots),
        "high-availability.zookeeper.quorum": f"{HOST}:{ports['zookeeper']}",
        "high-availability.storageDir": (directory / "high-availability").as_uri(),
        # By their names in Flink 1.20 and in those before.
        "execution.checkpointing.dir": (directory / "checkpoints").as_uri(),
        "execution.checkpointing.savepoint-dir": (directory / "savepoints").as_uri(),
        "state.checkpoints.dir": (directory / "checkpoints").as_uri(),
        "state.savepoints.dir": (directory / "savepoints").as_uri(),
        "web.upload.dir": str(directory / "jars"),
        "io.tmp.dirs": str(directory / "tmp"),
        **own,
    }


def write_configuration(directory: Path, settings: Mapping[str, str]) -> None:
    """Write Flink's `config.yaml` and `log4j.properties` into a directory.

    A JSON string is a YAML string: whatever stands in a value needs no rules of its own.
    """
    lines = [f"{key}: {json.dumps(value)}" for key, value in sorted(settings.items())]
    (directory / "config.yaml").write_text("\n".join(lines) + "\n", "utf-8")
    (directory / "log4j.properties").write_text(_LOGGING, "utf-8")


def java_memory(version: str, process: str, configuration: Path) -> JavaMemory:
    """What Flink's own tool makes of the configured sizes.

    Args:
        version: of Flink.
        process: `JM` or `TM`.
        configuration: the directory of `config.yaml`.

    Raises:
        UserError: the sizes do not go together; Flink's words say how.
    """
    argv = flink_java(
        version, JAVA_UTILS, f"GET_{process}_RESOURCE_PARAMS", "--configDir", str(configuration), flags=("-Xmx64m",)
    )
    said = run_program(argv, "computing Flink's memory")
    found = [line.partition(_RESULT)[2] for line in said.splitlines() if line.startswith(_RESULT)]
    if len(found) != 2:
        raise UserError(f"Flink's tool for memory sizes gave {len(found)} lines of results instead of 2:\n{said}")
    return JavaMemory(tuple(found[0].split()), tuple(found[1].split()))
