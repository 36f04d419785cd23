"""Whether a node's worker pool starts workers: what the bootstrap action asks before it lets the node join."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from runners.flink.check_workers import check_workers
from transforms.errors import UserError


def main(argv: Sequence[str] | None = None, sleep: Callable[[float], None] = time.sleep) -> int:
    """The command: `python -m runners.emr.check_node HOST:PORT SECONDS`; 1 when no worker came in time."""
    address, seconds = sys.argv[1:] if argv is None else argv
    deadline = time.monotonic() + float(seconds)
    while True:
        try:
            check_workers(address)
            return 0
        except UserError as error:  # the pool may still be loading
            if time.monotonic() >= deadline:
                print(f"error: {error}", file=sys.stderr)
                return 1
        sleep(1.0)


if __name__ == "__main__":
    sys.exit(main())
