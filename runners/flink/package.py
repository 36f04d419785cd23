"""A pipeline as one jar that any Flink of its version runs: Beam's runner, the pipeline and its options."""

from __future__ import annotations

from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions, PortableOptions

from runners.flink.job_server import find_job_server
from runners.flink.options import FlinkOptions
from transforms.errors import UserError


def package(pipeline: beam.Pipeline, jar: Path) -> None:
    """Write the jar of a pipeline that was built with the Flink preset.

    Args:
        pipeline: complete; it is not run.
        jar: the file to write; it is whole or as it was.

    Raises:
        UserError: Java or Maven are missing, or the jar cannot be written.
    """
    options: PipelineOptions = pipeline.options
    flink = options.view_as(FlinkRunnerOptions)
    if not flink.flink_job_server_jar:
        flink.flink_job_server_jar = str(find_job_server(flink.flink_version))
    elif "://" not in flink.flink_job_server_jar and not Path(flink.flink_job_server_jar).is_file():
        raise UserError(f"--flink_job_server_jar: there is no file {flink.flink_job_server_jar}")
    aside = jar.with_name(f".{jar.name}.part")
    portable, master = options.view_as(PortableOptions), flink.flink_master
    options.view_as(FlinkOptions).flink_config = None  # Java has no option of that name; whoever starts the job sets it
    portable.output_executable_path = str(aside)
    flink.flink_master = "[auto]"  # the cluster is the one that runs the jar
    try:
        jar.parent.mkdir(parents=True, exist_ok=True)
        pipeline.run().wait_until_finish()
        aside.replace(jar)
    except OSError as error:
        raise UserError(f"the job's jar cannot be written to {jar}: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)
        flink.flink_master = master
