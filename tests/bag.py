"""Beam's bag state, for tests of what is kept in it."""

from __future__ import annotations

from typing import Any


class Bag:
    """A bag of one key, as Beam's state offers it.

    Attributes:
        content: what is in it.
        added, cleared: how often it was written to.
    """

    def __init__(self) -> None:
        self.content: list[Any] = []
        self.added = self.cleared = 0

    def read(self) -> list[Any]:
        """All that is in it."""
        return list(self.content)

    def add(self, value: Any) -> None:
        """Put something more in."""
        self.content.append(value)
        self.added += 1

    def clear(self) -> None:
        """Empty it."""
        self.content = []
        self.cleared += 1
