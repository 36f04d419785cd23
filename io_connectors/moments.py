"""Where reading a stream starts or ends, as URLs say it: at one end of what there is, or at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from io_connectors.urls import ConnectorUrl
from transforms.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Moment:
    """Where reading starts or ends.

    Attributes:
        word: `earliest`, `latest` or `timestamp`.
        millis: of a timestamp, since 1970.
    """

    word: str
    millis: int = 0


EARLIEST = Moment("earliest")


def moment_of(url: ConnectorUrl, name: str, words: Sequence[str]) -> Moment:
    """A parameter that is one of some words, or `timestamp:` and a time; the first word when it is not given.

    The time is written in ISO 8601, in UTC where it names no zone, or as milliseconds since 1970.

    Raises:
        UserError: it is neither.

    Example:
        >>> url = ConnectorUrl("kinesis", "events", {"until": "timestamp:2026-01-31T08:00:00Z"})
        >>> moment_of(url, "until", ["latest"]), moment_of(url, "start", ["earliest", "latest"])
        (Moment(word='timestamp', millis=1769846400000), Moment(word='earliest', millis=0))
    """
    text = url.parameters.get(name, words[0])
    if text in words:
        return Moment(text)
    prefix, _, time = text.partition(":")
    if prefix != "timestamp" or not time:
        forms = ", ".join([*words, "timestamp:2026-01-31T08:00:00Z"])
        raise UserError(
            f"{url}: {name} must be {forms} or timestamp:MILLISECONDS; found {text!r}{did_you_mean(text, words)}"
        )
    if re.fullmatch(r"[0-9]{1,15}", time):
        return Moment("timestamp", int(time))
    try:
        parsed = datetime.fromisoformat(time)
    except ValueError:
        raise UserError(f"{url}: {name}: {time!r} is no time; write 2026-01-31T08:00:00Z") from None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    return Moment("timestamp", int(parsed.timestamp() * 1000))
