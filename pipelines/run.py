"""Run the fraud pipeline as a command: prepare, run, write the report, say what happened."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.metrics.metric import MetricsFilter
from apache_beam.runners.runner import PipelineState

from io_connectors.output_directory import OutputDirectory
from pipelines import watch
from pipelines.error_log import ErrorLog, in_one_line, is_interrupt
from pipelines.formats import printable
from pipelines.fraud import FraudOutputs, build
from pipelines.options import CommandLine, parse_command_line
from pipelines.outputs import open_sinks, write
from pipelines.plan import Plan, make_plan
from pipelines.progress import Progress
from pipelines.report import report_html
from pipelines.setting_values import mask_secrets
from pipelines.settings import settings_as_toml
from pipelines.stream import INTERRUPTED, human_stderr, run_until_stopped, terminable
from pipelines.summary import RunFacts, summary_json, summary_text
from runners.presets import pipeline_options
from transforms import tally
from transforms.card_numbers import mask_card_numbers
from transforms.durations import SECOND, parse_duration
from transforms.errors import UserError
from transforms.statistics import RunStatistics, RunStatisticsCoder

_LOGGER = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0 done, 1 failed, 2 something given is wrong, 130 interrupted."""
    try:
        command = parse_command_line(sys.argv[1:] if argv is None else argv)
        if command.print_config:
            _tell(settings_as_toml(command.settings, command.origins).rstrip("\n"))
            return 0
        return _run(command)
    except UserError as error:
        _complain(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        _complain("interrupted: what was written until then stands, but it is not all")
        return INTERRUPTED


def _run(command: CommandLine) -> int:
    plan = make_plan(command.settings)
    sinks = open_sinks(plan.settings.output, plan.files)
    options = pipeline_options(command.runner, command.beam_args, plan.bounded, plan.ordering)
    pipeline = beam.Pipeline(options=options)
    outputs = build(pipeline, plan)  # before the output directory is touched: it may refuse something yet
    with OutputDirectory(plan.settings.output.directory) as output, ErrorLog(output.errors) as log, terminable():
        try:
            write(outputs, sinks, plan.source)
            _keep_statistics(outputs, plan, output)
            facts = _execute(pipeline, plan, output)
        except UserError:
            raise
        except Exception as error:
            if is_interrupt(error):
                raise KeyboardInterrupt from error
            _LOGGER.exception("the run failed")
            _complain(f"error: the run failed: {in_one_line(error)} (the whole traceback is in {log.path})")
            return 1
    _tell(summary_text(facts, colour=sys.stdout.isatty()))
    if not plan.bounded:
        _complain("stopped: what the sinks hold stands; records that were on their way to them are not in it")
        return INTERRUPTED
    return 0


def _execute(pipeline: beam.Pipeline, plan: Plan, output: OutputDirectory) -> RunFacts:
    """Run the pipeline to its end, or until it is stopped, and write what it came to."""
    progress = Progress(plan.settings.progress.mode, parse_duration(plan.settings.progress.every) / SECOND)
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
    facts = _facts(plan, output, result, time.monotonic() - started, progress)
    output.report.write_text(report_html(facts), "utf-8")
    output.summary.write_bytes(summary_json(facts))
    return facts


def _complain(text: str) -> None:
    """One line on standard error, whatever the text holds."""
    print(mask_card_numbers(printable(" ".join(text.splitlines()))), file=human_stderr())


def _tell(text: str) -> None:
    """Text on standard output, whatever that can show, and whether or not anybody still reads it."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends


def _keep_statistics(outputs: FraudOutputs, plan: Plan, output: OutputDirectory) -> None:
    """See that the command finds the statistics when the pipeline has ended."""
    if outputs.statistics is not None:
        _ = outputs.statistics | "KeepStatistics" >> beam.Map(partial(_keep, str(output.statistics)))
    else:
        _ = outputs.decisions | "WatchDecisions" >> beam.ParDo(watch.WatchDecisions(plan.manifest.feature_names))


def _keep(path: str, statistics: RunStatistics) -> None:
    """Leave the statistics where the command finds them when the pipeline has ended."""
    Path(f"{path}.tmp").write_bytes(RunStatisticsCoder().encode(statistics))
    os.replace(f"{path}.tmp", path)


def _facts(plan: Plan, output: OutputDirectory, result: Any, wall_seconds: float, progress: Progress) -> RunFacts:
    settings = plan.settings
    if plan.bounded:
        statistics = RunStatisticsCoder().decode(output.statistics.read_bytes())
        output.statistics.unlink()
        counters = _counters(result.metrics())
    else:
        statistics, counters = watch.so_far(plan.manifest.feature_names), tally.snapshot()
    files = {
        "decisions": ", ".join(settings.output.sinks) or f"{output.decisions}{os.sep}*.parquet",
        "alerts": ", ".join(settings.output.alerts) or str(output.alerts),
        "dead letters": settings.output.dead_letters or str(output.dead_letters),
        "windows": settings.output.summaries or str(output.windows),
        "report": str(output.report),
        "figures": str(output.summary),
    }
    return RunFacts(
        statistics=statistics,
        source=mask_secrets(settings.input.source),
        schema=plan.schema.name,
        model_id=plan.manifest.model_id,
        thresholds=plan.thresholds,
        costs=plan.costs,
        ordering=plan.ordering,
        read=counters.get("read", 0),
        dead_letters=_by_reason(counters, "dead_letters"),
        refused_labels=_by_reason(counters, "refused_labels"),
        suppressed=counters.get("alerts.suppressed", 0),
        undelivered=_by_reason(counters, "undelivered"),
        wall_seconds=wall_seconds,
        throughput=progress.samples,
        files=files,
        minor_digits=plan.manifest.feature_set.minor_digits,
    )


def _counters(metrics: Any) -> dict[str, int]:
    """What `Count` counted, by name, and of dead letters by name and reason (`dead_letters.duplicate`)."""
    found: dict[str, int] = {}
    for counter in metrics.query(MetricsFilter())["counters"]:
        of = counter.key.metric
        name = of.name if of.namespace == "records" else f"{of.namespace}.{of.name}"
        found[name] = found.get(name, 0) + counter.result
    return found


def _by_reason(counters: Mapping[str, int], name: str) -> dict[str, int]:
    return {key.removeprefix(f"{name}."): count for key, count in counters.items() if key.startswith(f"{name}.")}
