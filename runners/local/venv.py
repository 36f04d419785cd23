"""Servers written in Python, each with an environment of its own: what they need is not what we need."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from runners.local.cache import installed
from runners.local.tools import run_program
from transforms.hashing import text_digest


def python_with(name: str, version: str, packages: Sequence[str], explain: str) -> Path:
    """The Python of an environment that holds some packages.

    Args:
        name: of the environment in the cache.
        version: likewise.
        packages: each as `name==version`.
        explain: what is said before they are fetched.

    Raises:
        UserError: they could not be had.
    """

    def fill(directory: Path) -> None:
        purpose = f"fetching {packages[0]}"
        run_program([sys.executable, "-m", "venv", directory], purpose)
        pip = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile"]
        run_program([*pip, "--disable-pip-version-check", *packages], purpose)

    # Other packages are another environment: one that an earlier release left must not be taken for it.
    wanted = f"{version}-{text_digest(' '.join(packages).encode())[:12]}"
    return installed(name, wanted, fill, explain) / "bin" / "python"
