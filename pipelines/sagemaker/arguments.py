"""The command line of `python -m pipelines.sagemaker`, every value checked before a call is made."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pipelines.sagemaker.definition import APPROVAL, APPROVALS, DATA, INSTANCE, LABELS, Retraining
from pipelines.sagemaker.train import refuse_given
from pipelines.training.__main__ import check
from runners.emr.arguments import pair
from runners.emr.bucket import parse_prefix
from transforms.durations import parse_duration
from transforms.errors import UserError

_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_SCHEDULE_NAME = re.compile(r"[0-9a-zA-Z_.-]{1,64}")
ROLE = re.compile(r"arn:(aws[a-z-]*):iam::(\d{12}):role/[\w+=,.@/-]+", re.ASCII)
_QUEUE = re.compile(r"arn:aws[a-z-]*:sqs:[a-z0-9-]+:\d{12}:[\w-]+", re.ASCII)
_INSTANCE = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9]+")
_SCHEDULE = re.compile(
    r"rate\([1-9]\d* (minutes?|hours?|days?)\)|cron\(\S+( \S+){5}\)|at\(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\)"
)
#: SageMaker takes no longer argument of a container, and no more of them.
_MOST_LETTERS, _MOST_WORDS = 256, 100
#: Flags of training that may name a file, which lies on this machine and in no container.
_FILES = ("--schema", "--features")


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes are UserErrors."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """What is asked for, and the flags of training, which `definition` and `upsert` take.

    Raises:
        UserError: a flag that there is not, or a wrong value.
    """
    parser = _Parser(
        prog="python -m pipelines.sagemaker",
        description="Scheduled retraining by a SageMaker pipeline; see docs/sagemaker.md.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("definition", "write the pipeline's definition; takes the flags of training, too"),
        ("upsert", "create the pipeline, or bring it up to date; takes the flags of training, too"),
    ):
        _add_pipeline(_add(commands, name, text), calls=name == "upsert")
    _add_schedule(_add(commands, "schedule", "have EventBridge start the pipeline regularly"))
    given, rest = parser.parse_known_args(argv)
    if rest and given.command == "schedule":
        raise UserError(f"{rest[0].partition('=')[0]} is no flag of {given.command}; see --help")
    _matches("--name", given.name, _NAME, "letters, digits and '-', 63 at most")
    return given, rest


def retraining(given: argparse.Namespace, rest: Sequence[str]) -> Retraining:
    """The pipeline that is asked for.

    Args:
        given: flags of `definition` or `upsert`.
        rest: flags of training.

    Raises:
        UserError: names the flag, and what is wrong with it.
    """
    _matches("--role", given.role, ROLE, "a role's ARN, arn:aws:iam::111122223333:role/NAME")
    _matches("--instance_type", given.instance_type, _INSTANCE, "one of SageMaker's, such as ml.m5.2xlarge")
    if given.group is not None:
        _matches("--group", given.group, _NAME, "letters, digits and '-', 63 at most")
    if bool(given.subnet) != bool(given.security_group):
        raise UserError("--subnet and --security_group go together: give both, or neither")
    if given.gate_delay is not None:
        parse_duration(given.gate_delay)
    if not re.fullmatch(r"[\w.-]+(:\d+)?/[\w./-]+(:[\w.-]+|@sha256:[0-9a-f]{64})", given.image, re.ASCII):
        raise UserError(
            f"--image must be REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST; found {given.image!r}. A digest never "
            "means another image later"
        )
    return Retraining(
        role=given.role,
        image=given.image,
        data=str(parse_prefix(given.data, "--data")),
        labels=str(parse_prefix(given.labels, "--labels")) if given.labels else None,
        registry=str(parse_prefix(given.registry, "--registry")),
        output=str(parse_prefix(given.output, "--output")),
        training=_training(rest, given.name),
        group=given.group,
        instance_type=given.instance_type,
        volume_gb=given.volume,
        hours=given.hours,
        subnets=tuple(given.subnet),
        security_groups=tuple(given.security_group),
        kms_key=given.kms_key,
        gate_delay=given.gate_delay,
    )


def check_schedule(given: argparse.Namespace) -> None:
    """Refuse a schedule that EventBridge would not take.

    Raises:
        UserError: names the flag.
    """
    _matches("--scheduler_role", given.scheduler_role, ROLE, "a role's ARN, arn:aws:iam::111122223333:role/NAME")
    _matches("--schedule_name", given.schedule_name or given.name, _SCHEDULE_NAME, "letters, digits, '-', '_' and '.'")
    what = "'rate(7 days)' or 'cron(0 3 ? * MON *)': minute, hour, day, month, day of the week, year"
    _matches("--schedule", given.schedule, _SCHEDULE, what)
    if given.dead_letters is not None:
        _matches(
            "--dead_letters", given.dead_letters, _QUEUE, "the ARN of a queue, arn:aws:sqs:REGION:111122223333:NAME"
        )
    known = (DATA, LABELS, INSTANCE, APPROVAL)
    for name, value in given.parameter:
        if name not in known:
            raise UserError(f"--parameter {name}: the pipeline has {', '.join(known)}")
        if name == APPROVAL and value not in APPROVALS:
            raise UserError(f"--parameter {name} must be one of {', '.join(APPROVALS)}; found {value!r}")
        if name in (DATA, LABELS):
            parse_prefix(value, f"--parameter {name}")


def _training(rest: Sequence[str], name: str) -> tuple[str, ...]:
    """The flags of training, which must make sense here as they will there."""
    refuse_given(rest)
    words = tuple(rest)
    if not any(word.split("=")[0] == "--name" for word in words):
        words += ("--name", name.lower())
    for flag in _FILES:
        for at, word in enumerate(words):
            value = word.partition("=")[2] if word.startswith(f"{flag}=") else "".join(words[at + 1 : at + 2])
            if word.split("=")[0] == flag and ("/" in value or Path(value).suffix == ".toml"):
                raise UserError(
                    f"{flag} {value} is a file of this machine, which no container has: put it among the shipped ones "
                    "(transforms/schemas, transforms/feature_sets), make the image, and give its name"
                )
    check([*words, "--source", "simulator:", "--output", "model"])
    long = [word for word in words if len(word) > _MOST_LETTERS]
    if long or len(words) > _MOST_WORDS:
        raise UserError(
            f"SageMaker takes {_MOST_WORDS} arguments of {_MOST_LETTERS} letters; found {(long or words)[0]}"
        )
    return words


def _matches(flag: str, value: str, pattern: re.Pattern[str], what: str) -> None:
    if not pattern.fullmatch(value):
        raise UserError(f"{flag} must be {what}; found {value!r}")


def _add_pipeline(command: argparse.ArgumentParser, calls: bool) -> None:
    command.add_argument("--role", required=True, metavar="ARN", help="that the pipeline and its jobs have")
    command.add_argument("--image", required=True, metavar="URI", help="of the containers; see docs/sagemaker.md")
    command.add_argument("--data", required=True, metavar="URL", help="s3://bucket/prefix of the transactions")
    command.add_argument("--labels", metavar="URL", help="s3://bucket/prefix of labels that arrive apart from these")
    command.add_argument("--registry", required=True, metavar="URL", help="s3://bucket/prefix of the models' registry")
    command.add_argument("--output", required=True, metavar="URL", help="s3://bucket/prefix for what jobs write")
    command.add_argument("--group", metavar="NAME", help="SageMaker's group of model packages to register in, too")
    command.add_argument("--instance_type", default="ml.m5.2xlarge", metavar="TYPE", help="of the jobs (%(default)s)")
    command.add_argument("--volume", type=_count, default=50, metavar="GB", help="of a job's disk (%(default)s)")
    command.add_argument("--hours", type=_count, default=6, help="after which a job is stopped (%(default)s)")
    command.add_argument("--gate_delay", metavar="SPAN", help="until labels are known (as the champion was trained)")
    command.add_argument("--kms_key", metavar="ID", help="for disks and what is written")
    for flag, text in (("--subnet", "where the jobs run"), ("--security_group", "of the jobs there")):
        command.add_argument(flag, action="append", default=[], metavar="ID", help=f"{text}; may be repeated")
    if calls:
        _add_aws(command)


def _add_schedule(command: argparse.ArgumentParser) -> None:
    command.add_argument("--schedule", required=True, metavar="WHEN", help="'rate(7 days)' or 'cron(0 3 ? * MON *)'")
    command.add_argument("--timezone", default="UTC", metavar="NAME", help="of a cron (%(default)s)")
    command.add_argument("--scheduler_role", required=True, metavar="ARN", help="that may start the pipeline")
    command.add_argument("--schedule_name", metavar="NAME", help="of the schedule (the pipeline's)")
    command.add_argument("--dead_letters", metavar="ARN", help="queue for starts that EventBridge gave up")
    command.add_argument("--paused", action="store_true", help="keep the schedule, but start nothing")
    command.add_argument(
        "--parameter", action="append", default=[], type=pair, metavar="NAME=VALUE", help="of each execution"
    )
    _add_aws(command)


def _add_aws(command: argparse.ArgumentParser) -> None:
    command.add_argument("--region", help="of AWS (as configured)")
    command.add_argument("--dry_run", action="store_true", help="print the calls of AWS instead of making them")


def _add(commands: argparse._SubParsersAction[_Parser], name: str, text: str) -> _Parser:
    command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    command.add_argument("--name", default="fraud-retraining", help="of the pipeline (%(default)s)")
    return command


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on; found {text!r}")
    return int(text)
