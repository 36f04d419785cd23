"""The command line of `python -m runners.emr`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from transforms.errors import UserError

_NAME = "fraud-detection"
_INSTANCE_TYPE, _RELEASE = "m6i.xlarge", "emr-7.12.0"
TARGETS = ("emr", "emr-on-eks", "emr-serverless")


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes are UserErrors."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """What is asked for, and the flags of the pipeline, which only `package` takes.

    Raises:
        UserError: a flag that there is not, or a wrong value.
    """
    parser = _Parser(prog="python -m runners.emr", description="The pipeline on Amazon EMR; see docs/emr.md.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_package(commands)
    _add_cluster(commands)
    _add_submit(commands)
    _add_stop(commands)
    given, rest = parser.parse_known_args(argv)
    if rest and given.command != "package":
        raise UserError(f"{rest[0].partition('=')[0]} is no flag of {given.command}; see --help")
    return given, rest


def check_target(given: argparse.Namespace) -> None:
    """Refuse a target that does not run Flink jobs, and one that lacks what it needs.

    Raises:
        UserError: says what to use, or to give.
    """
    if given.target == "emr-serverless":
        raise UserError(
            "EMR Serverless takes Spark and Hive jobs only (sparkSubmit and hive are all that its StartJobRun knows): "
            "run Flink on EMR (--target emr) or on EMR on EKS (--target emr-on-eks)"
        )
    needed = {"emr": ("cluster_id",), "emr-on-eks": ("role", "worker_image")}[given.target]
    for name in needed:
        if not getattr(given, name):
            flag = "--cluster-id" if name == "cluster_id" else f"--{name}"
            raise UserError(f"--target {given.target} needs {flag}")


def pair(text: str) -> tuple[str, str]:
    """A name and a value.

    Example:
        >>> pair("heartbeat.timeout=20000")
        ('heartbeat.timeout', '20000')
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name.strip(), value.strip()


def _add_package(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = _add(commands, "package", "make the job's jar and what nodes install; takes the pipeline's flags, too")
    command.add_argument(
        "--instance_type",
        default=_INSTANCE_TYPE,
        help="of the nodes, whose processors count (%(default)s)",
    )
    command.add_argument("--slots", type=_count, default=2, help="of a node's TaskManager (%(default)s)")
    command.add_argument(
        "--allow_local",
        action="store_true",
        help="let files and servers of this machine through, to try the package on a cluster of its own",
    )


def _add_cluster(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = _add(commands, "cluster", "create a cluster whose nodes have what a package's job needs")
    _add_aws(command)
    command.add_argument("--bucket", required=True, metavar="URL", help="s3://bucket/prefix that artefacts are kept in")
    command.add_argument("--subnet", required=True, metavar="ID", help="where the cluster lies, a private one")
    command.add_argument("--instance_profile", required=True, metavar="ROLE", help="of the nodes; see docs/emr.md")
    command.add_argument("--service_role", required=True, metavar="ROLE", help="of EMR itself")
    command.add_argument("--release", default=_RELEASE, help="of EMR (%(default)s)")
    command.add_argument("--instance_type", default=_INSTANCE_TYPE, help="of all nodes (%(default)s)")
    command.add_argument("--nodes", type=_count, help="core nodes (as many as the job's parallelism needs)")
    command.add_argument("--primaries", type=int, choices=(1, 3), default=1, help="primary nodes (%(default)s)")
    command.add_argument("--worker_memory", type=_count, default=1536, help="MiB for a Python worker (%(default)s)")
    command.add_argument("--node_memory", type=_count, help="MiB of a node, where its type does not say")
    command.add_argument("--logs", metavar="URL", help="where EMR keeps logs (BUCKET/logs)")
    command.add_argument("--security_configuration", metavar="NAME", help="EMR's, for encryption")
    for flag, text in (("--environment", "a variable of the workers, no secret"), ("--tag", "of the cluster")):
        text = f"{text}; may be repeated"
        command.add_argument(flag, action="append", default=[], type=pair, metavar="NAME=VALUE", help=text)


def _add_submit(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = _add(commands, "submit", "start a package's job on a cluster")
    _add_aws(command)
    command.add_argument("--target", choices=TARGETS, default=TARGETS[0], help="what runs it (%(default)s)")
    command.add_argument("--cluster-id", "--cluster_id", metavar="j-ID", help="of the cluster")
    command.add_argument("--bucket", required=True, metavar="URL", help="s3://bucket/prefix that artefacts are kept in")
    command.add_argument("--state", metavar="URL", help="where checkpoints and savepoints go (BUCKET/state/NAME)")
    command.add_argument("--savepoint", metavar="URL", help="that the job goes on from")
    command.add_argument(
        "--allow_non_restored_state", action="store_true", help="drop state of transforms that are gone"
    )
    command.add_argument(
        "--set", action="append", default=[], type=pair, metavar="KEY=VALUE", help="a Flink setting; may be repeated"
    )
    command.add_argument("--wait", action="store_true", help="until YARN runs it")
    command.add_argument("--release", default=_RELEASE, help="of EMR on EKS (%(default)s)")
    command.add_argument("--role", metavar="ARN", help="on EKS: the job's IAM role")
    command.add_argument("--worker_image", metavar="IMAGE", help="on EKS: with the project installed")
    command.add_argument("--worker_memory", type=_count, default=1536, help="on EKS: MiB for a worker (%(default)s)")


def _add_stop(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = _add(commands, "stop", "stop a job with a savepoint")
    _add_aws(command)
    command.add_argument("--cluster-id", "--cluster_id", metavar="j-ID", required=True, help="of the cluster")
    command.add_argument("--savepoints", metavar="URL", required=True, help="s3://bucket/prefix that it goes below")
    command.add_argument("--wait", action="store_true", help="until it is written, and print where it is")


def _add(commands: argparse._SubParsersAction[_Parser], name: str, text: str) -> _Parser:
    command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    if name != "stop":
        jar = Path("dist", f"{_NAME}.jar")
        command.add_argument("--jar", type=Path, default=jar, help="of the package (%(default)s)")
    return command


def _add_aws(command: _Parser) -> None:
    command.add_argument("--name", default=_NAME, help="of the cluster, or of the job (%(default)s)")
    command.add_argument("--region", help="of AWS (as configured)")
    command.add_argument(
        "--dry_run", action="store_true", help="print the calls of AWS, a line of JSON each; make none"
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)
