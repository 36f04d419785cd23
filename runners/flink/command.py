"""A Flink cluster on this machine, and the jobs of any: the command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from runners.flink.cluster import (
    FlinkCluster,
    FlinkProcess,
    find_cluster,
    make_cluster,
    processes,
    purge_cluster,
    start_processes,
    stop_cluster,
)
from runners.flink.preset import DEFAULT_MASTER
from runners.flink.rest import FlinkRest
from runners.flink.submit import START_PATIENCE, submit
from runners.flink.versions import DEFAULT_FLINK, FLINK
from runners.local.ports import HOST
from runners.local.server import LOG_FILE
from transforms.errors import UserError

DIRECTORY = Path(".flink")


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
    parser = argparse.ArgumentParser(prog="python -m runners.flink", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, action: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--directory", type=Path, default=DIRECTORY, help="of the cluster (%(default)s)")
        command.set_defaults(action=action)
        return command

    _add_cluster_commands(add)
    _add_job_commands(add)
    return parser


def _add_cluster_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    up = add("up", _up, "start a cluster, as far as it does not run, and print how to use it")
    up.add_argument("--flink_version", default=None, choices=sorted(FLINK), help=f"({DEFAULT_FLINK})")
    up.add_argument("--taskmanagers", type=_count, default=None, help="how many (1)")
    up.add_argument("--slots", type=_count, default=None, help="of each TaskManager (2)")
    up.add_argument("--port", type=int, default=None, help="of Flink's REST interface (8081); 0: any that is free")
    up.add_argument("--workers_port", type=int, default=None, help="of the worker pool (50000); 0: any that is free")
    up.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        type=_setting,
        help="a Flink setting; repeatable",
    )
    down = add("down", _down, "stop the cluster; jobs that run on it go on when it is started again")
    down.add_argument("--purge", action="store_true", help="remove its jobs, checkpoints, savepoints and logs, too")
    add("status", _status, "say which processes run, and which jobs")
    logs = add("logs", _logs, "print the end of a process's log")
    logs.add_argument(
        "name", nargs="?", default="workers", help="zookeeper, jobmanager, taskmanager-1, workers (default)"
    )
    logs.add_argument("--lines", type=int, default=50, help="how many (%(default)s)")


def _add_job_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    def add_job(name: str, action: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        command = add(name, action, text)
        command.add_argument("--flink_master", metavar="HOST:PORT", help=f"the cluster ({DEFAULT_MASTER})")
        return command

    run = add_job("submit", _submit, "start the job of a jar that --output_executable_path wrote")
    run.add_argument("jar", type=Path)
    run.add_argument("--savepoint", metavar="URL", help="a savepoint or retained checkpoint to go on from")
    run.add_argument(
        "--allow_non_restored_state", action="store_true", help="drop state that no transform has any more"
    )
    run.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", type=_setting, help="a Flink setting of the job"
    )
    save = add_job("savepoint", _savepoint, "write a savepoint of a job that runs on, and print where it is")
    stop = add_job("stop", _stop, "stop a job with a savepoint, and print where it is")
    for command in (save, stop):
        command.add_argument("job", nargs="?", help="its id; the one that runs, when there is one only")
        command.add_argument("--to", metavar="URL", help="where savepoints go (where the cluster keeps them)")
    stop.add_argument("--cancel", action="store_true", help="at once and without a savepoint")


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 64")
    return int(text)


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form KEY=VALUE")
    return key.strip(), value.strip()


def _up(given: argparse.Namespace) -> None:
    before = find_cluster(given.directory)
    alive = [each for each in processes(given.directory, before) if each.is_running()] if before else []
    version = given.flink_version or (before.version if before else DEFAULT_FLINK)
    slots = given.slots or (before.slots if before else 2)
    settings = dict(given.set) or (before.settings if before else {})
    if alive and before and (before.version, before.slots, before.settings) != (version, slots, settings):
        raise UserError(
            f"a cluster of another kind runs in {given.directory} (Flink {before.version}, {before.slots} slots a "
            "TaskManager): python -m runners.flink down, first"
        )
    ports = {"rest": given.port, "workers": given.workers_port}
    cluster = make_cluster(
        given.directory,
        version,
        taskmanagers=given.taskmanagers or (before.taskmanagers if before else 1),
        slots=slots,
        ports={name: port for name, port in ports.items() if port is not None},
        settings=settings,
    )
    for process, seconds in start_processes(FlinkCluster(given.directory, cluster)):
        how = f"ready in {seconds:.1f} s" if seconds else "was running"
        print(f"{process.directory.name:<16}{process.address:<18}{how}", flush=True)
    _print_usage(cluster.ports)


def _print_usage(ports: dict[str, int]) -> None:
    print(f"\nhttp://{HOST}:{ports['rest']} shows its jobs. To run the pipeline on it:\n")
    flags = [f"--flink_master=localhost:{ports['rest']}"] if ports["rest"] != 8081 else []
    flags += [f"--environment_config=localhost:{ports['workers']}"] if ports["workers"] != 50_000 else []
    print(" ".join(["python -m pipelines.fraud --runner=FlinkRunner", *flags]))


def _down(given: argparse.Namespace) -> None:
    for name in stop_cluster(given.directory):
        print(f"{name:<16}stopped")
    if given.purge:
        purge_cluster(given.directory)


def _known(directory: Path) -> list[FlinkProcess]:
    cluster = find_cluster(directory)
    if cluster is None:
        raise UserError(f"no cluster was started in {directory}: python -m runners.flink up")
    return processes(directory, cluster)


def _status(given: argparse.Namespace) -> None:
    known = _known(given.directory)
    for process in known:
        state = "runs" if process.is_running() else "does not run; `python -m runners.flink up` brings it back"
        print(f"{process.directory.name:<16}{process.address:<18}{state}")
    rest = known[1].rest
    if not rest.is_ready():
        return
    total, free = rest.slots()
    print(f"\n{total - free} of {total} slots in use")
    for job in rest.jobs():
        print(f"{job['jid']}  {job['state']:<10}  {job['duration'] / 1000:>9,.0f} s  {job['name']}")


def _logs(given: argparse.Namespace) -> None:
    names = [process.directory.name for process in _known(given.directory)]
    path = given.directory / given.name / LOG_FILE
    if not path.exists():
        raise UserError(f"there is no log of {given.name!r} in {given.directory}; there are {', '.join(names)}")
    lines = path.read_text("utf-8", errors="replace").splitlines()
    print("\n".join(lines[-given.lines :] if given.lines > 0 else []))


def _rest(given: argparse.Namespace) -> FlinkRest:
    if given.flink_master:
        return FlinkRest(given.flink_master)
    cluster = find_cluster(given.directory)
    return FlinkRest(f"{HOST}:{cluster.ports['rest']}" if cluster else DEFAULT_MASTER)


def _job(given: argparse.Namespace, rest: FlinkRest) -> str:
    if given.job:
        return str(given.job)
    jobs = [job for job in rest.jobs() if job["state"] == "RUNNING"]
    if len(jobs) != 1:
        names = ", ".join(f"{job['jid']} ({job['name']})" for job in jobs)
        raise UserError(f"say which job: {names}" if jobs else f"no job runs on {rest.url}")
    return str(jobs[0]["jid"])


def _submit(given: argparse.Namespace) -> None:
    rest = _rest(given)
    job = submit(rest, given.jar, dict(given.set), given.savepoint, given.allow_non_restored_state)
    job.wait_until_running(START_PATIENCE)
    print(job.id)


def _savepoint(given: argparse.Namespace) -> None:
    rest = _rest(given)
    print(rest.savepoint(_job(given, rest), given.to))


def _stop(given: argparse.Namespace) -> None:
    rest = _rest(given)
    job = _job(given, rest)
    if given.cancel:
        rest.cancel(job)
    else:
        print(rest.savepoint(job, given.to, stop=True))
