"""Beam's Flink job server, the jar that makes job jars: Beam's own where Maven has it, or put together from parts."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from apache_beam import version as beam_version

from runners.flink.versions import (
    ASSEMBLED_HARNESS,
    ASSEMBLED_JOB_SERVICE,
    ASSEMBLED_RUNNER,
    MAVEN_SHADE_PLUGIN,
    SLF4J_SIMPLE,
)
from runners.local.cache import cache_directory, installed
from runners.local.tools import find_program, run_program, say
from runners.local.versions import MAVEN_DEPENDENCY_PLUGIN
from transforms.errors import UserError

MAIN = "org.apache.beam.runners.flink.FlinkJobServerDriver"
_JAR, _NAME, _CLASS_PATH, _ENTRY = "job-server.jar", "flink-job-server", "flink-class-path", "flink-job-entry"
#: Of ours, by its name in Java and in a jar. Where there is no javac a job does without.
NOTHING_TO_STAGE = "frauddetection.NothingToStage"
NOTHING_TO_STAGE_FILE = "frauddetection/NothingToStage.class"
#: The class that runs a pipeline, and those that must come with it: they look for the pipeline where they were loaded
#: from, and for each other.
ENTRY = (
    "org/apache/beam/runners/flink/FlinkPipelineRunner",
    "org/apache/beam/runners/flink/FlinkPortableRunnerResult",
    "org/apache/beam/runners/jobsubmission/PortablePipelineJarUtils",
    NOTHING_TO_STAGE_FILE,
)
#: Ours, of Beam's Java; why stands in each. The first takes the place of Beam's class of that name, which Beam has
#: right since its change 39191.
_REPLACEMENT = Path(__file__).with_name("BundleCheckpointHandlers.java")
_REPLACED = "org/apache/beam/runners/fnexecution/control/BundleCheckpointHandlers"
_ADDITION = Path(__file__).with_name("NothingToStage.java")

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId>
  <artifactId>job-server-parts</artifactId>
  <version>1</version>
  <dependencies>
    {{dependencies}}
  </dependencies>
  <build><plugins><plugin>
    <groupId>org.apache.maven.plugins</groupId>
    <artifactId>maven-shade-plugin</artifactId>
    <version>{MAVEN_SHADE_PLUGIN}</version>
    <executions><execution>
      <phase>package</phase>
      <goals><goal>shade</goal></goals>
      <configuration>
        <outputFile>${{{{project.basedir}}}}/{_JAR}</outputFile>
        <createDependencyReducedPom>false</createDependencyReducedPom>
        <filters><filter>
          <artifact>*:*</artifact>
          <excludes>
            <exclude>META-INF/*.SF</exclude>
            <exclude>META-INF/*.DSA</exclude>
            <exclude>META-INF/*.RSA</exclude>
            <exclude>{{replaced}}*</exclude>
          </excludes>
        </filter></filters>
        <transformers>
          <transformer implementation="org.apache.maven.plugins.shade.resource.ServicesResourceTransformer"/>
          <transformer implementation="org.apache.maven.plugins.shade.resource.ManifestResourceTransformer">
            <mainClass>{MAIN}</mainClass>
          </transformer>
        </transformers>
      </configuration>
    </execution></executions>
  </plugin></plugins></build>
</project>
"""
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"


def find_job_server(flink_version: str) -> Path:
    """The job server's jar, fetched or put together when it is not there yet.

    Args:
        flink_version: the minor version that jobs will run on.

    Raises:
        UserError: Java or Maven are missing, or it can be had neither way.
    """

    def get(directory: Path) -> None:
        find_program("mvn", "Beam's job server")
        try:
            _fetch(flink_version, directory)
            ours = [_ADDITION] if shutil.which("javac") else []
        except UserError:
            say(f"Maven does not have it; putting it together from Beam {ASSEMBLED_RUNNER[1]}, 160 MB: up to a minute")
            _assemble(directory)
            ours = [_REPLACEMENT, _ADDITION]
        _add_classes(directory, ours)

    explain = f"fetching Beam's job server for Flink {flink_version}"
    ours = hashlib.sha256(_REPLACEMENT.read_bytes() + _ADDITION.read_bytes()).hexdigest()[:12]
    version = f"{flink_version}-{beam_version.__version__}-{ours}"
    return installed(_NAME, version, get, explain) / _JAR


def find_class_path_jar(flink_version: str) -> Path:
    """The job server's jar as it stands on the class path of a cluster, made when it is not there yet.

    It lacks the classes that must come with a job (`ENTRY`), so that they come from there, wherever others are looked
    for first. Its name stands for the job server it was made of.

    Args:
        flink_version: as of `find_job_server`.

    Raises:
        UserError: as `find_job_server`.
    """
    server = find_job_server(flink_version)

    def make(directory: Path) -> None:
        shutil.copyfile(server, directory / _JAR)
        with zipfile.ZipFile(directory / _JAR, "a") as content:
            for entry in [each for each in content.filelist if each.filename.startswith(ENTRY)]:
                drop(content, entry.filename)
            content.writestr("META-INF/fraud-detection", server.parent.name)  # the list of contents is written anew

    explain = "copying Beam's job server for a cluster's class path, 160 MB"
    return installed(_CLASS_PATH, _version_of(server), make, explain) / _JAR


def find_entry_jar(server: Path) -> Path:
    """What a job brings along of a job server's jar where the cluster has the rest, made when it is not there yet.

    To look through the job server's own for it takes half a second.
    """

    def make(directory: Path) -> None:
        with zipfile.ZipFile(server) as whole, zipfile.ZipFile(directory / _JAR, "w", zipfile.ZIP_DEFLATED) as content:
            for name in whole.namelist():
                if name.startswith(ENTRY):
                    content.writestr(name, whole.read(name))

    return installed(_ENTRY, _version_of(server), make, "copying the classes that come with a job") / _JAR


def class_path_jar(server: Path) -> Path:
    """Where the jar is, or would be, that `find_class_path_jar` makes of a job server's."""
    return cache_directory() / f"{_CLASS_PATH}-{_version_of(server)}" / _JAR


def _version_of(server: Path) -> str:
    return server.parent.name.removeprefix(f"{_NAME}-")


def drop(content: zipfile.ZipFile, name: str) -> None:
    """Leave an entry out of the list of a jar that is open for appending; its bytes stay, and nobody finds them."""
    found = content.NameToInfo.pop(name, None)
    if found is not None:
        content.filelist.remove(found)


def _fetch(flink_version: str, directory: Path) -> None:
    artifact = f"beam-runners-flink-{flink_version}-job-server"
    copy = f"org.apache.maven.plugins:maven-dependency-plugin:{MAVEN_DEPENDENCY_PLUGIN}:copy"
    maven = [*_maven(f"fetching {artifact}"), copy, f"-Dartifact=org.apache.beam:{artifact}:{beam_version.__version__}"]
    run_program([*maven, f"-DoutputDirectory={directory}", "-Dmdep.stripVersion=true"], f"fetching {artifact}")
    (directory / f"{artifact}.jar").rename(directory / _JAR)


def _assemble(directory: Path) -> None:
    purpose = "putting Beam's job server together"
    parts = [(("org.apache.beam", *part)) for part in (ASSEMBLED_RUNNER, ASSEMBLED_JOB_SERVICE, ASSEMBLED_HARNESS)]
    parts.append(("org.slf4j", "slf4j-simple", SLF4J_SIMPLE))
    dependencies = "\n    ".join(_DEPENDENCY.format(*part) for part in parts)
    pom = _POM.format(dependencies=dependencies, replaced=_REPLACED)
    (directory / "pom.xml").write_text(pom, "utf-8")
    run_program([*_maven(purpose), "package"], purpose, directory)


def _add_classes(directory: Path, sources: Sequence[Path]) -> None:
    """Put classes of ours, for Java 11 and later, into a job server's jar."""
    if not sources:
        return
    purpose = "adding to Beam's job server"
    jar, classes = directory / _JAR, directory / "classes"
    compile_it = [find_program("javac", purpose), "-nowarn", "--release", "11", "-d", str(classes), "-cp", str(jar)]
    run_program([*compile_it, *map(str, sources)], purpose)
    with zipfile.ZipFile(jar, "a", zipfile.ZIP_DEFLATED) as content:
        for path in sorted(classes.rglob("*.class")):
            content.write(path, path.relative_to(classes).as_posix())


def _maven(purpose: str) -> list[str]:
    """Maven, talking to nobody but its repositories, whose checksums must be right."""
    find_program("java", purpose)
    return [find_program("mvn", purpose), "--batch-mode", "--no-transfer-progress", "--quiet", "--strict-checksums"]
