"""Warnings that say the same again and again, once in a while."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

SECONDS = 30.0


class Seldom:
    """Logs a warning, and none for half a minute after.

    Args:
        logger: of the module that warns.
        clock: seconds that never go back.
    """

    def __init__(self, logger: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger, self._clock = logger, clock
        self._last = float("-inf")

    def warn(self, message: str, *values: object) -> None:
        """Log it, unless something was logged not long ago."""
        now = self._clock()
        if now - self._last >= SECONDS:
            self._last = now
            self._logger.warning(message, *values)
