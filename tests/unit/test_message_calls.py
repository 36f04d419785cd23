"""Calls that carry many messages, against a service in memory that fails as it is told to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_connectors.delivery import Message, Refused, UndeliveredError
from io_connectors.message_calls import Calls, Failure, Fault, MessageCalls
from io_connectors.retry import Backoff

Send = Callable[[Sequence[Message]], Sequence[Failure]]


@dataclass
class Clock:
    """Time that passes only while somebody sleeps."""

    now: float = 0.0
    waits: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def backoff(self, give_up_after: float = 60.0) -> Backoff:
        return Backoff(
            give_up_after=give_up_after, sleep=self.sleep, clock=lambda: self.now, uniform=lambda low, high: high
        )


@dataclass
class Service:
    """Takes messages, after `errors` have been raised and `failures` returned; poison is refused as a whole call."""

    errors: list[Exception] = field(default_factory=list)
    poison: frozenset[str] = frozenset()
    broken_by: frozenset[str] = frozenset()
    taken: list[str] = field(default_factory=list)
    calls: list[list[str]] = field(default_factory=list)

    def send(self, messages: Sequence[Message]) -> Sequence[Failure]:
        names = [message.id for message in messages]
        self.calls.append(names)
        if self.errors:
            raise self.errors.pop(0)
        if self.poison & set(names):
            raise ValueError("malformed")
        if self.broken_by & set(names):
            raise RuntimeError("the function failed")
        self.taken += names
        return []


def fault_of(error: Exception) -> Fault:
    kinds = {ConnectionError: Fault.SERVICE, ValueError: Fault.CONTENT, RuntimeError: Fault.RECEIVER}
    return kinds.get(type(error), Fault.SETUP)


def calls(send: Send, clock: Clock, most: int = 10, at_once: int = 1, give_up_after: float = 60.0) -> MessageCalls:
    how = Calls(send, fault_of, lambda e: type(e).__name__, lambda m: len(m.body), most, 1000, at_once)
    return MessageCalls(how, lambda error: None, clock.backoff(give_up_after), lambda: None)


def named(*names: str) -> list[Message]:
    return [Message(name, b"{}") for name in names]


LETTERS = named(*"abcdefghijklmnopqrstuvwxyz")


@given(st.lists(st.integers(0, 1100), max_size=60), st.integers(1, 12))
def test_calls_hold_no_more_than_they_may(sizes: list[int], most: int) -> None:
    """No call is longer or larger than allowed, all messages go once and in order, and what is too large is refused."""
    service = Service()
    sent = [Message(str(at), b"x" * size) for at, size in enumerate(sizes)]
    refused = calls(service.send, Clock(), most).write(sent)
    assert service.taken == [m.id for m in sent if len(m.body) <= 1000]
    assert [each.at for each in refused] == [at for at, size in enumerate(sizes) if size > 1000]
    for names in service.calls:
        assert len(names) <= most
        assert sum(len(sent[int(name)].body) for name in names) <= 1000


@pytest.mark.parametrize("at_once", [1, 4])
def test_only_what_failed_is_sent_again(at_once: int) -> None:
    """Of a call whose answer names two of its messages, these two make the next call."""
    service = Service()
    first = [True]

    def send(messages: Sequence[Message]) -> Sequence[Failure]:
        service.send(messages)
        if first.pop() if first else False:
            return [Failure(1, "busy", "try later", True), Failure(3, "busy", "try later", True)]
        return []

    assert calls(send, Clock(), at_once=at_once).write(LETTERS[:5]) == []
    assert service.calls == [["a", "b", "c", "d", "e"], ["b", "d"]]


def test_what_a_service_refuses_for_good_is_returned_with_its_words() -> None:
    """A failure that is not transient is not tried again."""
    service = Service()

    def send(messages: Sequence[Message]) -> Sequence[Failure]:
        service.send(messages)
        return [Failure(0, "odd", "no such thing", False)]

    assert calls(send, Clock()).write(LETTERS[:3]) == [Refused(0, "odd", "no such thing")]
    assert len(service.calls) == 1


@given(st.sets(st.sampled_from("abcdefghijklmnopqrstuvwxyz")), st.integers(1, 4))
def test_poison_is_found_and_the_others_are_delivered_once(poison: set[str], at_once: int) -> None:
    """Calls refused for their content are halved, without a wait, till each bad message is alone."""
    service, clock = Service(poison=frozenset(poison)), Clock()
    writer = calls(service.send, clock, at_once=at_once)
    refused = writer.write(LETTERS)
    writer.close()
    assert {LETTERS[each.at].id for each in refused} == poison
    assert sorted(service.taken) == sorted(set("abcdefghijklmnopqrstuvwxyz") - poison)
    assert clock.waits == []


def test_a_receiver_that_dies_of_one_message_gets_the_others() -> None:
    """A function that fails on a call is called with less and less, and the one it fails on alone is given up."""
    service = Service(broken_by=frozenset("f"))
    with pytest.raises(UndeliveredError) as caught:
        calls(service.send, Clock()).write(LETTERS)
    assert [LETTERS[each.at].id for each in caught.value.refused] == ["f"]
    assert sorted([*service.taken, "f"]) == [message.id for message in LETTERS]


def test_a_throttled_call_is_made_again_as_it_was_after_growing_waits() -> None:
    """Waits double, as the back-off says, and nothing is delivered twice."""
    service, clock = Service(errors=[ConnectionError(), ConnectionError(), ConnectionError()]), Clock()
    assert calls(service.send, clock).write(LETTERS[:4]) == []
    assert service.calls == [["a", "b", "c", "d"]] * 4
    assert clock.waits == [0.1, 0.2, 0.4]


def test_an_outage_is_waited_for_once() -> None:
    """After giving up each write makes one attempt, until one is answered; then patience is back."""
    service, clock = Service(errors=[ConnectionError("down")] * 1000), Clock()
    writer = calls(service.send, clock, give_up_after=30)
    with pytest.raises(UndeliveredError, match="2 messages could not be delivered; the first: down"):
        writer.write(LETTERS[:2])
    assert clock.now == 30
    attempts = len(service.calls)
    with pytest.raises(UndeliveredError):
        writer.write(LETTERS[2:3])
    assert (clock.now, len(service.calls)) == (30, attempts + 1)
    service.errors.clear()
    assert writer.write(LETTERS[2:3]) == []
    service.errors = [ConnectionError()]
    assert writer.write(LETTERS[3:4]) == []
    assert service.taken == ["c", "d"]


def test_what_was_refused_before_giving_up_is_told_too() -> None:
    """The error holds every message that is not delivered, in order, each with its own cause."""
    answers = {"a": (Failure(0, "odd", "never", False),), "b": (Failure(0, "busy", "later", True),), "c": ()}
    writer = calls(lambda messages: answers[messages[0].id], Clock(), most=1)
    with pytest.raises(UndeliveredError) as caught:
        writer.write(LETTERS[:3])
    assert list(caught.value.refused) == [Refused(0, "odd", "never"), Refused(1, "busy", "later")]


def test_a_target_that_does_not_let_us_in_fails_at_once() -> None:
    """What no retry mends is raised as it is, after one call."""
    service, clock = Service(errors=[PermissionError("denied")]), Clock()
    with pytest.raises(PermissionError, match="denied"):
        calls(service.send, clock).write(LETTERS[:2])
    assert (len(service.calls), clock.waits) == (1, [])
