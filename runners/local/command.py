"""The command: real servers on this machine, and what the pipeline has to be told to use them."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

from runners.local.ports import free_port
from runners.local.records import RECORD, Record, purge, read_record, stop_recorded
from runners.local.server import LOG_FILE, Server
from transforms.errors import UserError, did_you_mean

DIRECTORY = Path(".local-servers")
#: Name to class: the module is imported when the server is asked for, since it brings its client's library along.
SERVERS = {
    "kafka": "kafka.Kafka",
    "kafka-scram": "kafka_secure.KafkaScram",
    "kafka-oauth": "kafka_secure.KafkaOauth",
    "kinesis": "kinesis.Kinesis",
    "kinesis-local": "kinesis.KinesisLocal",
    "dynamodb": "dynamodb.DynamoDb",
    "postgres": "postgres.Postgres",
    "s3": "s3.S3",
    "lambda": "aws.Aws",
    "mlflow": "mlflow.MlflowServer",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command.

    Returns:
        Its exit code: 0, or 2 when what was asked for cannot be done.
    """
    given = _parser().parse_args(argv)
    action: Callable[[argparse.Namespace], None] = given.action
    try:
        action(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    names = ", ".join(SERVERS)
    parser = argparse.ArgumentParser(prog="python -m runners.local", description=f"{__doc__} Servers: {names}.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, action: Callable[[argparse.Namespace], None], help_text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help_text, description=help_text)
        command.add_argument("--directory", type=Path, default=DIRECTORY, help="of their data and logs (%(default)s)")
        command.set_defaults(action=action)
        return command

    up = add("up", _up, "start servers, as far as they do not run, and print how to use them")
    up.add_argument("names", nargs="+", metavar="NAME", type=_name, help=names)
    another = "another port than the usual one; 0: any that is free"
    up.add_argument("--port", action="append", default=[], metavar="NAME=PORT", type=_port, help=another)
    down = add("down", _down, "stop servers; their data stays, but for what dynamodb and lambda held")
    down.add_argument("names", nargs="*", metavar="NAME", type=_name, help="all that run, when none is named")
    down.add_argument("--purge", action="store_true", help="remove their data and logs, too")
    add("status", _status, "say which servers were started and whether they still run")
    logs = add("logs", _logs, "print the end of a server's log")
    logs.add_argument("names", nargs=1, metavar="NAME", type=_name)
    logs.add_argument("--lines", type=int, default=50, help="how many (%(default)s)")
    install = add("install", _install, "fetch servers without starting them")
    install.add_argument("names", nargs="+", metavar="NAME", type=_name, help=names)
    return parser


def _name(text: str) -> str:
    if text not in SERVERS:
        hint = did_you_mean(text, SERVERS) or f"; choose among {', '.join(SERVERS)}"
        raise argparse.ArgumentTypeError(f"there is no server {text!r}{hint}")
    return text


def _port(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not number.isdecimal() or int(number) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=PORT, with a port up to 65535")
    return _name(name), int(number)


def server_class(name: str) -> type[Server]:
    """The class of a server, by its name on the command line."""
    module, _, cls = SERVERS[name].partition(".")
    found: type[Server] = getattr(import_module(f"runners.local.{module}"), cls)
    return found


def _server(name: str, directory: Path, ports: Mapping[str, int]) -> Server:
    """At the port that is asked for, or else the one it had when it was started last, or else the usual one."""
    kind, place = server_class(name), directory / name
    if name in ports:
        return kind(place, ports[name] or free_port())
    record = read_record(place)
    return kind(place, record.port if record else kind.default_port)


def _up(given: argparse.Namespace) -> None:
    ports: dict[str, int] = dict(given.port)
    useless = next((name for name in ports if name not in given.names), None)
    if useless:
        raise UserError(f"--port {useless}={ports[useless]}: {useless} is not among the servers to start")
    servers = [_server(name, given.directory, ports) for name in dict.fromkeys(given.names)]
    for server in servers:
        was_running, began = server.is_running(), time.monotonic()
        server.start()
        how = "was running" if was_running else f"ready in {time.monotonic() - began:.1f} s"
        print(f"{server.name:<14}{server.address:<18}{how}", flush=True)
    _print_usage(servers)


def _print_usage(servers: Sequence[Server]) -> None:
    print()
    for server in servers:
        for flag, url in server.urls:
            print(flag, shlex.quote(url))
    variables: dict[str, str] = {}
    for server in servers:
        variables |= server.environment
    if variables:
        print()
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")


def _started(directory: Path) -> list[Record]:
    """Every server that was started and not stopped, in the order of their names."""
    found = [read_record(path.parent) for path in sorted(directory.glob(f"*/{RECORD}"))]
    return [record for record in found if record is not None]


def _down(given: argparse.Namespace) -> None:
    names = given.names or [name for name in SERVERS if (given.directory / name).is_dir()]
    for name in dict.fromkeys(names):
        directory = given.directory / name
        stopped = stop_recorded(directory)
        said = "stopped" if stopped else "was not running"
        if given.purge and directory.is_dir():
            purge(directory)
            said += ", data removed"
        print(f"{name:<14}{said}")


def _status(given: argparse.Namespace) -> None:
    records = _started(given.directory)
    for record in records:
        alive = record.process.is_alive()
        state = f"runs as process {record.pid}" if alive else f"died; `up {record.name}` brings it back"
        print(f"{record.name:<14}127.0.0.1:{record.port:<8}{state}")
    if not records:
        print(f"no server was started in {given.directory}")


def _logs(given: argparse.Namespace) -> None:
    (name,) = given.names
    path = given.directory / name / LOG_FILE
    if not path.exists():
        raise UserError(f"{name} has no log at {path}: it was never started there; --directory names another place")
    lines = path.read_text("utf-8", errors="replace").splitlines()
    print("\n".join(lines[-given.lines :] if given.lines > 0 else []))


def _install(given: argparse.Namespace) -> None:
    for name in dict.fromkeys(given.names):
        print(f"{name:<14}{server_class(name)(given.directory / name, 0).install()}", flush=True)
