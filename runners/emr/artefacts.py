"""A package on the disk: the job's jar, and beside it what every node installs, each file known by its sha256."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from transforms.errors import UserError

SUMS = "SHA256SUMS"
#: In a package's directory: what its nodes get.
NODES = "nodes"
_AGAIN = "make the package again: python -m runners.emr package"


@dataclass(frozen=True)
class Artefact:
    """A file and what is in it.

    Attributes:
        path: of the file.
        sha256: of its content, in hexadecimal.
    """

    path: Path
    sha256: str

    @property
    def key(self) -> str:
        """Its place below the prefix of a bucket: two files share it only when they are the same."""
        return f"{self.sha256}/{self.path.name}"


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What stands beside a jar about it (`fraud-detection.json`).

    Attributes:
        jar: the jar's sha256.
        nodes: the sha256 of the file of sums, and so of everything that the nodes of its cluster install.
        architecture: of the processors that the nodes' wheels are for.
        flink_version: the Flink it was built for, such as `1.20`.
        parallelism: how many parts of it run side by side.
        slots: of each TaskManager.
        workers: Python processes that each TaskManager asks its node's pool for.
        flink: Flink's own settings for it.
    """

    jar: str
    nodes: str
    architecture: str
    flink_version: str
    parallelism: int
    slots: int
    workers: int
    flink: dict[str, str]


@dataclass(frozen=True)
class Package:
    """What `python -m runners.emr package` made.

    Attributes:
        jar: the job.
        sums: the file that lists what nodes install, in the format of `sha256sum`.
        nodes: those files.
        description: the rest.
    """

    jar: Artefact
    sums: Artefact
    nodes: tuple[Artefact, ...]
    description: Description

    @property
    def bootstrap(self) -> Artefact:
        """The bootstrap action."""
        return next(each for each in self.nodes if each.path.name == "bootstrap.sh")


def artefact(path: Path) -> Artefact:
    """A file as it is now.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return Artefact(path, hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def write_sums(directory: Path, files: Iterable[Artefact]) -> Artefact:
    """Write down what the files of a directory are, as `sha256sum --check` takes it."""
    lines = sorted(f"{each.sha256}  {each.path.name}\n" for each in files)
    path = directory / SUMS
    path.write_text("".join(lines), "ascii")
    return artefact(path)


def description_of(jar: Path) -> Path:
    """The file that describes a jar."""
    return jar.with_suffix(".json")


def read_package(jar: Path) -> Package:
    """The package that a jar belongs to, with every file of it as it was when it was made.

    Args:
        jar: as it was given to `package`.

    Raises:
        UserError: a file is missing or has changed since; names it.
    """
    try:
        description = msgspec.json.decode(description_of(jar).read_bytes(), type=Description)
    except OSError as error:
        raise UserError(f"{jar} is no package: cannot read {error.filename}: {error.strerror}; {_AGAIN}") from error
    except msgspec.MsgspecError as error:
        raise UserError(f"{description_of(jar)} is not what describes a package: {error}; {_AGAIN}") from error
    sums = _unchanged(jar.parent / NODES / SUMS, description.nodes)
    listed = [line.split("  ", 1) for line in sums.path.read_text("ascii").splitlines()]
    return Package(
        jar=_unchanged(jar, description.jar),
        sums=sums,
        nodes=tuple(_unchanged(sums.path.parent / name, digest) for digest, name in listed),
        description=description,
    )


def _unchanged(path: Path, sha256: str) -> Artefact:
    found = artefact(path)
    if found.sha256 != sha256:
        raise UserError(f"{path} has changed since it was packaged; {_AGAIN}")
    return found
