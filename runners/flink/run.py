"""Run a pipeline on Flink: check what it needs there, make its jar, start the job."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions, PortableOptions

from runners.flink.check_workers import check_workers
from runners.flink.options import FlinkOptions
from runners.flink.package import package
from runners.flink.rest import FlinkRest
from runners.flink.submit import FlinkJob, submit
from transforms.errors import UserError

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def is_local(options: PipelineOptions) -> bool:
    """Whether the cluster runs on this machine, so that it sees our files and we its worker pool."""
    master = options.view_as(FlinkRunnerOptions).flink_master.rpartition("://")[2]
    return master.rpartition(":")[0] in _LOOPBACK


def check_cluster(options: PipelineOptions) -> None:
    """See that a job can be started, before anything is touched.

    Raises:
        UserError: no cluster answers, it has too few slots in all, or its workers cannot be started.
    """
    flink = options.view_as(FlinkRunnerOptions)
    if flink.flink_master.startswith("["):
        raise UserError(
            f"--flink_master={flink.flink_master}: jobs of this pipeline run on a cluster: python -m runners.flink up "
            "starts one on this machine"
        )
    rest = FlinkRest(flink.flink_master)
    total, free = rest.slots()
    if free < flink.parallelism:
        raise UserError(
            f"{free} of {total} slots of the cluster at {rest.url} are free, and --parallelism is {flink.parallelism}: "
            "stop another job (python -m runners.flink stop), start more TaskManagers (python -m runners.flink up "
            "--taskmanagers N), or lower it"
        )
    portable = options.view_as(PortableOptions)
    if portable.environment_type == "EXTERNAL" and is_local(options):
        check_workers(portable.environment_config)


def start(pipeline: beam.Pipeline) -> FlinkJob:
    """Start a pipeline that was built with the Flink preset, and wait until all its tasks run.

    Raises:
        UserError: it does not start; the message has Flink's or the worker's reason.
    """
    options: PipelineOptions = pipeline.options
    rest, own = FlinkRest(options.view_as(FlinkRunnerOptions).flink_master), options.view_as(FlinkOptions)
    savepoint, drop = own.savepoint_path, bool(own.allow_non_restored_state)
    if is_local(options):
        own.worker_directory = os.getcwd()  # where what the user calls by a relative path is
    with tempfile.TemporaryDirectory(prefix="fraud-job-") as directory:
        jar = Path(directory, "fraud-detection.jar")
        package(pipeline, jar, rest.class_path())
        job = submit(rest, jar, savepoint=savepoint, allow_non_restored_state=drop)
    job.wait_until_running()
    return job
