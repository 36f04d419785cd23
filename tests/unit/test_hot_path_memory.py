"""The hot path's memory: what a row takes at the peak of each step, what a batch keeps, and what state grows by."""

from __future__ import annotations

import pytest

from benchmarks.hot_path import HotPath, linear_model
from tests.counts import memory
from tests.hot_path_calls import CALM, MODELS, step_call

ROWS = 8_000
#: Bytes a row of Python and NumPy and of Arrow, at the peak of a step, and blocks of Python's memory a row that its
#: result keeps: measured on Python 3.11; 3.12 and 3.13 need a sixteenth less where there are Python's own objects.
RECORDED = {
    ("parse", "fraud-1"): (247, 113, 0),
    ("duplicates", "fraud-1"): (41, 0, 0),
    ("features", "fraud-1"): (236, 69, 0),
    ("features", "handbook"): (311, 203, 0),
    ("score", "fraud-1"): (104, 45, 0),
    ("score", "handbook"): (152, 45, 0),
    ("decide", "fraud-1"): (38, 12, 0),
    ("decide", "handbook"): (39, 12, 0),
    ("format", "fraud-1"): (218, 0, 3),
    ("format", "handbook"): (225, 0, 3),
}
#: For objects that another Python makes a little larger, and buffers that another Arrow rounds up. A column too many is
#: 8 bytes a row, a list of Python's numbers 32 and more.
MARGIN, ROUNDING = 1.05, 4
#: What a batch takes whatever is in it, divided by its rows.
OF_A_BATCH = 0.1


@pytest.mark.parametrize(("step", "model"), RECORDED)
def test_a_row_takes_no_more_memory_than_recorded(step: str, model: str) -> None:
    """At its peak no step takes more bytes a row, and only messages keep objects of Python's for each row."""
    step_call(step, model, ROWS)()
    found = memory(step_call(step, model, ROWS))
    python_bytes, arrow_bytes, blocks = RECORDED[step, model]
    assert found.python_bytes / ROWS < MARGIN * python_bytes + ROUNDING
    assert found.arrow_bytes / ROWS < MARGIN * arrow_bytes + ROUNDING
    assert found.blocks / ROWS < blocks + OF_A_BATCH


#: Bytes a row in state: entity and id, the time, and the amount where it is summed, which it is not by terminal.
#: The kind and the label take none as long as they are the same.
STATE_OF_A_ROW = {"fraud-1": 27, "handbook": 27 + 25}
#: In each entry: how far a shard has come, and how its rows are packed.
STATE_OF_A_BUNDLE = 128


@pytest.mark.parametrize("model", STATE_OF_A_ROW)
def test_a_row_adds_a_few_numbers_to_the_state(model: str) -> None:
    """A batch is written to state as its rows' numbers and one head for each entity, once."""
    path = HotPath(MODELS[model](), shards=1)
    path.enrich(next(CALM.batches(ROWS, ROWS)))
    marks = path.state_bytes() - STATE_OF_A_ROW[model] * ROWS
    assert 0 < marks <= STATE_OF_A_BUNDLE * len(path.features.entities)


def test_a_bundle_adds_a_head_to_the_state() -> None:
    """Ten rows in a bundle are kept as six numbers each and one head: nothing that came before is written again."""
    path, bundles = HotPath(linear_model(), shards=1), 50
    for batch in CALM.batches(10 * bundles, 10):
        path.enrich(batch)
    assert path.state_bytes() <= (10 * 6 * 8 + STATE_OF_A_BUNDLE // 2) * bundles
