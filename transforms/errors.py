"""The one exception for mistakes a user can mend."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Something the user gave is wrong; the message says what, where, and what to do.

    Commands print the message alone, without a traceback, and exit with 2.
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint to end an error with, or nothing when no known word comes close.

    Example:
        >>> did_you_mean("handbok", ["handbook", "creditcard"])
        '; did you mean handbook?'
    """
    close = get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
