"""What Kinesis URLs say: which stream, and what of it to read."""

from __future__ import annotations

import re
from dataclasses import dataclass

from io_connectors.moments import EARLIEST, Moment, moment_of
from io_connectors.urls import ConnectorUrl, Scheme
from transforms.errors import UserError

_PLACE = "a stream's name or ARN"
KINESIS_SOURCE = Scheme(
    _PLACE,
    (
        "start",
        "until",
        "max_records",
        "max_duration",
        "consumer",
        "on_missing",
        "watermark_delay",
        "region",
        "endpoint",
    ),
)
KINESIS_SINK = Scheme(_PLACE, ("concurrency", "give_up_after", "region", "endpoint"))
KINESIS_DECISIONS = Scheme(_PLACE, ("columns", *KINESIS_SINK.parameters))

_STREAM = re.compile(
    r"(arn:aws[a-z-]*:kinesis:(?P<region>[a-z0-9-]+):\d{12}:stream/)?(?P<name>[a-zA-Z0-9_.-]{1,128})", re.ASCII
)
_CONSUMER = re.compile(
    r"(arn:aws[a-z-]*:kinesis:[a-z0-9-]+:\d{12}:stream/[a-zA-Z0-9_.-]+/consumer/)?[a-zA-Z0-9_.-]{1,128}(:\d+)?",
    re.ASCII,
)


@dataclass(frozen=True)
class Stream:
    """Which stream, and where.

    Attributes:
        name: of the stream.
        arn: of the stream, where the URL gives it: it may be another account's.
        region, endpoint: of AWS, or None for what is configured.
    """

    name: str
    arn: str | None = None
    region: str | None = None
    endpoint: str | None = None

    @property
    def target(self) -> dict[str, str]:
        """How a call names it."""
        return {"StreamARN": self.arn} if self.arn else {"StreamName": self.name}


@dataclass(frozen=True)
class ReadSettings:
    """What a URL says of reading.

    Attributes:
        stream: what.
        start: where reading begins.
        until: where it ends; None: nowhere.
        max_records: how many records are read at most; None: no such end.
        max_duration: microseconds after which reading ends; None: no such end.
        consumer: name or ARN of the consumer registered for enhanced fan-out; None: GetRecords.
        skip_missing: whether records that the stream no longer holds are passed over, and counted, instead of an error.
        watermark_delay: microseconds that a record may come after one with a later time.
        batch_rows: most records of a batch.
    """

    stream: Stream
    start: Moment = EARLIEST
    until: Moment | None = None
    max_records: int | None = None
    max_duration: int | None = None
    consumer: str | None = None
    skip_missing: bool = False
    watermark_delay: int = 0
    batch_rows: int = 10_000

    @property
    def bounded(self) -> bool:
        """Whether reading ends by itself."""
        return not (self.until is None and self.max_records is None and self.max_duration is None)


def read_settings(url: ConnectorUrl, batch_rows: int) -> ReadSettings:
    """What a source's URL says.

    Raises:
        UserError: something in it is wrong.

    Example:
        >>> read_settings(ConnectorUrl("kinesis", "events", {"region": "eu-west-1", "until": "latest"}), 1000).bounded
        True
    """
    consumer = url.parameters.get("consumer")
    if consumer is not None and not _CONSUMER.fullmatch(consumer):
        raise UserError(f"{url}: {consumer!r} is no consumer's name or ARN")
    return ReadSettings(
        stream=stream_of(url),
        start=moment_of(url, "start", ("earliest", "latest")),
        until=moment_of(url, "until", ("latest",)) if "until" in url.parameters else None,
        max_records=url.integer("max_records", 0, least=1) or None,
        max_duration=url.duration("max_duration"),
        consumer=consumer,
        skip_missing=url.choice("on_missing", ("fail", "skip"), default="fail") == "skip",
        watermark_delay=url.duration("watermark_delay", 0, least=0) or 0,
        batch_rows=batch_rows,
    )


def stream_of(url: ConnectorUrl) -> Stream:
    """The stream a URL names.

    Raises:
        UserError: it names none, or another region than its ARN.
    """
    match = _STREAM.fullmatch(url.path)
    if not match:
        raise UserError(f"{url}: {url.path!r} is no stream's name or ARN; write kinesis://NAME?region=REGION")
    region = url.parameters.get("region")
    if match["region"] and region and region != match["region"]:
        raise UserError(f"{url}: region={region} is not the region of the ARN; leave one of them out")
    arn = url.path if match["region"] else None
    return Stream(match["name"], arn, region or match["region"], url.parameters.get("endpoint"))
