"""Buckets, keys, and the calls that every user of S3 here makes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from botocore.config import Config
from botocore.exceptions import ClientError

from io_connectors.aws import client_of, error_code, is_transient
from io_connectors.delivery import OnRetry
from io_connectors.retry import Backoff
from io_connectors.urls import ConnectorUrl
from transforms.errors import UserError

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


@dataclass(frozen=True)
class Location:
    """A bucket and what keys in it begin with.

    Attributes:
        bucket: its name.
        prefix: of keys, without a slash at its end; empty: the whole bucket.

    Example:
        >>> parse_location("fraud/decisions/").key("part-1.parquet")
        'decisions/part-1.parquet'
    """

    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def key(self, name: str) -> str:
        """The key of an object called `name` under the prefix."""
        return f"{self.prefix}/{name}" if self.prefix else name

    def holds(self, other: Location) -> bool:
        """Whether what is under `other` is under this as well."""
        return self.bucket == other.bucket and (not self.prefix or f"{other.prefix}/".startswith(f"{self.prefix}/"))


def parse_location(path: str) -> Location:
    """The location that `bucket` or `bucket/prefix` names.

    Raises:
        UserError: what should be the bucket is no name of one.
    """
    bucket, _, prefix = path.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise UserError(
            f"s3: {bucket!r} is no name of a bucket: 3 to 63 lower-case letters, digits, hyphens, dots; "
            "write s3://bucket/prefix"
        )
    return Location(bucket, prefix.strip("/"))


def locations(path: str, flagged: str | None = None) -> list[Location]:
    """Where a sink's URL has its objects go.

    Args:
        path: of the URL.
        flagged: its parameter of that name.

    Raises:
        UserError: no name of a bucket.
    """
    decisions = parse_location(path)
    if flagged is None:
        return [decisions]
    named = flagged.startswith("s3://")
    return [decisions, parse_location(flagged.removeprefix("s3://") if named else f"{decisions.bucket}/{flagged}")]


def s3_client(url: ConnectorUrl) -> Any:
    """A client of S3; see `io_connectors.aws.client`."""
    own_endpoint = "endpoint" in url.parameters or any(os.environ.get(name) for name in _ENDPOINTS)
    # Other servers than AWS's have one host name, and buckets are parts of its paths.
    return client_of(url, "s3", Config(s3={"addressing_style": "path"}) if own_endpoint else None)


@dataclass(frozen=True)
class Putter:
    """Puts objects that are not there yet; one that is stays as it is, and is no error.

    Attributes:
        client: of S3.
        kms_key: what to encrypt them with on the server; None: as the bucket says.
        backoff: how often a call is made again.
        on_retry: told of each that is.
    """

    client: Any
    kms_key: str | None
    backoff: Backoff
    on_retry: OnRetry

    def put(self, bucket: str, key: str, content: bytes | Path, content_type: str) -> bool:
        """Put one object, whole or not at all; whether there was none of that name.

        Args:
            bucket, key: its name.
            content: what it holds, or a file that does.
            content_type: such as `application/vnd.apache.parquet`.

        Raises:
            UserError: there is no such bucket.
            Exception: the call failed for good.
        """
        secured = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key, "BucketKeyEnabled": True}

        def attempt() -> None:
            with BytesIO(content) if isinstance(content, bytes) else content.open("rb") as body:
                self.client.put_object(
                    Bucket=bucket,
                    Key=key,
                    Body=body,
                    ContentType=content_type,
                    IfNoneMatch="*",
                    **(secured if self.kms_key else {}),
                )

        try:
            self.backoff.call(attempt, _may_go_away, self.on_retry)
        except ClientError as error:
            if error_code(error) == "NoSuchBucket":
                raise UserError(f"s3: there is no bucket {bucket}; make it, or name another") from error
            if error_code(error) != "PreconditionFailed":
                raise
            return False  # where a name tells the content, it was put before
        return True


def _may_go_away(error: Exception) -> bool:
    # Two puts of one name at once: the next attempt sees what the other one did.
    return is_transient(error) or error_code(error) in ("ConditionalRequestConflict", "OperationAborted")
