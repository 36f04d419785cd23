"""The days that are decided again, and how far before them reading begins."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime

from pipelines.past import reach
from pipelines.plan import Plan
from transforms.durations import DAY
from transforms.errors import UserError


@dataclass(frozen=True)
class Period:
    """The time [start, end) that is decided again, in microseconds since 1970.

    Attributes:
        start, end: midnights, UTC.
        warm: features look at transactions from here on: the longest window and delay of their set before `start`.
        first: ids are told to be new from here on: `pipeline.deduplicate_window` before `warm`.
    """

    start: int
    end: int
    warm: int
    first: int

    @property
    def days(self) -> range:
        """The days, counted from 1970-01-01."""
        return range(self.start // DAY, self.end // DAY)


def period_of(start: int, end: int, plan: Plan) -> Period:
    """The period with the past its features need.

    What lies before `warm` changes no feature of the period: windows look back no further. What lies before `first`
    changes no duplicate among the transactions that do.

    Args:
        start, end: midnights, in microseconds since 1970.
        plan: whose features, and whose window of duplicates.

    Raises:
        UserError: the period is empty.
    """
    if start >= end:
        raise UserError(
            "--from must be a day before --to: the days replayed are those from --from up to, not including, --to"
        )
    warm = start - reach(plan.manifest.feature_set)
    return Period(start, end, warm, warm - plan.deduplicate_window)


def midnight(flag: str, text: str) -> int:
    """The beginning of a day, UTC, in microseconds since 1970.

    Args:
        flag: where it was given, for messages.
        text: the day, as 2026-01-31.

    Raises:
        UserError: it is no day.

    Example:
        >>> midnight("--from", "1970-01-02") == DAY
        True
    """
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise UserError(f"{flag} {text!r} is not a date; write it as 2026-01-31") from None
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000
