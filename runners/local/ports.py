"""Ports of the loopback interface."""

from __future__ import annotations

import contextlib
import socket

HOST = "127.0.0.1"


def is_listening(port: int) -> bool:
    """Whether something accepts connections at a port of the loopback interface."""
    with contextlib.closing(socket.socket()) as client:
        client.settimeout(1.0)
        return client.connect_ex((HOST, port)) == 0


def can_be_had(port: int) -> bool:
    """Whether nobody has a port."""
    with contextlib.closing(socket.socket()) as server:
        # What a server that was just killed leaves behind in the kernel does not count.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port of the loopback interface that nobody has at the moment."""
    with contextlib.closing(socket.socket()) as server:
        server.bind((HOST, 0))
        port: int = server.getsockname()[1]
        return port
