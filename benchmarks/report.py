"""What the benchmarks' pages are made of: tables, plots, and the machine they were measured on."""

from __future__ import annotations

import io
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from transforms.errors import UserError

PACKAGES = ("apache-beam", "numpy", "pyarrow", "onnxruntime", "numba")
_SIZE = (7.0, 4.0)  # inches


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers and stand to the right.

    Example:
        >>> print(table(["run", "seconds"], [["1", "4.0"]]))
        | run | seconds |
        | :-- | --: |
        | 1 | 4.0 |
    """
    rule = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


def print_results(results_text: Callable[[], str]) -> int:
    """Measure and print; the exit code: 2, with the reason on standard error, when something needed is missing."""
    try:
        print(results_text())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def spread(values: Sequence[float], form: str = ",.2f") -> str:
    """Smallest, middle and largest value.

    Example:
        >>> spread([3.0, 1.0, 2.0], ".1f")
        '1.0 / 2.0 / 3.0'
    """
    return " / ".join(format(value, form) for value in (min(values), median(values), max(values)))


def plot(draw: Callable[[Any], None]) -> bytes:
    """One PNG picture; `draw` is given Matplotlib's axes."""
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    content = io.BytesIO()
    with style.context("default"):  # whatever the user's own matplotlibrc says
        figure = Figure(figsize=_SIZE, dpi=100)
        FigureCanvasAgg(figure)
        figure.subplots_adjust(left=0.12, right=0.97, bottom=0.13, top=0.92)
        draw(figure.add_subplot())
        figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def machine_facts() -> Mapping[str, str]:
    """The machine, its load at this moment, and the versions of what is measured."""
    load = ", ".join(f"{average:.2f}" for average in os.getloadavg())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": str(usable_cores()),
        "CPU": _cpu_model(),
        "memory": f"{memory / 2**30:.1f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "load over 1, 5 and 15 minutes, before": load,
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def usable_cores() -> int:
    """The cores this process may use, where the system says so; else all there are."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    if sys.platform == "darwin":
        asked = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603  constant
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())  # ARM kernels name no model


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)
