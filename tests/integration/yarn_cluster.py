"""Hadoop's YARN on this machine: a ResourceManager and a NodeManager, for what only an application on YARN can show."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from runners.flink.configuration import write_configuration
from runners.flink.distribution import CLIENT, flink_java, install_flink
from runners.local.cache import installed
from runners.local.jvm import fetch_jars, java
from runners.local.ports import HOST, free_port, is_listening
from runners.local.processes import Command
from runners.local.server import Server

#: EMR 7.7 and later have Hadoop 3.4. The others are what it needs and Maven does not bring along with it.
HADOOP = "3.4.1"
ARTIFACTS = (
    f"org.apache.hadoop:hadoop-client-minicluster:{HADOOP}",
    "org.bouncycastle:bcpkix-jdk18on:1.78.1",
    "javax.xml.bind:jaxb-api:2.3.1",
    "org.apache.logging.log4j:log4j-1.2-api:2.24.3",
    "org.apache.logging.log4j:log4j-core:2.24.3",
)
_RESOURCE_MANAGER, _NODE_MANAGER = (
    "org.apache.hadoop.yarn.server.resourcemanager.ResourceManager",
    "org.apache.hadoop.yarn.server.nodemanager.NodeManager",
)
_PORTS = (
    "resourcemanager.address",
    "resourcemanager.scheduler.address",
    "resourcemanager.resource-tracker.address",
    "resourcemanager.admin.address",
    "resourcemanager.webapp.address",
    "nodemanager.address",
    "nodemanager.localizer.address",
    "nodemanager.webapp.address",
)
_MEMORY = "6144"


def install_hadoop() -> Path:
    """A directory whose `lib` holds it."""
    explain = "fetching it with Maven, 100 MB"
    return installed("hadoop", HADOOP, lambda directory: fetch_jars(ARTIFACTS, directory), explain)


def client_jars() -> list[Path]:
    """What a program that speaks to YARN needs of it."""
    names = ("hadoop-client-api-", "hadoop-client-runtime-", "commons-logging-")
    return [path for path in install_hadoop().glob("lib/*.jar") if path.name.startswith(names)]


@dataclass(frozen=True)
class Daemon(Server):
    """One of YARN's two.

    Attributes:
        directory, port: as of every server.
        configuration: the directory of `yarn-site.xml`.
    """

    configuration: Path = field(kw_only=True)

    main: ClassVar[str]

    @property
    def urls(self) -> Sequence[tuple[str, str]]:
        return ()

    def install(self) -> Path:
        return install_hadoop()

    def command(self, installation: Path) -> Command:
        flags = ("--add-opens=java.base/java.lang=ALL-UNNAMED",)
        argv = java(installation, self.main, heap="384m", extra=self.configuration, flags=flags)
        return Command(argv, self.directory)

    def answers(self) -> bool:
        return is_listening(self.port)


class ResourceManager(Daemon):
    """Gives out containers."""

    name = "yarn-resourcemanager"
    main = _RESOURCE_MANAGER


class NodeManager(Daemon):
    """Runs them."""

    name = "yarn-nodemanager"
    main = _NODE_MANAGER


@dataclass(frozen=True)
class Yarn:
    """A cluster of one node, and the programs that its primary node would have.

    Attributes:
        directory: of all it has.
    """

    directory: Path

    @property
    def programs(self) -> Path:
        """The directory of `flink`, `yarn` and `aws`; the last copies from `bucket`."""
        return self.directory / "bin"

    @property
    def bucket(self) -> Path:
        """The directory that stands for S3."""
        return self.directory / "bucket"

    def start(self, version: str, settings: Mapping[str, str]) -> Yarn:
        """Have it running.

        Args:
            version: Flink's minor version.
            settings: of Flink, as they stand in its configuration on every node.
        """
        for name in ("conf", "flink", "bin", "bucket"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        ports = {name: free_port() for name in _PORTS}
        self._write_hadoop(ports)
        self._write_programs(version, settings)
        conf = self.directory / "conf"
        ResourceManager(self.directory.parent / "yarn-rm", ports["resourcemanager.address"], configuration=conf).start()
        NodeManager(self.directory.parent / "yarn-nm", ports["nodemanager.address"], configuration=conf).start()
        return self

    def _write_hadoop(self, ports: Mapping[str, int]) -> None:
        conf = self.directory / "conf"
        classpath = ",".join([str(conf), *map(str, client_jars())])
        site = {
            **{f"yarn.{name}": f"{HOST}:{port}" for name, port in ports.items()},
            "yarn.application.classpath": classpath,
            "yarn.nodemanager.resource.memory-mb": _MEMORY,
            "yarn.scheduler.maximum-allocation-mb": _MEMORY,
            "yarn.scheduler.minimum-allocation-mb": "256",
            "yarn.nodemanager.local-dirs": str(self.directory / "local"),
            "yarn.nodemanager.log-dirs": str(self.directory / "logs"),
            "yarn.nodemanager.disk-health-checker.enable": "false",
            "yarn.nodemanager.vmem-check-enabled": "false",
            "yarn.nodemanager.env-whitelist": "JAVA_HOME",
        }
        scheduler = {
            "yarn.scheduler.capacity.root.queues": "default",
            "yarn.scheduler.capacity.root.default.capacity": "100",
            "yarn.scheduler.capacity.maximum-am-resource-percent": "1.0",
        }
        (conf / "yarn-site.xml").write_text(_xml(site), "utf-8")
        (conf / "core-site.xml").write_text(_xml({"fs.defaultFS": "file:///"}), "utf-8")
        (conf / "capacity-scheduler.xml").write_text(_xml(scheduler), "utf-8")

    def _write_programs(self, version: str, settings: Mapping[str, str]) -> None:
        conf, home = self.directory / "conf", install_flink(version)
        argv = flink_java(version, CLIENT)
        opened = [word for word in argv if word.startswith("--add-")]
        write_configuration(self.directory / "flink", {"env.java.opts.all": " ".join(opened), **settings})
        path = os.pathsep.join([str(home / "lib" / "*"), *map(str, client_jars()), str(conf)])
        flink = [argv[0], *opened, "-cp", path, CLIENT]
        variables = {
            "FLINK_CONF_DIR": self.directory / "flink",
            "FLINK_LIB_DIR": home / "lib",
            "FLINK_PLUGINS_DIR": home / "plugins",
            "HADOOP_CONF_DIR": conf,
            "YARN_CONF_DIR": conf,
        }
        exported = "".join(f"export {name}={shlex.quote(str(value))}\n" for name, value in variables.items())
        yarn = java(install_hadoop(), "org.apache.hadoop.yarn.client.cli.ApplicationCLI", heap="256m", extra=conf)
        self._program("flink", f'{exported}exec {shlex.join(flink)} "$@"')
        self._program("yarn", f'exec {shlex.join(yarn)} "$@"')
        self._program("aws", f'cp {shlex.quote(str(self.bucket))}/"${{4#s3://}}" "$5"')

    def _program(self, name: str, text: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/bash\n{text}\n", "utf-8")
        path.chmod(0o755)


def _xml(settings: Mapping[str, str]) -> str:
    rows = [f"<property><name>{name}</name><value>{value}</value></property>" for name, value in settings.items()]
    return "\n".join(["<configuration>", *rows, "</configuration>", ""])
