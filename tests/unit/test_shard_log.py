"""A shard's log is what was appended to it, wherever its rows lie, and costs a request a bundle."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bag import Bag
from transforms.packing import FEW_COLUMNS, pack, unpack
from transforms.shard_log import LOG_SLACK, MOST_BYTES, MOST_ENTRIES, Entry, Marks, ShardLog


def matrix(first: int, rows: int = 1) -> np.ndarray[Any, Any]:
    return np.arange(first, first + rows, dtype=np.int64).reshape(1, rows)


def held(log: ShardLog) -> list[int]:
    return [int(value) for each in log.rows() for value in each[0]]


@pytest.mark.parametrize("rows", [1, 100, MOST_BYTES])
def test_rows_are_kept_in_their_order(rows: int) -> None:
    """Whether they are few or many, and wherever they were moved meanwhile."""
    recent, old = Bag(), Bag()
    for bundle in range(3 * MOST_ENTRIES):
        log = ShardLog(recent, old)
        log.append(matrix(bundle * rows, rows))
        log.marks.newest = bundle
        log.save()
    found = ShardLog(recent, old)
    assert held(found) == list(range(3 * MOST_ENTRIES * rows))
    assert (found.marks.newest, found.marks.log_rows) == (3 * MOST_ENTRIES - 1, 3 * MOST_ENTRIES * rows)


def test_a_small_bundle_is_one_request() -> None:
    """Of a hundred bundles of a row all but a few add an entry and touch nothing else."""
    recent, old = Bag(), Bag()
    for bundle in range(100):
        log = ShardLog(recent, old)
        log.append(matrix(bundle))
        log.save()
    assert recent.added == 100
    assert recent.cleared == 1
    assert len(recent.content) <= MOST_ENTRIES
    assert sum(map(len, recent.content)) <= MOST_BYTES


def test_the_version_depends_on_all_rows_and_their_order() -> None:
    """Two logs have one version only if the same was appended to both."""

    def version(*firsts: int) -> bytes:
        log = ShardLog(Bag(), Bag())
        for first in firsts:
            log.append(matrix(first))
        return log.marks.version

    assert version(1, 2) == version(1, 2)
    assert len({version(), version(1), version(1, 2), version(2, 1)}) == 4


def test_what_is_replaced_is_gone() -> None:
    """The log is what replaced it and what came after, in the call that did so and in later ones."""
    recent, old = Bag(), Bag()
    for first in range(2 * MOST_ENTRIES):
        log = ShardLog(recent, old)
        log.append(matrix(first))
        log.save()
    log = ShardLog(recent, old)
    log.append(matrix(500))
    log.replace(matrix(900, 2))
    log.save()
    again = ShardLog(recent, old)
    again.append(matrix(1000))
    again.save()
    found = ShardLog(recent, old)
    assert held(found) == [900, 901, 1000]
    assert (found.marks.log_rows, found.marks.rewrite_at) == (3, 4 + LOG_SLACK)


def test_state_of_another_version_is_refused() -> None:
    """State that another release wrote in another form stops the stage with a message that says so."""
    recent = Bag()
    recent.add(msgspec.msgpack.encode(Entry(Marks(schema_version=7), [])))
    with pytest.raises(ValueError, match="state of version 7 cannot be read by version 3"):
        ShardLog(recent, Bag())


ANY = st.integers(-(2**63), 2**63 - 1)


@given(
    st.lists(
        st.tuples(ANY, st.sampled_from([0, 1, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**40, 2**63 - 1, 2**64 - 1]),
                  st.sampled_from([1, 10, 1000, 1_000_000])),
        min_size=1, max_size=6,
    ),
    st.sampled_from([0, 1, FEW_COLUMNS - 1, FEW_COLUMNS, FEW_COLUMNS + 3]),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_what_is_packed_comes_back(rows: list[tuple[int, int, int]], columns: int, seed: int) -> None:
    """To the last bit: narrow rows and wide ones, thousands, and numbers that reach over all there are."""
    random = np.random.default_rng(seed)
    made = np.empty((len(rows), columns), dtype=np.int64)
    for row, (least, span, unit) in zip(made, rows, strict=True):
        most = min(least + span, 2**63 - 1)
        steps = random.integers(0, (most - least) // unit, columns, dtype=np.uint64, endpoint=True) * np.uint64(unit)
        row[:] = (np.full(columns, least).view(np.uint64) + steps).view(np.int64)
    packed = pack(made)
    found = unpack(packed)
    assert found.dtype == np.int64
    assert np.array_equal(found, made)
    assert len(packed) <= 8 + made.nbytes + 11 * len(rows)


def test_times_and_amounts_take_a_few_bytes() -> None:
    """A day of milliseconds in microseconds is four bytes each, small numbers one or two, what never changes none."""
    day = 1_700_000_000_000_000 + np.arange(1000, dtype=np.int64) * 86_000_000
    narrow = np.stack([day, day % 251, day % 251 * 1000, np.full(1000, 7)])
    assert len(pack(narrow)) < 1000 * (4 + 1 + 1) + 100


def test_what_the_version_before_wrote_is_read_and_goes_on() -> None:
    """Wide matrices of any number of columns; the next entry is of this version."""
    recent, old = Bag(), Bag()
    wide = np.arange(2000, dtype=np.int64).reshape(2, 1000)
    written = (2).to_bytes(4, "little") + wide.tobytes()
    recent.add(msgspec.msgpack.encode(Entry(Marks(schema_version=2, log_rows=1000), [written])))
    log = ShardLog(recent, old)
    log.append(wide)
    log.save()
    assert [each.tolist() for each in ShardLog(recent, old).rows()] == [wide.tolist()] * 2
    assert ShardLog(recent, old).marks.schema_version == 3
