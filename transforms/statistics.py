"""What a run came to, counted on the way: of fixed size however long the input, and mergeable.

Every worker counts the batches it sees; the counts of all are added up. `transforms.outcomes` reads
precision, recall and money off them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import apache_beam as beam
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import PCollection

from transforms.batch import TransactionBatch
from transforms.durations import DAY
from transforms.histograms import DURATION_BINS, SCORE_BINS, Ints, duration_bins, score_bins

DECISIONS = ("approve", "review", "decline")
LABELS = ("fraud", "legitimate", "unknown")
#: Columns of `RunStatistics.daily`.
DAILY = ("approve", "review", "decline", "fraud", "fraud_flagged")

Int64s = np.ndarray[Any, np.dtype[np.int64]]
Float64s = np.ndarray[Any, np.dtype[np.float64]]


class RunStatistics(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Counts and sums over decided transactions. "Flagged" is what was reviewed or declined.

    Attributes:
        counts: int64 (decision, label), in the order of `DECISIONS` and `LABELS`.
        amounts: the same in minor units.
        score_counts: int64 (label, bin): the scores' histogram, see `transforms.histograms`.
        score_amounts: the same in minor units.
        days: int64 (day,), ascending: the days of event time seen, counted from 1970-01-01 UTC.
        daily: int64 (day, 5): counts by `DAILY`.
        reasons: how often each reason code was given for a flagged transaction.
        feature_names: names of the features below.
        feature_counts: int64 (2, feature): finite values; row 0 of approved, row 1 of flagged transactions.
        feature_sums, feature_squares: float64 (2, feature): their sums and sums of squares.
        late: transactions that came after the watermark.
        first_event_time, last_event_time: microseconds since 1970; None before the first transaction.
        latencies: int64 (bin,): histogram of the time from reading a transaction to its decision, in
            microseconds. It depends on the machine and the hour: nothing deterministic may use it.
    """

    counts: Int64s
    amounts: Int64s
    score_counts: Int64s
    score_amounts: Int64s
    days: Int64s
    daily: Int64s
    reasons: dict[str, int]
    feature_names: tuple[str, ...]
    feature_counts: Int64s
    feature_sums: Float64s
    feature_squares: Float64s
    late: int
    first_event_time: int | None
    last_event_time: int | None
    latencies: Int64s

    @property
    def transactions(self) -> int:
        """How many transactions were decided on."""
        return int(self.counts.sum())


def empty_statistics(feature_names: Iterable[str] = ()) -> RunStatistics:
    """The statistics of no transactions."""
    names = tuple(feature_names)
    return RunStatistics(
        counts=_zeros(len(DECISIONS), len(LABELS)),
        amounts=_zeros(len(DECISIONS), len(LABELS)),
        score_counts=_zeros(len(LABELS), SCORE_BINS),
        score_amounts=_zeros(len(LABELS), SCORE_BINS),
        days=_zeros(0),
        daily=_zeros(0, len(DAILY)),
        reasons={},
        feature_names=names,
        feature_counts=_zeros(2, len(names)),
        feature_sums=np.zeros((2, len(names))),
        feature_squares=np.zeros((2, len(names))),
        late=0,
        first_event_time=None,
        last_event_time=None,
        latencies=_zeros(DURATION_BINS),
    )


def observe(batch: TransactionBatch, feature_names: Iterable[str], now_us: int) -> RunStatistics:
    """The statistics of one decided batch.

    Args:
        batch: rows with `score`, `decision` and `reasons`.
        feature_names: the feature columns to average.
        now_us: the time of the decision, in microseconds since 1970.

    Raises:
        ValueError: a decision is none of `DECISIONS`, or a score is not a number.

    Example:
        >>> from transforms.batch import from_rows
        >>> row = {"transaction_id": "t", "event_time": 0, "amount_minor": 900, "is_fraud": 1, "score": 0.8,
        ...        "decision": "review", "reasons": ["amount: 9.00, typically 2.50"]}
        >>> extra = {"score": pa.float64(), "decision": pa.string(), "reasons": pa.list_(pa.string())}
        >>> seen = observe(from_rows([row], extra), [], now_us=0)
        >>> seen.counts.tolist(), seen.reasons
        ([[0, 0, 0], [1, 0, 0], [0, 0, 0]], {'amount': 1})
    """
    names = tuple(feature_names)
    if not len(batch):
        return empty_statistics(names)
    decisions, labels = decision_indices(batch), _label_indices(batch)
    amounts, times = batch.numpy("amount_minor"), batch.numpy("event_time")
    outcome = decisions * len(LABELS) + labels
    scored = labels * SCORE_BINS + score_bins(batch.numpy("score"))
    days, daily = _by_day(times, decisions, labels)
    feature_counts, feature_sums, feature_squares = _moments(batch, names, decisions > 0)
    return RunStatistics(
        counts=_tally(outcome, (len(DECISIONS), len(LABELS))),
        amounts=_tally(outcome, (len(DECISIONS), len(LABELS)), amounts),
        score_counts=_tally(scored, (len(LABELS), SCORE_BINS)),
        score_amounts=_tally(scored, (len(LABELS), SCORE_BINS), amounts),
        days=days,
        daily=daily,
        reasons=_reason_codes(batch, decisions > 0),
        feature_names=names,
        feature_counts=feature_counts,
        feature_sums=feature_sums,
        feature_squares=feature_squares,
        late=int(batch.numpy("late").sum()),
        first_event_time=int(times.min()),
        last_event_time=int(times.max()),
        latencies=_tally(duration_bins(now_us - batch.numpy("ingest_time")), (DURATION_BINS,)),
    )


def merge(a: RunStatistics, b: RunStatistics) -> RunStatistics:
    """The statistics of both together.

    Raises:
        ValueError: they are of different features.
    """
    if a.feature_names != b.feature_names:
        raise ValueError(f"statistics of features {a.feature_names} and {b.feature_names} cannot be added")
    days = np.union1d(a.days, b.days)
    daily = _zeros(len(days), len(DAILY))
    reasons = dict(a.reasons)
    for part in (a, b):
        daily[np.searchsorted(days, part.days)] += part.daily
    for code, count in b.reasons.items():
        reasons[code] = reasons.get(code, 0) + count
    starts = [part.first_event_time for part in (a, b) if part.first_event_time is not None]
    ends = [part.last_event_time for part in (a, b) if part.last_event_time is not None]
    return RunStatistics(
        counts=a.counts + b.counts,
        amounts=a.amounts + b.amounts,
        score_counts=a.score_counts + b.score_counts,
        score_amounts=a.score_amounts + b.score_amounts,
        days=days,
        daily=daily,
        reasons=reasons,
        feature_names=a.feature_names,
        feature_counts=a.feature_counts + b.feature_counts,
        feature_sums=a.feature_sums + b.feature_sums,
        feature_squares=a.feature_squares + b.feature_squares,
        late=a.late + b.late,
        first_event_time=min(starts, default=None),
        last_event_time=max(ends, default=None),
        latencies=a.latencies + b.latencies,
    )


def decision_indices(batch: TransactionBatch) -> Int64s:
    """Each row's decision as its place in `DECISIONS`.

    Raises:
        ValueError: a decision is none of them.
    """
    column = batch.rows.column("decision")
    places = pc.index_in(column, pa.array(DECISIONS))
    if places.null_count:
        strange = sorted({str(value) for value in column.filter(pc.is_null(places)).to_pylist()})
        raise ValueError(f"a decision is one of {', '.join(DECISIONS)}; found {', '.join(strange)}")
    return np.asarray(places).astype(np.int64)


def _label_indices(batch: TransactionBatch) -> Int64s:
    known = np.asarray(pc.fill_null(batch.rows.column("is_fraud"), -1))
    return np.where(known < 0, 2, np.where(known > 0, 0, 1)).astype(np.int64)


def _zeros(*shape: int) -> Int64s:
    return np.zeros(shape, dtype=np.int64)


def _tally(places: Ints, shape: tuple[int, ...], numbers: Int64s | None = None) -> Int64s:
    """How often each place occurs, or the sum of its numbers; in integers, so order changes nothing."""
    if numbers is None:
        return np.bincount(places, minlength=int(np.prod(shape))).astype(np.int64).reshape(shape)
    sums = _zeros(int(np.prod(shape)))
    np.add.at(sums, places, numbers)
    return sums.reshape(shape)


def _by_day(times: Int64s, decisions: Int64s, labels: Int64s) -> tuple[Int64s, Int64s]:
    days, at = np.unique(times // DAY, return_inverse=True)
    daily = _zeros(len(days), len(DAILY))
    np.add.at(daily, (at, decisions), 1)
    fraud = labels == 0
    np.add.at(daily, (at[fraud], 3), 1)
    np.add.at(daily, (at[fraud & (decisions > 0)], 4), 1)
    return days, daily


def _reason_codes(batch: TransactionBatch, flagged: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, int]:
    """A reason reads "code: words"; the words vary, the code is counted."""
    reasons = batch.rows.column("reasons").filter(pa.array(flagged)).flatten()
    codes = pc.list_element(pc.split_pattern(reasons, ": ", max_splits=1), 0)
    return {str(entry["values"]): int(entry["counts"]) for entry in pc.value_counts(codes).to_pylist()}


def _moments(
    batch: TransactionBatch, names: tuple[str, ...], flagged: np.ndarray[Any, np.dtype[np.bool_]]
) -> tuple[Int64s, Float64s, Float64s]:
    """Count, sum and sum of squares of the finite values of each feature, of approved and of flagged rows."""
    counts, sums, squares = _zeros(2, len(names)), np.zeros((2, len(names))), np.zeros((2, len(names)))
    groups = np.flatnonzero(~flagged), np.flatnonzero(flagged)
    for at, name in enumerate(names):
        column = batch.numpy(name)
        for group, rows in enumerate(groups):
            values = column[rows]
            values = values[np.isfinite(values)]
            counts[group, at], sums[group, at] = len(values), values.sum()
            squares[group, at] = np.square(values).sum()  # not a dot product: BLAS would start threads for it
    return counts, sums, squares


class RunStatisticsCoder(beam.coders.Coder):
    """A version byte, then MessagePack; an array is its dtype, its shape and its bytes."""

    VERSION = 1

    def encode(self, value: RunStatistics) -> bytes:
        return bytes([self.VERSION]) + _ENCODER.encode(value)

    def decode(self, encoded: bytes) -> RunStatistics:
        if encoded[0] != self.VERSION:
            raise ValueError(f"run statistics of coder version {encoded[0]} cannot be read by version {self.VERSION}")
        return _DECODER.decode(memoryview(encoded)[1:])

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> type[RunStatistics]:
        return RunStatistics


def _plain_array(value: Any) -> list[Any]:
    return [value.dtype.str, value.shape, value.tobytes()]


def _array(_: type, plain: Any) -> np.ndarray[Any, Any]:
    kind, shape, content = plain
    return np.frombuffer(content, dtype=np.dtype(kind)).reshape(shape)


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_plain_array, order="deterministic")
_DECODER = msgspec.msgpack.Decoder(RunStatistics, dec_hook=_array)
beam.coders.registry.register_coder(RunStatistics, RunStatisticsCoder)


def system_clock() -> int:
    """The time now, in microseconds since 1970."""
    return time.time_ns() // 1000


class ComputeStatistics(beam.PTransform[PCollection[TransactionBatch], PCollection[RunStatistics]]):
    """Count decided batches; one `RunStatistics` comes out, when the input ends.

    Args:
        feature_names: the feature columns to average.
        clock: gives the time of a decision, in microseconds since 1970.

    Example:
        >>> import apache_beam as beam
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> from apache_beam.testing.util import assert_that, equal_to
        >>> from transforms.batch import from_rows
        >>> extra = {"score": pa.float64(), "decision": pa.string(), "reasons": pa.list_(pa.string())}
        >>> rows = [{"transaction_id": str(n), "event_time": n, "amount_minor": 100, "score": 0.01,
        ...          "decision": "approve", "reasons": []} for n in range(3)]
        >>> with TestPipeline() as pipeline:
        ...     batches = pipeline | beam.Create([from_rows(rows[:2], extra), from_rows(rows[2:], extra)])
        ...     counted = batches | ComputeStatistics([])
        ...     _ = assert_that(counted | beam.Map(lambda run: run.transactions), equal_to([3]))
    """

    def __init__(self, feature_names: Sequence[str], clock: Callable[[], int] = system_clock) -> None:
        super().__init__()
        self.feature_names = tuple(feature_names)
        self.clock = clock

    def expand(self, pcoll: PCollection[TransactionBatch]) -> PCollection[RunStatistics]:
        counted: PCollection[RunStatistics] = pcoll | beam.CombineGlobally(_Count(self.feature_names, self.clock))
        return counted


# Without the types Beam would fall back to pickle between the stages of the combination.
@beam.typehints.with_input_types(TransactionBatch)
@beam.typehints.with_output_types(RunStatistics)
class _Count(beam.CombineFn):
    def __init__(self, feature_names: tuple[str, ...], clock: Callable[[], int]) -> None:
        self.feature_names = feature_names
        self.clock = clock

    def create_accumulator(self) -> RunStatistics:
        return empty_statistics(self.feature_names)

    def add_input(self, mutable_accumulator: RunStatistics, element: TransactionBatch) -> RunStatistics:
        return merge(mutable_accumulator, observe(element, self.feature_names, self.clock()))

    def merge_accumulators(self, accumulators: Iterable[RunStatistics]) -> RunStatistics:
        total = self.create_accumulator()
        for part in accumulators:
            total = merge(total, part)
        return total

    def extract_output(self, accumulator: RunStatistics) -> RunStatistics:
        return accumulator

    def get_accumulator_coder(self) -> RunStatisticsCoder:
        return RunStatisticsCoder()
