"""What a reader of a log has left to read: a span of positions, which a runner may checkpoint and split.

A span is plain numbers behind a version byte: it lies in checkpoints and savepoints, which must outlive the names
of classes.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, Protocol

from apache_beam.coders import Coder
from apache_beam.io.iobase import RestrictionProgress, RestrictionTracker
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.utils.timestamp import Duration

#: Where a span ends that has no end.
ENDLESS = (1 << 63) - 1


class Span(NamedTuple):
    """Positions from `start` to before `stop`."""

    start: int
    stop: int = ENDLESS


class SpanCoder(Coder):
    """A version byte, then both positions as big-endian 64-bit numbers.

    Example:
        >>> SpanCoder().encode(Span(7, 9)).hex(), SpanCoder().decode(SpanCoder().encode(Span(7)))
        ('0100000000000000070000000000000009', Span(start=7, stop=9223372036854775807))
    """

    VERSION = 1
    _FORM = struct.Struct(">Bqq")

    def encode(self, value: Span) -> bytes:
        return self._FORM.pack(self.VERSION, value.start, value.stop)

    def decode(self, encoded: bytes) -> Span:
        if encoded[0] != self.VERSION:
            raise ValueError(
                f"a span of coder version {encoded[0]} cannot be read by version {self.VERSION}: "
                "restore with the release that wrote it"
            )
        return Span(*self._FORM.unpack(encoded)[1:])

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> type[Span]:
        return Span


class SpanTracker(RestrictionTracker):
    """Claims of a span: a claim of a position is one of everything up to it.

    A batch is claimed at once, by its last position; see `claim`. A claim past the end fails and changes nothing.
    An endless span is never split but where it stands: its records stay in the order of one reader.
    """

    def __init__(self, span: Span) -> None:
        self._span = span
        self._next = span.start

    def current_restriction(self) -> Span:
        return self._span

    def try_claim(self, position: int) -> bool:
        if position >= self._span.stop:
            return False
        self._next = max(self._next, position + 1)
        return True

    def try_split(self, fraction_of_remainder: float) -> tuple[Span, Span] | None:
        if self._span.stop == ENDLESS and fraction_of_remainder > 0:
            return None
        at = self._next + int((self._span.stop - self._next) * fraction_of_remainder)
        if at >= self._span.stop:
            return None
        rest = Span(at, self._span.stop)
        self._span = Span(self._span.start, at)
        return self._span, rest

    def check_done(self) -> None:
        if self._next < self._span.stop:
            raise ValueError(f"reading ended at {self._next} before the end of {self._span}, without a checkpoint")

    def current_progress(self) -> RestrictionProgress:
        # How much an endless span has left nobody knows; some work is what runners have to see.
        left = 1 if self._span.stop == ENDLESS else self._span.stop - self._next
        return RestrictionProgress(completed=self._next - self._span.start, remaining=left)

    def is_bounded(self) -> bool:
        return self._span.stop != ENDLESS


class Claims(Protocol):
    """A tracker as far as claiming goes."""

    def current_restriction(self) -> Span:
        """What of the span is ours, now."""

    def try_claim(self, position: int) -> bool:
        """Claim everything up to a position."""


class Turn(Claims, Protocol):
    """What a DoFn may do with its tracker."""

    def defer_remainder(self, deferred_time: Duration | None = None) -> None:
        """Leave what was not claimed for another time."""


def claim(tracker: Claims, until: int) -> int:
    """Claim what lies before `until`, as far as the span goes; says how far that is.

    The runner may cut the span at any moment from another thread, hence more than one attempt.

    Example:
        >>> tracker = SpanTracker(Span(10, 20))
        >>> claim(tracker, 15), claim(tracker, 30)
        (15, 20)
    """
    while True:
        bound = min(until, tracker.current_restriction().stop)
        if tracker.try_claim(bound - 1):
            return bound


def is_done(tracker: Claims, position: int) -> bool:
    """Whether a reader that is at `position` has nothing left of a span."""
    return position >= tracker.current_restriction().stop


class Spans(RestrictionProvider):
    """Spans as restrictions of a splittable DoFn. What an element's span is at first, a subclass says."""

    def create_tracker(self, restriction: Span) -> SpanTracker:
        return SpanTracker(restriction)

    def restriction_coder(self) -> Coder:
        return SpanCoder()

    def restriction_size(self, element: Any, restriction: Span) -> int:
        return 1 if restriction.stop == ENDLESS else restriction.stop - restriction.start
