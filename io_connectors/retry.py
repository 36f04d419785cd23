"""Try again: what a server may refuse now and take a moment later."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")


def _uniform(low: float, high: float) -> float:
    # A function of a module: `random.uniform` is a method, and pickled with its generator's state, so that all
    # workers would draw the same waits.
    return random.uniform(low, high)  # noqa: S311 - chance, not secrecy


@dataclass(frozen=True)
class Backoff:
    """How long to wait between attempts, and when to give up.

    Waits are drawn evenly from 0 to a bound that doubles with each attempt ("full jitter"), so that many workers
    that failed together do not come back together (M. Brooker, "Exponential Backoff and Jitter", AWS, 2015).

    Attributes:
        first: bound of the first wait, in seconds.
        most: no bound is above it.
        give_up_after: seconds from the first attempt after which a failure is final.
        sleep, clock, uniform: waits; seconds of a clock that never goes back; a number between two others.
    """

    first: float = 0.1
    most: float = 20.0
    give_up_after: float = 300.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    uniform: Callable[[float, float], float] = _uniform

    def call(
        self,
        action: Callable[[], Result],
        is_transient: Callable[[Exception], bool],
        on_retry: Callable[[Exception], None] = lambda _: None,
    ) -> Result:
        """What `action` returns, however often it takes.

        Args:
            action: does one attempt; an attempt that failed half-way must be harmless to repeat.
            is_transient: whether an error may go away by itself.
            on_retry: told of each error that is followed by another attempt.

        Raises:
            Exception: the action's own, when it is not transient or it is time to give up.

        Example:
            >>> answers = iter([ConnectionError("reset"), "done"])
            >>> def attempt():
            ...     answer = next(answers)
            ...     if isinstance(answer, Exception):
            ...         raise answer
            ...     return answer
            >>> Backoff(sleep=lambda seconds: None).call(attempt, lambda error: isinstance(error, OSError))
            'done'
        """
        deadline = self.clock() + self.give_up_after
        attempt = 0
        while True:
            try:
                return action()
            except Exception as error:
                if not is_transient(error) or self.clock() >= deadline:
                    raise
                on_retry(error)
            self.wait(attempt, deadline)
            attempt += 1

    def wait(self, attempt: int, deadline: float) -> None:
        """Wait as after attempt number `attempt`, from 0, but not past `deadline` of the clock."""
        bound = min(self.most, self.first * 2.0 ** min(attempt, 30))
        self.sleep(max(0.0, min(self.uniform(0.0, bound), deadline - self.clock())))
