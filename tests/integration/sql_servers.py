"""What the tests of the SQL sinks do to their server."""

from __future__ import annotations

import time

from runners.local import Postgres
from transforms.errors import UserError


def kill_and_start(server: Postgres) -> None:
    """As after a crash; whoever served a client dies a moment after the server itself, and is waited for."""
    server.kill()
    deadline = time.monotonic() + 20
    while True:
        try:
            server.start()
            return
        except UserError as error:
            if "still in use" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
