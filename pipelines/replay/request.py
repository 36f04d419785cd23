"""From the command's flags to what is asked for, checked before anything is read or written."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from io_connectors.output_directory import OutputDirectory
from pipelines.formats import day
from pipelines.past import plan_the_past
from pipelines.past_options import settings_of
from pipelines.plan import Plan
from pipelines.replay.decisions import DecisionFiles, Decisions, open_decisions
from pipelines.replay.period import period_of
from pipelines.replay.run import Request
from pipelines.replay.segments import check_segments
from transforms.errors import UserError


def request_of(options: argparse.Namespace, start: int, end: int, known_by: int) -> Request:
    """The request that flags make.

    Args:
        options: the flags.
        start, end: the days, in microseconds since 1970.
        known_by: which labels count, likewise.

    Raises:
        UserError: something named does not exist, does not go together, or would be overwritten.
    """
    settings, named = settings_of(options)
    plan = plan_the_past(settings)
    period = period_of(start, end, plan)
    if options.by:
        check_segments(options.by, plan.decision_columns)
    name = options.served or settings.output.directory
    served = open_decisions(name)
    _check_output(options.output, plan, served)
    request = Request(
        plan=plan,
        named=named,
        period=period,
        served=served,
        served_name=name,
        known_by=known_by,
        by=options.by,
        output=OutputDirectory(options.output),
    )
    _check_served(request)
    return request


def _check_output(output: Path, plan: Plan, served: Decisions) -> None:
    """Refuse to write where something is to be read: what lies there is removed first."""
    read = (*plan.files, *(served.files if isinstance(served, DecisionFiles) else ()))
    removed = [Path(os.path.realpath(path)) for path in OutputDirectory(output).artefacts]
    for file in read:
        if any(Path(os.path.realpath(file)).is_relative_to(path) for path in removed):
            raise UserError(f"--output {output} holds {file}, which is to be read: name another directory")


def _check_served(request: Request) -> None:
    """Refuse days that were not served, and a model that nobody named and that did not serve."""
    period, manifest = request.period, request.plan.manifest
    first = next((table for number in period.days if (table := request.served.day(number)) is not None), None)
    if first is None:
        raise UserError(
            f"--served {request.served_name} holds no decisions on transactions of {day(period.days.start)} up to, not "
            f"including, {day(period.days.stop)}"
        )
    models = first["model_id"].unique().to_pylist()
    if not request.named and models != [manifest.model_id]:
        raise UserError(
            f"--served was decided by {', '.join(map(str, models))}, and the model of these settings is "
            f"{manifest.model_id}: name the one to replay with --model"
        )
