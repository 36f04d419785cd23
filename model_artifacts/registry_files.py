"""What a version of a registry consists of: the files of a model directory, and an index with the sum of each."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec

from model_artifacts.artifact import CARD_FILE, MANIFEST_FILE, MODEL_FILE, PLOTS
from model_artifacts.reference import REFERENCE_FILE
from transforms.errors import UserError

INDEX_FILE, SIGNATURE_FILE = "version.json", "SIGNATURE"
VERSION_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*-[0-9a-f]{12}")
#: What a version may hold. The names come from the registry, and none must lead out of it.
_NAMES = "|".join(map(re.escape, (MODEL_FILE, MANIFEST_FILE, CARD_FILE, REFERENCE_FILE)))
FILE_NAME = re.compile(rf"{_NAMES}|{PLOTS}/\w[\w.-]*\.png")


class FileFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a version."""

    sha256: str
    size: int


class Version(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What `version.json` says.

    Attributes:
        version: the model's `model_id`.
        added: when, ISO 8601 in UTC.
        by: who added it, as their machine calls them.
        files: by name.
    """

    format_version: int = 1
    version: str
    added: str
    by: str
    files: dict[str, FileFacts]


def read_index(content: bytes, place: str) -> Version:
    """The index of a version of its JSON.

    Args:
        content: the JSON.
        place: what it is, for messages.

    Raises:
        UserError: it is none, or names files that no version has.
    """
    try:
        index = msgspec.json.decode(content, type=Version)
    except msgspec.DecodeError as error:
        raise UserError(f"{place} is damaged: {error}") from error
    if not VERSION_NAME.fullmatch(index.version) or not all(map(FILE_NAME.fullmatch, index.files)):
        raise UserError(f"{place} is not of this version: it names what no version has")
    return index


def files_of(directory: Path) -> dict[str, bytes]:
    """The files of a model directory, by name."""
    try:
        found = [path for path in sorted(directory.rglob("*")) if path.is_file()]
        files = {path.relative_to(directory).as_posix(): path.read_bytes() for path in found}
    except OSError as error:
        raise UserError(f"{directory} cannot be read: {error.strerror}") from error
    foreign = [name for name in files if not FILE_NAME.fullmatch(name)]
    if foreign or MODEL_FILE not in files or MANIFEST_FILE not in files:
        why = f"it holds {foreign[0]}" if foreign else f"it has no {MODEL_FILE} and {MANIFEST_FILE}"
        raise UserError(f"{directory} is not a model directory: {why}; python -m pipelines.training makes one")
    return files


def sha256(content: bytes) -> str:
    """In hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
