"""Flink's own jars, from the Python package that carries them: a distribution without the shell scripts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from runners.flink.versions import FLINK
from runners.local.cache import installed
from runners.local.tools import find_program, run_program
from transforms.errors import UserError, did_you_mean

#: Packages that Flink reaches into and that Java 17 keeps closed otherwise, as Flink's own configuration opens them.
_OPENED = (
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.reflect",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.text",
    "java.base/java.time",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/java.util.concurrent.locks",
    "java.base/sun.nio.ch",
)
_EXPORTED = ("java.base/sun.net.util", "java.rmi/sun.rmi.registry", "java.security.jgss/sun.security.krb5")

JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
ZOOKEEPER = "org.apache.flink.runtime.zookeeper.FlinkZooKeeperQuorumPeer"
CLIENT = "org.apache.flink.client.cli.CliFrontend"
JAVA_UTILS = "org.apache.flink.runtime.util.bash.BashJavaUtils"


def flink_release(version: str) -> str:
    """The release that stands for a minor version.

    Raises:
        UserError: there is none.

    Example:
        >>> flink_release("1.20").startswith("1.20.")
        True
    """
    if version not in FLINK:
        hint = did_you_mean(version, FLINK) or f"; there are {', '.join(FLINK)}"
        raise UserError(f"Flink {version} is not among those that a local cluster can have{hint}")
    return FLINK[version]


def install_flink(version: str) -> Path:
    """The directory of Flink's jars, `lib`, `opt` and `bin`, fetched when it is not there yet.

    Args:
        version: the minor version, such as "1.20".

    Raises:
        UserError: there is no such version, or it cannot be had.
    """
    release = flink_release(version)
    explain = "fetching it with pip, 240 MB: half a minute"
    return installed("flink", release, lambda directory: _fetch(release, directory), explain) / "pyflink"


def _fetch(release: str, directory: Path) -> None:
    package = f"apache-flink-libraries=={release}"
    # Built from source by what it names itself: a script that lists files.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", str(directory)]
    run_program([*pip, "--disable-pip-version-check", package], f"fetching {package}")


def flink_java(
    version: str,
    main: str,
    *arguments: str,
    logging: Path | None = None,
    flags: tuple[str, ...] = (),
    jars: tuple[Path, ...] = (),
) -> tuple[str, ...]:
    """The command line of one of Flink's own programs.

    Args:
        version: the minor version.
        main: its class.
        arguments: it gets.
        logging: the configuration of its log.
        flags: the JVM gets, such as its memory.
        jars: on its class path behind Flink's own.

    Raises:
        UserError: Java is missing.
    """
    home = install_flink(version)
    opened = [f"--add-opens={package}=ALL-UNNAMED" for package in _OPENED]
    exported = [f"--add-exports={package}=ALL-UNNAMED" for package in _EXPORTED]
    log = [f"-Dlog4j.configurationFile={logging.as_uri()}"] if logging else []
    path = os.pathsep.join((str(home / "bin" / "bash-java-utils.jar"), str(home / "lib" / "*"), *map(str, jars)))
    java = find_program("java", "Flink")
    return (java, *flags, *opened, *exported, *log, "-cp", path, main, *arguments)
