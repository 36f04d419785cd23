"""The pool of Python workers: real processes, started as Flink would start them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc

from runners.flink import worker_pool
from runners.flink.check_workers import check_workers, idle_runner, order_worker
from runners.flink.fork_server import DIRECTORY
from runners.flink.worker_pool import Pool, answers
from runners.flink.workers import ForkServer, Worker
from runners.local.ports import HOST, free_port, is_listening
from transforms.errors import UserError

ROOT = Path(__file__).parents[2]


@contextmanager
def pool_process(port: int) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-m", "runners.flink.worker_pool", "--port", str(port)]
    process = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while process.poll() is None and not answers(f"{HOST}:{port}"):
            assert time.monotonic() < deadline
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for each in threads for child in each.read_text().split()]


def is_alive(pid: int) -> bool:
    """Whether it runs: not gone, and no zombie that its new parent has yet to see."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_pool_starts_workers_that_call_back_and_takes_them_along() -> None:
    """A worker connects to whoever asked for it, and ends with it; nothing is left when the pool ends."""
    port = free_port()
    with pool_process(port) as process:
        check_workers(f"{HOST}:{port}")
        (server,) = children(process.pid)
        wait_for(lambda: not children(server))
    assert not Path(f"/proc/{server}").exists()
    assert process.returncode == 0
    assert not is_listening(port)


def test_two_pools_do_not_share_a_port() -> None:
    """The second says so and ends with 2: requests would go to either."""
    port = free_port()
    with pool_process(port), pool_process(port) as second:
        assert second.wait(60) == 2
        assert second.stderr is not None
        assert (
            f"error: port {port} of 127.0.0.1, which the worker pool would listen on, is taken" in second.stderr.read()
        )


def test_nobody_at_the_address_is_an_error_at_once() -> None:
    """With the address, and how a pool is started."""
    with pytest.raises(UserError, match=r"no worker pool answers at 127.0.0.1:\d+.*python -m runners.flink up"):
        check_workers(f"{HOST}:{free_port()}", patience=5.0)


@contextmanager
def serving(pool: Any) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4))
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    try:
        yield f"{HOST}:{port}"
    finally:
        server.stop(0)


def test_what_cannot_be_loaded_is_an_answer_and_no_wait() -> None:
    """The runner hears of it, and can fail, instead of waiting for a call that never comes."""
    pool = Pool(lambda: ForkServer("runners.flink.no_such_module"))  # as when one is not installed on the node
    with (
        serving(pool) as address,
        pytest.raises(UserError, match=r"cannot start workers: .* what forks the workers ended with 1 before it was"),
    ):
        check_workers(address, patience=30.0)
    pool.close()


def test_a_worker_that_cannot_begin_is_an_answer_and_no_wait(tmp_path: Path) -> None:
    """Here the directory in which it is to run is not there."""
    server = ForkServer()
    with pytest.raises(ChildProcessError, match="a Python worker ended with 1 before it was ready"):
        server.start_worker({DIRECTORY: str(tmp_path / "nowhere")}, (HOST, 1))
    server.close()


def test_what_forks_the_workers_may_die() -> None:
    """The workers that it has forked go on, and another forks the next ones; all of them end with the pool."""
    port = free_port()
    with idle_runner() as (endpoint, _):
        with pool_process(port) as process:
            order_worker(f"{HOST}:{port}", endpoint)
            (server,) = children(process.pid)
            (first,) = children(server)
            os.kill(server, signal.SIGKILL)
            wait_for(lambda: children(process.pid) not in ([], [server]))
            order_worker(f"{HOST}:{port}", endpoint)
            (second,) = children(children(process.pid)[0])
            assert is_alive(first)
            assert is_alive(second)
        wait_for(lambda: not is_alive(first) and not is_alive(second))


class Silent(beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolServicer):
    """A pool that takes every order and starts nothing, as one whose `python` is another's."""

    def StartWorker(self, request: Any, context: Any) -> Any:  # noqa: N802 - Beam's name
        return beam_fn_api_pb2.StartWorkerResponse()


def test_a_pool_that_only_says_yes_is_found_out() -> None:
    """No worker connects, and after a while that is an error."""
    with serving(Silent()) as address, pytest.raises(UserError, match="none connected in 1 s"):
        check_workers(address, patience=1.0)


def test_a_worker_outlives_its_runner_only_for_a_while() -> None:
    """One that hangs when its runner was killed is ended; one whose runner answers is let be."""
    argv = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]
    runner = grpc.server(ThreadPoolExecutor(1))
    port = runner.add_insecure_port(f"{HOST}:0")
    runner.start()
    process = subprocess.Popen(argv)
    pool = Pool()
    pool._working = {"1-1": [Worker((HOST, port), pid=process.pid)]}
    pool.look(0.0)
    pool.look(1000.0)
    assert process.poll() is None
    runner.stop(0).wait()
    pool.look(2000.0)
    assert process.poll() is None
    pool.look(2000.0 + worker_pool.ORPHAN_PATIENCE + 1)
    assert process.wait(10) == -signal.SIGKILL
    pool.look(3000.0)
    assert not pool._working
    pool.close()


def test_workers_of_runners_that_name_them_alike_are_kept_apart() -> None:
    """TaskManagers on one machine each have a worker 1-1: that the one stops must not end the other's."""
    port = free_port()
    with pool_process(port) as process, ThreadPoolExecutor(2) as both:
        for check in [both.submit(check_workers, f"{HOST}:{port}") for _ in range(2)]:
            check.result()
        assert process.poll() is None
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(30) == 0
