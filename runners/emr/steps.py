"""What EMR runs on the primary node: the command lines of Flink's client, as steps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transforms.errors import UserError

_NAMED = """set -euo pipefail
named() {  # the applications of a name that are in some states
    yarn application -list -appStates "$2" |
        awk -F '\\t' -v name="$1" '{ gsub(/ /, "", $1); gsub(/ /, "", $2) } $2 == name { print $1 }'
}
alive=NEW,NEW_SAVING,SUBMITTED,ACCEPTED,RUNNING
"""

#: Brings the jar, refuses another than the one that was packaged, and refuses a second job of the same name: both
#: would read the same records. Arguments: URL, sha256, name, then those of Flink's client.
RUN = f"""{_NAMED}
url="$1" sum="$2" name="$3"
shift 3
running=$(named "$name" "$alive")
if [ -n "$running" ]; then
    echo "error: $name runs already, as $running: stop it first, with a savepoint" >&2
    exit 2
fi
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
jar="$directory/fraud-detection.jar"
aws s3 cp --only-show-errors "$url" "$jar"
echo "$sum  $jar" | sha256sum --check --quiet
flink run-application "$@" "$jar"
"""

#: Stops the job of a name with a savepoint, and waits until its application is gone: another may follow at once.
#: Arguments: name, directory of the savepoint.
STOP = f"""{_NAMED}
name="$1" savepoints="$2"
application=$(named "$name" RUNNING)
if [ -z "$application" ]; then
    echo "error: no application $name runs" >&2
    exit 2
fi
at="-Dyarn.application.id=$application"
job=$(flink list -r -t yarn-application "$at" | grep -oE '[0-9a-f]{{32}}' | head -n 1 || true)
if [ -z "$job" ]; then
    echo "error: $application runs, but no job does in it: it is starting, or failing" >&2
    exit 2
fi
flink stop -t yarn-application "$at" --savepointPath "$savepoints" "$job"
for _ in $(seq 60); do
    left=$(named "$name" "$alive")
    [ -n "$left" ] || exit 0
    sleep 2
done
echo "error: $job has its savepoint, but $application does not end" >&2
exit 1
"""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SAVEPOINT = re.compile(r"(s3|hdfs)://\S+")


@dataclass(frozen=True)
class Job:
    """A job as it is handed to Flink's client.

    Attributes:
        name: of the YARN application; one job of a name runs at a time.
        flink: Flink's settings.
        savepoint: that it goes on from, or None.
        allow_non_restored_state: whether what the savepoint holds for transforms that are gone may be dropped.
    """

    name: str
    flink: Mapping[str, str]
    savepoint: str | None = None
    allow_non_restored_state: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UserError(f"--name: {self.name!r} is no name; use letters, digits, dots, dashes and underscores")
        if self.savepoint is not None and not _SAVEPOINT.fullmatch(self.savepoint):
            raise UserError(f"--savepoint: {self.savepoint!r} is not where the nodes could read it; give an s3:// URL")
        if self.allow_non_restored_state and self.savepoint is None:
            raise UserError("--allow_non_restored_state says something about a savepoint, and --savepoint names none")


def run_arguments(job: Job) -> list[str]:
    """The arguments of `flink run-application`, less the jar.

    Application mode: the job has a Flink cluster of its own, whose JobManager reads the jar. It is the mode that
    Flink's documentation recommends for production on YARN; `-m yarn-cluster`, which gives a job a cluster too, is
    deprecated since 1.15, and a session that several jobs share keeps the classes of each until it ends.
    `-d`: the client does not wait for the end of a job that has none.

    Example:
        >>> run_arguments(Job("fraud", {"parallelism.default": "4"}, "s3://fraud/savepoint-1"))[-3:]
        ['-Dparallelism.default=4', '-s', 's3://fraud/savepoint-1']
    """
    settings = {
        "yarn.application.name": job.name,
        # The jar holds classes of Flink, too: beside the cluster's own they would come first, here and there.
        "yarn.classpath.include-user-jar": "DISABLED",
        **job.flink,
    }
    restore = ["-s", job.savepoint] if job.savepoint else []
    drop = ["-n"] if job.allow_non_restored_state else []
    return ["-t", "yarn-application", "-d", *(f"-D{key}={value}" for key, value in settings.items()), *restore, *drop]


def run_step(job: Job, url: str, sha256: str) -> dict[str, Any]:
    """The step that starts a job from a jar in S3."""
    return _step(f"run {job.name}", ["bash", "-c", RUN, "run", url, sha256, job.name, *run_arguments(job)])


def stop_step(name: str, savepoints: str) -> dict[str, Any]:
    """The step that stops a job with a savepoint below a URL."""
    return _step(f"stop {name}", ["bash", "-c", STOP, "stop", name, savepoints])


def _step(name: str, arguments: list[str]) -> dict[str, Any]:
    return {
        "Name": name,
        "ActionOnFailure": "CONTINUE",  # a job that cannot be started is no reason to end the cluster
        "HadoopJarStep": {"Jar": "command-runner.jar", "Args": arguments},
    }
