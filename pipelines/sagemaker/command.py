"""Scheduled retraining on SageMaker: the command."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.sagemaker.arguments import ROLE, check_schedule, parse, retraining
from pipelines.sagemaker.definition import Retraining, definition
from runners.emr.calls import Calls
from transforms.errors import UserError

_DESCRIPTION = "Trains a fraud model anew and promotes it unless it is worse than the champion"


def main(argv: Sequence[str] | None = None) -> int:
    """The command.

    Returns:
        Its exit code: 0, or 2 when what was asked for cannot be done.
    """
    try:
        given, rest = parse(sys.argv[1:] if argv is None else argv)
        _ACTIONS[given.command](given, rest)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def upsert(calls: Calls, name: str, wish: Retraining) -> str:
    """Create a pipeline, or bring it up to date; its ARN, or nothing when calls are only printed.

    Raises:
        UserError: AWS refused.
    """
    if wish.group and not calls.find("sagemaker", "describe_model_package_group", ModelPackageGroupName=wish.group):
        calls("sagemaker", "create_model_package_group", ModelPackageGroupName=wish.group)
    parameters: dict[str, Any] = {
        "PipelineName": name,
        "PipelineDefinition": definition(wish),
        "PipelineDescription": _DESCRIPTION,
        "RoleArn": wish.role,
    }
    if calls.find("sagemaker", "describe_pipeline", PipelineName=name):
        answer = calls("sagemaker", "update_pipeline", **parameters)
    else:  # SageMaker tells by the token that a call is made a second time
        token = hashlib.sha256(f"{name} {parameters['PipelineDefinition']}".encode()).hexdigest()
        answer = calls("sagemaker", "create_pipeline", ClientRequestToken=token, **parameters)
    return str(answer.get("PipelineArn", ""))


def schedule(calls: Calls, given: argparse.Namespace) -> str:
    """Have EventBridge start a pipeline regularly; the schedule's ARN, or nothing when calls are only printed.

    Raises:
        UserError: there is no such pipeline, or AWS refused.
    """
    region = calls.client("sagemaker").meta.region_name
    role = ROLE.fullmatch(given.scheduler_role)
    partition, account = role.groups() if role else ("aws", "")
    found = calls.find("sagemaker", "describe_pipeline", PipelineName=given.name)
    if not found and not calls.dry_run:
        raise UserError(f"there is no pipeline {given.name} in {region}: python -m pipelines.sagemaker upsert")
    arn = found.get("PipelineArn") or f"arn:{partition}:sagemaker:{region}:{account}:pipeline/{given.name.lower()}"
    target: dict[str, Any] = {"Arn": arn, "RoleArn": given.scheduler_role}
    if given.parameter:
        listed = [{"Name": name, "Value": value} for name, value in given.parameter]
        target["SageMakerPipelineParameters"] = {"PipelineParameterList": listed}
    if given.dead_letters:
        target["DeadLetterConfig"] = {"Arn": given.dead_letters}
    parameters: dict[str, Any] = {
        "Name": given.schedule_name or given.name,
        "ScheduleExpression": given.schedule,
        "ScheduleExpressionTimezone": given.timezone,
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "State": "DISABLED" if given.paused else "ENABLED",
        "Description": _DESCRIPTION,
        "Target": target,
    }
    there = calls.find("scheduler", "get_schedule", Name=parameters["Name"])
    answer = calls("scheduler", "update_schedule" if there else "create_schedule", **parameters)
    return str(answer.get("ScheduleArn", ""))


def _definition(given: argparse.Namespace, rest: Sequence[str]) -> None:
    print(definition(retraining(given, rest)))


def _upsert(given: argparse.Namespace, rest: Sequence[str]) -> None:
    wish = retraining(given, rest)
    if made := upsert(Calls(given.region, given.dry_run), given.name, wish):
        print(made)


def _schedule(given: argparse.Namespace, rest: Sequence[str]) -> None:
    check_schedule(given)
    if made := schedule(Calls(given.region, given.dry_run), given):
        print(made)


_ACTIONS: dict[str, Callable[[argparse.Namespace, Sequence[str]], None]] = {
    "definition": _definition,
    "upsert": _upsert,
    "schedule": _schedule,
}
