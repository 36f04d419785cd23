"""Files in a bucket under names that say what they hold: what is there already is not sent again."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass

from runners.emr.artefacts import Artefact
from runners.emr.calls import Calls
from transforms.errors import UserError

_LOCATION = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*?))?/?")


@dataclass(frozen=True)
class Prefix:
    """Where in S3 artefacts are kept.

    Attributes:
        bucket: its name.
        prefix: of the keys, without a slash at its end; may be empty.
    """

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def key(self, artefact: Artefact) -> str:
        """The key of an artefact."""
        return f"{self.prefix}/{artefact.key}".lstrip("/")

    def url(self, artefact: Artefact) -> str:
        """The URL of an artefact."""
        return f"{self}/{artefact.key}"


def parse_prefix(text: str, flag: str) -> Prefix:
    """A place in S3.

    Raises:
        UserError: it is none.

    Example:
        >>> str(parse_prefix("s3://fraud-jobs/production/", "--bucket"))
        's3://fraud-jobs/production'
    """
    match = _LOCATION.fullmatch(text)
    if match is None:
        raise UserError(f"{flag} must be of the form s3://bucket/prefix; found {text!r}")
    return Prefix(match[1], match[2] or "")


def upload(calls: Calls, place: Prefix, artefacts: Iterable[Artefact]) -> int:
    """Put files into the bucket, as far as they are not there; S3 checks each against its sha256 before it takes it.

    Returns:
        How many were sent.

    Raises:
        UserError: the bucket refused, or holds something else under a name.
    """
    sent = 0
    for each in artefacts:
        checksum = base64.b64encode(bytes.fromhex(each.sha256)).decode()
        at = {"Bucket": place.bucket, "Key": place.key(each)}
        found = calls.find("s3", "head_object", ChecksumMode="ENABLED", **at)
        if found.get("ChecksumSHA256", checksum) != checksum:
            raise UserError(
                f"{place.url(each)} holds something else than its name says: somebody has replaced it; find out who, "
                "and remove it"
            )
        if "ChecksumSHA256" not in found:
            calls("s3", "put_object", Body=each.path, ChecksumSHA256=checksum, **at)
            sent += 1
    return sent
