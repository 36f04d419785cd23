"""Numbers, money and times as people read them. All times are UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def money(minor: int, minor_digits: int = 2) -> str:
    """An amount in minor units, in major ones.

    Example:
        >>> money(-123456789), money(5), money(1500, minor_digits=0)
        ('-1,234,567.89', '0.05', '1,500')
    """
    major, rest = divmod(abs(minor), 10**minor_digits)
    decimals = f".{rest:0{minor_digits}d}" if minor_digits else ""
    return f"{'-' if minor < 0 else ''}{major:,}{decimals}"


def share(part: float, whole: float = 1.0) -> str:
    """A share in percent, with enough digits to tell a small one from none.

    Example:
        >>> share(1, 3), share(3, 1_000_000), share(0, 5), share(2, 0)
        ('33.3 %', '0.0003 %', '0.0 %', '-')
    """
    if not whole:
        return "-"
    percent = 100 * part / whole
    return f"{percent:.1f} %" if percent == 0 or percent >= 0.1 else f"{percent:.1g} %"


def moment(micros: int) -> str:
    """A time in microseconds since 1970, to the minute.

    Example:
        >>> moment(1_533_038_399_999_999)
        '2018-07-31 11:59'
    """
    return (_EPOCH + timedelta(microseconds=micros)).strftime("%Y-%m-%d %H:%M")


def day(number: int) -> str:
    """A day counted from 1970-01-01.

    Example:
        >>> day(17_743)
        '2018-07-31'
    """
    return (_EPOCH + timedelta(days=number)).strftime("%Y-%m-%d")


def span(seconds: float) -> str:
    """How long something took, in the unit it is best read in.

    Example:
        >>> span(0.0000021), span(0.0345), span(7.25), span(83), span(7 * 3600 + 62), span(90_000)
        ('2.1 us', '34 ms', '7.2 s', '1 min 23 s', '7 h 1 min', '1 d 1 h')
    """
    for factor, unit in ((1e6, "us"), (1e3, "ms")):
        value = seconds * factor
        if value < 1000:
            return f"{value:.2g} {unit}" if value < 10 else f"{value:.0f} {unit}"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def printable(text: str) -> str:
    r"""Text from outside: nothing in it may steer a terminal.

    Example:
        >>> printable("day 1.csv\x1b[2J")
        'day 1.csv?[2J'
    """
    return "".join(c if c.isprintable() else "?" for c in text)
