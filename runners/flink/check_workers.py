"""Whether a worker pool can start workers: one is started and must call back."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from apache_beam.portability.api import (
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    endpoints_pb2,
)

from runners.local.ports import HOST
from transforms.errors import UserError


class _Runner(
    beam_fn_api_pb2_grpc.BeamFnControlServicer,
    beam_fn_api_pb2_grpc.BeamFnLoggingServicer,
    beam_provision_api_pb2_grpc.ProvisionServiceServicer,
):
    """As much of a runner as a worker needs to see before it waits for work."""

    def __init__(self) -> None:
        self.connected = threading.Event()
        self.over = threading.Event()

    def Control(self, requests: Any, context: Any) -> Iterator[Any]:  # noqa: N802 - Beam's name
        """A worker calls here first; it is given nothing to do."""
        self.connected.set()
        self.over.wait()
        yield from ()

    def Logging(self, requests: Any, context: Any) -> Iterator[Any]:  # noqa: N802 - Beam's name
        """What it logs is not of interest."""
        for _ in requests:
            yield from ()

    def GetProvisionInfo(self, request: Any, context: Any) -> Any:  # noqa: N802 - Beam's name
        """A pipeline without options."""
        return beam_provision_api_pb2.GetProvisionInfoResponse(info=beam_provision_api_pb2.ProvisionInfo())


def check_workers(address: str, patience: float = 60.0) -> None:
    """Have a pool start a worker, and wait till it has connected.

    Args:
        address: `host:port` of the pool, on this machine.
        patience: seconds.

    Raises:
        UserError: no pool answers, it cannot start workers, or the worker does not connect.
    """
    with idle_runner() as (endpoint, connected):
        order_worker(address, endpoint, patience)
        if not connected.wait(patience):
            raise UserError(
                f"the worker pool at {address} took the order for a worker, but none connected in {patience:.0f} s: "
                "look at its log; a pool of Beam's own starts whatever `python` comes first on its PATH"
            )


@contextlib.contextmanager
def idle_runner() -> Iterator[tuple[Any, threading.Event]]:
    """A runner that has nothing to do: its endpoint, and the event that a worker has called there."""
    runner, server = _Runner(), grpc.server(ThreadPoolExecutor(8))
    beam_fn_api_pb2_grpc.add_BeamFnControlServicer_to_server(runner, server)
    beam_fn_api_pb2_grpc.add_BeamFnLoggingServicer_to_server(runner, server)
    beam_provision_api_pb2_grpc.add_ProvisionServiceServicer_to_server(runner, server)
    endpoint = endpoints_pb2.ApiServiceDescriptor(url=f"{HOST}:{server.add_insecure_port(f'{HOST}:0')}")
    server.start()
    try:
        yield endpoint, runner.connected
    finally:
        runner.over.set()
        server.stop(0)


def order_worker(address: str, endpoint: Any, patience: float = 60.0) -> None:
    """Order a worker for the runner at an endpoint.

    Raises:
        UserError: no pool answers at that address, or it cannot start workers.
    """
    name = f"check-{uuid.uuid4()}"
    request = beam_fn_api_pb2.StartWorkerRequest(
        worker_id=name, control_endpoint=endpoint, logging_endpoint=endpoint, provision_endpoint=endpoint
    )
    try:
        with grpc.insecure_channel(address) as channel:
            stub = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
            answer = stub.StartWorker(request, timeout=patience)
    except grpc.RpcError as error:
        raise UserError(
            f"no worker pool answers at {address}, where Flink would look for Python workers: {error.details()}; "
            "`python -m runners.flink up` starts one, --environment_config=HOST:PORT names another"
        ) from error
    if answer.error:
        raise UserError(f"the worker pool at {address} cannot start workers: {answer.error}")
