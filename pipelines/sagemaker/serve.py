"""`python -m pipelines.sagemaker.serve`: the web server that SageMaker expects in a container of one's own.

SageMaker starts the image with the argument `serve`, has the model in /opt/ml/model, waits until GET /ping is answered,
and passes what InvokeEndpoint is given to POST /invocations, a request a connection or many.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType

from model_artifacts.artifact import Model
from pipelines.sagemaker.inference import input_fn, model_fn, output_fn, predict_fn
from transforms.errors import UserError

#: SageMaker passes no more than 6 MB.
_MOST_BYTES = 8_000_000
#: Requests that wait for a processor; SageMaker hands on the refusal of more, and the pipeline comes back later.
_MOST_WAITING = 16


class ModelServer(ThreadingHTTPServer):
    """Serves one model; as many requests are worked on at once as there are processors.

    Attributes:
        model: what is served.
        waiting: places in the queue for a processor.
        processors: to work on.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], model: Model) -> None:
        super().__init__(address, _Handler)
        self.model = model
        count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.processors = threading.BoundedSemaphore(count)
        self.waiting = threading.BoundedSemaphore(count + _MOST_WAITING)


class _Handler(BaseHTTPRequestHandler):
    server: ModelServer
    protocol_version = "HTTP/1.1"
    timeout = 60  # of a connection that says nothing, so that it does not hold its thread for ever

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/ping" else 404, b"", "text/plain")

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length", "")
        if self.path != "/invocations" or not size.isascii() or not size.isdigit() or int(size) > _MOST_BYTES:
            self.close_connection = True  # what follows is not read
            self._answer(404 if self.path != "/invocations" else 413, b"", "text/plain")
            return
        body = self.rfile.read(int(size))
        if not self.server.waiting.acquire(blocking=False):
            self._answer(503, b"too many requests wait already", "text/plain")
            return
        try:
            with self.server.processors:
                self._answer(*self._scored(body))
        finally:
            self.server.waiting.release()

    def _scored(self, body: bytes) -> tuple[int, bytes, str]:
        try:
            matrix = input_fn(body, self.headers.get("Content-Type", ""))
            return (200, *output_fn(predict_fn(matrix, self.server.model), self.headers.get("Accept", "")))
        except (ValueError, EOFError) as error:  # a request that is wrong, and is the second time
            return 400, str(error).encode(), "text/plain"

    def _answer(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: SageMaker counts calls, and a line each would be most of the log."""


def main(environment: Mapping[str, str] | None = None) -> int:
    """Serve until told to stop; returns 2 where there is no model to serve."""
    environment = os.environ if environment is None else environment
    directory = environment.get("SM_MODEL_DIR", "/opt/ml/model")
    # SageMaker says where to listen when several containers share an address.
    host, port = environment.get("FRAUD_SERVE_HOST", ""), int(environment.get("SAGEMAKER_BIND_TO_PORT", "8080"))
    try:
        model = model_fn(directory)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with ModelServer((host, port), model) as server:

        def stop(number: int, frame: FrameType | None) -> None:
            threading.Thread(target=server.shutdown).start()  # which waits for the loop that this interrupts

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        print(f"serving {model.manifest.model_id} on port {server.server_port}", flush=True)
        server.serve_forever(0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
