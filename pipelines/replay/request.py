"""From the command's flags to what is asked for, checked before anything is read or written."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from io_connectors.output_directory import OutputDirectory
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
    return Request(
        plan=plan,
        named=named,
        period=period,
        served=served,
        served_name=name,
        known_by=known_by,
        by=options.by,
        output=OutputDirectory(options.output),
    )


def _check_output(output: Path, plan: Plan, served: Decisions) -> None:
    """Refuse to write where something is to be read: what lies there is removed first."""
    read = (*plan.files, *(served.files if isinstance(served, DecisionFiles) else ()))
    removed = [Path(os.path.realpath(path)) for path in OutputDirectory(output).artefacts]
    for file in read:
        if any(Path(os.path.realpath(file)).is_relative_to(path) for path in removed):
            raise UserError(f"--output {output} holds {file}, which is to be read: name another directory")
