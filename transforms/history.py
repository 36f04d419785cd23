"""The past of many entities in columns, and each new transaction's features over it.

`EntityHistory` is the plain object under `EnrichTransactions`: it knows nothing of Beam. Rows go in by
`observe`, features come out; `snapshot` and `restore` turn it into a plain matrix and back.
`tests/oracle.py` says the same in a few obvious lines of Python.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from transforms import history_kernels as kernels
from transforms.features import Feature
from transforms.hashing import stable_hash
from transforms.history_kernels import Labels, Rows

Array = np.ndarray[Any, Any]

_CODES = {
    "count": kernels.COUNT,
    "sum": kernels.SUM,
    "mean": kernels.MEAN,
    "min": kernels.MIN,
    "max": kernels.MAX,
    "distinct": kernels.DISTINCT,
    "time_since_last": kernels.TIME_SINCE_LAST,
    "risk": kernels.RISK,
}
#: Numbers other than money are kept as whole millionths, so that sums do not depend on order.
NUMBER_SCALE = 1_000_000
TRANSACTION, LABEL = 0, 1

_NONE = np.empty(0, dtype=np.int64)
NO_LABELS = Labels(_NONE, _NONE.view(np.uint64), _NONE, _NONE.view(np.uint64), _NONE.astype(np.int8))


class EntityHistory:
    """All histories of one entity column (of one shard), for a list of windowed features.

    Args:
        features: windowed features of one entity.
        minor_digits: decimals of the currency.
        lateness: how much later than its entity's newest row a row may come and still find the past
            it needs, in microseconds.
    """

    def __init__(self, features: Sequence[Feature], minor_digits: int = 2, lateness: int = 0) -> None:
        self.features = tuple(features)
        self.columns = tuple(dict.fromkeys(f.column for f in self.features if f.column))
        self._plan = _make_plan(self.features, self.columns, minor_digits, lateness)
        self._state = _empty_state(self._plan, len(self.columns), slots=64, entries=256)

    @property
    def bytes_held(self) -> int:
        """Bytes of the arrays behind this history."""
        return sum(array.nbytes for array in self._state)

    @property
    def live_entries(self) -> int:
        """Transactions held, over all entities."""
        span = self._state.span[: self._state.used[0]]
        return int((span[:, 1] - span[:, 0]).sum())

    def observe(
        self, rows: Rows, labels: Labels | None = None
    ) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.bool_]]]:
        """Take transactions in their order, and the labels that arrive among them.

        A label counts for a row when it arrived no later than the row's event time.

        Returns:
            The features, float64[n, len(features)], and bool[n]: which rows were older than their
            entity's newest one. Such a row is put in its place; decisions made before stay.
        """
        out = np.empty((len(rows.entity), len(self.features)), dtype=np.float64)
        late = np.zeros(len(rows.entity), dtype=np.bool_)
        done = (0, 0)
        while True:
            done, need = kernels.observe(
                self._state, self._plan, done, rows, NO_LABELS if labels is None else labels, out, late
            )
            if need == kernels.DONE:
                return out, late
            self._grow(need)

    def snapshot(self, now: int) -> Array:
        """Every entry that can still matter at the event time `now`, as `log_of` writes it."""
        state, keep_after = self._state, now - int(self._plan.retain[0])
        slots = np.arange(int(state.used[0]))
        counts = state.span[slots, 1] - state.span[slots, 0]
        slot_of = np.repeat(slots, counts)
        index = np.arange(len(slot_of)) - np.repeat(np.cumsum(counts) - counts, counts) + state.span[slot_of, 0]
        at = state.ring[slot_of, 0] + (index & (state.ring[slot_of, 1] - 1))
        live = state.time[at] > keep_after
        at, slot_of = at[live], slot_of[live]
        return log_of(Rows(state.entity[slot_of], state.time[at], state.values[at], state.fraud[at], state.ids[at]))

    def restore(self, log: Iterable[Array]) -> None:
        """Take in what `snapshot` gave and `log_of` and `log_of_labels` recorded since, in that order."""
        for matrix in log:
            kind, entity, time, fraud, ids = matrix[:5]
            rows = Rows(
                entity.view(np.uint64),
                time,
                np.ascontiguousarray(matrix[5:].T),
                fraud.astype(np.int8),
                ids.view(np.uint64),
            )
            if len(kind) and kind[0] == LABEL:
                none = Rows(rows.entity[:0], time[:0], rows.values[:0], rows.fraud[:0], rows.ids[:0])
                self.observe(none, Labels(time, rows.entity, time, rows.ids, rows.fraud))
            else:
                self.observe(rows)

    def _grow(self, need: int) -> None:
        slots, entries = len(self._state.entity), len(self._state.time)
        if need == kernels.NEED_SLOTS:
            slots *= 2
        else:
            entries *= 2
        self._state = _copy_into(self._state, _empty_state(self._plan, len(self.columns), slots, entries))


def value_column(name: str, values: pa.Array) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A column as the integers a history keeps: minor units, millionths, or hashes of text.

    Args:
        name: `amount` for money, which is in minor units already.
        values: int64 minor units, float64 numbers, or text; missing ones count as 0.
    """
    if name == "amount":
        return np.asarray(values.to_numpy(), dtype=np.int64)
    if pa.types.is_floating(values.type):
        scaled = np.rint(np.nan_to_num(values.to_numpy(zero_copy_only=False)) * NUMBER_SCALE)
        return np.asarray(scaled, dtype=np.int64)
    return stable_hash(values).view(np.int64)


def log_of(rows: Rows) -> Array:
    """Rows as they are kept in Beam state to build a history again: int64[5 + columns, n]."""
    return _log(TRANSACTION, rows.entity, rows.time, rows.fraud, rows.ids, rows.values)


def log_of_labels(labels: Labels, columns: int) -> Array:
    """Labels as they are kept in Beam state, among what `log_of` gives."""
    values = np.zeros((len(labels.time), columns), dtype=np.int64)
    return _log(LABEL, labels.entity, labels.time, labels.fraud, labels.ids, values)


def _log(kind: int, entity: Array, time: Array, fraud: Array, ids: Array, values: Array) -> Array:
    matrix = np.empty((5 + values.shape[1], len(entity)), dtype=np.int64)
    matrix[0], matrix[1], matrix[2], matrix[3], matrix[4] = kind, entity.view(np.int64), time, fraud, ids.view(np.int64)
    matrix[5:] = values.T
    return matrix


def _make_plan(features: Sequence[Feature], columns: Sequence[str], minor_digits: int, lateness: int) -> kernels.Plan:
    ranges = list(dict.fromkeys((f.window, f.delay) for f in features))
    extremes = list(
        dict.fromkeys(((f.window, f.delay), f.column, f.kind) for f in features if f.kind in ("min", "max"))
    )
    distincts = list(dict.fromkeys(((f.window, f.delay), f.column) for f in features if f.kind == "distinct"))

    def ints(values: Iterable[int]) -> Array:
        return np.array(list(values), dtype=np.int64)

    def column_of(name: str | None) -> int:
        return columns.index(name) if name else -1

    return kernels.Plan(
        window=ints(window for window, _ in ranges),
        delay=ints(delay for _, delay in ranges),
        retain=ints([max(window + delay for window, delay in ranges) + lateness]),
        kind=ints(_CODES[f.kind] for f in features),
        range_of=ints(ranges.index((f.window, f.delay)) for f in features),
        column=ints(column_of(f.column) for f in features),
        scale=np.array([10.0**minor_digits if f.column == "amount" else NUMBER_SCALE for f in features], np.float64),
        cap=np.array([f.window / 1e6 for f in features], dtype=np.float64),
        extreme=ints(
            extremes.index(((f.window, f.delay), f.column, f.kind)) if f.kind in ("min", "max") else -1
            for f in features
        ),
        distinct=ints(
            distincts.index(((f.window, f.delay), f.column)) if f.kind == "distinct" else -1 for f in features
        ),
        extreme_range=ints(ranges.index(key) for key, _, _ in extremes),
        extreme_column=ints(column_of(column) for _, column, _ in extremes),
        extreme_sign=ints(1 if kind == "min" else -1 for _, _, kind in extremes),
        distinct_range=ints(ranges.index(key) for key, _ in distincts),
        distinct_column=ints(column_of(column) for _, column in distincts),
    )


def _empty_state(plan: kernels.Plan, columns: int, slots: int, entries: int) -> kernels.State:
    ranges, extremes, distincts = len(plan.window), len(plan.extreme_range), len(plan.distinct_range)
    tallies = _power_of_two(2 * distincts * entries) if distincts else 1

    def zeros(*shape: int, dtype: Any = np.int64) -> Array:
        return np.zeros(shape, dtype=dtype)

    return kernels.State(
        table=zeros(_power_of_two(2 * slots)),
        entity=zeros(slots, dtype=np.uint64),
        ring=zeros(slots, 2),
        span=zeros(slots, 2),
        newest=zeros(slots),
        cursor=zeros(slots, ranges, 2),
        sums=zeros(slots, ranges, columns),
        frauds=zeros(slots, ranges),
        deque=zeros(slots, extremes, 2),
        kinds=zeros(slots, distincts),
        time=zeros(entries),
        values=zeros(entries, columns),
        fraud=zeros(entries, dtype=np.int8),
        ids=zeros(entries, dtype=np.uint64),
        candidates=zeros(entries, extremes),
        tally_key=zeros(tallies, dtype=np.uint64),
        tally=zeros(tallies),
        free=np.full(64, -1, dtype=np.int64),
        used=zeros(2),
    )


def _copy_into(state: kernels.State, bigger: kernels.State) -> kernels.State:
    """`bigger` with the content of `state`; hash tables are laid out anew for their new size."""
    for name in kernels.State._fields:
        source, target = getattr(state, name), getattr(bigger, name)
        if name in ("table", "tally_key", "tally"):
            continue
        target[: len(source)] = source
    used = int(state.used[0])
    kernels.fill_table(bigger.table, bigger.entity[:used])
    if len(state.tally_key) > 1:
        kernels.fill_tally(bigger.tally_key, bigger.tally, state.tally_key, state.tally)
    return bigger


def _power_of_two(least: int) -> int:
    return 1 << max(0, int(least) - 1).bit_length()
