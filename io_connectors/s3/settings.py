"""What an `s3:` URL says of reading."""

from __future__ import annotations

from dataclasses import dataclass, field

from io_connectors.files import FORMATS
from io_connectors.moments import EARLIEST, Moment, moment_of
from io_connectors.retry import Backoff
from io_connectors.s3.listing import Found, Pattern, parse_pattern
from io_connectors.urls import ConnectorUrl
from transforms.durations import SECOND
from transforms.errors import UserError
from transforms.schema import Schema


@dataclass(frozen=True)
class ObjectSettings:
    """What is to be read, and how.

    The URL is `s3://bucket/pattern`, with `region` and `endpoint` as every AWS connector has them, and

    - `format`: where names do not tell it, as of files;
    - `start`: `earliest`, `timestamp:2026-01-31T08:00:00Z` for objects put from then on, or with `watch` `latest`;
    - `watch`, such as `30s`: look for more objects so often, for ever; without it, what is there is read;
    - `max_duration`: with `watch`, the time after which reading ends;
    - `watermark_delay`: how long after a transaction its object may be put. It is 0 unless given, and then what is
      ordered by event time is late for the most part: give the time that an object spans, and some more.

    Attributes:
        url: as parsed.
        pattern: the objects to read.
        schema: their fields.
        batch_rows: most records of a batch.
        format: as the URL says.
        start: likewise.
        watch, max_duration, watermark_delay: likewise, in microseconds.
        backoff: how often a call is made again.
    """

    url: ConnectorUrl
    pattern: Pattern
    schema: Schema
    batch_rows: int
    format: str | None = None
    start: Moment = EARLIEST
    watch: int | None = None
    max_duration: int | None = None
    watermark_delay: int = 0
    backoff: Backoff = field(default_factory=Backoff)

    @property
    def bounded(self) -> bool:
        """Whether reading ends by itself."""
        return self.watch is None or self.max_duration is not None

    def name_of(self, found: Found) -> str:
        """What an object is called in batches, dead letters and messages."""
        return f"s3://{self.pattern.bucket}/{found.key}"


def object_settings(url: ConnectorUrl, schema: Schema, batch_rows: int) -> ObjectSettings:
    """What a source's URL says.

    Raises:
        UserError: something in it is wrong.
    """
    watch = url.duration("watch", least=SECOND)
    if watch is None:
        for name in ("max_duration", "watermark_delay"):
            if name in url.parameters:
                raise UserError(
                    f"{url}: {name} says how long objects are waited for, so it needs watch=30s or the like"
                )
    return ObjectSettings(
        url=url,
        pattern=parse_pattern(url.path),
        schema=schema,
        batch_rows=batch_rows,
        format=url.choice("format", tuple(FORMATS), "") if "format" in url.parameters else None,
        start=moment_of(url, "start", ["earliest", "latest"] if watch else ["earliest"]),
        watch=watch,
        max_duration=url.duration("max_duration"),
        watermark_delay=url.duration("watermark_delay", default=0, least=0) or 0,
    )
