"""Bring objects, or as much of them as is needed, onto the local disk, where the readers of files are at home."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

from botocore.exceptions import ClientError, IncompleteReadError

from io_connectors.aws import error_code, is_transient
from io_connectors.delivery import OnRetry
from io_connectors.retry import Backoff
from io_connectors.s3.listing import Found
from io_connectors.s3.objects import Putter
from transforms.decode_json import MAX_RECORD_BYTES

CHUNK = 1 << 20
#: Bytes that surely have a file's first record, or a Parquet file's list of columns unless it says otherwise.
_BEGINNING = 2 * MAX_RECORD_BYTES
_FOOTER = 8  # bytes at the end of a Parquet file: the length of what lies before them, and a magic word

_GONE = {
    "404": ("object_gone", "it was removed after it had been listed"),
    "NoSuchKey": ("object_gone", "it was removed after it had been listed"),
    "412": ("object_replaced", "its content is another one than when it was listed"),
    "PreconditionFailed": ("object_replaced", "its content is another one than when it was listed"),
    "InvalidObjectState": ("object_archived", "it is in an archive; restore it first"),
}


class UnreadableObjectError(Exception):
    """One object cannot be read, whatever is tried; its neighbours can.

    Attributes:
        reason: a short code to group by.
    """

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason = reason


class Fetcher:
    """Reads objects of a bucket, in the version that was listed.

    Args:
        client: of S3.
        bucket: its name.
        backoff: how often a call is made again.
        on_retry: told of each that is.
    """

    def __init__(self, client: Any, bucket: str, backoff: Backoff, on_retry: OnRetry) -> None:
        self.client = client
        self.bucket = bucket
        self.backoff = backoff
        self.on_retry = on_retry

    def fetch(self, found: Found, path: Path) -> None:
        """Write the whole object to a file. What a broken connection has brought is kept.

        Raises:
            UnreadableObjectError: this version of it is not there, or not to be had.
            Exception: the bucket is out of reach.
        """
        with path.open("wb") as file:
            self._append(found, file, 0, found.size)

    def fetch_beginning(self, found: Found, is_parquet: bool, path: Path) -> None:
        """Write as much of the object as tells what it is: its first bytes, or of Parquet the last, in their place.

        Raises:
            UnreadableObjectError: as for `fetch`.
            Exception: likewise.
        """
        with path.open("wb") as file:
            if not is_parquet or found.size <= _BEGINNING:
                self._append(found, file, 0, min(found.size, _BEGINNING))
                return
            file.seek(found.size - _BEGINNING)  # what is skipped takes no room on the disk
            self._append(found, file, found.size - _BEGINNING, found.size)
        with path.open("r+b") as file:
            file.seek(-_FOOTER, 2)
            length = int.from_bytes(file.read(4), "little") + _FOOTER
            if _BEGINNING < length <= found.size:
                file.seek(found.size - length)
                self._append(found, file, found.size - length, found.size)

    def _append(self, found: Found, file: BinaryIO, start: int, stop: int) -> None:
        """Write bytes `start` to `stop` of an object where a file stands."""
        begin = file.tell()

        def attempt() -> None:
            at = start + file.tell() - begin
            if at >= stop:
                return
            part = {} if (at, stop) == (0, found.size) else {"Range": f"bytes={at}-{stop - 1}"}
            got = self.client.get_object(Bucket=self.bucket, Key=found.key, IfMatch=f'"{found.etag}"', **part)
            with closing(got["Body"]) as body:
                for chunk in body.iter_chunks(CHUNK):
                    file.write(chunk)

        try:
            self.backoff.call(attempt, _may_go_away, self.on_retry)
        except ClientError as error:
            if error_code(error) in _GONE:
                raise UnreadableObjectError(*_GONE[error_code(error)]) from error
            raise


def read_object(putter: Putter, bucket: str, key: str) -> bytes:
    """All bytes of an object that fits into memory.

    Raises:
        FileNotFoundError: there is none.
        Exception: the bucket is out of reach.
    """

    def attempt() -> bytes:
        with closing(putter.client.get_object(Bucket=bucket, Key=key)["Body"]) as body:
            return bytes(body.read())

    try:
        return putter.backoff.call(attempt, _may_go_away, putter.on_retry)
    except ClientError as error:
        if error_code(error) in ("404", "NoSuchKey"):
            raise FileNotFoundError(f"s3://{bucket}/{key}") from error
        raise


def _may_go_away(error: Exception) -> bool:
    return is_transient(error) or isinstance(error, IncompleteReadError)
