"""Run a command and say what it took, as JSON: wall and CPU seconds, peak memory, exit code.

It is a process of its own, and a small one, because the kernel counts into a command's peak memory that of the
process that started it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Usage:
    """What a command took.

    Attributes:
        wall_seconds: from its start to its end.
        cpu_seconds: user and system time of it and all its children.
        peak_bytes: most memory resident at once; of the largest process, where there are several.
        exit_code: its own.
        errors: what it wrote to standard error.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    exit_code: int
    errors: str


def run_timed(command: Sequence[str]) -> Usage:
    """Run a command from the checkout, where `python -m` finds the packages; its output is dropped.

    Example:
        >>> run_timed([sys.executable, "-c", "exit(3)"]).exit_code
        3
    """
    timer = [sys.executable, "-m", "benchmarks.timed", *command]
    done = subprocess.run(timer, cwd=ROOT, check=True, stdout=subprocess.PIPE)  # noqa: S603  the caller's own command
    return Usage(**json.loads(done.stdout))


def main(argv: Sequence[str]) -> int:
    """Time one command."""
    started = time.perf_counter()
    done = subprocess.run(  # noqa: S603  the caller's own command
        argv, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    wall_seconds = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
    usage = Usage(
        wall_seconds=wall_seconds,
        cpu_seconds=used.ru_utime + used.ru_stime,
        peak_bytes=used.ru_maxrss * unit,
        exit_code=done.returncode,
        errors=done.stderr.decode(errors="replace"),
    )
    print(json.dumps(asdict(usage)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
