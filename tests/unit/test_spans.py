"""Spans of positions as Beam's restrictions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_connectors.spans import ENDLESS, Span, SpanCoder, SpanTracker, claim, is_done


@given(st.integers(0, 2**62), st.integers(0, 2**62) | st.just(ENDLESS))
def test_a_span_is_the_same_bytes_and_back(start: int, stop: int) -> None:
    """Seventeen of them, whatever the numbers."""
    encoded = SpanCoder().encode(Span(start, stop))
    assert len(encoded) == 17
    assert SpanCoder().decode(encoded) == Span(start, stop)
    assert SpanCoder().encode(SpanCoder().decode(encoded)) == encoded


def test_the_bytes_of_a_span_never_change() -> None:
    """They lie in savepoints of releases that are out."""
    assert SpanCoder().encode(Span(258, ENDLESS)) == bytes.fromhex("01" + "0000000000000102" + "7fffffffffffffff")
    with pytest.raises(ValueError, match="a span of coder version 2 cannot be read by version 1"):
        SpanCoder().decode(b"\x02" + bytes(16))


@given(st.integers(0, 50), st.integers(0, 50), st.lists(st.integers(0, 120), max_size=5), st.floats(0, 1))
def test_a_split_loses_no_position_and_gives_none_twice(
    start: int, length: int, claims: list[int], fraction: float
) -> None:
    """What was claimed stays in the first part, and both parts together are the span."""
    span = Span(start, start + length)
    tracker = SpanTracker(span)
    claimed = max([start, *(claim(tracker, bound) for bound in claims)])
    split = tracker.try_split(fraction)
    if split is None:
        assert fraction == 1 or claimed >= span.stop or int((span.stop - claimed) * fraction) + claimed >= span.stop
        return
    first, rest = split
    assert (first.start, first.stop, rest.stop) == (span.start, rest.start, span.stop)
    assert first.stop >= claimed
    assert tracker.current_restriction() == first


def test_a_checkpoint_is_where_reading_stands() -> None:
    """Of an endless span too, which is never split elsewhere: its records keep the order of one reader."""
    tracker = SpanTracker(Span(10))
    assert claim(tracker, 25) == 25
    assert tracker.try_split(0.5) is None
    assert tracker.try_split(0) == (Span(10, 25), Span(25))
    tracker.check_done()
    assert claim(tracker, 40) == 25, "what was cut off is not claimed any more"
    assert is_done(tracker, 25)


def test_ending_too_early_is_a_mistake() -> None:
    """A reader that just stops would lose what is left."""
    tracker = SpanTracker(Span(0, 10))
    claim(tracker, 9)
    with pytest.raises(ValueError, match="reading ended at 9 before the end of"):
        tracker.check_done()
    claim(tracker, ENDLESS)
    tracker.check_done()


def test_progress_is_always_told() -> None:
    """A runner that is told nothing holds the watermark of the whole job."""
    bounded, endless = SpanTracker(Span(0, 10)), SpanTracker(Span(0))
    claim(bounded, 4)
    claim(endless, 4)
    assert (bounded.current_progress().completed_work, bounded.current_progress().remaining_work) == (4, 6)
    assert (endless.current_progress().completed_work, endless.current_progress().remaining_work) == (4, 1)
    assert (bounded.is_bounded(), endless.is_bounded()) == (True, False)
