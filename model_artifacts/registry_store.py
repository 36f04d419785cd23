"""Where a registry lies: a folder or a prefix of a bucket, in which a file is created once and never changed.

One operation carries all of a registry's promises: `create` writes a file whole, under a name that is free, or not at
all. On disk that is a link to a finished file, on S3 a put under If-None-Match.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from io_connectors.urls import ConnectorUrl, Scheme, parse_url
from transforms.errors import UserError

if TYPE_CHECKING:
    from io_connectors.s3.objects import Location, Putter

#: What a registry's URL may be.
PLACES = {"file": Scheme("a directory"), "s3": Scheme("bucket/prefix", ("region", "endpoint", "kms_key"))}


class UnreachableStoreError(UserError):
    """A registry cannot be read or written now, whatever it holds."""


class Store(Protocol):
    """Files by name; a name has parts with slashes between them."""

    def names(self, folder: str) -> list[str]:
        """The names of all files below a folder, without the folder's own, in order; none where there is none."""

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: there is no such file.
            UnreachableStoreError: it cannot be told.
        """

    def create(self, name: str, content: bytes) -> bool:
        """Write a file whole, unless there is one of that name; whether that name has this content now."""


def open_store(url: str, setting: str = "--registry") -> Store:
    """The store that a directory's name or `s3://bucket/prefix` names.

    Args:
        url: as of every connector; see `PLACES`.
        setting: where it was given, for messages.

    Raises:
        UserError: it names neither.
    """
    parsed = parse_url(url, PLACES, setting)
    return _open_bucket(parsed) if parsed.scheme == "s3" else Folder(Path(parsed.path))


@dataclass(frozen=True)
class Folder:
    """A store on disk.

    Attributes:
        root: a directory, made with the first file.
    """

    root: Path

    def names(self, folder: str) -> list[str]:
        base = self.root / folder
        files = (path for path in base.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(path.relative_to(base).as_posix() for path in files)

    def read(self, name: str) -> bytes:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UnreachableStoreError(f"registry {self.root}: {name} cannot be read: {error}") from error

    def create(self, name: str, content: bytes) -> bool:
        path = self.root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o444)
                os.link(file.name, path)
        except FileExistsError:
            return path.read_bytes() == content
        except OSError as error:
            raise UnreachableStoreError(f"registry {self.root}: {name} cannot be written: {error.strerror}") from error
        return True


@dataclass(frozen=True)
class Bucket:
    """A store on S3. Permissions needed: GetObject, ListBucket, and of those who add or promote PutObject.

    Attributes:
        location: bucket and prefix.
        putter: puts objects that are not there yet, and has the client.
    """

    location: Location
    putter: Putter

    def names(self, folder: str) -> list[str]:
        from io_connectors.s3.listing import Pattern, list_objects

        base = self.location.key(f"{folder}/")
        pattern, putter = Pattern(self.location.bucket, base), self.putter
        with self._telling():
            found = list_objects(putter.client, pattern, putter.backoff, putter.on_retry).found
        return [each.key.removeprefix(base) for each in found]

    def read(self, name: str) -> bytes:
        from io_connectors.s3.fetch import read_object

        with self._telling():
            return read_object(self.putter, self.location.bucket, self.location.key(name))

    def create(self, name: str, content: bytes) -> bool:
        key = self.location.key(name)
        with self._telling():
            if self.putter.put(self.location.bucket, key, content, "application/octet-stream"):
                return True
        return self.read(name) == content  # it may be our own put, whose answer was lost

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Inside, what AWS's client raises is told as one line."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise UnreachableStoreError(f"registry {self.location}: {error}") from error


#: Seconds after which a bucket that does not answer is given up: whoever asks can ask again.
_PATIENCE = 20.0


def _open_bucket(url: ConnectorUrl) -> Bucket:
    # Not at the top: a registry on disk needs no client of AWS.
    from io_connectors.retry import Backoff
    from io_connectors.s3.objects import Putter, parse_location, s3_client

    backoff = Backoff(give_up_after=_PATIENCE)
    return Bucket(
        parse_location(url.path), Putter(s3_client(url), url.parameters.get("kms_key"), backoff, lambda _: None)
    )
