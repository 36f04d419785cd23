"""The worker processes of a pool, and the process that forks them, as the pool sees them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from runners.flink.fork_server import ENDED, READY

#: Seconds to load all modules, and for a worker to begin. The runner itself would wait without end.
START_PATIENCE = 50.0
_WORDS = "; its words are in the worker pool's log"


@dataclass
class Worker:
    """A worker that was ordered.

    Attributes:
        control: host and port of the runner it works for.
        settled: set when it is about to connect, or has ended.
        pid: of its process, once it is about to connect.
        code: that it ended with.
        missed: since when the runner's port has not answered, seconds of the monotonic clock.
    """

    control: tuple[str, int]
    settled: threading.Event = field(default_factory=threading.Event)
    pid: int = 0
    code: int | None = None
    missed: float | None = None

    @property
    def is_alive(self) -> bool:
        """Whether it has a process that goes on."""
        if not self.pid or self.code is not None:
            return False
        try:
            os.kill(self.pid, 0)  # who forked it may have ended, and cannot tell
        except ProcessLookupError:
            return False
        return True

    def end(self, number: signal.Signals) -> None:
        """Send its process a signal, if it has one."""
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class ForkServer:
    """The process that `runners.flink.fork_server` describes, and the workers it has forked."""

    def __init__(self, module: str = "runners.flink.fork_server") -> None:
        """Start it; what it and its workers write to standard error goes where the pool's own log goes."""
        argv = [sys.executable, "-m", module]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
        self._loaded, self._lock, self._count = threading.Event(), threading.Lock(), 0
        self._workers: dict[int, Worker] = {}
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def is_alive(self) -> bool:
        """Whether it can fork."""
        return self._process.poll() is None

    def start_worker(self, environment: Mapping[str, str], control: tuple[str, int]) -> Worker:
        """Have a worker forked, and wait till it is about to connect.

        Raises:
            ChildProcessError: the server, or the worker, ended first, or took too long.
        """
        if not self._loaded.wait(START_PATIENCE) or not self.is_alive:
            raise ChildProcessError(f"what forks the workers {self._end()} before it was ready{_WORDS}")
        worker = Worker(control)
        with self._lock:
            self._count += 1
            self._workers[self._count] = worker
            order = {"number": self._count, "environment": dict(environment)}
            stdin = self._process.stdin
            if stdin is None:
                raise ValueError("it is started with pipes to it")
            stdin.write(json.dumps(order) + "\n")
            stdin.flush()
        if not worker.settled.wait(START_PATIENCE):
            raise ChildProcessError(f"a Python worker was not ready in {START_PATIENCE:.0f} s{_WORDS}")
        if worker.code is not None:
            raise ChildProcessError(f"a Python worker ended with {worker.code} before it was ready{_WORDS}")
        return worker

    def _end(self) -> str:
        if self.is_alive:
            self._process.kill()
            return f"did not load in {START_PATIENCE:.0f} s"
        return f"ended with {self._process.wait()}"

    def _listen(self) -> None:
        for said in map(json.loads, self._process.stdout or ()):
            if READY in said:
                worker = self._workers[said[READY]]
                worker.pid = said["pid"]
                worker.settled.set()
            elif ENDED in said:
                worker = self._workers.pop(said[ENDED])
                worker.code = said["code"]
                worker.settled.set()
            else:
                self._loaded.set()
        code = self._process.wait()
        for worker in self._workers.values():
            if not worker.pid:  # those that work go on
                worker.code = code
                worker.settled.set()
        self._loaded.set()

    def close(self) -> None:
        """End its workers, and it."""
        every = list(self._workers.values())
        for worker in every:
            worker.end(signal.SIGTERM)
        deadline = time.monotonic() + 5
        while any(worker.is_alive for worker in every) and time.monotonic() < deadline:
            time.sleep(0.05)
        for worker in every:
            worker.end(signal.SIGKILL)
        self._process.kill()
        self._listener.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
