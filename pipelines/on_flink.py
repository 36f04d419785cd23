"""Run the pipeline on a Flink cluster: input that ends is waited for, a stream is left to run there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

import apache_beam as beam

from io_connectors.output_directory import OutputDirectory
from pipelines.fraud import FraudOutputs
from pipelines.plan import Plan
from pipelines.progress import Progress
from pipelines.report_facts import keep_statistics, kept_statistics, run_facts
from pipelines.summary import RunFacts
from runners.flink.rest import FlinkError
from runners.flink.run import start
from runners.flink.submit import FlinkJob
from transforms.durations import SECOND, parse_duration
from transforms.errors import UserError


def run_to_the_end(pipeline: beam.Pipeline, outputs: FraudOutputs, plan: Plan, output: OutputDirectory) -> RunFacts:
    """Run input that ends on a cluster of this machine, and say what it came to.

    Raises:
        UserError: the job cannot be started, or failed; with Flink's reason.
    """
    if outputs.statistics is not None:  # it is there when input ends
        keep_statistics(outputs.statistics, output)
    started = time.monotonic()
    job = start(pipeline)
    every = parse_duration(plan.settings.progress.every) / SECOND
    with Progress(plan.settings.progress.mode, max(every, 1.0), snapshot=partial(tally_so_far, job)) as progress:
        try:
            state = job.wait_until_finish()
        except KeyboardInterrupt:
            job.cancel()
            raise
    if state != "FINISHED":
        raise UserError(f"job {job.id} was ended on Flink before its input was ({state}); what was written stands")
    return run_facts(plan, output, kept_statistics(output), job.tally(), time.monotonic() - started, progress)


def tally_so_far(job: FlinkJob) -> Mapping[str, int]:
    """A job's counters for people to look at: none while its cluster does not answer, which waiting for it reports."""
    try:
        return job.tally()
    except FlinkError:
        return {}


def leave_running(pipeline: beam.Pipeline) -> str:
    """Start a stream, and say how to look after it once its workers run.

    Raises:
        UserError: the job cannot be started, or its workers do not come.
    """
    return _how_to_look_after(start(pipeline))


def _how_to_look_after(job: FlinkJob) -> str:
    at = "" if job.rest.url == "http://localhost:8081" else f" --flink_master {job.rest.url}"
    return "\n".join(
        [
            f"job {job.id} runs: {job.url}",
            f"  python -m runners.flink savepoint {job.id}{at}   writes a savepoint",
            f"  python -m runners.flink stop {job.id}{at}        stops it with one",
            "  --savepoint_path=URL                             starts the next version of it from there",
        ]
    )
