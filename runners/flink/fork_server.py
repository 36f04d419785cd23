"""A process with everything loaded that forks Beam's workers: `python -m runners.flink.fork_server`.

Loading Beam, the libraries and the pipeline's own modules takes seconds, and hundreds of megabytes; a fork has both at
once, and shares the memory. The pool gives orders, lines of JSON on standard input: a number and an environment. On
standard output a line says that all is loaded, that the worker of a number is about to connect, or how it ended.
Nothing here starts a thread of Python's or anything of gRPC's, which a fork would break.
"""

from __future__ import annotations

import gc
import json
import os
import select
import sys
import traceback
from importlib import import_module
from typing import Any

#: What a worker of the fraud pipeline runs.
_PRELOADED = (
    "runners.flink.options",
    "pipelines.fraud",
    "pipelines.outputs",
    "transforms.history_kernels",
    "io_connectors.kafka.read",
    "io_connectors.kafka.write",
    "io_connectors.kafka.confluent",
    "io_connectors.kafka.confluent_producer",
    "onnxruntime",
    "apache_beam.io",
    "apache_beam.runners.worker.sdk_worker_main",
)
LOADED, READY, ENDED = "loaded", "ready", "ended"
#: The variable that says where to run, if anywhere in particular.
DIRECTORY = "WORKER_DIRECTORY"
#: Seconds between two looks for workers that have ended.
_LOOK_EVERY = 0.2


def main() -> None:
    """Load, fork a worker for each order until the pool hangs up, and in each of them work until the runner does."""
    _load()
    _say({LOADED: os.getpid()})
    order = _fork_workers()
    if order is None:
        return
    code = 1
    try:
        _work(order)
        code = 0
    except BaseException:  # whatever it was, the process ends with it
        traceback.print_exc()
    finally:
        # Not as Python ends: libraries would wait for threads of theirs that only the server has.
        sys.stderr.flush()
        os._exit(code)


def _load() -> None:
    for module in _PRELOADED:
        import_module(module)
    from pipelines.warm_up import warm_up
    from runners.flink.bundle_metrics import report_own_metrics
    from runners.flink.state_cache import weigh_by_bytes
    from runners.flink.state_commits import commit_together
    from runners.garbage import collect_seldom
    from runners.kept_signatures import keep_signatures

    warm_up()
    weigh_by_bytes()
    commit_together()
    keep_signatures()
    report_own_metrics()
    gc.collect()
    gc.freeze()  # the collector would touch, and so copy, what forks share
    collect_seldom()


def _say(what: dict[str, int]) -> None:
    line = json.dumps(what).encode() + b"\n"
    os.write(sys.stdout.fileno(), line)  # whole, however many processes write


def _fork_workers() -> dict[str, Any] | None:
    """In a worker its order; nothing in the server when the pool has ended, whose workers end with their runners."""
    orders, begun, numbers = sys.stdin.fileno(), b"", dict[int, int]()
    try:
        while True:
            if select.select([orders], [], [], _LOOK_EVERY)[0]:
                data = os.read(orders, 1 << 16)
                if not data:
                    return None
                *lines, begun = (begun + data).split(b"\n")
                for order in map(json.loads, lines):
                    pid = os.fork()
                    if not pid:
                        return dict(order)
                    numbers[pid] = order["number"]
            while numbers:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    break
                _say({ENDED: numbers.pop(pid), "code": os.waitstatus_to_exitcode(status)})
    except BrokenPipeError:
        return None


def _work(order: dict[str, Any]) -> None:
    from apache_beam.runners.worker import sdk_worker_main

    os.environ.update(order["environment"])
    if os.environ[DIRECTORY]:
        os.chdir(os.environ[DIRECTORY])
    _say({READY: order["number"], "pid": os.getpid()})
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), sys.stdin.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the pool reads there; prints go to its log
    sdk_worker_main.main([])


if __name__ == "__main__":
    main()
