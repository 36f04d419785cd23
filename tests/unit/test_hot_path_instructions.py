"""The hot path does nothing a row in Python: a batch costs the same instructions however many rows it has."""

from __future__ import annotations

import pytest

from io_connectors.decision_json import _AT_ONCE
from tests.counts import instructions
from tests.hot_path_calls import step_call

FEW, MANY = 1_000, 8_000
#: Counted on Python 3.11, which needs the most of all: 3.12 and 3.13 a tenth less.
RECORDED = {
    ("parse", "fraud-1"): 3_998,
    ("duplicates", "fraud-1"): 445,
    ("features", "fraud-1"): 6_140,
    ("features", "handbook"): 12_749,
    ("score", "fraud-1"): 1_155,
    ("score", "handbook"): 1_479,
    ("decide", "fraud-1"): 2_217,
    ("decide", "handbook"): 2_681,
    ("format", "fraud-1"): 301,
    ("format", "handbook"): 301,
}
#: Rows become messages some at a time: how many more such pieces there are of `MANY`, and the most that one takes.
PIECES = {"format": (MANY - 1) // _AT_ONCE - (FEW - 1) // _AT_ONCE}
OF_A_PIECE = 250
#: The numbers of more rows reach further: a column of theirs may be packed for state in another way.
OF_A_COLUMN = {"features": 60}
#: Instructions are not the same in every Python and in every release of a library, nor is a change of a few lines a
#: regression. A loop over rows is none of a few lines: it costs thousands.
MARGIN = 1.2


@pytest.mark.parametrize(("step", "model"), RECORDED)
def test_a_batch_costs_the_same_instructions_however_many_rows_it_has(step: str, model: str) -> None:
    """Eight times the rows take no instruction more but for pieces and columns, and no more than were last recorded."""
    step_call(step, model, FEW)()  # decoders and the like are made once
    few, many = (instructions(step_call(step, model, rows)) for rows in (FEW, MANY))
    allowed = OF_A_PIECE * PIECES.get(step, 0) + 2 * OF_A_COLUMN.get(step, 0)
    assert few <= many <= few + allowed, f"{(many - few) / (MANY - FEW):.1f} for each row"
    assert few < MARGIN * RECORDED[step, model]


def test_a_loop_over_rows_is_counted() -> None:
    """Whatever its form: a statement, a comprehension, or a function handed to compiled code."""
    values = list(range(MANY))

    def loop() -> None:
        for value in values:
            value + 1

    for per_row in (loop, lambda: [value for value in values], lambda: list(map(lambda value: value, values))):
        assert instructions(per_row) > MANY
    assert instructions(lambda: sorted(map(str, values))) < 100
