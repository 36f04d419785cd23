"""The compiled core of `history.EntityHistory`: one pass over rows, a constant cost each.

Every entity has a *slot*, a row of `slots`, and its transactions lie in a ring of `entries`. Every (window, delay)
pair is a *range* over that ring: two cursors that only move forward, and integer sums of what lies between them. A
row moves the cursors past what has entered or left its windows, so each entry is added once and taken away once,
however long the window is. Minima and maxima keep monotonic queues, distinct values a counted hash table.

Indices of entries are absolute and count up for ever; `start + (index & (capacity - 1))` is an entry's place. All
arithmetic on values is on integers, so neither order nor batching can change a bit.

What only some streams need is compiled only when it is met: rows that come late and labels (`history_late.py`), and
queues and distinct values, which `observe` leaves out when it is handed None for them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

COUNT, SUM, MEAN, MIN, MAX, DISTINCT, TIME_SINCE_LAST, RISK, KNOWN_FRAUDS, TIME_SINCE_FRAUD = range(10)
DONE, NEED_ENTRIES, NEED_SLOTS, LATE_ROW, LABEL_DUE = range(5)
SMALLEST_RING = 4

# The columns of a slot: these, then for each range LOW, HIGH, FRAUDS, NEWEST_FRAUD and a sum for each value column,
# then for each extreme the front and back of its queue, then for each distinct count how many values there are now.
ENTITY, START, CAPACITY, FIRST, END, NEWEST = range(6)
HEAD = 6
# NEWEST_FRAUD is the time of the newest fraud in the range; it means something only where FRAUDS is not 0.
LOW, HIGH, FRAUDS, NEWEST_FRAUD, SUMS = range(5)
# The columns of an entry: these, then its values, then a place of each extreme's queue.
TIME, ID, FRAUD, VALUES = range(4)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Plan(NamedTuple):
    """What to compute: R ranges over C value columns, F features."""

    ranges: Any  # int64[R, 2]: window and delay in microseconds
    features: Any  # int64[F, 4]: kind, range, value column (or 0), extreme or distinct count (or 0)
    scales: Any  # float64[F, 2]: what an integer value is divided by; for times since something the longest, in seconds
    sizes: Any  # int64[2]: value columns; how long an entry can matter, in microseconds


class Queues(NamedTuple):
    """What minima, maxima and distinct counts need on top: M extremes, D distinct counts."""

    extremes: Any  # int64[M, 3]: range, value column, sign (1 for a minimum, -1 for a maximum)
    distincts: Any  # int64[D, 2]: range, value column
    tally: Any  # int64[2^k, 2]: open addressing from a value in a range to how often it lies there


class State(NamedTuple):
    """Everything an entity history holds. S slots (entities), N entries."""

    table: Any  # int64[2^k]: open addressing from an entity's hash to its slot + 1
    slots: Any  # int64[S, ...]
    entries: Any  # int64[N, ...]
    free: Any  # int64[64]: heads of the lists of freed rings, by log2 of their capacity; -1 for none
    used: Any  # int64[2]: slots, entries


class Rows(NamedTuple):
    """Transactions to take in, n of them."""

    entity: Any  # uint64[n], `stable_hash` of the entity; 0 for none
    time: Any  # int64[n], event time in microseconds
    values: Any  # int64[n, C]
    fraud: Any  # int8[n], 1 where the row is already known to be a fraud
    ids: Any  # uint64[n], `stable_hash` of the transaction id, by which a label finds its row


@numba.njit(cache=True, nogil=True)
def find_slot(table: Any, slots: Any, entity: Any) -> Any:
    """The slot of an entity's hash, or -1."""
    mask = table.shape[0] - 1
    at = entity & mask
    while table[at] != 0:
        slot = table[at] - 1
        if slots[slot, ENTITY] == entity:
            return slot
        at = (at + 1) & mask
    return -1


@numba.njit(cache=True, nogil=True)
def fill_table(table: Any, slots: Any, first: Any, end: Any) -> Any:
    """Put the slots from `first` up to `end` into the table."""
    mask = table.shape[0] - 1
    for slot in range(first, end):
        at = slots[slot, ENTITY] & mask
        while table[at] != 0:
            at = (at + 1) & mask
        table[at] = slot + 1


@numba.njit(cache=True, nogil=True)
def make_room(s: Any, plan: Any, slot: Any) -> Any:
    """Give a slot a ring of twice the capacity; False when there is no ground for it."""
    slots, entries, free, used = s.slots, s.entries, s.free, s.used
    old, capacity = slots[slot, START], slots[slot, CAPACITY]
    wider = capacity * 2 if capacity else SMALLEST_RING
    size = 0
    while (1 << size) < wider:
        size += 1
    start = free[size]
    if start >= 0:
        free[size] = entries[start, TIME]
    elif used[1] + wider <= entries.shape[0]:
        start = used[1]
        used[1] += wider
    else:
        return False
    queues = VALUES + plan.sizes[0]
    for index in range(slots[slot, FIRST], slots[slot, END]):
        for c in range(queues):
            entries[start + (index & (wider - 1)), c] = entries[old + (index & (capacity - 1)), c]
    # The queues share the ring's ground but count places of their own.
    for m in range(entries.shape[1] - queues):
        span = HEAD + plan.ranges.shape[0] * (SUMS + plan.sizes[0]) + 2 * m
        for place in range(slots[slot, span], slots[slot, span + 1]):
            entries[start + (place & (wider - 1)), queues + m] = entries[old + (place & (capacity - 1)), queues + m]
    if capacity:
        entries[old, TIME] = free[size - 1]
        free[size - 1] = old
    slots[slot, START], slots[slot, CAPACITY] = start, wider
    return True


@numba.njit(cache=True, nogil=True)
def count_value(tally: Any, slots: Any, slot: Any, d: Any, kinds: Any, value: Any, change: Any) -> Any:
    """Count a value in or out of a distinct count, whose total is the slot's column `kinds`."""
    key = (np.uint64(slots[slot, ENTITY]) ^ np.uint64(value)) * _GOLDEN + np.uint64(d)
    key ^= key >> np.uint64(29)
    wanted = np.int64((key * _GOLDEN) | np.uint64(1))
    mask = tally.shape[0] - 1
    at = (wanted >> 20) & mask
    while tally[at, 0] != 0 and tally[at, 0] != wanted:
        at = (at + 1) & mask
    before = tally[at, 1]
    tally[at, 0], tally[at, 1] = wanted, before + change
    if before == 0:
        slots[slot, kinds] += 1
    elif before + change == 0:
        slots[slot, kinds] -= 1
        # Empty the place and close the gap, so that probing needs no tombstones.
        hole = at
        while True:
            at = (at + 1) & mask
            if tally[at, 0] == 0:
                break
            if ((at - ((tally[at, 0] >> 20) & mask)) & mask) >= ((at - hole) & mask):
                tally[hole, 0], tally[hole, 1] = tally[at, 0], tally[at, 1]
                hole = at
        tally[hole, 0], tally[hole, 1] = 0, 0


@numba.njit(cache=True, nogil=True)
def enter(slots: Any, entries: Any, plan: Any, queues: Any, slot: Any, r: Any, index: Any) -> Any:
    """Take an entry into the distinct counts and queues of a range."""
    columns, ranges = plan.sizes[0], plan.ranges.shape[0]
    start, mask = slots[slot, START], slots[slot, CAPACITY] - 1
    first_queue = HEAD + ranges * (SUMS + columns)
    extremes = queues.extremes.shape[0]
    for d in range(queues.distincts.shape[0]):
        if queues.distincts[d, 0] == r:
            value = entries[start + (index & mask), VALUES + queues.distincts[d, 1]]
            count_value(queues.tally, slots, slot, d, first_queue + 2 * extremes + d, value, 1)
    for m in range(extremes):
        if queues.extremes[m, 0] != r:
            continue
        column, sign, place = VALUES + queues.extremes[m, 1], queues.extremes[m, 2], VALUES + columns + m
        value = sign * entries[start + (index & mask), column]
        front, back = slots[slot, first_queue + 2 * m], slots[slot, first_queue + 2 * m + 1]
        # Values rise along the queue (for a minimum): what a newer value beats can never win again.
        while back > front:
            last = entries[start + ((back - 1) & mask), place]
            if sign * entries[start + (last & mask), column] < value:
                break
            back -= 1
        entries[start + (back & mask), place] = index
        slots[slot, first_queue + 2 * m + 1] = back + 1


@numba.njit(cache=True, nogil=True)
def leave(slots: Any, entries: Any, plan: Any, queues: Any, slot: Any, r: Any, index: Any) -> Any:
    """Take an entry out of the distinct counts and queues of a range."""
    columns, ranges = plan.sizes[0], plan.ranges.shape[0]
    start, mask = slots[slot, START], slots[slot, CAPACITY] - 1
    first_queue = HEAD + ranges * (SUMS + columns)
    extremes = queues.extremes.shape[0]
    for d in range(queues.distincts.shape[0]):
        if queues.distincts[d, 0] == r:
            value = entries[start + (index & mask), VALUES + queues.distincts[d, 1]]
            count_value(queues.tally, slots, slot, d, first_queue + 2 * extremes + d, value, -1)
    for m in range(extremes):
        if queues.extremes[m, 0] == r:
            front, back = slots[slot, first_queue + 2 * m], slots[slot, first_queue + 2 * m + 1]
            if front < back and entries[start + (front & mask), VALUES + columns + m] == index:
                slots[slot, first_queue + 2 * m] = front + 1


@numba.njit(cache=True, nogil=True)
def observe(s: Any, plan: Any, queues: Any, begin: Any, rows: Any, next_label: Any, out: Any, late: Any) -> Any:
    """Take rows from `begin` on into the history and write their features to `out`.

    Args:
        s: the `State`.
        plan: the `Plan`.
        queues: the `Queues`, or None when no feature needs them.
        begin: the first row to take.
        rows: the `Rows`.
        next_label: when the next label arrives; no row from then on is taken.
        out: float64[n, F].
        late: bool[n]; not written here.

    Returns:
        The row it stopped at, and why: `DONE`, what must grow before that row can be taken, a row older than
        its entity's newest, or a label that comes first.
    """
    table, slots, entries, used = s.table, s.slots, s.entries, s.used
    ranges, features, scales = plan.ranges, plan.features, plan.scales
    columns, retain = plan.sizes[0], plan.sizes[1]
    width = SUMS + columns
    first_queue = HEAD + ranges.shape[0] * width
    for row in range(begin, rows.entity.shape[0]):
        now = rows.time[row]
        if next_label <= now:
            return row, LABEL_DUE
        entity = np.int64(rows.entity[row])
        if entity == 0:
            # A row whose entity is missing shares its history with nobody: every window is empty.
            for f in range(features.shape[0]):
                since = features[f, 0] == TIME_SINCE_LAST or features[f, 0] == TIME_SINCE_FRAUD
                out[row, f] = scales[f, 1] if since else 0.0
            continue
        slot = find_slot(table, slots, entity)
        if slot < 0:
            slot = used[0]
            if slot >= slots.shape[0]:
                return row, NEED_SLOTS
            slots[slot, ENTITY], slots[slot, NEWEST] = entity, now
            fill_table(table, slots, slot, slot + 1)
            used[0] += 1
        if now < slots[slot, NEWEST]:
            return row, LATE_ROW
        start, mask = slots[slot, START], slots[slot, CAPACITY] - 1
        first, end = slots[slot, FIRST], slots[slot, END]
        # Move the ranges to this row's time.
        oldest = end
        for r in range(ranges.shape[0]):
            at_range = HEAD + r * width
            low, high = slots[slot, at_range + LOW], slots[slot, at_range + HIGH]
            until = now - ranges[r, 1]
            since = until - ranges[r, 0]
            while high < end and entries[start + (high & mask), TIME] <= until:
                if entries[start + (high & mask), FRAUD]:
                    slots[slot, at_range + FRAUDS] += 1
                    slots[slot, at_range + NEWEST_FRAUD] = entries[start + (high & mask), TIME]
                for c in range(columns):
                    slots[slot, at_range + SUMS + c] += entries[start + (high & mask), VALUES + c]
                if queues is not None:
                    enter(slots, entries, plan, queues, slot, r, high)
                high += 1
            while low < high and entries[start + (low & mask), TIME] <= since:
                slots[slot, at_range + FRAUDS] -= entries[start + (low & mask), FRAUD]
                for c in range(columns):
                    slots[slot, at_range + SUMS + c] -= entries[start + (low & mask), VALUES + c]
                if queues is not None:
                    leave(slots, entries, plan, queues, slot, r, low)
                low += 1
            slots[slot, at_range + LOW], slots[slot, at_range + HIGH] = low, high
            oldest = min(oldest, low)
        while first < oldest and entries[start + (first & mask), TIME] <= now - retain:
            first += 1
        slots[slot, FIRST] = first
        # Put the row in.
        if end - first == mask + 1:
            if not make_room(s, plan, slot):
                return row, NEED_ENTRIES
            start, mask = slots[slot, START], slots[slot, CAPACITY] - 1
        at = start + (end & mask)
        entries[at, TIME], entries[at, ID], entries[at, FRAUD] = now, np.int64(rows.ids[row]), rows.fraud[row]
        for c in range(columns):
            entries[at, VALUES + c] = rows.values[row, c]
        slots[slot, END], slots[slot, NEWEST] = end + 1, now
        for r in range(ranges.shape[0]):
            if ranges[r, 1] == 0:
                at_range = HEAD + r * width
                if rows.fraud[row]:
                    slots[slot, at_range + FRAUDS] += 1
                    slots[slot, at_range + NEWEST_FRAUD] = now
                for c in range(columns):
                    slots[slot, at_range + SUMS + c] += rows.values[row, c]
                if queues is not None:
                    enter(slots, entries, plan, queues, slot, r, end)
                slots[slot, at_range + HIGH] = end + 1
        # Read its features off.
        for f in range(features.shape[0]):
            kind, at_range = features[f, 0], HEAD + features[f, 1] * width
            count = slots[slot, at_range + HIGH] - slots[slot, at_range + LOW]
            value = 0.0
            if kind == COUNT:
                value = np.float64(count)
            elif kind == MEAN:
                total = slots[slot, at_range + SUMS + features[f, 2]]
                value = total / (scales[f, 0] * count) if count else 0.0
            elif kind == RISK:
                value = slots[slot, at_range + FRAUDS] / count if count else 0.0
            elif kind == SUM:
                value = slots[slot, at_range + SUMS + features[f, 2]] / scales[f, 0]
            elif kind == TIME_SINCE_LAST:
                value = scales[f, 1]
                if end > first:
                    value = min(value, (now - entries[start + ((end - 1) & mask), TIME]) / 1e6)
            elif kind == KNOWN_FRAUDS:
                value = np.float64(slots[slot, at_range + FRAUDS])
            elif kind == TIME_SINCE_FRAUD:
                value = scales[f, 1]
                if slots[slot, at_range + FRAUDS]:
                    value = (now - slots[slot, at_range + NEWEST_FRAUD]) / 1e6
            elif queues is not None:
                if kind == DISTINCT:
                    value = np.float64(slots[slot, first_queue + 2 * queues.extremes.shape[0] + features[f, 3]])
                elif count:  # MIN and MAX
                    m = features[f, 3]
                    front = slots[slot, first_queue + 2 * m]
                    best = entries[start + (front & mask), VALUES + columns + m]
                    value = entries[start + (best & mask), VALUES + features[f, 2]] / scales[f, 0]
            out[row, f] = value
    return rows.entity.shape[0], DONE


@numba.njit(cache=True, nogil=True)
def fill_tally(tally: Any, old: Any) -> Any:
    """Lay out the counts of distinct values anew, in a table of another size."""
    mask = tally.shape[0] - 1
    for place in range(old.shape[0]):
        if old[place, 0] != 0:
            at = (old[place, 0] >> 20) & mask
            while tally[at, 0] != 0:
                at = (at + 1) & mask
            tally[at, 0], tally[at, 1] = old[place, 0], old[place, 1]
