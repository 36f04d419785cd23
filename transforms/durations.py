"""Spans of time as people write them (`30d`, `90s`) and as the pipeline counts them: microseconds."""

from __future__ import annotations

import re

from transforms.errors import UserError

_UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_PATTERN = re.compile(r"(\d+)\s*(us|ms|s|m|h|d)")

DAY = _UNITS["d"]
HOUR = _UNITS["h"]
SECOND = _UNITS["s"]


def parse_duration(text: str) -> int:
    """Microseconds of a whole number with a unit: us, ms, s, m (minutes), h, d; plain `0` is zero.

    Raises:
        UserError: the text is not of that form.

    Example:
        >>> parse_duration("7d"), parse_duration("0")
        (604800000000, 0)
    """
    if text.strip() == "0":
        return 0
    match = _PATTERN.fullmatch(text.strip())
    if not match:
        raise UserError(f"{text!r} is not a duration; write a whole number and a unit, such as 90s, 15m, 1h or 30d")
    return int(match[1]) * _UNITS[match[2]]


def format_duration(micros: int) -> str:
    """The shortest exact writing of a span, in the largest unit that divides it.

    Example:
        >>> format_duration(86_400_000_000), format_duration(90_000_000)
        ('1d', '90s')
    """
    if micros == 0:
        return "0"
    unit = next(name for name in ("d", "h", "m", "s", "ms", "us") if micros % _UNITS[name] == 0)
    return f"{micros // _UNITS[unit]}{unit}"
