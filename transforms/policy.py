"""Thresholds of their own for parts of the transactions: what a missed fraud costs differs, and so should they."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model_artifacts.manifest import Thresholds
from transforms.rule_syntax import Segment, check_segments
from transforms.rules import CompiledRules, Kind, compile_rules

if TYPE_CHECKING:  # segments themselves work without Beam
    from transforms.batch import TransactionBatch

__all__ = ["CompiledSegments", "Segment", "compile_segments"]


def compile_segments(segments: Sequence[Segment], columns: Mapping[str, Kind]) -> CompiledSegments:
    """The segments with their conditions as functions of columns, every name and type checked.

    Args:
        segments: a transaction is in the first whose condition it meets.
        columns: the names conditions may use, see `rule_columns`.

    Raises:
        UserError: names the segment, the place in its condition, and what to write instead.

    Example:
        >>> from transforms.batch import from_rows
        >>> large = Segment(name="large", when="amount_minor >= 50000", review=0.02, decline=0.6)
        >>> segments = compile_segments([large], {"amount_minor": "number"})
        >>> batch = from_rows([{"transaction_id": "a", "event_time": 0, "amount_minor": 90_000},
        ...                    {"transaction_id": "b", "event_time": 0, "amount_minor": 900}])
        >>> review, decline = segments.thresholds(batch, Thresholds(review=0.1, decline=0.8))
        >>> review.tolist(), decline.tolist()
        ([0.02, 0.1], [0.6, 0.8])
    """
    check_segments(segments)
    return CompiledSegments(tuple(segments), compile_rules([segment.as_rule() for segment in segments], columns))


@dataclass(frozen=True)
class CompiledSegments:
    """Segments ready to run on batches; made by `compile_segments`.

    Attributes:
        segments: in order.
        conditions: theirs, in the same order.
    """

    segments: tuple[Segment, ...]
    conditions: CompiledRules

    def __len__(self) -> int:
        return len(self.segments)

    def places(self, batch: TransactionBatch) -> NDArray[np.int64]:
        """Which segment each row is in, as its place; their number for rows that are in none."""
        found = np.full(len(batch), len(self), dtype=np.int64)
        for place, (_, applies) in reversed(list(enumerate(self.conditions.apply(batch)))):
            found[applies] = place
        return found

    def thresholds(self, batch: TransactionBatch, others: Thresholds) -> tuple[NDArray[Any], NDArray[Any]]:
        """Each row's review and decline threshold; `others` where it is in no segment."""
        places = self.places(batch)
        review = np.array([*(segment.review for segment in self.segments), others.review])
        decline = np.array([*(segment.decline for segment in self.segments), others.decline])
        return review[places], decline[places]
