"""Alerts and dead letters as objects of JSON lines."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from io_connectors.aws import is_transient
from io_connectors.delivery import Message, OnRetry, Refused, UndeliveredError
from io_connectors.retry import Backoff
from io_connectors.s3.objects import Location, Putter, parse_location, s3_client
from io_connectors.urls import ConnectorUrl

_JSON_LINES = "application/x-ndjson"


@dataclass(frozen=True)
class S3MessageSink:
    """Messages as objects of JSON lines, named `prefix/messages-<digest of their ids>.jsonl`.

    One object has the messages of a call, a line each, in their order. The same messages together give the same
    object, which is put once. In another cut, as a runner may make after recovery, they give another object: there the
    id in a line tells what comes twice. The URL is `s3://bucket/prefix`, with `region`, `endpoint` and `kms_key` as
    for `S3ParquetSink`.

    Attributes:
        url: as parsed.
        location: where objects go.
        kms_key: see `S3ParquetSink`.
        backoff: how often a call is made again.
    """

    url: ConnectorUrl
    location: Location
    kms_key: str | None = None
    backoff: Backoff = field(default_factory=Backoff)

    def open(self, on_retry: OnRetry) -> LinesWriter:
        """Connect."""
        return LinesWriter(self.location, Putter(s3_client(self.url), self.kms_key, self.backoff, on_retry))


def s3_message_sink(url: ConnectorUrl) -> S3MessageSink:
    """The sink a URL names.

    Raises:
        UserError: no name of a bucket, an endpoint that is none.
    """
    location = parse_location(url.path)
    s3_client(url).close()  # an endpoint that is none is known before anything is read
    return S3MessageSink(url, location, url.parameters.get("kms_key"))


class LinesWriter:
    """An open bucket; see `io_connectors.delivery.MessageWriter`."""

    def __init__(self, location: Location, putter: Putter) -> None:
        self.location = location
        self.putter = putter

    def write(self, messages: Sequence[Message]) -> Sequence[Refused]:
        """Put all messages as one object; none is refused.

        Raises:
            UndeliveredError: S3 is out of reach and trying again has not helped.
            UserError: there is no such bucket.
            Exception: the call is refused.
        """
        bodies = {message.id: message.body for message in messages}
        if bodies:
            key = self.location.key(f"messages-{_digest(bodies)}.jsonl")
            lines = b"".join(body + b"\n" for body in bodies.values())
            try:
                self.putter.put(self.location.bucket, key, lines, _JSON_LINES)
            except Exception as error:
                if not is_transient(error):
                    raise
                why = [Refused(at, "s3_unavailable", str(error)) for at in range(len(messages))]
                raise UndeliveredError(why) from error
        return []

    def close(self) -> None:
        self.putter.client.close()


def _digest(ids: Iterable[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for each in ids:
        encoded = each.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.hexdigest()
