"""Which objects a URL's path names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from io_connectors.aws import is_transient
from io_connectors.delivery import OnRetry
from io_connectors.retry import Backoff
from io_connectors.s3.objects import parse_location

PAGE = 1_000  # objects that a call lists, at most: S3's own limit
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WILD = re.compile(r"[*?]")
_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|[^*?]+")
_REGEX = {"**/": r"(?:.*/)?", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}


class Found(NamedTuple):
    """One version of an object, as a list of a bucket shows it.

    Attributes:
        key: its name in the bucket.
        etag: differs from one content to another.
        size: in bytes.
        modified: when it was put, in microseconds since 1970; S3 tells whole seconds. Of one that was uploaded in
            parts it is when the upload began.
    """

    key: str
    etag: str
    size: int
    modified: int


@dataclass(frozen=True)
class Pattern:
    """The objects to read.

    Attributes:
        bucket: where they are.
        path: a key, what keys begin with up to a slash, or a pattern in which `*` and `?` stand for anything but a
            slash and `**` for anything.

    Example:
        >>> in_march = Pattern("fraud", "2026/03/*.csv")
        >>> in_march.beginning, in_march.matches("2026/03/01.csv"), in_march.matches("2026/03/old/01.csv")
        ('2026/03/', True, False)
        >>> Pattern("fraud", "2026").matches("2026/03/01.csv"), Pattern("fraud", "2026").matches("2026-old/01.csv")
        (True, False)
    """

    bucket: str
    path: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.path}"

    @property
    def beginning(self) -> str:
        """What all keys that can match begin with."""
        wild = _WILD.search(self.path)
        return self.path[: wild.start()] if wild else self.path

    def matches(self, key: str) -> bool:
        """Whether an object is meant.

        Under a prefix, names that begin with a dot or an underscore are passed over, as Athena and Spark do: what
        writers leave there is no data. So are names that end with a slash, by which consoles show folders.
        """
        if key.endswith("/"):
            return False
        if _WILD.search(self.path):
            regex = "".join(_REGEX.get(token) or re.escape(token) for token in _TOKEN.findall(self.path))
            return re.fullmatch(regex, key, re.DOTALL) is not None
        if key == self.path:
            return True
        folder = f"{self.path.rstrip('/')}/" if self.path else ""
        return key.startswith(folder) and not any(
            name.startswith((".", "_")) for name in key.removeprefix(folder).split("/")
        )


def parse_pattern(path: str) -> Pattern:
    """The pattern that `bucket/pattern` names.

    Raises:
        UserError: what should be the bucket is no name of one.
    """
    bucket, _, rest = path.partition("/")
    return Pattern(parse_location(bucket).bucket, rest)


class Listing(NamedTuple):
    """What a bucket held.

    Attributes:
        found: the objects that match, in the order of their keys.
        asked: when the bucket began to be looked at, by its own clock, in microseconds since 1970.
    """

    found: list[Found]
    asked: int


def list_objects(client: Any, pattern: Pattern, backoff: Backoff, on_retry: OnRetry) -> Listing:
    """The objects there are, as of now: S3's lists show every object whose put has been answered.

    Raises:
        Exception: the bucket cannot be listed.
    """
    pages = _pages(client, pattern, backoff, on_retry)
    first = next(pages)
    asked = parsedate_to_datetime(first["ResponseMetadata"]["HTTPHeaders"]["date"])
    listed = (_found(each) for page in chain([first], pages) for each in page.get("Contents", ()))
    return Listing([each for each in listed if pattern.matches(each.key)], _micros(asked))


def _pages(client: Any, pattern: Pattern, backoff: Backoff, on_retry: OnRetry) -> Iterator[Any]:
    more: dict[str, str] = {}
    while True:
        ask = partial(client.list_objects_v2, Bucket=pattern.bucket, Prefix=pattern.beginning, MaxKeys=PAGE, **more)
        page = backoff.call(ask, is_transient, on_retry)
        yield page
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def _found(listed: Any) -> Found:
    return Found(listed["Key"], listed["ETag"].strip('"'), listed["Size"], _micros(listed["LastModified"]))


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
