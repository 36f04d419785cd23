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
from transforms import history_late
from transforms.features import Feature
from transforms.hashing import stable_hash
from transforms.history_kernels import Rows
from transforms.history_late import Labels

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
    "known_frauds": kernels.KNOWN_FRAUDS,
    "time_since_fraud": kernels.TIME_SINCE_FRAUD,
}
#: Numbers other than money are kept as whole millionths, so that sums do not depend on order.
NUMBER_SCALE = 1_000_000
TRANSACTION, LABEL = 0, 1
#: A log's rows before those of the value columns: kind, entity, time, fraud, id.
LOG_HEAD = 5

#: Later than any event time.
NEVER = 2**63 - 1


class EntityHistory:
    """All histories of one entity column (of one shard), for a list of windowed features.

    Args:
        features: windowed features of one entity.
        minor_digits: decimals of the currency.
        lateness: how much later than its entity's newest row a row may come and still find the past
            it needs, in microseconds.

    Attributes:
        unknown_labels: labels so far whose transaction has expired or never came; they changed nothing.
    """

    def __init__(self, features: Sequence[Feature], minor_digits: int = 2, lateness: int = 0) -> None:
        self.features = tuple(features)
        self.columns = tuple(dict.fromkeys(f.column for f in self.features if f.column))
        self._plan = _make_plan(self.features, self.columns, minor_digits, lateness)
        self._queues = _make_queues(self.features, self.columns)
        self._state = self._empty(slots=64, entries=256)
        self.unknown_labels = 0

    @property
    def bytes_held(self) -> int:
        """Bytes of the arrays behind this history."""
        tally = self._queues.tally.nbytes if self._queues else 0
        return int(sum(array.nbytes for array in self._state) + tally)

    @property
    def live_entries(self) -> int:
        """Transactions held, over all entities."""
        slots = self._state.slots[: self._state.used[0]]
        return int((slots[:, kernels.END] - slots[:, kernels.FIRST]).sum())

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
        arrivals = [] if labels is None else labels.arrival.tolist()
        row = label = 0
        while row < len(out):
            next_label = arrivals[label] if label < len(arrivals) else NEVER
            row, why = kernels.observe(self._state, self._plan, self._queues, row, rows, next_label, out, late)
            if why == kernels.LABEL_DUE:
                label = self._learn(labels, label, int(rows.time[row]))
            elif why == kernels.LATE_ROW:
                row, why = history_late.observe_from_late(
                    self._state, self._plan, self._queues, row, rows, next_label, out, late
                )
                if why == kernels.NEED_ENTRIES:
                    self._grow(why)
            elif why != kernels.DONE:
                self._grow(why)
        if label < len(arrivals):
            self._learn(labels, label, NEVER)
        return out, late

    def _learn(self, labels: Labels | None, begin: int, until: int) -> int:
        end, unknown = history_late.learn(self._state, self._plan, labels, begin, until)
        self.unknown_labels += int(unknown)
        return int(end)

    def snapshot(self, now: int) -> Array:
        """Every entry that can still matter when the newest event time is `now`, as `log_of` writes it.

        An entity's own rows say which of its past can matter. `now` may be another's, from a partition that is far
        ahead in a backlog, so one that is quiet is let go of only after twice the time that a row of it matters.
        """
        slots, entries = self._state.slots[: self._state.used[0]], self._state.entries
        slots = slots[slots[:, kernels.NEWEST] > now - 2 * int(self._plan.sizes[1])]
        counts = slots[:, kernels.END] - slots[:, kernels.FIRST]
        slot = np.repeat(np.arange(len(slots)), counts)
        index = np.arange(len(slot)) - np.repeat(np.cumsum(counts) - counts, counts) + slots[slot, kernels.FIRST]
        held = entries[slots[slot, kernels.START] + (index & (slots[slot, kernels.CAPACITY] - 1))]
        entity = slots[slot, kernels.ENTITY]
        values = held[:, kernels.VALUES : kernels.VALUES + len(self.columns)]
        fraud = held[:, kernels.FRAUD].astype(np.int8)
        ids = np.ascontiguousarray(held[:, kernels.ID]).view(np.uint64)
        return log_of(Rows(entity.view(np.uint64), held[:, kernels.TIME], values, fraud, ids))

    def restore(self, log: Iterable[Array]) -> None:
        """Take in what `snapshot` gave and `log_of` and `log_of_labels` recorded since, in that order."""
        for matrix in log:
            kind, entity, time, fraud, ids = matrix[:LOG_HEAD]
            rows = Rows(
                entity.view(np.uint64),
                time,
                np.ascontiguousarray(matrix[LOG_HEAD:].T),
                fraud.astype(np.int8),
                ids.view(np.uint64),
            )
            if len(kind) and kind[0] == LABEL:
                self._learn(Labels(time, rows.entity, time, rows.ids, rows.fraud), 0, NEVER)
            else:
                self.observe(rows)

    def _empty(self, slots: int, entries: int) -> kernels.State:
        columns, ranges = len(self.columns), len(self._plan.ranges)
        extremes = len(self._queues.extremes) if self._queues else 0
        distincts = len(self._queues.distincts) if self._queues else 0
        slot_width = kernels.HEAD + ranges * (kernels.SUMS + columns) + 2 * extremes + distincts
        return kernels.State(
            table=np.zeros(2 * slots, dtype=np.int64),
            slots=np.zeros((slots, slot_width), dtype=np.int64),
            entries=np.zeros((entries, kernels.VALUES + columns + extremes), dtype=np.int64),
            free=np.full(64, -1, dtype=np.int64),
            used=np.zeros(2, dtype=np.int64),
        )

    def _grow(self, need: int) -> None:
        """Make room for half as many entries again, or for twice the entities."""
        old = self._state
        slots, entries = len(old.slots), len(old.entries)
        more_slots = need == kernels.NEED_SLOTS
        bigger = self._empty(slots * 2 if more_slots else slots, entries if more_slots else entries * 3 // 2)
        for name in ("slots", "entries", "free", "used"):
            getattr(bigger, name)[: len(getattr(old, name))] = getattr(old, name)
        kernels.fill_table(bigger.table, bigger.slots, 0, old.used[0])
        if self._queues and not more_slots:
            # At most half full: an entry lies in as many distinct counts as there are.
            places = _power_of_two(2 * len(self._queues.distincts) * len(bigger.entries))
            tally = np.zeros((places, 2), dtype=np.int64)
            kernels.fill_tally(tally, self._queues.tally)
            self._queues = self._queues._replace(tally=tally)
        self._state = bigger


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
    matrix = np.empty((LOG_HEAD + values.shape[1], len(entity)), dtype=np.int64)
    matrix[0], matrix[1], matrix[2], matrix[3], matrix[4] = kind, entity.view(np.int64), time, fraud, ids.view(np.int64)
    matrix[LOG_HEAD:] = values.T
    return matrix


def _make_plan(features: Sequence[Feature], columns: Sequence[str], minor_digits: int, lateness: int) -> kernels.Plan:
    ranges, extremes, distincts = _ranges(features), _extremes(features), _distincts(features)
    table, scales = [], []
    for f in features:
        extra = 0
        if f.kind in ("min", "max"):
            extra = extremes.index((f.window, f.delay, f.column, f.kind))
        elif f.kind == "distinct":
            extra = distincts.index((f.window, f.delay, f.column))
        column = columns.index(f.column) if f.column else 0
        table.append((_CODES[f.kind], ranges.index((f.window, f.delay)), column, extra))
        longest = f.window + f.delay if f.kind == "time_since_fraud" else f.window
        scales.append((10.0**minor_digits if f.column == "amount" else NUMBER_SCALE, longest / 1e6))
    retain = max(window + delay for window, delay in ranges) + lateness
    return kernels.Plan(
        ranges=np.array(ranges, dtype=np.int64),
        features=np.array(table, dtype=np.int64),
        scales=np.array(scales, dtype=np.float64),
        sizes=np.array([len(columns), retain], dtype=np.int64),
    )


def _make_queues(features: Sequence[Feature], columns: Sequence[str]) -> kernels.Queues | None:
    ranges, extremes, distincts = _ranges(features), _extremes(features), _distincts(features)
    if not extremes and not distincts:
        return None
    by_extreme = [
        (ranges.index((window, delay)), columns.index(str(column)), 1 if kind == "min" else -1)
        for window, delay, column, kind in extremes
    ]
    by_distinct = [(ranges.index((window, delay)), columns.index(str(column))) for window, delay, column in distincts]
    return kernels.Queues(
        extremes=np.array(by_extreme, dtype=np.int64).reshape(len(extremes), 3),
        distincts=np.array(by_distinct, dtype=np.int64).reshape(len(distincts), 2),
        tally=np.zeros((_power_of_two(2 * 256 * len(distincts)), 2), dtype=np.int64),
    )


def _ranges(features: Sequence[Feature]) -> list[tuple[int, int]]:
    return list(dict.fromkeys((f.window, f.delay) for f in features))


def _extremes(features: Sequence[Feature]) -> list[tuple[int, int, str | None, str]]:
    return list(dict.fromkeys((f.window, f.delay, f.column, f.kind) for f in features if f.kind in ("min", "max")))


def _distincts(features: Sequence[Feature]) -> list[tuple[int, int, str | None]]:
    return list(dict.fromkeys((f.window, f.delay, f.column) for f in features if f.kind == "distinct"))


def _power_of_two(least: int) -> int:
    return 1 << max(0, int(least) - 1).bit_length()
