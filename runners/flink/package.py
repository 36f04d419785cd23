"""A pipeline as one jar that any Flink of its version runs: Beam's runner, the pipeline and its options."""

from __future__ import annotations

import contextlib
import json
import shutil
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
)
from apache_beam.runners.portability.portable_runner import JobServiceHandle, PortableRunner
from google.protobuf import json_format

from runners.flink.job_server import (
    NOTHING_TO_STAGE,
    NOTHING_TO_STAGE_FILE,
    class_path_jar,
    drop,
    find_entry_jar,
    find_job_server,
)
from runners.flink.preset import flink_configuration
from runners.flink.state_names import name_state
from transforms.errors import UserError

#: The class of such a jar that Flink is to run.
ENTRY_CLASS = "org.apache.beam.runners.flink.FlinkPipelineRunner"
#: Where that class looks for the pipeline, as Beam's own packagers lay it out.
_FOLDER, _NAME = "BEAM-PIPELINE", "fraud-detection"
_MANIFEST = "META-INF/MANIFEST.MF"
#: Ours: settings of Flink's that belong to the job, for whoever starts it.
_CONFIGURATION = f"{_FOLDER}/flink-configuration.json"


def package(pipeline: beam.Pipeline, jar: Path, class_path: Collection[str] = ()) -> None:
    """Write the jar of a pipeline that was built with the Flink preset.

    It is Beam's job server with the pipeline beside its classes, as Beam's `--output_executable_path` makes it, but
    without starting that server: the pipeline is added to a copy of its jar. A cluster that has that jar on its class
    path is spared it: 160 MB to send, to keep and to load classes from, anew for each job.

    Args:
        pipeline: complete; it is not run.
        jar: the file to write; it is whole or as it was.
        class_path: jars that the cluster has; none for a jar that runs anywhere.

    Raises:
        UserError: the job server cannot be had, or the jar cannot be written.
    """
    options: PipelineOptions = pipeline.options
    configuration = flink_configuration(options, bounded=not options.view_as(StandardOptions).streaming)
    server = _job_server(options.view_as(FlinkRunnerOptions))
    packager = _Packager()  # type: ignore[no-untyped-call]  # Beam's runners have no typed constructor
    proto = packager.proto_of(pipeline)
    for environment in proto.components.environments.values():
        del environment.dependencies[:]  # workers have all there is installed, and fetch nothing
    if options.view_as(StandardOptions).streaming:
        name_state(proto)
    alone = str(class_path_jar(server)) in class_path
    place = f"{_FOLDER}/{_NAME}"
    aside = jar.with_name(f".{jar.name}.part")
    try:
        jar.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(find_entry_jar(server) if alone else server, aside)
        with zipfile.ZipFile(aside, "a", zipfile.ZIP_DEFLATED) as content:
            _replace_manifest(content)
            content.writestr(f"{_FOLDER}/pipeline-manifest.json", json.dumps({"defaultJobName": _NAME}))
            content.writestr(f"{place}/pipeline.json", json_format.MessageToJson(proto))
            content.writestr(f"{place}/pipeline-options.json", json_format.MessageToJson(_encoded(options, content)))
            content.writestr(_CONFIGURATION, json.dumps(configuration))
        aside.replace(jar)
    except OSError as error:
        raise UserError(f"the job's jar cannot be written to {jar}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # what kept it from being written is what matters
            aside.unlink()


def packaged_configuration(jar: Path) -> dict[str, str]:
    """The settings of Flink's that a jar of `package` wants its job to have.

    Raises:
        UserError: it is no such jar.
    """
    try:
        with zipfile.ZipFile(jar) as content:
            found: dict[str, str] = json.loads(content.read(_CONFIGURATION))
    except FileNotFoundError as error:
        raise UserError(f"there is no file {jar}") from error
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise UserError(
            f"{jar} is no job's jar: python -m pipelines.fraud --runner=FlinkRunner --output_executable_path=FILE "
            "writes one"
        ) from error
    return found


class _Packager(PortableRunner):
    """Does all that Beam's portable runners do with a pipeline before they send it somewhere, and keeps it."""

    def proto_of(self, pipeline: beam.Pipeline) -> Any:
        """The pipeline as runners take it."""
        return self.run_pipeline(pipeline, pipeline.options)

    def run_portable_pipeline(self, pipeline: Any, options: PipelineOptions) -> Any:
        return self._optimize_pipeline(pipeline, options)


def _job_server(flink: FlinkRunnerOptions) -> Path:
    if not flink.flink_job_server_jar:
        return find_job_server(flink.flink_version)
    path = Path(flink.flink_job_server_jar)
    if not zipfile.is_zipfile(path):
        raise UserError(f"--flink_job_server_jar: {path} is not there, or is no jar")
    return path


def _encoded(options: PipelineOptions, jar: zipfile.ZipFile) -> Any:
    """The options as Beam's Java half reads them: it takes the cluster to be the one that runs the jar."""
    values = options.get_all_options(drop_default=True)
    values |= {"flink_master": "[auto]", "streaming": options.view_as(StandardOptions).streaming}
    values["job_name"] = options.view_as(GoogleCloudOptions).job_name or _NAME
    if NOTHING_TO_STAGE_FILE in jar.NameToInfo:
        values["pipeline_resources_detector_factory_class"] = NOTHING_TO_STAGE
    ours = ("flink_config", "runner", "flink_job_server_jar", "output_executable_path")
    return JobServiceHandle.encode_pipeline_options({k: v for k, v in values.items() if k not in ours})


def _replace_manifest(content: zipfile.ZipFile) -> None:
    """Name the pipeline's entry class instead of the job server's; the old manifest is no longer listed."""
    drop(content, _MANIFEST)
    content.writestr(_MANIFEST, f"Manifest-Version: 1.0\r\nMain-Class: {ENTRY_CLASS}\r\n\r\n")
