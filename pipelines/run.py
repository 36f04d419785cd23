"""Run the fraud pipeline as a command: prepare, run, write the report, say what happened."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PortableOptions
from apache_beam.runners.runner import PipelineState

from io_connectors.output_directory import OutputDirectory
from pipelines import watch
from pipelines.error_log import ErrorLog, in_one_line, is_interrupt
from pipelines.fraud import FraudOutputs, build
from pipelines.on_flink import leave_running, run_to_the_end
from pipelines.options import CommandLine, parse_command_line
from pipelines.outputs import open_sinks, write
from pipelines.plan import Plan, make_plan
from pipelines.progress import Progress
from pipelines.report import report_html
from pipelines.report_facts import beam_counters, keep_statistics, kept_statistics, run_facts
from pipelines.say import complain, tell
from pipelines.settings import settings_as_toml
from pipelines.stream import INTERRUPTED, human_stderr, run_until_stopped, terminable
from pipelines.summary import RunFacts, summary_json, summary_text
from runners.emr.reach import check_reach
from runners.flink.package import package
from runners.flink.run import check_cluster, is_local
from runners.garbage import collect_seldom
from runners.presets import FLINK, explanation, pipeline_options
from transforms import tally
from transforms.durations import SECOND, parse_duration
from transforms.errors import UserError

_LOGGER = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None, ready: Callable[[], None] = lambda: None) -> int:
    """The command.

    Args:
        argv: its arguments; those of the process unless given.
        ready: called once everything is checked and wired, before anything is read.

    Returns:
        Its exit code: 0 done, 1 failed, 2 something given is wrong, 130 interrupted.
    """
    try:
        command = parse_command_line(sys.argv[1:] if argv is None else argv)
        if command.print_config:
            tell(settings_as_toml(command.settings, command.origins).rstrip("\n"))
            return 0
        return _run(command, ready)
    except UserError as error:
        complain(f"error: {error}", human_stderr())
        return 2
    except KeyboardInterrupt:
        complain("interrupted: what was written until then stands, but it is not all", human_stderr())
        return INTERRUPTED


def _run(command: CommandLine, ready: Callable[[], None]) -> int:
    plan, on_flink = make_plan(command.settings), command.runner == FLINK
    shards = plan.settings.pipeline.shards
    options = pipeline_options(command.runner, command.beam_args, plan.bounded, plan.ordering, shards)
    if command.explain_runner:
        tell(explanation(options, plan.bounded, shards))
        return 0
    sinks = open_sinks(plan.settings.output, plan.files, plan.decision_columns, bool(plan.shadows))
    pipeline = beam.Pipeline(options=options)
    outputs = build(pipeline, plan)  # before the output directory is touched: it may refuse something yet
    if on_flink and (jar := options.view_as(PortableOptions).output_executable_path):
        write(outputs, sinks, plan.source)
        package(pipeline, Path(jar))
        tell(jar)
        return 0
    if on_flink:
        check_cluster(options)
        if not is_local(options):
            check_reach(plan.settings)
    with OutputDirectory(plan.settings.output.directory) as output, ErrorLog(output.errors) as log, terminable():
        try:
            write(outputs, sinks, plan.source)
            ready()
            if on_flink and not (plan.bounded and is_local(options)):  # what ends elsewhere leaves its report there
                tell(leave_running(pipeline))
                return 0
            facts = (run_to_the_end if on_flink else _run_here)(pipeline, outputs, plan, output)
            output.report.write_text(report_html(facts), "utf-8")
            output.summary.write_bytes(summary_json(facts))
        except UserError:
            raise
        except Exception as error:
            if is_interrupt(error):
                raise KeyboardInterrupt from error
            _LOGGER.exception("the run failed")
            complain(
                f"error: the run failed: {in_one_line(error)} (the whole traceback is in {log.path})", human_stderr()
            )
            return 1
    tell(summary_text(facts, colour=sys.stdout.isatty()))
    if not plan.bounded:
        complain(
            "stopped: what the sinks hold stands; records that were on their way to them are not in it", human_stderr()
        )
        return INTERRUPTED
    return 0


def _run_here(pipeline: beam.Pipeline, outputs: FraudOutputs, plan: Plan, output: OutputDirectory) -> RunFacts:
    """Run the pipeline to its end, or until it is stopped, and say what it came to."""
    if outputs.statistics is not None:
        keep_statistics(outputs.statistics, output)
    else:
        _ = outputs.decisions | "WatchDecisions" >> beam.ParDo(watch.WatchDecisions(plan.manifest.feature_names))
    progress = Progress(plan.settings.progress.mode, parse_duration(plan.settings.progress.every) / SECOND)
    collect_seldom()
    tally.reset()
    watch.reset()
    started = time.monotonic()
    with progress:
        if plan.bounded:
            result = pipeline.run()
            state = result.wait_until_finish()
        else:
            result, state = run_until_stopped(pipeline)
    if state != PipelineState.DONE:
        raise RuntimeError(f"the pipeline ended as {state}; what was written until then stands")
    wall_seconds = time.monotonic() - started
    if not plan.bounded:
        so_far = watch.so_far(plan.manifest.feature_names)
        return run_facts(plan, output, so_far, tally.snapshot(), wall_seconds, progress)
    return run_facts(plan, output, kept_statistics(output), beam_counters(result.metrics()), wall_seconds, progress)
