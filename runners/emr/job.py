"""The fraud pipeline as a job's jar, with what has to be known of it to run it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
import msgspec
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PortableOptions

from pipelines.fraud import build
from pipelines.options import parse_command_line
from pipelines.outputs import open_sinks, write
from pipelines.plan import make_plan
from pipelines.settings import Settings
from runners.emr.reach import check_reach
from runners.flink.package import package, packaged_configuration
from runners.presets import pipeline_options
from transforms.errors import UserError

_RUNNER = "FlinkRunner"


@dataclass(frozen=True)
class JobJar:
    """A jar that was written.

    Attributes:
        path: of the jar.
        flink_version: it was written for.
        parallelism: of its stages.
        workers: Python processes that each TaskManager asks its node's pool for.
        flink: Flink's settings for it.
    """

    path: Path
    flink_version: str
    parallelism: int
    workers: int
    flink: dict[str, str]


def write_job(argv: Sequence[str], jar: Path, allow_local: bool = False) -> JobJar:
    """Write the jar of the pipeline that a command line of `python -m pipelines.fraud` describes.

    Args:
        argv: its flags and Beam's, without `--runner`.
        jar: the file to write.
        allow_local: whether files and servers of this machine may be named.

    Raises:
        UserError: something given is wrong, cannot be reached by nodes, or the jar cannot be made.
    """
    command = parse_command_line([f"--runner={_RUNNER}", *argv])
    if command.runner != _RUNNER:
        raise UserError(f"--runner: a package is for Flink; found {command.runner}, leave it out")
    settings = command.settings
    if not allow_local:
        check_reach(settings)
        settings = _in_working_directory(settings, given="output.directory" in command.origins)
    plan = make_plan(settings)
    sinks = open_sinks(settings.output, plan.files, plan.decision_columns, bool(plan.shadows))
    options = pipeline_options(_RUNNER, command.beam_args, plan.bounded, plan.ordering, settings.pipeline.shards)
    with contextlib.nullcontext() if allow_local else _elsewhere():
        pipeline = beam.Pipeline(options=options)
        write(build(pipeline, plan), sinks, plan.source)
        package(pipeline, jar.absolute())
    parallelism = int(options.view_as(FlinkRunnerOptions).parallelism)
    workers = int(options.view_as(PortableOptions).sdk_worker_parallelism)  # Beam keeps it as text
    if parallelism < 1 or workers < 1:
        raise UserError(
            f"--parallelism and --sdk_worker_parallelism size the cluster: give numbers from 1 on; found {parallelism} "
            f"and {workers}"
        )
    version = options.view_as(FlinkRunnerOptions).flink_version
    return JobJar(jar, version, parallelism, workers, packaged_configuration(jar))


def _in_working_directory(settings: Settings, given: bool) -> Settings:
    """What no sink takes is kept where the workers are at home; everything else goes to sinks."""
    if given:
        raise UserError("--output names a directory of this machine; on a cluster everything goes to sinks")
    return msgspec.structs.replace(settings, output=msgspec.structs.replace(settings.output, directory="."))


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """In a directory that goes away: building touches the files that workers will write where they are."""
    with tempfile.TemporaryDirectory() as directory, contextlib.chdir(directory):
        yield
