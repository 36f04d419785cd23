"""Run the fraud pipeline as a command: prepare, run, write the report, say what happened."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.runners.runner import PipelineResult, PipelineState

from io_connectors.output_directory import OutputDirectory
from io_connectors.sinks import decision_sink, record_sink
from io_connectors.statistics_file import WriteStatistics, read_statistics
from pipelines.fraud import FraudOutputs, build
from pipelines.options import CommandLine, parse_command_line
from pipelines.plan import Plan, make_plan
from pipelines.progress import Progress
from pipelines.report import report_html
from pipelines.settings import settings_as_toml
from pipelines.summary import RunFacts, summary_json, summary_text
from runners.presets import pipeline_options
from transforms import tally
from transforms.durations import SECOND, parse_duration
from transforms.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0 done, 1 failed, 2 something given is wrong."""
    try:
        command = parse_command_line(sys.argv[1:] if argv is None else argv)
        if command.print_config:
            print(settings_as_toml(command.settings, command.origins), end="")
            return 0
        return _run(command)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(command: CommandLine) -> int:
    plan = make_plan(command.settings)
    bounded = plan.source.bounded and (plan.labels is None or plan.labels.bounded)
    options = pipeline_options(command.runner, command.beam_args, bounded)
    settings = command.settings
    tally.reset()
    with OutputDirectory(settings.output.directory) as output:
        pipeline = beam.Pipeline(options=options)
        write(build(pipeline, plan), plan, output)
        progress = Progress(settings.progress.mode, parse_duration(settings.progress.every) / SECOND)
        started = time.monotonic()
        with progress:
            result = pipeline.run()
            state = result.wait_until_finish()
        if state != PipelineState.DONE:
            print(f"error: the pipeline ended as {state}", file=sys.stderr)
            return 1
        facts = _facts(plan, output, result, time.monotonic() - started, progress)
        output.report.write_text(report_html(facts), "utf-8")
        output.summary.write_bytes(summary_json(facts))
        print(summary_text(facts))
    return 0


def write(outputs: FraudOutputs, plan: Plan, output: OutputDirectory) -> None:
    """Branch the pipeline's outputs to their sinks: those named, or the local ones."""
    chosen = plan.settings.output
    for at, url in enumerate(chosen.sinks or (f"file:{output.decisions}",)):
        _ = outputs.decisions | f"WriteDecisions[{at}]" >> decision_sink(url)
    for at, url in enumerate(chosen.alerts or (f"file:{output.alerts}",)):
        _ = outputs.alerts | f"WriteAlerts[{at}]" >> record_sink(url, "--alert")
    dead_letters = chosen.dead_letters or f"file:{output.dead_letters}"
    _ = outputs.dead_letters | "WriteDeadLetters" >> record_sink(dead_letters, "--dead_letters")
    summaries = chosen.summaries or f"file:{output.windows}"
    _ = outputs.summaries | "WriteSummaries" >> record_sink(summaries, "output.summaries")
    _ = outputs.statistics | "WriteStatistics" >> WriteStatistics(str(output.statistics))
