"""What each runner needs to be told, so that no transform has to know where it runs."""

from __future__ import annotations

import logging

from apache_beam.options.pipeline_options import (
    DebugOptions,
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    PrismRunnerOptions,
    StandardOptions,
)

from runners.flink.preset import DEFAULT_SHARDS, explain_preset, preset_arguments
from runners.kept_signatures import keep_signatures
from runners.kept_views import KeptViews
from runners.prism import find_prism
from transforms.errors import UserError

#: Beam's `DirectRunner` picks one of three runners by itself and may download one of them. Of these the in-memory
#: one runs input that ends fastest, and gives nothing out before input ends; Prism streams.
IN_MEMORY = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
PRISM = "PrismRunner"
FLINK = "FlinkRunner"
#: Seconds: three years.
FOREVER = 10**8


def pipeline_options(
    runner: str, beam_arguments: list[str], bounded: bool, ordering: str = "arrival", shards: int = DEFAULT_SHARDS
) -> PipelineOptions:
    """Beam's options for a run: the runner's preset, overridden by what the user said.

    From then on this process keeps the signatures that Beam has looked at.

    Args:
        runner: as given by `--runner`.
        beam_arguments: Beam's own flags, as given.
        bounded: whether the sources end.
        ordering: how rows are ordered, `event_time` or `arrival`.
        shards: keys of the stages that remember.

    Raises:
        UserError: the runner cannot do what is asked of it.
    """
    keep_signatures()
    if runner == FLINK:
        beam_arguments = [*preset_arguments(bounded, shards), *beam_arguments]
    options = KeptViews(beam_arguments)
    if runner == FLINK and (parallelism := int(options.view_as(FlinkRunnerOptions).parallelism)) > shards:
        raise UserError(
            f"--parallelism={parallelism} is more than pipeline.shards = {shards}: subtasks without a shard would "
            f"have nothing to do. Give --set pipeline.shards={parallelism}, or more to grow into: state keeps to it"
        )
    # Beam would have pip list what is installed, for a log: a second of a job's start.
    options.view_as(DebugOptions).add_experiment("disable_logging_submission_environment")
    standard = options.view_as(StandardOptions)
    standard.runner = runner
    if runner == "DirectRunner":
        standard.runner = IN_MEMORY if bounded else PRISM
    if not bounded:
        standard.streaming = True
    if standard.runner == PRISM:
        _prepare_prism(options, bounded, ordering)
    return options


def _prepare_prism(options: PipelineOptions, bounded: bool, ordering: str) -> None:
    prism, portable = options.view_as(PrismRunnerOptions), options.view_as(PortableOptions)
    if not bounded and ordering == "event_time":
        raise UserError(
            "Prism, the local runner that streams, loses count of watermark holds when rows of an endless source wait "
            "for their order: run with pipeline.ordering = arrival, give the source an end, or use --runner=FlinkRunner"
        )
    if not prism.prism_location:
        found = find_prism()
        if found is None:
            raise UserError(
                "this source never ends, and the DirectRunner's in-memory engine would give nothing out before it "
                "does. Either get Prism, Beam's local runner that streams (python -m runners.prism get), or give the "
                "source an end (until=latest, max_records=, max_duration=), or run with --runner=FlinkRunner"
                if not bounded
                else "Prism is not on this machine: python -m runners.prism get"
            )
        prism.prism_location = str(found)
    # It warns of starting and of stopping Prism, which is what it is for.
    logging.getLogger("apache_beam.utils.subprocess_server").setLevel(logging.ERROR)
    if not bounded:
        # Beam says this does not limit how long a job runs, but its streams of a job's state and messages end with it.
        portable.job_server_timeout = max(portable.job_server_timeout, FOREVER)
    # Workers are threads of this process unless something else is asked for.
    portable.environment_type = portable.environment_type or "LOOPBACK"


def explanation(options: PipelineOptions, bounded: bool, shards: int = DEFAULT_SHARDS) -> str:
    """A table of what the runner is told beside the user's own flags: setting, value and reason.

    Args:
        options: as `pipeline_options` made them.
        bounded: whether the sources end.
        shards: keys of the stages that remember.
    """
    runner = options.view_as(StandardOptions).runner
    if runner == FLINK:
        rows = explain_preset(options, bounded, shards)
    elif runner == PRISM:
        portable = options.view_as(PortableOptions)
        rows = [
            ("--runner", PRISM, "the local runner that streams; the in-memory one gives nothing out before input ends"),
            ("--environment_type", str(portable.environment_type), "workers are threads of this process"),
        ]
    else:
        rows = [("--runner", str(runner), "input that ends runs fastest in memory, without Beam picking a runner")]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {reason}" for name, value, reason in rows)
