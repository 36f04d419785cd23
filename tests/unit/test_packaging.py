"""The wheel and the locks: what is shipped, and that it runs where no checkout is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
PACKAGES = ("io_connectors", "model_artifacts", "pipelines", "runners", "transforms")
LEFT_BEHIND = shutil.ignore_patterns(".*", "output", "build", "dist", "__pycache__", "*.egg-info")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel, built from a copy so that the checkout stays clean."""
    work = tmp_path_factory.mktemp("wheel")
    checkout = work / "checkout"
    shutil.copytree(ROOT, checkout, ignore=LEFT_BEHIND)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    result = subprocess.run([*pip, "--wheel-dir", work, checkout], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = work.glob("*.whl")
    with zipfile.ZipFile(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def read_requirements(name: str) -> list[Requirement]:
    """The requirements of one of the checkout's files, hashes and options aside."""
    text = (ROOT / name).read_text("utf-8").replace("\\\n", " ")
    lines = (line.split(" --hash")[0] for line in text.splitlines() if re.match("[a-z]", line))
    return [Requirement(line) for line in lines]


def read_lock(name: str) -> dict[str, str]:
    """Package to version of a lock, which must pin every package once."""
    pins = read_requirements(name)
    assert len({pin.name for pin in pins}) == len(pins)
    assert all(str(pin.specifier).startswith("==") for pin in pins)
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}


def test_the_wheel_holds_exactly_the_packages_files(wheel: zipfile.ZipFile) -> None:
    """Every module, schema, feature set and model of the packages is in, and nothing beside them."""
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    ours = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(".")
    }
    assert shipped == ours


def test_the_wheel_says_what_it_needs(wheel: zipfile.ZipFile, metadata: Message) -> None:
    """Its requirements are the ranges of requirements.in, its extras' their own; licence and command come with it."""
    needs = {str(Requirement(line)) for line in metadata.get_all("Requires-Dist") or []}
    extras = {
        f'{requirement}; extra == "{extra}"'
        for extra in ("neural", "mlflow")
        for requirement in read_requirements(f"requirements-{extra}.in")
    }
    assert needs == {str(requirement) for requirement in read_requirements("requirements.in")} | extras
    assert set(metadata.get_all("Provides-Extra") or []) == {"neural", "mlflow"}
    assert SpecifierSet(metadata["Requires-Python"]) == SpecifierSet(">=3.11,<3.14")
    (entry_points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "fraud-detection = pipelines.fraud:command" in wheel.read(entry_points).decode()
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())


def test_the_main_job_runs_from_the_wheel_in_any_directory(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Unpacked on the path, with no checkout near, the job explains itself."""
    wheel.extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    result = subprocess.run(
        [sys.executable, "-m", "pipelines.fraud", "--help"],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "--source" in result.stdout


@pytest.mark.parametrize(
    ("lock_name", "name"),
    [
        ("requirements", "requirements"),
        ("requirements-dev", "requirements-dev"),
        ("requirements-dev", "requirements-neural"),
    ],
)
def test_a_lock_fulfils_its_ranges(lock_name: str, name: str) -> None:
    """Whoever changes a range must lock again."""
    lock = read_lock(f"{lock_name}.txt")
    for requirement in read_requirements(f"{name}.in"):
        assert requirement.specifier.contains(lock[requirement.name]), f"{requirement}: run `make lock`"


def test_the_locks_agree() -> None:
    """What is tested is what is run: the development lock adds packages and changes none."""
    assert read_lock("requirements.txt").items() <= read_lock("requirements-dev.txt").items()


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_a_lock_is_hashed_and_names_no_machine(name: str) -> None:
    """Each package has hashes, only wheels are taken, and no index, host or directory is written down."""
    text = (ROOT / name).read_text("utf-8")
    blocks = re.findall(r"^[a-z0-9-]+==.*(?:\n {4}--hash=sha256:[0-9a-f]{64}.*)*", text, re.MULTILINE)
    assert [block for block in blocks if "--hash=" not in block] == []
    assert "--only-binary :all:" in text
    assert re.findall(r"https?://|--(?:extra-)?index-url|--find-links|(?:^|\s)/\w+", text) == []


def test_ci_runs_the_readmes_test_command() -> None:
    """The command that readers are promised is the one that is run."""
    (command,) = re.findall(r"^python3 -m venv .*$", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    assert command in (ROOT / "README.md").read_text("utf-8")
