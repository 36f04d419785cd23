"""What the usual way through `history_kernels.observe` leaves out: rows that come late, and labels.

Compiled when the first of them is met; most runs never do.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from transforms.history_kernels import (
    CAPACITY,
    COUNT,
    DISTINCT,
    END,
    FIRST,
    FRAUD,
    FRAUDS,
    HEAD,
    HIGH,
    ID,
    KNOWN_FRAUDS,
    LATE_ROW,
    LOW,
    MAX,
    MEAN,
    MIN,
    NEED_ENTRIES,
    NEWEST,
    NEWEST_FRAUD,
    RISK,
    START,
    SUM,
    SUMS,
    TIME,
    TIME_SINCE_FRAUD,
    TIME_SINCE_LAST,
    VALUES,
    count_value,
    find_slot,
    make_room,
    observe,
)


class Labels(NamedTuple):
    """Labels of past transactions, m of them, in the order of their arrival."""

    arrival: Any  # int64[m], when the label became known
    entity: Any  # uint64[m]
    time: Any  # int64[m], the transaction's event time
    ids: Any  # uint64[m]
    fraud: Any  # int8[m]


@numba.njit(cache=True, nogil=True)
def _first_after(slots: Any, entries: Any, slot: Any, time: Any) -> Any:
    """The index of an entity's first entry later than `time`."""
    start, mask = slots[slot, START], slots[slot, CAPACITY] - 1
    low, high = slots[slot, FIRST], slots[slot, END]
    while low < high:
        middle = (low + high) // 2
        if entries[start + (middle & mask), TIME] <= time:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(cache=True, nogil=True)
def observe_from_late(
    s: Any, plan: Any, queues: Any, begin: Any, rows: Any, next_label: Any, out: Any, late: Any
) -> Any:
    """As `history_kernels.observe`, from a row on that it stopped at for being late; those that are, are marked.

    Where several partitions are caught up with, every second row of a terminal may be late: to leave compiled code
    for each would cost more than all the rest.
    """
    row = begin
    while True:
        if not _observe_late(s, plan, queues, row, rows, out):
            return row, NEED_ENTRIES
        late[row] = True
        row, why = observe(s, plan, queues, row + 1, rows, next_label, out, late)
        if why != LATE_ROW:
            return row, why


@numba.njit(cache=True, nogil=True)
def _observe_late(s: Any, plan: Any, queues: Any, row: Any, rows: Any, out: Any) -> Any:
    """Put a row older than its entity's newest in its place; False when the arena must grow first.

    Its features are those as of its time, by a scan of its windows; the ranges, which stand at the newest row,
    are corrected.
    """
    slots, entries = s.slots, s.entries
    slot = find_slot(s.table, slots, np.int64(rows.entity[row]))
    if slots[slot, END] - slots[slot, FIRST] == slots[slot, CAPACITY] and not make_room(s, plan, slot):
        return False
    start, mask = slots[slot, START], slots[slot, CAPACITY] - 1
    now = rows.time[row]
    index = _first_after(slots, entries, slot, now)
    values = VALUES + plan.sizes[0]
    for later in range(slots[slot, END], index, -1):
        for c in range(values):
            entries[start + (later & mask), c] = entries[start + ((later - 1) & mask), c]
    slots[slot, END] += 1
    at = start + (index & mask)
    entries[at, TIME], entries[at, ID], entries[at, FRAUD] = now, np.int64(rows.ids[row]), rows.fraud[row]
    for c in range(plan.sizes[0]):
        entries[at, VALUES + c] = rows.values[row, c]
    _correct_ranges(slots, entries, plan, queues, slot, at)
    for f in range(plan.features.shape[0]):
        out[row, f] = _scan(slots, entries, plan, slot, index, f)
    return True


@numba.njit(cache=True, nogil=True)
def _correct_ranges(slots: Any, entries: Any, plan: Any, queues: Any, slot: Any, at: Any) -> Any:
    """Let the ranges take account of an entry that was put in before their time."""
    columns, ranges = plan.sizes[0], plan.ranges
    time = entries[at, TIME]
    first_queue = HEAD + ranges.shape[0] * (SUMS + columns)
    for r in range(ranges.shape[0]):
        at_range = HEAD + r * (SUMS + columns)
        until = slots[slot, NEWEST] - ranges[r, 1]
        if time > until:
            continue
        slots[slot, at_range + HIGH] += 1
        if time <= until - ranges[r, 0]:
            slots[slot, at_range + LOW] += 1
            continue
        _count_fraud(slots, slot, at_range, time, entries[at, FRAUD])
        for c in range(columns):
            slots[slot, at_range + SUMS + c] += entries[at, VALUES + c]
        if queues is not None:
            for d in range(queues.distincts.shape[0]):
                if queues.distincts[d, 0] == r:
                    kinds = first_queue + 2 * queues.extremes.shape[0] + d
                    value = entries[at, VALUES + queues.distincts[d, 1]]
                    count_value(queues.tally, slots, slot, d, kinds, value, 1)
    if queues is not None:
        _refill_queues(slots, entries, plan, queues, slot)


@numba.njit(cache=True, nogil=True)
def _count_fraud(slots: Any, slot: Any, at_range: Any, time: Any, fraud: Any) -> Any:
    """Count a transaction of a range as a fraud, if it is one."""
    if fraud:
        newest = time if slots[slot, at_range + FRAUDS] == 0 else max(time, slots[slot, at_range + NEWEST_FRAUD])
        slots[slot, at_range + FRAUDS] += 1
        slots[slot, at_range + NEWEST_FRAUD] = newest


@numba.njit(cache=True, nogil=True)
def _acquit(slots: Any, entries: Any, slot: Any, at_range: Any, index: Any) -> Any:
    """Count a transaction of a range as a fraud no more; where it was the newest, the one before it is looked for."""
    start, mask = slots[slot, START], slots[slot, CAPACITY] - 1
    slots[slot, at_range + FRAUDS] -= 1
    entries[start + (index & mask), FRAUD] = 0
    if slots[slot, at_range + FRAUDS] and slots[slot, at_range + NEWEST_FRAUD] == entries[start + (index & mask), TIME]:
        last = slots[slot, at_range + HIGH] - 1
        while not entries[start + (last & mask), FRAUD]:
            last -= 1
        slots[slot, at_range + NEWEST_FRAUD] = entries[start + (last & mask), TIME]


@numba.njit(cache=True, nogil=True)
def _refill_queues(slots: Any, entries: Any, plan: Any, queues: Any, slot: Any) -> Any:
    """Build the queues again: they hold indices, and those have moved."""
    columns = plan.sizes[0]
    first_queue = HEAD + plan.ranges.shape[0] * (SUMS + columns)
    start, mask = slots[slot, START], slots[slot, CAPACITY] - 1
    for m in range(queues.extremes.shape[0]):
        at_range = HEAD + queues.extremes[m, 0] * (SUMS + columns)
        column, sign, place = VALUES + queues.extremes[m, 1], queues.extremes[m, 2], VALUES + columns + m
        front = slots[slot, at_range + LOW]
        back = front
        for index in range(front, slots[slot, at_range + HIGH]):
            value = sign * entries[start + (index & mask), column]
            while back > front:
                last = entries[start + ((back - 1) & mask), place]
                if sign * entries[start + (last & mask), column] < value:
                    break
                back -= 1
            entries[start + (back & mask), place] = index
            back += 1
        slots[slot, first_queue + 2 * m], slots[slot, first_queue + 2 * m + 1] = front, back


@numba.njit(cache=True, nogil=True)
def _scan(slots: Any, entries: Any, plan: Any, slot: Any, index: Any, f: Any) -> Any:
    """A feature as of the entry at `index`: the obvious, slow way."""
    start, mask = slots[slot, START], slots[slot, CAPACITY] - 1
    kind, column, scale = plan.features[f, 0], VALUES + plan.features[f, 2], plan.scales[f, 0]
    window, delay = plan.ranges[plan.features[f, 1], 0], plan.ranges[plan.features[f, 1], 1]
    now = entries[start + (index & mask), TIME]
    if kind == TIME_SINCE_LAST:
        if index == slots[slot, FIRST]:
            return plan.scales[f, 1]
        return min(plan.scales[f, 1], (now - entries[start + ((index - 1) & mask), TIME]) / 1e6)
    low = _first_after(slots, entries, slot, now - delay - window)
    # Without a delay the row itself is the last: peers of the same time that came before it stand before it.
    high = index + 1 if delay == 0 else _first_after(slots, entries, slot, now - delay)
    count = high - low
    total, frauds, newest, best, different = np.int64(0), np.int64(0), np.int64(0), np.int64(0), 0
    for inside in range(low, high):
        place = start + (inside & mask)
        frauds += entries[place, FRAUD]
        if entries[place, FRAUD]:
            newest = entries[place, TIME]
        if kind in (COUNT, RISK, KNOWN_FRAUDS, TIME_SINCE_FRAUD):
            continue
        value = entries[place, column]
        total += value
        if inside == low or (kind == MIN and value < best) or (kind == MAX and value > best):
            best = value
        if kind == DISTINCT:
            seen = False
            for other in range(low, inside):
                seen = seen or entries[start + (other & mask), column] == value
            different += 0 if seen else 1
    if kind == COUNT:
        return np.float64(count)
    if kind == DISTINCT:
        return np.float64(different)
    if kind == KNOWN_FRAUDS:
        return np.float64(frauds)
    if kind == TIME_SINCE_FRAUD:
        return (now - newest) / 1e6 if frauds else plan.scales[f, 1]
    if kind == SUM:
        return total / scale
    if count == 0:
        return 0.0
    if kind == MEAN:
        return total / (scale * count)
    return frauds / count if kind == RISK else best / scale


@numba.njit(cache=True, nogil=True)
def learn(s: Any, plan: Any, labels: Any, begin: Any, until: Any) -> Any:
    """Set the labels from `begin` on that arrive no later than `until`.

    Returns the first that does not, and how many found no transaction: it has expired, or never came.
    """
    unknown = 0
    slots, entries = s.slots, s.entries
    width = SUMS + plan.sizes[0]
    for label in range(begin, labels.arrival.shape[0]):
        if labels.arrival[label] > until:
            return label, unknown
        unknown += 1
        slot = find_slot(s.table, slots, np.int64(labels.entity[label]))
        if slot < 0:
            continue
        start, mask = slots[slot, START], slots[slot, CAPACITY] - 1
        index = _first_after(slots, entries, slot, labels.time[label]) - 1
        while index >= slots[slot, FIRST] and entries[start + (index & mask), TIME] == labels.time[label]:
            at = start + (index & mask)
            if entries[at, ID] == np.int64(labels.ids[label]):
                was = entries[at, FRAUD]
                for r in range(plan.ranges.shape[0]):
                    at_range = HEAD + r * width
                    if slots[slot, at_range + LOW] <= index < slots[slot, at_range + HIGH]:
                        if labels.fraud[label] and not was:
                            _count_fraud(slots, slot, at_range, labels.time[label], 1)
                        elif was and not labels.fraud[label]:
                            _acquit(slots, entries, slot, at_range, index)
                entries[at, FRAUD] = labels.fraud[label]
                unknown -= 1
                break
            index -= 1
    return labels.arrival.shape[0], unknown
