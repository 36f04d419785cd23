"""How far all sinks have come, against the slow and obvious way of telling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from io_connectors.delivery import Written
from io_connectors.kafka.commit import CommitOffsets, _Gather
from io_connectors.kafka.progress import NO_RANGES, Progress, merge, without
from io_connectors.kafka.settings import Cluster, ReadSettings
from transforms.raw_batch import RawBatch, Reach

SINKS = ("a", "b")
told_by = st.sampled_from([*SINKS, "ab"])
ranges = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)).map(lambda at: (at[0], at[0] + at[1])), max_size=6)


def positions(pairs: object) -> set[int]:
    return {position for first, stop in np.asarray(pairs).reshape(-1, 2).tolist() for position in range(first, stop)}


@given(st.lists(ranges, max_size=4))
def test_merged_ranges_hold_the_same_positions(several: list[list[tuple[int, int]]]) -> None:
    """Ascending, apart from each other, and no position more or less."""
    merged = merge(*[np.array(each, dtype=np.int64).reshape(-1, 2) for each in several])
    assert positions(merged) == {position for each in several for position in positions(each)}
    assert (merged[1:, 0] > merged[:-1, 1]).all()


@given(st.integers(0, 20), st.integers(0, 20), st.sets(st.integers(0, 40)))
def test_gaps_are_what_is_left_of_a_reach(first: int, length: int, records: set[int]) -> None:
    """All positions that hold no record."""
    inside = {position for position in records if first <= position < first + length}
    assert positions(without(first, first + length, inside)) == set(range(first, first + length)) - inside


@given(st.lists(st.tuples(told_by, ranges), max_size=12), st.integers(0, 12), st.integers(0, 20))
def test_done_is_the_prefix_that_every_sink_holds(
    told: list[tuple[str, list[tuple[int, int]]]], when: int, begin: int
) -> None:
    """Whatever is told in whatever order, and wherever in between the beginning becomes known."""
    progress = Progress.of(SINKS)
    held: dict[str, set[int]] = {sink: set() for sink in SINKS}
    for at, (who, pairs) in enumerate(told):
        given_begin = begin if at == when else None
        progress = progress.add(tuple(who), np.array(pairs, dtype=np.int64).reshape(-1, 2), given_begin)
        progress = Progress.decode(progress.encode(), SINKS)
        for sink in who:
            held[sink] |= positions(pairs)
        if at < when:
            assert progress.done is None
            continue
        expected = begin
        while all(expected in held[sink] for sink in SINKS):
            expected += 1
        assert progress.done == expected


def test_what_is_done_takes_no_memory() -> None:
    """State holds what lies behind the prefix, as ranges."""
    progress = Progress.of(SINKS).add([], NO_RANGES, begin=0)
    for first in range(0, 100_000, 1000):
        progress = progress.add(SINKS, np.array([[first, first + 1000]]))
    assert progress.done == 100_000
    assert [len(each) for each in progress.held.values()] == [0, 0]


def test_a_sink_that_is_new_holds_nothing_yet() -> None:
    """A job that goes on with another sink commits nothing before it has caught up."""
    stored = Progress.of(["a"]).add(["a"], np.array([[0, 5]]), begin=0).encode()
    progress = Progress.decode(stored, ["a", "new"]).add(["a"], np.array([[5, 9]]))
    assert progress.done == 5
    assert progress.add(["new"], np.array([[5, 7]])).done == 7


def test_another_version_is_refused() -> None:
    """State of a release to come is not guessed at."""
    stored = Progress.of(["a"]).encode().replace(b"\x93\x01", b"\x93\x02", 1)
    with pytest.raises(ValueError, match="progress of version 2 cannot be read by version 1"):
        Progress.decode(stored, ["a"])


def test_a_bundle_tells_of_each_source_once() -> None:
    """Ranges of one source are put together; a reader tells what holds no record, and where it began."""
    gather = _Gather("read")
    gather.start_bundle()
    for first, stop, at in ((0, 5, [0, 1, 3]), (5, 8, [5, 6, 7])):
        gather.process(RawBatch("t-0", 0, np.array(at), payloads=[b""] * len(at), reach=Reach(0, first, stop)))
    gather.process(Written("t-1", ((3, 4), (7, 9))))
    told = {value.value[0]: value.value[1] for value in gather.finish_bundle()}
    assert {name: positions(np.frombuffer(each.ranges, "<i8")) for name, each in told.items()} == {
        "t-0": {2, 4},
        "t-1": {3, 7, 8},
    }
    assert (told["t-0"].begin, told["t-1"].begin) == (0, None)


def test_without_a_group_nothing_is_committed() -> None:
    """Who asks for it all the same has made a mistake in the code."""
    with pytest.raises(ValueError, match="in the name of a group"):
        CommitOffsets(ReadSettings(Cluster("b:1"), "t"))
