"""A proxy in front of a real server that makes the faults no local server makes: throttling, lost answers, cuts."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

LOOPBACK = "127.0.0.1"
_HOP_BY_HOP = frozenset(("connection", "keep-alive", "transfer-encoding", "te", "upgrade"))

Answer = tuple[int, dict[str, str], bytes]
#: From a request's path, headers and body and the server's answer to the answer to give; None cuts the connection.
Change = Callable[[str, Mapping[str, str], bytes, Answer], Answer | None]


@dataclass(frozen=True)
class _Fault:
    """What becomes of one request; without `answer` it is forwarded first."""

    answer: Answer | None = None
    change: Change | None = None
    matches: Callable[[str, Mapping[str, str], bytes], bool] = lambda path, headers, body: True


class HttpFaultProxy:
    """Stands in front of an HTTP server on loopback; every fault applies to the next matching requests, in order.

    Attributes:
        url: where clients are to go.
        requests: how many requests have come so far.

    Example: `proxy.answer(3, 400, {"__type": "ThrottlingException"})` refuses the next three calls.
    """

    def __init__(self, host: str, port: int) -> None:
        self.upstream = (host, port)
        self.requests = 0
        self._faults: deque[_Fault] = deque()
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with suppress(ConnectionError):
                    super().handle_one_request()

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        for method in ("GET", "POST", "PUT", "DELETE", "HEAD"):
            setattr(Handler, f"do_{method}", lambda handler: proxy._serve(handler))
        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{LOOPBACK}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(
        self,
        times: int,
        status: int,
        body: bytes | Mapping[str, Any] = b"",
        headers: Mapping[str, str] | None = None,
        to: str = "",
    ) -> None:
        """Answer the next requests in the server's place; it never sees them. `to`: only those that hold this text."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = (status, {"Content-Type": "application/x-amz-json-1.0", **(headers or {})}, content)
        self._add(times, _Fault(answer=answer, matches=_holding(to)))

    def lose_answers(self, times: int, to: str = "") -> None:
        """Let the server do what the next requests ask for, and cut the connection before it can say so."""
        self._add(times, _Fault(change=lambda path, headers, body, answer: None, matches=_holding(to)))

    def change_answers(self, times: int, change: Change, to: str = "") -> None:
        """Change what the server answers to the next requests, such as to say that a part of them failed."""
        self._add(times, _Fault(change=change, matches=_holding(to)))

    @property
    def faults_left(self) -> int:
        """How many faults no request has met yet."""
        return len(self._faults)

    def _add(self, times: int, fault: _Fault) -> None:
        with self._lock:
            self._faults.extend([fault] * times)

    def _take(self, path: str, headers: Mapping[str, str], body: bytes) -> _Fault | None:
        with self._lock:
            self.requests += 1
            for fault in self._faults:
                if fault.matches(path, headers, body):
                    self._faults.remove(fault)
                    return fault
        return None

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = _body_of(handler)
        headers = dict(handler.headers.items())
        fault = self._take(handler.path, headers, body)
        answer: Answer | None = fault.answer if fault else None
        if answer is None:
            answer = self._forward(handler.command, handler.path, headers, body)
            if fault and fault.change:
                answer = fault.change(handler.path, headers, body, answer)
        if answer is None:
            handler.close_connection = True
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        status, answered, content = answer
        handler.send_response_only(status)
        for name, value in answered.items():
            if name.lower() not in _HOP_BY_HOP and name.lower() != "content-length":
                handler.send_header(name, value)
        length = answered.get("Content-Length", "0") if handler.command == "HEAD" else str(len(content))
        handler.send_header("Content-Length", length)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content)

    def _forward(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        connection = http.client.HTTPConnection(*self.upstream, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name.lower() not in _HOP_BY_HOP and name.lower() not in ("expect", "content-length"):
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        except OSError:
            return 503, {}, b"the server is down"
        finally:
            connection.close()


def _holding(text: str) -> Callable[[str, Mapping[str, str], bytes], bool]:
    def matches(path: str, headers: Mapping[str, str], body: bytes) -> bool:
        return not text or text in path or text.encode() in body or any(text in value for value in headers.values())

    return matches


def _body_of(handler: BaseHTTPRequestHandler) -> bytes:
    if "chunked" not in handler.headers.get("Transfer-Encoding", ""):
        return handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
    parts = []
    while size := int(handler.rfile.readline().split(b";")[0], 16):
        parts.append(handler.rfile.read(size))
        handler.rfile.readline()
    handler.rfile.readline()
    return b"".join(parts)


@dataclass
class TcpFaultProxy:
    """Stands in front of any TCP server on loopback and cuts connections when told to.

    Attributes:
        host, port: the server.
        address: where clients are to go.
        connections: how many have come so far.
    """

    host: str
    port: int
    connections: int = 0
    _marker: bytes = b""
    _cuts: int = 0
    _refusing: bool = False
    _open: list[socket.socket] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self._listener = socket.create_server((LOOPBACK, 0))
        self.address: tuple[str, int] = (LOOPBACK, self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._thread.join()

    def lose_answers(self, times: int, to: bytes) -> None:
        """Cut the next connections whose client sends `to` (b"COMMIT"), after the server has done and answered it."""
        with self._lock:
            self._marker, self._cuts = to, times

    def cut(self) -> None:
        """Cut every connection now."""
        with self._lock:
            sockets, self._open = self._open, []
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def refuse(self, seconds: float) -> None:
        """Cut every connection now, and new ones at once for so long."""
        self._refusing = True
        self.cut()
        time.sleep(seconds)
        self._refusing = False

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self._refusing:
                client.close()
                continue
            try:
                server = socket.create_connection((self.host, self.port))
            except OSError:
                client.close()
                continue
            for each in (client, server):  # of many small messages none should wait for the next
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open += [client, server]
            lost = threading.Event()
            for source, target, is_client in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pump, args=(source, target, is_client, lost), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, is_client: bool, lost: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if is_client:
                    self._look(data, lost)
                elif lost.is_set():
                    break  # the answer came, and is dropped
                target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _look(self, data: bytes, lost: threading.Event) -> None:
        with self._lock:
            if self._cuts and self._marker in data:
                self._cuts -= 1
                lost.set()
