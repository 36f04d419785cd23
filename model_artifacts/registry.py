"""A registry of models: immutable versions in a folder or a bucket, and aliases that say which of them serves.

    versions/<version>/model.onnx, manifest.json, MODEL_CARD.md, plots/*.png    a model directory
    versions/<version>/version.json    the sha256 of each of these files; put last, so a version is whole or not there
    versions/<version>/SIGNATURE       optional: Ed25519 of version.json, in Base64
    aliases/<alias>/00000001.json ...  each move of the alias, one file each; the last one counts

A version is called as its model is, by `model_id`: what a decision names can be found here. No file is ever changed, so
a move is undone by another move, and of two people who move an alias at once one finds its number taken.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from model_artifacts.artifact import CARD_FILE, MANIFEST_FILE, OnnxModel, open_model, read_manifest
from model_artifacts.manifest import Manifest
from model_artifacts.reference import REFERENCE_FILE, Reference, read_reference
from model_artifacts.registry_files import (
    INDEX_FILE,
    SIGNATURE_FILE,
    VERSION_NAME,
    FileFacts,
    Version,
    files_of,
    read_index,
    sha256,
)
from model_artifacts.registry_store import Store, open_store
from model_artifacts.signing import is_signed
from transforms.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Registry:
    """A registry's versions. Its aliases: see `model_artifacts.aliases`.

    Attributes:
        url: a directory, or `s3://bucket/prefix`.
        store: what it names.
    """

    url: str
    store: Store

    def versions(self) -> list[str]:
        """The names of all versions, in order."""
        held = (name.partition("/") for name in self.store.names("versions"))
        return [version for version, _, file in held if file == INDEX_FILE and VERSION_NAME.fullmatch(version)]

    def version(self, name: str) -> Version:
        """What is known of a version.

        Raises:
            UserError: there is none of that name, or its index is damaged.
        """
        return self._index(name)[0]

    def is_signed(self, name: str, public_key: bytes | None) -> bool:
        """Whether a version has a signature, and it is one by that key.

        Args:
            name: the version.
            public_key: see `read_public_key`; None: whoever signed it.
        """
        signature = self._signature(name)
        return signature is not None and (public_key is None or is_signed(self._index(name)[1], signature, public_key))

    def model(self, name: str, public_key: bytes | None = None) -> OnnxModel:
        """A version's model, each of its bytes as it was added.

        Args:
            name: the version.
            public_key: whose signature it must have; None: none is asked for.

        Raises:
            UserError: no such version, a file that is missing or was changed, no valid signature.
        """
        index, content = self._index(name)
        if public_key is not None:
            self._check_signature(name, content, public_key, self._signature(name))
        model = open_model(lambda file: self._file(index, file), f"{self.url}/versions/{name}")
        if model.manifest.model_id != name:
            raise UserError(f"registry {self.url}: version {name} holds the model {model.manifest.model_id}")
        return model

    def verify(self, name: str, public_key: bytes | None = None) -> Version:
        """Check everything of a version: every file, the signature, and that the model opens.

        Raises:
            UserError: as `model`.
        """
        index = self.version(name)
        for file in index.files:
            self._file(index, file)
        self.model(name, public_key)
        return index

    def manifest(self, name: str) -> Manifest:
        """A version's manifest."""
        return read_manifest(self._file(self.version(name), MANIFEST_FILE))

    def card(self, name: str) -> str:
        """A version's model card."""
        return self._file(self.version(name), CARD_FILE).decode("utf-8", "replace")

    def reference(self, name: str) -> Reference | None:
        """How a version's features and scores lay in training; None of a model that was saved without."""
        index = self.version(name)
        if REFERENCE_FILE not in index.files:
            return None
        place = f"{self.url}/versions/{name}/{REFERENCE_FILE}"
        return read_reference(self._file(index, REFERENCE_FILE), self.manifest(name), place)

    def add(self, directory: Path, by: str, at: datetime, key: Ed25519PrivateKey | None = None) -> Version:
        """Add a model directory; one that is there already stays as it is.

        Args:
            directory: as `save_model` writes it.
            by: who adds it.
            at: now.
            key: what to sign it with.

        Raises:
            UserError: it is no model directory, or another model of the same name is there.
        """
        files = files_of(directory)
        name = open_model(files.__getitem__, str(directory)).manifest.model_id
        if not VERSION_NAME.fullmatch(name):
            raise UserError(
                f"model {name}: a version's name has small letters, digits, '-', '_' and '.'; train it anew"
            )
        facts = {file: FileFacts(sha256(content), len(content)) for file, content in files.items()}
        version = Version(version=name, added=at.astimezone(UTC).isoformat(timespec="seconds"), by=by, files=facts)
        self._create(version, files, msgspec.json.format(msgspec.json.encode(version), indent=2))
        if key is not None:
            self.sign(name, key)
        return self.version(name)

    def contents(self, name: str) -> dict[str, bytes]:
        """Every file of a version as it was added, its index and its signature among them; see `restore`.

        Raises:
            UserError: as `verify`.
        """
        self.verify(name)
        index, content = self._index(name)
        files = {file: self._file(index, file) for file in index.files} | {INDEX_FILE: content}
        if self._signature(name) is not None:
            files[SIGNATURE_FILE] = self.store.read(_path(name, SIGNATURE_FILE))
        return files

    def restore(self, contents: Mapping[str, bytes], public_key: bytes | None = None) -> Version:
        """Put a version as another registry has it, byte for byte; one that is there already stays as it is.

        Args:
            contents: see `contents`.
            public_key: whose signature it must have; None: none is asked for.

        Raises:
            UserError: a file is not the one that the index has, the model does not open or is not signed as asked, or
                another model of the same name is there.
        """
        files = {file: content for file, content in contents.items() if file not in (INDEX_FILE, SIGNATURE_FILE)}
        index = read_index(contents[INDEX_FILE], INDEX_FILE)
        found = {file: FileFacts(sha256(content), len(content)) for file, content in files.items()}
        if found != index.files:
            wrong = next(f for f in (*found, *index.files) if found.get(f) != index.files.get(f))
            raise UserError(f"{wrong} of version {index.version} is missing or was changed: {INDEX_FILE} has another")
        if open_model(files.__getitem__, f"version {index.version}").manifest.model_id != index.version:
            raise UserError(f"{INDEX_FILE} of version {index.version} is not of this model")
        signature = contents.get(SIGNATURE_FILE)
        if public_key is not None:
            self._check_signature(
                index.version, contents[INDEX_FILE], public_key, _decoded(signature) if signature else None
            )
        self._create(index, files, contents[INDEX_FILE])
        if signature is not None:
            self._put_signature(index.version, signature)
        return self.version(index.version)

    def _create(self, version: Version, files: Mapping[str, bytes], index: bytes) -> None:
        """Put a version's files, the index last; the same ones that are there stay."""
        name, facts = version.version, version.files
        if name not in self.versions():
            for file, content in files.items():
                if not self.store.create(_path(name, file), content):
                    raise self._other(name, file)
            self.store.create(_path(name, INDEX_FILE), index)
        found = self.version(name)
        if found.files != facts:
            raise self._other(name, next(f for f in (*facts, *found.files) if facts.get(f) != found.files.get(f)))

    def sign(self, name: str, key: Ed25519PrivateKey) -> None:
        """Sign a version: say that it may be served.

        Raises:
            UserError: a file of it was changed, or somebody else has signed it.
        """
        self.verify(name)
        self._put_signature(name, base64.b64encode(key.sign(self._index(name)[1])) + b"\n")

    def _put_signature(self, name: str, signature: bytes) -> None:
        if not self.store.create(_path(name, SIGNATURE_FILE), signature):
            raise UserError(f"registry {self.url}: version {name} is signed with another key already")

    def _index(self, name: str) -> tuple[Version, bytes]:
        if not VERSION_NAME.fullmatch(name):
            raise UserError(
                f"{name!r} is no version; its name ends in a hyphen and twelve digits of its model's sha256"
            )
        try:
            content = self.store.read(_path(name, INDEX_FILE))
        except FileNotFoundError as error:
            known = self.versions()
            hint = did_you_mean(name, known) or f"; there are {', '.join(known) or 'none'}"
            raise UserError(f"registry {self.url} has no version {name}{hint}") from error
        index = read_index(content, place := f"registry {self.url}: {INDEX_FILE} of version {name}")
        if index.version != name:
            raise UserError(f"{place} is not of this version")
        return index, content

    def _file(self, index: Version, file: str) -> bytes:
        """A file of a version, as it was added."""
        place = f"registry {self.url}: {file} of version {index.version}"
        if file not in index.files:
            raise UserError(f"{place} is not in it")
        try:
            content = self.store.read(_path(index.version, file))
        except FileNotFoundError as error:
            raise UserError(f"{place} is missing") from error
        if sha256(content) != index.files[file].sha256:
            raise UserError(f"{place} was changed: its sha256 is not the one that {INDEX_FILE} has; do not serve it")
        return content

    def _signature(self, name: str) -> bytes | None:
        try:
            return _decoded(self.store.read(_path(name, SIGNATURE_FILE)))
        except FileNotFoundError:
            return None

    def _check_signature(self, name: str, content: bytes, public_key: bytes, signature: bytes | None) -> None:
        if signature is None:
            raise UserError(
                f"registry {self.url}: version {name} is not signed, and a public key is given (model.public_key); "
                "sign it: python -m model_artifacts sign"
            )
        if not is_signed(content, signature, public_key):
            raise UserError(f"registry {self.url}: the signature of version {name} is not of the public key's owner")

    def _other(self, name: str, file: str) -> UserError:
        return UserError(
            f"registry {self.url}: versions/{name}/{file} is there already and another one; a version is never "
            "changed: give the model another name (python -m pipelines.training --name), or remove what an add that "
            "was cut short has left"
        )


def open_registry(url: str, setting: str = "--registry") -> Registry:
    """The registry in a directory or under `s3://bucket/prefix`; it need not hold anything yet.

    Raises:
        UserError: the URL is neither.
    """
    return Registry(url, open_store(url, setting))


def _path(version: str, file: str) -> str:
    return f"versions/{version}/{file}"


def _decoded(signature: bytes) -> bytes:
    """A signature's bytes; none of what is no Base64, which is nobody's."""
    try:
        return base64.b64decode(signature.strip(), validate=True)
    except binascii.Error:
        return b""
