"""Messages in calls of a bounded size: what failed is sent again alone, what never can be sent is set aside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from io_connectors.delivery import Message, OnRetry, Refused, UndeliveredError
from io_connectors.retry import Backoff

#: Seconds after which an alert that cannot be delivered is let go of, where a URL does not say.
PATIENCE = 60.0


class Failure(NamedTuple):
    """What a call said of one of its messages.

    Attributes:
        at: its place among the messages of the call.
        reason: a short code to group by.
        error: a sentence that says why.
        transient: whether it may work later.
    """

    at: int
    reason: str
    error: str
    transient: bool


class Fault(Enum):
    """Why a whole call failed."""

    SERVICE = "out of reach, or it wants us to slow down: the same again, later"
    CONTENT = "a message in it will never be taken: find it"
    RECEIVER = "whoever received it failed, perhaps on one message of it: fewer at a time, later"
    SETUP = "the target is not there, or does not let us in: nothing will help"


class FailedCallError(Exception):
    """A call that failed, or a part of one, where no client's exception says so."""


@dataclass(frozen=True)
class Calls:
    """How a service takes messages.

    Attributes:
        send: one call; says which of its messages failed. It raises when all of them did.
        fault_of: what an error that `send` raised means.
        reason_of: a short code of such an error, to group by.
        size_of: bytes of one message in a call.
        most_messages: of one call.
        most_bytes: likewise; a larger message is refused.
        at_once: how many calls may be under way.
    """

    send: Callable[[Sequence[Message]], Sequence[Failure]]
    fault_of: Callable[[Exception], Fault]
    reason_of: Callable[[Exception], str]
    size_of: Callable[[Message], int]
    most_messages: int
    most_bytes: int
    at_once: int = 1


@dataclass
class _Round:
    """What one write has come to.

    Attributes:
        refused: messages that never can be delivered.
        later: places of messages to send again, each group in a call of its own.
        why: for each of those, what went wrong last.
        delivered: how many messages are.
    """

    refused: list[Refused] = field(default_factory=list)
    later: list[Sequence[int]] = field(default_factory=list)
    why: dict[int, Refused] = field(default_factory=dict)
    delivered: int = 0

    def put_off(self, places: Sequence[int], failures: Sequence[Refused]) -> None:
        """Have these sent again in one call."""
        self.later.append(places)
        self.why.update({failure.at: failure for failure in failures})


class MessageCalls:
    """A `MessageWriter` that makes calls.

    While the service is down each write makes one attempt only, so that a long outage delays what goes through the
    pipeline once and not with every bundle.

    Args:
        calls: how the service takes messages.
        on_retry: told of each failure that is followed by another attempt.
        backoff: how long to wait between attempts, and when to give up.
        close: called when the writer is closed.
    """

    def __init__(self, calls: Calls, on_retry: OnRetry, backoff: Backoff, close: Callable[[], None]) -> None:
        self._calls = calls
        self._on_retry = on_retry
        self._backoff = backoff
        self._close = close
        self._down = False
        self._pool = ThreadPoolExecutor(calls.at_once, "messages") if calls.at_once > 1 else None

    def write(self, messages: Sequence[Message]) -> Sequence[Refused]:
        """Deliver every message; those that never can be are returned, in their order.

        Raises:
            UndeliveredError: time to give up on some.
            Exception: the client's own, when the target is not there or does not let us in.
        """
        state = _Round()
        groups = self._cut(messages, state)
        deadline = self._backoff.clock() + (0.0 if self._down else self._backoff.give_up_after)
        attempt = 0
        while groups:
            self._attempt(messages, groups, state)
            groups, state.later = state.later, []
            if groups and self._backoff.clock() >= deadline:
                self._down = state.delivered == 0
                left = [state.why[at] for places in groups for at in places]
                raise UndeliveredError(sorted([*state.refused, *left]))
            for places in groups:
                self._on_retry(FailedCallError(state.why[places[0]].error))
            if groups:
                self._backoff.wait(attempt, deadline)
                attempt += 1
        self._down = False
        return sorted(state.refused)

    def close(self) -> None:
        """Let go of the connection."""
        if self._pool is not None:
            self._pool.shutdown()
        self._close()

    def _cut(self, messages: Sequence[Message], state: _Round) -> list[Sequence[int]]:
        """The messages in groups that a call takes; what no call takes is refused."""
        groups: list[Sequence[int]] = []
        group: list[int] = []
        size = 0
        for at, message in enumerate(messages):
            own = self._calls.size_of(message)
            if own > self._calls.most_bytes:
                error = f"{own:,} bytes as a message; {self._calls.most_bytes:,} is the most that can be sent"
                state.refused.append(Refused(at, "too_large", error))
                continue
            if group and (len(group) >= self._calls.most_messages or size + own > self._calls.most_bytes):
                groups.append(group)
                group, size = [], 0
            group.append(at)
            size += own
        return [*groups, group] if group else groups

    def _attempt(self, messages: Sequence[Message], groups: Sequence[Sequence[int]], state: _Round) -> None:
        """Send each group once; groups with a message in them that will never be taken are halved till it is found."""
        while groups:
            batches = [[messages[at] for at in places] for places in groups]
            outcomes = list(self._pool.map(self._send, batches) if self._pool else map(self._send, batches))
            halves: list[Sequence[int]] = []
            for places, outcome in zip(groups, outcomes, strict=True):
                if isinstance(outcome, Exception):
                    halves += self._settle_error(places, outcome, state)
                else:
                    _settle_failures(places, outcome, state)
            groups = halves

    def _send(self, batch: Sequence[Message]) -> Sequence[Failure] | Exception:
        try:
            return self._calls.send(batch)
        except Exception as error:
            return error  # judged, and raised where nothing can be done, by the thread that writes

    def _settle_error(self, places: Sequence[int], error: Exception, state: _Round) -> list[Sequence[int]]:
        """Take note of a call that failed as a whole; the parts to send at once."""
        fault = self._calls.fault_of(error)
        if fault is Fault.SETUP:
            raise error
        reason, middle = self._calls.reason_of(error), len(places) // 2
        parts = [places[:middle], places[middle:]] if middle else [places]
        if fault is Fault.CONTENT:
            if middle:
                return parts
            state.refused.append(Refused(places[0], reason, str(error)))
            return []
        for part in [places] if fault is Fault.SERVICE else parts:
            state.put_off(part, [Refused(at, reason, str(error)) for at in part])
        return []


def _settle_failures(places: Sequence[int], failures: Sequence[Failure], state: _Round) -> None:
    """Take note of a call that some of its messages failed in."""
    state.delivered += len(places) - len(failures)
    refused = [Refused(places[each.at], each.reason, each.error) for each in failures if not each.transient]
    again = [Refused(places[each.at], each.reason, each.error) for each in failures if each.transient]
    state.refused += refused
    if again:
        state.put_off([each.at for each in again], again)
