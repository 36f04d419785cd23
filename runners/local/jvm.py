"""Java servers: fetched with Maven, sometimes with a class of ours to start them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from runners.local.cache import installed
from runners.local.tools import find_program, run_program
from runners.local.versions import MAVEN_DEPENDENCY_PLUGIN

_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId>
  <artifactId>server</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
{dependencies}
  </dependencies>
</project>
"""
_DEPENDENCY = "    <dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"


def fetch_jars(artifacts: Sequence[str], directory: Path) -> None:
    """Fill a directory's `lib` with artifacts of Maven's and all that they need to run.

    Args:
        artifacts: each as `group:artifact:version`.
        directory: there already.

    Raises:
        UserError: Java or Maven are missing, or Maven failed.
    """
    purpose = f"fetching {artifacts[0]}"
    find_program("java", purpose)
    maven = find_program("mvn", purpose)
    dependencies = "\n".join(_DEPENDENCY.format(*artifact.split(":")) for artifact in artifacts)
    (directory / "pom.xml").write_text(_POM.format(dependencies=dependencies), "utf-8")
    copy = f"org.apache.maven.plugins:maven-dependency-plugin:{MAVEN_DEPENDENCY_PLUGIN}:copy-dependencies"
    argv = [maven, "--batch-mode", "--no-transfer-progress", copy, "-DincludeScope=runtime"]
    run_program([*argv, f"-DoutputDirectory={directory / 'lib'}"], purpose, directory)


def java(
    installation: Path,
    main: str,
    *arguments: str,
    heap: str,
    extra: Path | None = None,
    flags: Sequence[str] = (),
) -> tuple[str, ...]:
    """The command line of a Java server.

    Args:
        installation: filled by `fetch_jars`.
        main: class to run.
        arguments: it gets.
        heap: the most that it may have, such as "512m".
        extra: a directory with more classes.
        flags: the JVM gets.

    Raises:
        UserError: Java is missing.
    """
    path = [*([str(extra)] if extra else []), str(installation / "lib" / "*")]
    return (find_program("java", main), f"-Xmx{heap}", *flags, "-cp", os.pathsep.join(path), main, *arguments)


def compile_java(source: Path, installation: Path) -> Path:
    """A directory with the classes of one of our Java files, compiled when they are not there yet.

    Args:
        source: the file.
        installation: filled by `fetch_jars`, with what the file uses.

    Raises:
        UserError: there is no compiler, or it refused.
    """
    purpose = f"compiling {source.name}"
    name = f"{installation.name}-{source.stem}"
    fingerprint = hashlib.sha256(source.read_bytes()).hexdigest()[:12]

    def fill(directory: Path) -> None:
        path = str(installation / "lib" / "*")
        run_program([find_program("javac", purpose), "-d", str(directory), "-cp", path, str(source)], purpose)

    return installed(name, fingerprint, fill, purpose)
