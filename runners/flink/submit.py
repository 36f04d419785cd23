"""Jobs on a Flink cluster: started from a jar, watched until their workers run, and waited for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runners.flink.package import packaged_configuration
from runners.flink.rest import ENDED, FlinkError, FlinkRest

#: Seconds that a job has until all its tasks run: they wait for the Python workers without an end of their own.
START_PATIENCE = 60.0
#: What Flink says of a savepoint with state that nothing asks for.
_NOT_MAPPED = "Cannot map checkpoint/savepoint state"
_STARTING = frozenset(("CREATED", "SCHEDULED", "DEPLOYING", "INITIALIZING"))


@dataclass(frozen=True)
class FlinkJob:
    """A job of a cluster.

    Attributes:
        rest: the cluster.
        id: Flink's name for the job.
        clock, sleep: of the watching.
    """

    rest: FlinkRest
    id: str
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    @property
    def url(self) -> str:
        """Its page in Flink's own interface."""
        return f"{self.rest.url}/#/job/running/{self.id}/overview"

    def state(self) -> str:
        """Flink's word for the state it is in."""
        return str(self.rest.job(self.id)["state"])

    def wait_until_running(self, patience: float = START_PATIENCE) -> None:
        """Wait until every task runs or is over.

        A stream's tasks run once their workers have connected. Flink calls tasks of input that ends running before
        that: of those only what fails is seen here.

        Raises:
            FlinkError: the job failed, or some tasks did not start in time; the job is cancelled then.
        """
        deadline = self.clock() + patience
        while True:
            job = self.rest.job(self.id)
            self._refuse_failed(job)
            waiting = [vertex["name"] for vertex in job["vertices"] if vertex["status"] in _STARTING]
            if job["state"] in ENDED or (job["state"] == "RUNNING" and not waiting):
                return
            if self.clock() > deadline:
                raise self._not_started(job, waiting, patience)
            self.sleep(0.2)

    def _not_started(self, job: Mapping[str, Any], waiting: list[str], patience: float) -> FlinkError:
        cause = self.rest.root_cause(self.id)
        with contextlib.suppress(FlinkError):  # what it could not start is what matters
            self.rest.cancel(self.id)
        total, free = self.rest.slots()
        why = cause or (
            f"no slot is free: it needs {_slots_needed(job)}, {free} of {total} are free; cancel another job or start "
            "more TaskManagers (python -m runners.flink up --taskmanagers N)"
            if free < _slots_needed(job) and any(vertex["status"] == "SCHEDULED" for vertex in job["vertices"])
            else "their Python workers did not connect: look at the worker pool's log (python -m runners.flink logs)"
        )
        return FlinkError(
            f"job {self.id} was cancelled: after {patience:.0f} s {len(waiting)} of {len(job['vertices'])} stages did "
            f"not run, the first of them {waiting[0][:80] if waiting else '-'}: {why}"
        )

    def wait_until_finish(self) -> str:
        """Wait for its end; the state it ended in.

        Raises:
            FlinkError: it failed.
        """
        while True:
            job = self.rest.job(self.id)
            self._refuse_failed(job)
            if job["state"] in ENDED:
                return str(job["state"])
            self.sleep(0.5)

    def _refuse_failed(self, job: Mapping[str, Any]) -> None:
        if job["state"] == "FAILED":
            raise FlinkError(f"job {self.id} failed on Flink: {self.rest.root_cause(self.id)}")

    def tally(self) -> dict[str, int]:
        """What the pipeline's counters have come to so far, named as `transforms.tally` has them."""
        found = self.rest.counters(self.id)
        return {name.removeprefix("records."): count for name, count in found.items()}

    def cancel(self) -> None:
        """End it without a savepoint."""
        self.rest.cancel(self.id)


def _slots_needed(job: Mapping[str, Any]) -> int:
    return max((int(vertex["parallelism"]) for vertex in job["vertices"]), default=1)


def submit(
    rest: FlinkRest,
    jar: Path,
    configuration: Mapping[str, str] | None = None,
    savepoint: str | None = None,
    allow_non_restored_state: bool = False,
) -> FlinkJob:
    """Start the job of a jar on a cluster.

    Args:
        rest: the cluster.
        jar: as `package` writes it.
        configuration: Flink settings over those that the jar brings.
        savepoint: a savepoint or a retained checkpoint to go on from.
        allow_non_restored_state: whether state that nothing asks for may be dropped.

    Raises:
        UserError: there is no such jar, or the cluster refused.
    """
    settings = {**packaged_configuration(jar), **(configuration or {})}
    uploaded = rest.upload(jar)
    try:
        return FlinkJob(rest, rest.run(uploaded, settings, savepoint, allow_non_restored_state))
    except FlinkError as error:
        if _NOT_MAPPED not in str(error):
            raise
        raise FlinkError(
            f"{savepoint} holds state of a transform that this version does not have, or has under another name: bring "
            "it back (a sink, a stage, alerts.suppress, pipeline.deduplicate), or drop its state for good with "
            f"--allow_non_restored_state; docs/upgrades.md says what state that can be. Flink's words: {error}"
        ) from error
    finally:
        with contextlib.suppress(FlinkError):  # it takes room on the cluster, and is in nobody's way
            rest.delete(uploaded)
