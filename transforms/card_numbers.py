"""Card numbers in text: found, and masked. Of Python's own parts only, so that the alert function can carry it."""

from __future__ import annotations

import re
from collections.abc import Iterable

_UUID = r"(?<![0-9A-Za-z])[0-9a-f]{8}-?[0-9a-f]{4}-?[1-8][0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}(?![0-9A-Za-z])"
_DIGITS = r"(?<!\d)(?<!\d\.)\d(?:[ -]?\d){12,}"  # with at most one space or hyphen between two
_RUN = re.compile(rf"(?P<uuid>(?=[\d-]*[a-f]){_UUID})|{_DIGITS}")
_GROUP = re.compile(r"\d+")
_MOST_GROUPS = 5  # of one card number as people write it


def mask_card_numbers(text: str) -> str:
    """`text` with all but the last four digits of card numbers replaced.

    A run of 13 to 19 digits that passes the Luhn check counts as a card number, also where it is written in
    groups and stands among others, as before an expiry date. Digits after a decimal point do not count, nor do
    those of a UUID (RFC 9562, lower case, with hyphens or without): one in some hundreds would look like a card number.

    Example:
        >>> mask_card_numbers("02 4111-1111-1111-1111 12/27, 4111111111111111.0, 0.4111111111111111")
        '02 ************1111 12/27, ************1111.0, 0.4111111111111111'
        >>> mask_card_numbers("8fdaa809-4809-8439-93b6-9a281cb03e73")
        '8fdaa809-4809-8439-93b6-9a281cb03e73'
    """
    return _RUN.sub(_mask_run, text)


def _mask_run(match: re.Match[str]) -> str:
    """A run of digits in groups, the card numbers among them masked."""
    run = match.group()
    if match["uuid"]:
        return run
    parts, done = [], 0
    for start, end in _card_spans(run):
        digits = [c for c in run[start:end] if c.isdigit()]
        parts += [run[done:start], "*" * (len(digits) - 4), *digits[-4:]]
        done = end
    return "".join([*parts, run[done:]])


def _card_spans(run: str) -> list[tuple[int, int]]:
    """Where a run holds card numbers. Those that overlap are one: whichever is real, it must not show."""
    groups = [group.span() for group in _GROUP.finditer(run)]
    spans: list[tuple[int, int]] = []
    for first, (start, _) in enumerate(groups):
        for _, end in groups[first : first + _MOST_GROUPS]:
            digits = [int(c) for c in run[start:end] if c.isdigit()]
            if not (13 <= len(digits) <= 19 and _passes_luhn(digits)):
                continue
            if spans and start < spans[-1][1]:
                spans[-1] = (spans[-1][0], max(spans[-1][1], end))
            else:
                spans.append((start, end))
    return spans


def _passes_luhn(digits: Iterable[int]) -> bool:
    total = 0
    for at, digit in enumerate(reversed(list(digits))):
        doubled = digit * 2 if at % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0
