"""Results must not be written where input is waited for: they would be read, written again, and so on for ever."""

from __future__ import annotations

from collections.abc import Iterable

from io_connectors.s3.listing import parse_pattern
from io_connectors.s3.objects import Location
from transforms.errors import UserError

#: Names as the sinks give them: of decisions, and of messages.
_NAMES = ("event_date=2026-01-02/part-20260102T000000-0123456789abcdef.parquet", "messages-0123456789abcdef.jsonl")


def check_apart(watched: str, written: Iterable[tuple[str, Location]]) -> None:
    """Refuse to write what would be read.

    Args:
        watched: bucket and pattern of a source that waits for objects.
        written: flags, and where what they name goes.

    Raises:
        UserError: names the flag.

    Example:
        >>> from io_connectors.s3.objects import parse_location
        >>> check_apart("fraud/in/*.csv", [("--sink", parse_location("fraud/in/decisions"))])
        >>> check_apart("fraud/in", [("--sink", parse_location("fraud/in/decisions"))])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        transforms.errors.UserError: --sink: what goes to s3://fraud/in/decisions would be read by ...
    """
    pattern = parse_pattern(watched)
    for flag, location in written:
        if location.bucket == pattern.bucket and any(pattern.matches(location.key(name)) for name in _NAMES):
            raise UserError(
                f"{flag}: what goes to {location} would be read by the source {pattern}, which waits for more, and "
                "written again; name a prefix that it does not match"
            )
