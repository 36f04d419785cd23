"""Decisions as they were served, and as they are replayed: what differs, a day at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.replay.outcome import Decided, Outcome, no_outcome
from pipelines.replay.segments import MOST_SEGMENTS, segments
from transforms.errors import UserError
from transforms.statistics import DECISIONS

Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Difference:
    """How often a value differs, to the bit.

    Attributes:
        rows: how many were compared.
        differ: how many of them differ.
        largest: the largest distance of the two values; NaN where one is not a number.
    """

    rows: int = 0
    differ: int = 0
    largest: float = 0.0

    def __add__(self, other: Difference) -> Difference:
        largest = float(np.maximum(self.largest, other.largest))  # a NaN stays one
        return Difference(self.rows + other.rows, self.differ + other.differ, largest)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What differs between decisions served and replayed. Transactions are the same if id and event time are.

    Attributes:
        on_time: transactions that were served on time; all that follows is of these.
        late: those that were served `late`: behind what had been decided, so against another past.
        segments: `on_time` by segment.
        daily: by day: alerts served, alerts replayed, decisions changed.
        features: by name, of features that both have.
        scores, reasons: where the same model gave both.
        models: how many were served by which model.
        only_served: transactions that the source does not have, or that got no decision now.
        only_replayed: transactions of the source that were not served.
        repeated: rows of a transaction that was served more than once; the first stands.
    """

    on_time: Outcome = field(default_factory=no_outcome)
    late: Outcome = field(default_factory=no_outcome)
    segments: Mapping[str, Outcome] = field(default_factory=dict)
    daily: Mapping[int, tuple[int, int, int]] = field(default_factory=dict)
    features: Mapping[str, Difference] = field(default_factory=dict)
    scores: Difference = Difference()
    reasons: Difference = Difference()
    models: Mapping[str, int] = field(default_factory=dict)
    only_served: int = 0
    only_replayed: int = 0
    repeated: int = 0

    def __add__(self, other: Comparison) -> Comparison:
        return Comparison(
            on_time=self.on_time + other.on_time,
            late=self.late + other.late,
            segments=_sum(self.segments, other.segments),
            daily={**self.daily, **other.daily},
            features=_sum(self.features, other.features),
            scores=self.scores + other.scores,
            reasons=self.reasons + other.reasons,
            models=Counter(self.models) + Counter(other.models),
            only_served=self.only_served + other.only_served,
            only_replayed=self.only_replayed + other.only_replayed,
            repeated=self.repeated + other.repeated,
        )

    @property
    def identical(self) -> bool:
        """Whether what was served on time is what is replayed: the same transactions, decisions and features."""
        differences = (self.scores, self.reasons, *self.features.values())
        return not (
            self.on_time.changed
            or self.only_served
            or self.only_replayed
            or any(difference.differ for difference in differences)
        )


def _sum(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: a[name] + b[name] if name in a and name in b else (a if name in a else b)[name] for name in {**a, **b}
    }


@dataclass(frozen=True)
class How:
    """How two days are compared.

    Attributes:
        features: names of the features that are replayed.
        mature_before: labels of later transactions are not known yet, in microseconds since 1970.
        by: the column of segments, or None.
        minor_digits: decimals of the currency.
    """

    features: Sequence[str]
    mature_before: int
    by: str | None = None
    minor_digits: int = 2


def compare_day(
    day: int, served: pa.Table | None, replayed: pa.Table | None, how: How
) -> tuple[Comparison, pa.Table | None]:
    """What differs on one day, and the transactions that are decided on otherwise.

    Args:
        day: counted from 1970-01-01.
        served, replayed: decisions; None for none.
        how: what to look at.

    Raises:
        UserError: the column of segments has too many values.
    """
    if served is None or replayed is None:
        alone = {name: 0 if table is None else len(_once(table)) for name, table in (("s", served), ("r", replayed))}
        return Comparison(only_served=alone["s"], only_replayed=alone["r"]), None
    once = _once(served)
    repeated, served, replayed = len(served) - len(once), once, _once(replayed)
    at = pc.index_in(_keys(replayed), value_set=_keys(served))
    both = np.asarray(at.is_valid())
    pair = served.take(at.drop_null()), replayed.filter(pa.array(both))
    decided, late = _decided(*pair, how.mature_before), _bools(pair[0]["late"])
    comparison = Comparison(
        on_time=decided.outcome(~late),
        late=decided.outcome(late),
        segments=_by_segment(decided, ~late, pair[1], how),
        daily={day: _alerts(decided, ~late)},
        **_values(pair[0].filter(pa.array(~late)), pair[1].filter(pa.array(~late)), how.features),
        models={entry["values"]: entry["counts"] for entry in pc.value_counts(pair[0]["model_id"]).to_pylist()},
        only_served=len(served) - int(both.sum()),
        only_replayed=len(replayed) - int(both.sum()),
        repeated=repeated,
    )
    return comparison, changed_rows(*pair, decided.changed)


def _keys(table: pa.Table) -> pa.Array:
    """What tells one transaction from another: its id, which may be used again after a while, and its time."""
    times = table["event_time"].cast(pa.int64()).cast(pa.string())
    return pc.binary_join_element_wise(table["transaction_id"], times, "\x1f").combine_chunks()


def _once(table: pa.Table) -> pa.Table:
    """The first row of each transaction."""
    keys = _keys(table)
    first = np.asarray(pc.index_in(keys, value_set=keys)) == np.arange(len(keys))
    return table if first.all() else table.filter(pa.array(first))


def _decided(served: pa.Table, replayed: pa.Table, mature_before: int) -> Decided:
    labels = np.asarray(pc.fill_null(replayed["is_fraud"], -1))
    labels = np.where(labels < 0, 2, np.where(labels > 0, 0, 1))
    times = np.asarray(replayed["event_time"].cast(pa.int64()))
    return Decided(
        decisions=(_places(served["decision"]), _places(replayed["decision"])),
        scores=(np.asarray(served["score"]), np.asarray(replayed["score"])),
        labels=np.where(times < mature_before, labels, 2),
        amounts=np.asarray(replayed["amount_minor"]),
    )


def _places(decisions: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.asarray(pc.index_in(decisions, value_set=pa.array(DECISIONS))).astype(np.int64)


def _bools(column: pa.ChunkedArray) -> Mask:
    return np.asarray(pc.fill_null(column, False)).astype(np.bool_)


def _by_segment(decided: Decided, rows: Mask, replayed: pa.Table, how: How) -> dict[str, Outcome]:
    if how.by is None:
        return {}
    encoded = pc.dictionary_encode(segments(replayed, how.by, how.minor_digits))
    if len(encoded.dictionary) > MOST_SEGMENTS:
        raise UserError(
            f"--by {how.by} has {len(encoded.dictionary):,} values in a day, more than {MOST_SEGMENTS}: name a column "
            "with fewer"
        )
    of = np.asarray(encoded.indices)
    return {name: decided.outcome(rows & (of == at)) for at, name in enumerate(encoded.dictionary.to_pylist())}


def _alerts(decided: Decided, rows: Mask) -> tuple[int, int, int]:
    served, replayed = (int((decisions[rows] > 0).sum()) for decisions in decided.decisions)
    return served, replayed, int(decided.changed[rows].sum())


def _values(served: pa.Table, replayed: pa.Table, features: Sequence[str]) -> dict[str, Any]:
    """How features, scores and reasons differ; the last two where the model is the same."""
    shared = [name for name in features if name in served.column_names]
    same = pc.equal(served["model_id"], replayed["model_id"])
    mine, other = served.filter(same), replayed.filter(same)
    texts = [pc.binary_join(table["reasons"], "\x1f") for table in (mine, other)]
    return {
        "features": {name: _difference(served[name], replayed[name]) for name in shared},
        "scores": _difference(mine["score"], other["score"]),
        "reasons": Difference(len(mine), int(pc.sum(pc.not_equal(*texts)).as_py() or 0)),
    }


def _difference(served: pa.ChunkedArray, replayed: pa.ChunkedArray) -> Difference:
    known = np.asarray(served.is_valid())  # files of before the feature was served have none
    a, b = (np.asarray(column.cast(pa.float64()), dtype=np.float64)[known] for column in (served, replayed))
    differ = a.view(np.int64) != b.view(np.int64)
    largest = float(np.abs(a[differ] - b[differ]).max(initial=0.0))
    return Difference(int(known.sum()), int(differ.sum()), largest)


def changed_rows(served: pa.Table, replayed: pa.Table, changed: Mask) -> pa.Table:
    """The transactions decided on otherwise: as replayed, with `late` as served and `served_...` for what was."""
    rows = pa.array(changed)
    before, after = served.filter(rows), replayed.filter(rows)
    at = after.column_names.index("late")
    after = after.set_column(at, after.schema.field("late"), before["late"])
    for name in ("model_id", "score", "decision", "reasons"):
        after = after.append_column(f"served_{name}", before[name])
    return after
