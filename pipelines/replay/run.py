"""Replay: read and decide, compare day by day, and say what it came to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.metrics.metric import MetricsFilter

from io_connectors.output_directory import OutputDirectory
from io_connectors.parquet_files import WriteParquet
from pipelines.plan import Plan
from pipelines.progress import Progress
from pipelines.replay.compare import Comparison, How, compare_day
from pipelines.replay.decide import SPAN, replay
from pipelines.replay.decisions import Decisions, decision_files, files_of
from pipelines.replay.facts import ReplayFacts
from pipelines.replay.period import Period
from pipelines.replay.segments import MOST_SEGMENTS
from pipelines.report_facts import beam_counters
from pipelines.setting_values import mask_secrets
from runners.presets import pipeline_options
from transforms import tally
from transforms.durations import SECOND, parse_duration
from transforms.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for.

    Attributes:
        plan: what decides.
        named: whether the model was named; if not, it must be the one that served.
        period: the days.
        served: the decisions as they were served, and what the user called them.
        known_by: labels that were known then count, in microseconds since 1970.
        by: the column of segments, or None.
        output: where results go.
    """

    plan: Plan
    named: bool
    period: Period
    served: Decisions
    served_name: str
    known_by: int
    by: str | None
    output: OutputDirectory


def run(request: Request) -> ReplayFacts:
    """Replay what is asked for, into a directory that is entered already.

    Raises:
        UserError: the column of segments has too many values.
    """
    plan, output, started = request.plan, request.output, time.monotonic()
    differences = output.path / "differences.parquet"
    differences.unlink(missing_ok=True)  # of a replay before
    counters, span = _decide(request)
    files = files_of(str(output.decisions))
    replayed = decision_files(files, "the replay") if files else None
    comparison = compare(request, replayed, differences)
    return ReplayFacts(
        comparison=comparison,
        period=request.period,
        span=span,
        source=mask_secrets(plan.settings.input.source),
        served=mask_secrets(request.served_name),
        schema=plan.schema.name,
        model_id=plan.manifest.model_id,
        features=len(plan.manifest.feature_names),
        thresholds=plan.thresholds,
        costs=plan.costs,
        known_by=request.known_by,
        by=request.by,
        read=counters.get("read", 0),
        dead_letters={
            name.removeprefix("dead_letters."): count
            for name, count in counters.items()
            if name.startswith("dead_letters.")
        },
        wall_seconds=time.monotonic() - started,
        files={
            "report": str(output.report),
            "figures": str(output.summary),
            "changed decisions": str(differences),
            "all decisions": f"{output.decisions}{os.sep}*.parquet",
        },
        minor_digits=plan.manifest.feature_set.minor_digits,
    )


def _decide(request: Request) -> tuple[dict[str, int], tuple[int, int] | None]:
    """Run the pipeline; the counters of Beam, and what the source spans."""
    plan, settings = request.plan, request.plan.settings
    pipeline = beam.Pipeline(options=pipeline_options("DirectRunner", [], bounded=True))
    replayed = replay(pipeline, plan, request.period, request.known_by)
    _ = replayed.decisions | "Write" >> WriteParquet(request.output.decisions)
    tally.reset()
    with Progress(settings.progress.mode, parse_duration(settings.progress.every) / SECOND):
        result = pipeline.run()
        result.wait_until_finish()
    metrics = result.metrics()
    spans = metrics.query(MetricsFilter().with_namespace(SPAN[0]).with_name(SPAN[1]))["distributions"]
    span = (spans[0].result.min, spans[0].result.max) if spans else None
    return beam_counters(metrics), span


def compare(request: Request, replayed: Decisions | None, differences: Path) -> Comparison:
    """Compare day by day, so that memory holds one; transactions decided on otherwise are written.

    Args:
        request: the days, and what was served.
        replayed: the decisions now; None where there are none.
        differences: the file to write.

    Raises:
        UserError: the column of segments has too many values.
    """
    plan, total = request.plan, Comparison()
    how = How(
        features=plan.manifest.feature_names,
        mature_before=request.known_by - plan.label_delay,
        by=request.by,
        minor_digits=plan.manifest.feature_set.minor_digits,
    )
    with _table_file(differences) as add:
        for number in request.period.days:
            now = replayed.day(number) if replayed else None
            found, changed = compare_day(number, request.served.day(number), now, how)
            total += found
            if len(total.segments) > MOST_SEGMENTS:
                raise UserError(f"--by {request.by} has more than {MOST_SEGMENTS} values: name a column with fewer")
            if changed is not None:
                add(changed)
    return total


@contextmanager
def _table_file(path: Path) -> Iterator[Callable[[pa.Table], None]]:
    """Takes tables that have the same columns; the file appears when all have been taken, if any."""
    unfinished = path.with_name(f".{path.name}.tmp")
    writer: pq.ParquetWriter | None = None

    def add(table: pa.Table) -> None:
        nonlocal writer
        writer = writer or pq.ParquetWriter(unfinished, table.schema, compression="zstd")
        writer.write_table(table)

    try:
        yield add
    finally:
        if writer is not None:
            writer.close()
    if writer is not None:
        os.replace(unfinished, path)
