"""The pool that starts Beam's Python workers on a node when Flink asks: `python -m runners.flink.worker_pool`.

Beam has one of its own (`apache_beam.runners.worker.worker_pool_main`). This one differs where that one hurts: it
listens on the loopback interface only, runs the Python it runs itself, passes the pipeline's options on (state cache,
log levels), answers only when the worker is there, with the reason when it is not, and forks workers off
a process that has everything loaded, so that a job that starts, or starts again, does not wait for imports.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
)
from google.protobuf import json_format, text_format

from runners.flink.fork_server import DIRECTORY
from runners.flink.workers import ForkServer, Worker
from runners.local.ports import HOST
from transforms.errors import UserError

_LOGGER = logging.getLogger(__name__)
_OPTION = "beam:option:{}:v1"
#: Seconds between two looks at the workers, and how long a worker may outlive the runner it worked for.
LOOK_EVERY, ORPHAN_PATIENCE = 2.0, 10.0


@dataclass
class Pool(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """The service, as Beam's runners call it.

    Attributes:
        fork: starts what forks the workers.
    """

    fork: Callable[[], ForkServer] = ForkServer
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _server: ForkServer | None = None
    _working: dict[str, list[Worker]] = field(default_factory=dict)
    _closed: bool = False

    def StartWorker(self, request: Any, context: Any) -> Any:  # noqa: N802 - Beam's name
        """Start one worker, and answer when it is there."""
        try:
            self._start(request)
            problem = ""
        except (grpc.RpcError, OSError, ValueError) as error:
            problem = f"the worker pool cannot start a worker: {type(error).__name__}: {error}"
            _LOGGER.error("%s", problem)
        return beam_fn_api_pb2.StartWorkerResponse(error=problem)

    def StopWorker(self, request: Any, context: Any) -> Any:  # noqa: N802 - Beam's name
        """Take note: a worker ends by itself when its runner hangs up, and is ended if it does not.

        Runners on one machine give their workers the same names, so the name says too little to end one at once.
        """
        _LOGGER.info("worker %s is not needed any more", request.worker_id)
        return beam_fn_api_pb2.StopWorkerResponse()

    def _start(self, request: Any) -> None:
        environment = worker_environment(request)
        worker = self._fork_server().start_worker(environment, _host_and_port(request.control_endpoint.url))
        with self._lock:
            self._working.setdefault(request.worker_id, []).append(worker)
        _LOGGER.info("worker %s is process %d", request.worker_id, worker.pid)

    def _fork_server(self) -> ForkServer:
        """What forks the workers; another one, when it has ended."""
        with self._lock:
            if self._closed:
                raise ChildProcessError("the pool is being closed")
            if self._server is None or not self._server.is_alive:
                self._server = self.fork()
            return self._server

    def look(self, now: float) -> None:
        """Have a server that forks, note which workers have ended, and end those whose runner is gone."""
        self._fork_server()
        with self._lock:
            for name, workers in list(self._working.items()):
                self._working[name] = [worker for worker in workers if not _has_ended(name, worker, now)]
                if not self._working[name]:
                    del self._working[name]

    def close(self) -> None:
        """End every worker."""
        with self._lock:
            self._closed = True
        for worker in [worker for workers in self._working.values() for worker in workers]:
            worker.end(signal.SIGTERM)
        if self._server is not None:
            self._server.close()


def _has_ended(name: str, worker: Worker, now: float) -> bool:
    if not worker.is_alive:
        _LOGGER.info("worker %s, process %d, ended with %s", name, worker.pid, worker.code)
        return True
    if _is_listening(worker.control):
        worker.missed = None
    elif worker.missed is None:
        worker.missed = now
    elif now - worker.missed > ORPHAN_PATIENCE:
        _LOGGER.warning("worker %s, process %d, outlives its runner and is ended", name, worker.pid)
        worker.end(signal.SIGKILL)
    return False


def worker_environment(request: Any) -> dict[str, str]:
    """The variables that tell a worker whom to work for and how, as Beam's worker reads them.

    Args:
        request: Beam's `StartWorkerRequest`.

    Raises:
        grpc.RpcError: the runner does not say how the pipeline is set.
    """
    with grpc.insecure_channel(request.provision_endpoint.url) as channel:
        stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        metadata = [("worker_id", request.worker_id)]
        info = stub.GetProvisionInfo(
            beam_provision_api_pb2.GetProvisionInfoRequest(), metadata=metadata, timeout=20.0
        ).info
    options = json_format.MessageToDict(info.pipeline_options)
    return {
        "WORKER_ID": request.worker_id,
        "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(request.control_endpoint),
        "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(request.logging_endpoint),
        "PIPELINE_OPTIONS": json.dumps(options),
        DIRECTORY: str(options.get(_OPTION.format("worker_directory")) or ""),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }


def _host_and_port(url: str) -> tuple[str, int]:
    host, _, port = url.rpartition(":")
    return host.strip("[]") or HOST, int(port)


def _is_listening(place: tuple[str, int]) -> bool:
    try:
        with contextlib.closing(socket.create_connection(place, 1.0)):
            return True
    except OSError:
        return False


def answers(address: str) -> bool:
    """Whether a worker pool answers at `host:port`."""
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=2.0)
        except grpc.FutureTimeoutError:
            return False
    return True


@contextlib.contextmanager
def serving(port: int) -> Iterator[Pool]:
    """A pool at a port of the loopback interface; in the end its workers end too.

    Raises:
        UserError: the port is taken.
    """
    server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
    pool = Pool()
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    try:
        server.add_insecure_port(f"{HOST}:{port}")
    except RuntimeError as error:
        raise UserError(f"port {port} of {HOST}, which the worker pool would listen on, is taken") from error
    server.start()
    try:
        yield pool
    finally:
        server.stop(0)
        pool.close()


def main(argv: Sequence[str] | None = None) -> int:
    """The command: serve until a request to end."""
    parser = argparse.ArgumentParser(prog="python -m runners.flink.worker_pool", description=__doc__)
    parser.add_argument("--port", type=int, default=50_000, help="of the loopback interface (%(default)s)")
    given = parser.parse_args(argv)
    logging.basicConfig(force=True, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        with serving(given.port) as pool:
            _LOGGER.info("the worker pool listens at %s:%d", HOST, given.port)
            pool.look(time.monotonic())
            while not ended.wait(LOOK_EVERY):
                pool.look(time.monotonic())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
