"""SageMaker's runtime on loopback: InvokeEndpoint before the server of a container, and what may go wrong."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from model_artifacts.artifact import load_model
from model_artifacts.sagemaker_wire import DESCRIBE_TYPE
from pipelines.sagemaker.serve import ModelServer


@dataclass(frozen=True)
class Refuse:
    """An answer of the service instead of the model's."""

    status: int
    code: str
    more: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Say:
    """Other content instead of the model's; given what the model has answered."""

    instead: Callable[[bytes], bytes]


@dataclass(frozen=True)
class Wait:
    """Seconds before the model is asked."""

    seconds: float


Fault = Refuse | Say | Wait


class Runtime(ThreadingHTTPServer):
    """Passes calls on to a container.

    Attributes:
        container: its port.
        faults: what happens to the next calls for scores, one each.
        always: what happens to every one of them when `faults` is empty.
        calls: the path of every call, and what was asked.
    """

    daemon_threads = True

    def __init__(self, container: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.container = container
        self.faults: list[Fault] = []
        self.always: Fault | None = None
        self.calls: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        """To give as `endpoint`."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def uri(self) -> str:
        """To give as `--model`."""
        return f"sagemaker:fraud?region=eu-west-1&endpoint={self.url}"

    @property
    def asked_for_scores(self) -> int:
        """How often."""
        return sum(kind != DESCRIBE_TYPE for _, kind in self.calls)


class _Handler(BaseHTTPRequestHandler):
    server: Runtime
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body, kind = self.rfile.read(int(self.headers["Content-Length"])), self.headers["Content-Type"]
        self.server.calls.append((self.path, kind))
        fault = None
        if kind != DESCRIBE_TYPE:
            fault = self.server.faults.pop(0) if self.server.faults else self.server.always
        if isinstance(fault, Refuse):
            self.refuse(fault)
            return
        if isinstance(fault, Wait):
            time.sleep(fault.seconds)
        container = http.client.HTTPConnection("127.0.0.1", self.server.container)
        container.request("POST", "/invocations", body, {"Content-Type": kind, "Accept": self.headers["Accept"]})
        answer = container.getresponse()
        content = answer.read()
        container.close()
        if answer.status != 200:  # as the service tells of a container's own errors
            self.refuse(Refuse(424, "ModelError", {"OriginalStatusCode": answer.status}))
            return
        self.answer(200, fault.instead(content) if isinstance(fault, Say) else content, {"Content-Type": kind})

    def refuse(self, fault: Refuse) -> None:
        content = json.dumps({"Message": "no", **fault.more}).encode()
        self.answer(fault.status, content, {"x-amzn-ErrorType": fault.code})

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except ConnectionError:
            self.close_connection = True  # whoever asked has stopped waiting

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def endpoint(model: str) -> Iterator[Runtime]:
    """An endpoint called `fraud` that serves a model of that name or directory."""
    with ModelServer(("127.0.0.1", 0), load_model(model)) as container, Runtime(container.server_port) as runtime:
        threads = [threading.Thread(target=each.serve_forever, args=(0.01,)) for each in (container, runtime)]
        for thread in threads:
            thread.start()
        yield runtime
        for each, thread in zip((container, runtime), threads, strict=True):
            each.shutdown()
            thread.join()
