"""Everything that the summary and the report say of a replay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from model_artifacts.manifest import Costs, Thresholds
from pipelines.formats import money
from pipelines.replay.compare import Comparison
from pipelines.replay.outcome import Outcome, Side
from pipelines.replay.period import Period
from transforms import outcomes


@dataclass(frozen=True, kw_only=True)
class ReplayFacts:
    """What a replay came to.

    Attributes:
        comparison: what differs.
        period: the days, and from where on their past was read.
        span: the earliest and the latest event time of the source, in microseconds; None for a source without rows.
        source, served: what was read, and what it is compared with; without secrets.
        schema: how the source's fields were named.
        model_id, features: what scored now, and on how many features.
        thresholds, costs: what decided now, and what both sides are valued by.
        known_by: labels that were known then count, in microseconds since 1970.
        by: the column of segments, or None.
        read: records read, those of the past among them.
        dead_letters: how many of them by reason.
        wall_seconds: how long it took.
        files: what was written, and where.
        minor_digits: decimals of the currency.
    """

    comparison: Comparison
    period: Period
    span: tuple[int, int] | None
    source: str
    served: str
    schema: str
    model_id: str
    features: int
    thresholds: Thresholds
    costs: Costs
    known_by: int
    by: str | None = None
    read: int = 0
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    wall_seconds: float = 0.0
    files: Mapping[str, str] = field(default_factory=dict)
    minor_digits: int = 2

    def money(self, minor: int) -> str:
        """An amount of this replay in major units."""
        return money(minor, self.minor_digits)

    def cost(self, outcome: Outcome, side: Side) -> int:
        """What a side's decisions cost where labels are known: frauds approved, reviews, good customers declined."""
        worth = outcomes.money(outcome.of(side), self.costs)
        return worth.missed + worth.review_cost + worth.decline_cost

    @property
    def cold(self) -> bool:
        """Whether the source begins after the time from which features need it."""
        return self.span is not None and self.span[0] > self.period.warm
