"""What every node of a cluster installs: the project's wheel, its locked dependencies, the bootstrap action."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from runners.emr.artefacts import NODES, Artefact, artefact, write_sums
from runners.emr.lock import PYTHON, node_requirements, platforms
from runners.local.cache import installed
from runners.local.tools import run_program
from transforms.errors import UserError
from transforms.hashing import text_digest

ROOT = Path(__file__).parents[2]
#: In the checkout: what is run on a node.
SCRIPTS = Path("deploy", "emr")
_PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
#: Not copied beside the sources that a wheel is built from.
_NOT_SOURCES = shutil.ignore_patterns(".*", "output", "build", "dist", "__pycache__", "*.egg-info", "tests", "docs")


def write_nodes(directory: Path, architecture: str, lock: Path | None = None) -> Artefact:
    """Put together what nodes install, in place of what was there.

    The dependencies travel as wheels, not as names: a node that is replaced at night must come up whether or not a
    package index answers it, and with the same bytes as its neighbours.

    Args:
        directory: of the package; `nodes` in it is what is written.
        architecture: of the nodes' processors, `x86_64` or `aarch64`.
        lock: the pinned dependencies; the checkout's own when not given.

    Returns:
        The file that lists what was written.

    Raises:
        UserError: this is no checkout of the project, or something could not be built or downloaded.
    """
    if not (ROOT / SCRIPTS).is_dir():
        raise UserError(f"{ROOT} is no checkout of the project: a package is made where {SCRIPTS} and setup.py are")
    requirements = node_requirements((lock or ROOT / "requirements.txt").read_text("utf-8"), architecture)
    target = directory / NODES
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{NODES}-", dir=target.parent))
    try:
        _fill(fresh, requirements, architecture)
        sums = write_sums(fresh, [artefact(path) for path in fresh.iterdir()])
        shutil.rmtree(target, ignore_errors=True)
        fresh.chmod(0o755)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # not there any more when all went well
    return Artefact(target / sums.path.name, sums.sha256)


def _fill(directory: Path, requirements: str, architecture: str) -> None:
    (directory / "requirements.txt").write_text(requirements, "utf-8")
    for script in (ROOT / SCRIPTS).iterdir():
        shutil.copyfile(script, directory / script.name)
    build_wheel(directory)
    for wheel in wheelhouse(requirements, architecture).glob("*.whl"):
        _link(wheel, directory / wheel.name)


def build_wheel(directory: Path) -> Path:
    """Build the project's wheel; the same sources give the same bytes.

    Raises:
        UserError: it could not be built.
    """
    with tempfile.TemporaryDirectory() as work:
        sources = Path(work, "sources")  # setuptools leaves its traces beside what it builds
        shutil.copytree(ROOT, sources, ignore=_NOT_SOURCES)
        argv = [*_PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", work, str(sources)]
        # Without a date of its own a wheel holds the times of the files, which differ with each checkout.
        run_program(argv, "building the project's wheel", environment={"SOURCE_DATE_EPOCH": "315619200"})
        (built,) = Path(work).glob("*.whl")
        return Path(shutil.copyfile(built, directory / built.name))


def wheelhouse(requirements: str, architecture: str) -> Path:
    """A directory with the wheel of each requirement for such a node; downloaded once.

    Raises:
        UserError: one could not be had, or is not what the lock says.
    """

    def fill(directory: Path) -> None:
        (directory / "requirements.txt").write_text(requirements, "utf-8")
        run_program(_download(directory, architecture), "downloading the wheels of the lock")

    digest = text_digest(f"{architecture} {requirements}".encode())[:16]
    return installed("wheelhouse", digest, fill, "downloading the wheels that nodes install, about 330 MB")


def _download(directory: Path, architecture: str) -> Sequence[str | Path]:
    target = [word for name in platforms(architecture) for word in ("--platform", name)]
    python = ["--implementation", "cp", "--python-version", PYTHON]
    checked = ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
    return [*_PIP, "download", *checked, *python, *target, "--dest", directory, "-r", directory / "requirements.txt"]


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)  # the same file under another name: they are 330 MB
    except OSError:
        shutil.copyfile(source, target)  # on another file system
