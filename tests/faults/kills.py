"""What is done to a running job: processes are killed or paused, and come back a moment later."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import pairwise
from random import Random

import msgspec

from runners.local import Server
from runners.local.processes import descendants
from runners.local.records import read_record
from tests.faults.stream import Stream, wait_for

#: Longer than Flink waits for a sign of life, so that it gives up on whoever is silent.
PAUSE = 13.0
#: Seconds until a process that was killed is started again, as a resource manager or an init system does it.
MOMENT = 0.5

Repair = Callable[[], object]


class Recovery(msgspec.Struct, frozen=True):
    """How a job came over a fault. Times are seconds from the fault on.

    Attributes:
        fault, mid, parallelism: what happened, in the middle of what, to how many subtasks.
        first_decision: until a transaction was decided on that had not been before.
        silence: the longest time without such a decision until the job was abreast of the topic again.
    """

    fault: str
    mid: str
    parallelism: int
    first_decision: float
    silence: float


def _kill(server: Server) -> Repair:
    server.kill()
    return server.start


def _pause(server: Server) -> Repair:
    """Nobody hears of it for a while, as if the network were down, and then it goes on as if nothing had been."""
    record = read_record(server.directory)
    assert record is not None
    paused = [record.pid, *descendants(record.pid)]
    for pid in paused:
        os.kill(pid, signal.SIGSTOP)

    def go_on() -> None:
        time.sleep(PAUSE)
        for pid in paused:
            with suppress(ProcessLookupError):  # one that serves a connection ends with it
                os.kill(pid, signal.SIGCONT)

    return go_on


def kill_worker(stream: Stream, chance: Random) -> Repair:
    """A Python worker; the pool has others."""
    os.kill(chance.choice(stream.workers()), signal.SIGKILL)
    return lambda: None


def kill_taskmanager(stream: Stream, chance: Random) -> Repair:
    """A TaskManager that has tasks of the job."""
    return _kill(chance.choice(stream.busy_taskmanagers()))


def kill_jobmanager(stream: Stream, chance: Random) -> Repair:
    """The JobManager, of which there is one."""
    return _kill(stream.cluster.processes()["jobmanager"])


def kill_kafka(stream: Stream, chance: Random) -> Repair:
    """The broker."""
    return _kill(stream.kafka)


def kill_postgres(stream: Stream, chance: Random) -> Repair:
    """The database of the decisions."""
    return _kill(stream.postgres)


def kill_pool(stream: Stream, chance: Random) -> Repair:
    """The pool, and with it all Python workers."""
    return _kill(stream.cluster.processes()["workers"])


def pause_taskmanager(stream: Stream, chance: Random) -> Repair:
    """A TaskManager that has tasks of the job."""
    return _pause(chance.choice(stream.busy_taskmanagers()))


def pause_kafka(stream: Stream, chance: Random) -> Repair:
    """The broker."""
    return _pause(stream.kafka)


def pause_postgres(stream: Stream, chance: Random) -> Repair:
    """The database of the decisions."""
    return _pause(stream.postgres)


def pause_dynamodb(stream: Stream, chance: Random) -> Repair:
    """What keeps the decisions, and which alerts took effect."""
    return _pause(stream.dynamodb)


def pause_lambda(stream: Stream, chance: Random) -> Repair:
    """What runs the alert function, and what it tells subscribers by."""
    return _pause(stream.aws)


FAULTS: dict[str, Callable[[Stream, Random], Repair]] = {
    "worker killed": kill_worker,
    "TaskManager killed": kill_taskmanager,
    "JobManager killed": kill_jobmanager,
    "Kafka killed": kill_kafka,
    "PostgreSQL killed": kill_postgres,
    "worker pool killed": kill_pool,
    "TaskManager paused": pause_taskmanager,
    "Kafka paused": pause_kafka,
    "PostgreSQL paused": pause_postgres,
    "DynamoDB paused": pause_dynamodb,
    "Lambda paused": pause_lambda,
}


def strike(stream: Stream, fault: str, mid: str, chance: Random) -> Recovery:
    """Do it, bring back what was ended, and wait until the job is abreast of the topic again.

    Args:
        fault: one of `FAULTS`.
        mid: `bundle` or `checkpoint`, in whose middle; or `anything`.
        chance: chooses among processes of a kind.
    """
    with ExitStack() as meanwhile:
        if fault.startswith("Kafka"):
            meanwhile.enter_context(stream.traffic.paused())
        with ExitStack() as held_up:
            if mid != "anything":
                held_up.enter_context(stream.held_up(mid))
            before, _ = stream.progress()
            began = time.monotonic()
            repair = FAULTS[fault](stream, chance)
        watch = _Watch(stream, before, began)
        time.sleep(MOMENT)
        repair()
    repaired = time.time_ns() // 1000
    wait_for(lambda: stream.progress()[1] > repaired, f"decisions after: {fault}, mid-{mid}")
    return Recovery(fault, mid, stream.parallelism, *watch.stop())


@dataclass
class _Watch:
    """A thread that looks for new decisions."""

    stream: Stream
    before: int
    began: float

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._times = [self.began]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        seen, over = self.before, False
        while not over:
            over = self._over.wait(0.05)  # and then a last look: who waited may have seen what this has not
            count, _ = self.stream.progress()
            if count > seen:
                seen = count
                self._times.append(time.monotonic())

    def stop(self) -> tuple[float, float]:
        """How long until the first new decision, and the longest time between two."""
        self._over.set()
        self._thread.join()
        times = self._times
        gaps = [round(after - before, 1) for before, after in pairwise(times)]
        return gaps[0], max(gaps)
