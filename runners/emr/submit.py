"""A package on a cluster that runs: checked against it, uploaded, added as a step, and watched until it is accepted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runners.emr.artefacts import Package
from runners.emr.bucket import Prefix, parse_prefix, upload
from runners.emr.calls import Calls
from runners.emr.cluster import check_release
from runners.emr.steps import Job, run_step, stop_step
from transforms.errors import UserError

_ENDED = ("COMPLETED", "CANCELLED", "FAILED", "INTERRUPTED")


@dataclass(frozen=True)
class Patience:
    """How a step is waited for.

    Attributes:
        seconds: after which waiting ends.
        every: seconds between two looks.
        sleep, clock: waits; seconds of a clock that never goes back.
    """

    seconds: float = 900.0
    every: float = 5.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


def submit(calls: Calls, package: Package, place: Prefix, cluster: str, job: Job) -> str:
    """Add the step that starts a package's job; the step's id, or nothing when calls are only printed.

    Args:
        calls: of AWS.
        package: with the jar.
        place: where artefacts are kept.
        cluster: its id, such as `j-2AXXXXXXGAPLF`.
        job: how the jar is run.

    Raises:
        UserError: the cluster does not run, or its nodes have other code or another Flink than the jar needs.
    """
    check_cluster(calls, package, cluster)
    upload(calls, place, [package.sums, *package.nodes, package.jar])
    step = run_step(job, place.url(package.jar), package.jar.sha256)
    return _add(calls, cluster, step)


def stop(calls: Calls, cluster: str, name: str, savepoints: str, now: datetime | None = None) -> tuple[str, Prefix]:
    """Add the step that stops a job with a savepoint.

    Args:
        calls: of AWS.
        cluster: its id.
        name: of the job.
        savepoints: `s3://bucket/prefix`, below which the savepoint gets a place of its own.
        now: the time, which gives that place its name.

    Returns:
        The step's id, and the place.

    Raises:
        UserError: what was given is no place in S3, or AWS refused.
    """
    below = parse_prefix(savepoints, "--savepoints")
    moment = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
    place = Prefix(below.bucket, f"{below.prefix}/{name}-{moment}".lstrip("/"))
    return _add(calls, cluster, stop_step(name, str(place))), place


def find_savepoint(calls: Calls, place: Prefix) -> str:
    """The savepoint that a step has left in a place of its own.

    Raises:
        UserError: there is none.
    """
    listed = calls("s3", "list_objects_v2", Bucket=place.bucket, Prefix=f"{place.prefix}/")
    keys = [str(each["Key"]) for each in listed.get("Contents", ())]
    found = [key.removesuffix("/_metadata") for key in keys if key.endswith("/_metadata")]
    if not found:
        raise UserError(f"there is no savepoint in {place}; the step's log says why")
    return f"s3://{place.bucket}/{found[0]}"


def check_cluster(calls: Calls, package: Package, cluster: str) -> None:
    """Refuse a cluster that would run the job with something else than it was made with.

    Raises:
        UserError: says what differs.
    """
    described = calls("emr", "describe_cluster", ClusterId=cluster)
    actions = calls("emr", "list_bootstrap_actions", ClusterId=cluster)
    if calls.dry_run:
        return
    about: dict[str, Any] = described["Cluster"]
    state = about["Status"]["State"]
    if state not in ("RUNNING", "WAITING"):
        raise UserError(f"cluster {cluster} is {state}: it takes steps once it is WAITING")
    check_release(about.get("ReleaseLabel", ""), package.description.flink_version)
    if "flink" not in [each["Name"].lower() for each in about.get("Applications", ())]:
        raise UserError(f"cluster {cluster} has no Flink: create one with python -m runners.emr cluster")
    arguments = [word for action in actions.get("BootstrapActions", ()) for word in action.get("Args", ())]
    if package.sums.sha256 not in arguments:
        raise UserError(
            f"the nodes of cluster {cluster} have not installed what this package was made with "
            f"({package.sums.sha256[:12]}): other code would read the job's state. Create a cluster for it "
            "(python -m runners.emr cluster), stop the old job with a savepoint, and start this one from it"
        )


def wait_for_step(calls: Calls, cluster: str, step: str, patience: Patience | None = None) -> None:
    """Wait until a step has done what it is there for: until YARN runs the application, or the job has stopped.

    Raises:
        UserError: it failed, with EMR's reason, or took too long.
    """
    patience = patience or Patience()
    deadline = patience.clock() + patience.seconds
    while True:
        status = calls("emr", "describe_step", ClusterId=cluster, StepId=step)["Step"]["Status"]
        if status["State"] in _ENDED:
            break
        if patience.clock() >= deadline:
            raise UserError(f"step {step} is still {status['State']} after {patience.seconds:.0f} s; it goes on")
        patience.sleep(patience.every)
    if status["State"] != "COMPLETED":
        details = status.get("FailureDetails", {})
        said = [details[key] for key in ("Reason", "Message", "LogFile") if details.get(key)]
        said = said or [status.get("StateChangeReason", {}).get("Message") or "EMR gives no reason"]
        raise UserError(f"step {step} ended as {status['State']}: {'; '.join(said)}")


def _add(calls: Calls, cluster: str, step: dict[str, Any]) -> str:
    added = calls("emr", "add_job_flow_steps", JobFlowId=cluster, Steps=[step])
    return str(added["StepIds"][0]) if added else ""
