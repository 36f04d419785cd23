"""The compiled core of `history.EntityHistory`: one pass over rows, a constant cost each.

Every entity has its transactions in a ring of an arena (arrays `time`, `values`, `fraud`, `ids`). Every
(window, delay) pair is a *range* over that ring: two cursors that only move forward and integer sums
of what lies between them. A row moves the cursors past what has left or entered its windows, so each
entry is added once and taken away once, however long the window is. A row older than its entity's newest
takes the slow way: it is put in its place, and its own features are read off by a scan.

Indices of entries are absolute and count up for ever; `ring_start + (index & (capacity - 1))` is the place.
All arithmetic on values is on integers, so neither order nor batching can change a bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

COUNT, SUM, MEAN, MIN, MAX, DISTINCT, TIME_SINCE_LAST, RISK = range(8)
SMALLEST_RING = 4
DONE, NEED_ENTRIES, NEED_SLOTS = range(3)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Plan(NamedTuple):
    """What to compute, as arrays: R ranges, F features, M running extremes, D running distinct counts."""

    window: Any  # int64[R], microseconds
    delay: Any  # int64[R]
    retain: Any  # int64[1]: how long an entry can matter, in microseconds
    kind: Any  # int64[F], one of COUNT ... RISK
    range_of: Any  # int64[F]
    column: Any  # int64[F]: which of the C value columns, -1 for none
    scale: Any  # float64[F]: what an integer value is divided by
    cap: Any  # float64[F]: for TIME_SINCE_LAST, the window in seconds
    extreme: Any  # int64[F]: which of the M, -1 for none
    distinct: Any  # int64[F]: which of the D, -1 for none
    extreme_range: Any  # int64[M]
    extreme_column: Any  # int64[M]
    extreme_sign: Any  # int64[M]: 1 for a minimum, -1 for a maximum
    distinct_range: Any  # int64[D]
    distinct_column: Any  # int64[D]


class Rows(NamedTuple):
    """Transactions to take in, n of them."""

    entity: Any  # uint64[n], `stable_hash` of the entity; 0 for none
    time: Any  # int64[n], event time in microseconds
    values: Any  # int64[n, C]
    fraud: Any  # int8[n], 1 where the row is already known to be a fraud
    ids: Any  # uint64[n], `stable_hash` of the transaction id, by which a label finds its row


class Labels(NamedTuple):
    """Labels of past transactions, m of them, in the order of their arrival."""

    arrival: Any  # int64[m], when the label became known
    entity: Any  # uint64[m]
    time: Any  # int64[m], the transaction's event time
    ids: Any  # uint64[m]
    fraud: Any  # int8[m]


class State(NamedTuple):
    """Everything an entity history holds. S slots (entities), N entries of the arena."""

    table: Any  # int64[2^k]: open addressing from hash to slot + 1
    entity: Any  # uint64[S]
    ring: Any  # int64[S, 2]: start in the arena, capacity (0: none yet)
    span: Any  # int64[S, 2]: first and end, absolute
    newest: Any  # int64[S]: event time of the newest entry
    cursor: Any  # int64[S, R, 2]: low and high, absolute
    sums: Any  # int64[S, R, C]
    frauds: Any  # int64[S, R]
    deque: Any  # int64[S, M, 2]: front and back of each running extreme
    kinds: Any  # int64[S, D]: how many distinct values now
    time: Any  # int64[N]
    values: Any  # int64[N, C]
    fraud: Any  # int8[N]
    ids: Any  # uint64[N]
    candidates: Any  # int64[N, M]: the running extremes' monotonic queues
    tally_key: Any  # uint64[2^k]: open addressing, how often a distinct value lies in a range
    tally: Any  # int64[2^k]
    free: Any  # int64[64]: heads of the lists of freed rings, by log2 of their capacity; -1 for none
    used: Any  # int64[2]: slots, entries of the arena


@numba.njit(cache=True, nogil=True, inline="always")
def _place(s: Any, slot: Any, index: Any) -> Any:
    return s.ring[slot, 0] + (index & (s.ring[slot, 1] - 1))


@numba.njit(cache=True, nogil=True)
def find_slot(table: Any, entities: Any, entity: Any) -> Any:
    """The slot of an entity's hash, or -1."""
    mask = table.shape[0] - 1
    at = np.int64(entity & np.uint64(mask))
    while table[at] != 0:
        slot = table[at] - 1
        if entities[slot] == entity:
            return slot
        at = (at + 1) & mask
    return -1


@numba.njit(cache=True, nogil=True)
def _new_slot(s: Any, entity: Any) -> Any:
    mask = s.table.shape[0] - 1
    at = np.int64(entity & np.uint64(mask))
    while s.table[at] != 0:
        at = (at + 1) & mask
    slot = s.used[0]
    s.used[0] += 1
    s.table[at] = slot + 1
    s.entity[slot] = entity
    s.newest[slot] = np.iinfo(np.int64).min
    return slot


@numba.njit(cache=True, nogil=True)
def _take_ring(s: Any, capacity: Any) -> Any:
    """A place for `capacity` entries: a freed ring, or new ground; -1 when the arena is full."""
    size = 0
    while (1 << size) < capacity:
        size += 1
    start = s.free[size]
    if start >= 0:
        s.free[size] = s.time[start]
        return start
    start = s.used[1]
    if start + capacity > s.time.shape[0]:
        return -1
    s.used[1] += capacity
    return start


@numba.njit(cache=True, nogil=True)
def _make_room(s: Any, slot: Any) -> Any:
    """See that one more entry fits the ring of `slot`; False when the arena must grow first."""
    capacity = s.ring[slot, 1]
    if capacity and s.span[slot, 1] - s.span[slot, 0] < capacity:
        return True
    wider = capacity * 2 if capacity else SMALLEST_RING
    start = _take_ring(s, wider)
    if start < 0:
        return False
    old = s.ring[slot, 0]
    for index in range(s.span[slot, 0], s.span[slot, 1]):
        a, b = old + (index & (capacity - 1)), start + (index & (wider - 1))
        s.time[b], s.fraud[b], s.ids[b] = s.time[a], s.fraud[a], s.ids[a]
        for c in range(s.values.shape[1]):
            s.values[b, c] = s.values[a, c]
    for m in range(s.candidates.shape[1]):
        for index in range(s.deque[slot, m, 0], s.deque[slot, m, 1]):
            s.candidates[start + (index & (wider - 1)), m] = s.candidates[old + (index & (capacity - 1)), m]
    if capacity:
        size = 0
        while (1 << size) < capacity:
            size += 1
        s.time[old] = s.free[size]
        s.free[size] = old
    s.ring[slot, 0], s.ring[slot, 1] = start, wider
    return True


@numba.njit(cache=True, nogil=True)
def _tally(s: Any, slot: Any, d: Any, value: Any, change: Any) -> Any:
    """Count a distinct value in or out, and keep `kinds` in step."""
    key = (s.entity[slot] ^ np.uint64(value)) * _GOLDEN + np.uint64(d)
    key ^= key >> np.uint64(29)
    key = key * _GOLDEN | np.uint64(1)
    mask = s.tally_key.shape[0] - 1
    at = np.int64((key >> np.uint64(20)) & np.uint64(mask))
    while s.tally_key[at] != 0 and s.tally_key[at] != key:
        at = (at + 1) & mask
    if s.tally_key[at] == 0:
        s.tally_key[at] = key
    before = s.tally[at]
    s.tally[at] = before + change
    if before == 0:
        s.kinds[slot, d] += 1
    elif before + change == 0:
        s.kinds[slot, d] -= 1
        _forget_tally(s, at, mask)


@numba.njit(cache=True, nogil=True)
def _forget_tally(s: Any, hole: Any, mask: Any) -> Any:
    """Empty a place of the tally table and close the gap, so that probing needs no tombstones."""
    at = hole
    while True:
        at = (at + 1) & mask
        if s.tally_key[at] == 0:
            break
        home = np.int64((s.tally_key[at] >> np.uint64(20)) & np.uint64(mask))
        if ((at - home) & mask) >= ((at - hole) & mask):
            s.tally_key[hole], s.tally[hole] = s.tally_key[at], s.tally[at]
            hole = at
    s.tally_key[hole], s.tally[hole] = 0, 0


@numba.njit(cache=True, nogil=True)
def _enter(s: Any, p: Any, slot: Any, r: Any, index: Any) -> Any:
    """Take an entry into a range's distinct values and extremes."""
    at = _place(s, slot, index)
    for d in range(p.distinct_range.shape[0]):
        if p.distinct_range[d] == r:
            _tally(s, slot, d, s.values[at, p.distinct_column[d]], 1)
    for m in range(p.extreme_range.shape[0]):
        if p.extreme_range[m] == r:
            _push_candidate(s, p, slot, m, index)


@numba.njit(cache=True, nogil=True)
def _push_candidate(s: Any, p: Any, slot: Any, m: Any, index: Any) -> Any:
    """Keep the queue's values rising (for a minimum): what a newer value beats can never win again."""
    sign, column = p.extreme_sign[m], p.extreme_column[m]
    value = sign * s.values[_place(s, slot, index), column]
    back = s.deque[slot, m, 1]
    while back > s.deque[slot, m, 0]:
        last = s.candidates[_place(s, slot, back - 1), m]
        if sign * s.values[_place(s, slot, last), column] < value:
            break
        back -= 1
    s.candidates[_place(s, slot, back), m] = index
    s.deque[slot, m, 1] = back + 1


@numba.njit(cache=True, nogil=True)
def _leave(s: Any, p: Any, slot: Any, r: Any, index: Any) -> Any:
    """Take an entry out of a range's distinct values and extremes."""
    at = _place(s, slot, index)
    for d in range(p.distinct_range.shape[0]):
        if p.distinct_range[d] == r:
            _tally(s, slot, d, s.values[at, p.distinct_column[d]], -1)
    for m in range(p.extreme_range.shape[0]):
        if p.extreme_range[m] == r:
            front = s.deque[slot, m, 0]
            if front < s.deque[slot, m, 1] and s.candidates[_place(s, slot, front), m] == index:
                s.deque[slot, m, 0] = front + 1


@numba.njit(cache=True, nogil=True)
def _first_after(s: Any, slot: Any, time: Any) -> Any:
    """The index of an entity's first entry later than `time`."""
    low, high = s.span[slot, 0], s.span[slot, 1]
    while low < high:
        middle = (low + high) // 2
        if s.time[_place(s, slot, middle)] <= time:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(cache=True, nogil=True)
def _insert(s: Any, p: Any, slot: Any, at: Any, time: Any, values: Any, row: Any, fraud: Any, identity: Any) -> Any:
    """Put a row that came too late in its place, and correct the ranges as of the newest row."""
    for index in range(s.span[slot, 1], at, -1):
        a, b = _place(s, slot, index - 1), _place(s, slot, index)
        s.time[b], s.fraud[b], s.ids[b] = s.time[a], s.fraud[a], s.ids[a]
        for c in range(s.values.shape[1]):
            s.values[b, c] = s.values[a, c]
    s.span[slot, 1] += 1
    place = _place(s, slot, at)
    s.time[place], s.fraud[place], s.ids[place] = time, fraud, identity
    for c in range(s.values.shape[1]):
        s.values[place, c] = values[row, c]
    for r in range(p.window.shape[0]):
        until = s.newest[slot] - p.delay[r]
        if time > until:
            continue
        s.cursor[slot, r, 1] += 1
        if time <= until - p.window[r]:
            s.cursor[slot, r, 0] += 1
            continue
        s.frauds[slot, r] += s.fraud[place]
        for c in range(s.values.shape[1]):
            s.sums[slot, r, c] += s.values[place, c]
        for d in range(p.distinct_range.shape[0]):
            if p.distinct_range[d] == r:
                _tally(s, slot, d, s.values[place, p.distinct_column[d]], 1)
    # The queues hold indices, which have moved: build them again over their ranges.
    for m in range(p.extreme_range.shape[0]):
        r = p.extreme_range[m]
        s.deque[slot, m, 0] = s.deque[slot, m, 1] = s.cursor[slot, r, 0]
        for index in range(s.cursor[slot, r, 0], s.cursor[slot, r, 1]):
            _push_candidate(s, p, slot, m, index)


@numba.njit(cache=True, nogil=True)
def _features_by_scan(s: Any, p: Any, slot: Any, previous: Any, now: Any, out: Any, row: Any) -> Any:
    """A row's features as of a time before the entity's newest row: the obvious, slow way."""
    for f in range(p.kind.shape[0]):
        kind, r, c = p.kind[f], p.range_of[f], p.column[f]
        until = now - p.delay[r]
        low, high = _first_after(s, slot, until - p.window[r]), _first_after(s, slot, until)
        if p.delay[r] == 0:
            high = previous + 2  # the row itself, and not its peers of the same time that came before it
        count = high - low
        total, frauds, best, different = np.int64(0), np.int64(0), np.int64(0), 0
        for index in range(low, high):
            at = _place(s, slot, index)
            frauds += s.fraud[at]
            if c < 0:
                continue
            value = s.values[at, c]
            total += value
            if index == low or (kind == MIN and value < best) or (kind == MAX and value > best):
                best = value
            if kind == DISTINCT:
                seen = False
                for other in range(low, index):
                    seen = seen or s.values[_place(s, slot, other), c] == value
                different += 0 if seen else 1
        result = 0.0
        if kind == COUNT:
            result = np.float64(count)
        elif kind == SUM:
            result = total / p.scale[f]
        elif kind == MEAN:
            result = total / (p.scale[f] * count) if count else 0.0
        elif kind == RISK:
            result = frauds / count if count else 0.0
        elif kind == DISTINCT:
            result = np.float64(different)
        elif kind == TIME_SINCE_LAST:
            result = p.cap[f]
            if previous >= s.span[slot, 0]:
                result = min(result, (now - s.time[_place(s, slot, previous)]) / 1e6)
        elif count:
            result = best / p.scale[f]
        out[row, f] = result


@numba.njit(cache=True, nogil=True)
def _without_entity(p: Any, out: Any, row: Any) -> Any:
    """A row whose entity is missing shares its history with nobody: every window is empty."""
    for f in range(p.kind.shape[0]):
        out[row, f] = p.cap[f] if p.kind[f] == TIME_SINCE_LAST else 0.0


@numba.njit(cache=True, nogil=True)
def learn_one(s: Any, p: Any, labels: Any, at: Any) -> Any:
    """Set the label of a past row; False when the history does not know that row (any more)."""
    slot = find_slot(s.table, s.entity, labels.entity[at])
    if slot < 0:
        return False
    time = labels.time[at]
    index = _first_after(s, slot, time) - 1
    while index >= s.span[slot, 0] and s.time[_place(s, slot, index)] == time:
        place = _place(s, slot, index)
        if s.ids[place] == labels.ids[at]:
            for r in range(p.window.shape[0]):
                if s.cursor[slot, r, 0] <= index < s.cursor[slot, r, 1]:
                    s.frauds[slot, r] += labels.fraud[at] - s.fraud[place]
            s.fraud[place] = labels.fraud[at]
            return True
        index -= 1
    return False


@numba.njit(cache=True, nogil=True)
def observe(s: Any, p: Any, start: Any, rows: Any, labels: Any, out: Any, late: Any) -> Any:
    """Take rows from `start` on into the history and write their features to `out`.

    Labels are learnt on the way, each before the first row that is not older than its arrival.
    Returns the row and the label it stopped at and why: `DONE`, or what must grow to go on.

    The usual way through this loop is written out with local names: handing the whole state to a
    function costs more than the work on a row does.
    """
    ring, span, cursor, sums, frauds = s.ring, s.span, s.cursor, s.sums, s.frauds
    entity, time, values, fraud, ids = rows.entity, rows.time, rows.values, rows.fraud, rows.ids
    row_start, label = start
    past, amounts, known, identities = s.time, s.values, s.fraud, s.ids
    table, entities, newest, used = s.table, s.entity, s.newest, s.used
    window, delay, retain = p.window, p.delay, p.retain[0]
    kinds, range_of, column_of, scale, cap = p.kind, p.range_of, p.column, p.scale, p.cap
    ranges, columns = window.shape[0], amounts.shape[1]
    queues = p.extreme_range.shape[0] + p.distinct_range.shape[0] > 0
    for row in range(row_start, entity.shape[0]):
        while label < labels.arrival.shape[0] and labels.arrival[label] <= time[row]:
            learn_one(s, p, labels, label)
            label += 1
        if entity[row] == np.uint64(0):
            _without_entity(p, out, row)
            continue
        slot = find_slot(table, entities, entity[row])
        if slot < 0:
            if used[0] >= entities.shape[0]:
                return (row, label), NEED_SLOTS
            slot = _new_slot(s, entity[row])
        now = time[row]
        if now < newest[slot]:
            if span[slot, 1] - span[slot, 0] == ring[slot, 1] and not _make_room(s, slot):
                return (row, label), NEED_ENTRIES
            at = _first_after(s, slot, now)
            _insert(s, p, slot, at, now, values, row, fraud[row], ids[row])
            _features_by_scan(s, p, slot, at - 1, now, out, row)
            late[row] = True
            continue
        # Move the ranges to this row's time.
        base, mask = ring[slot, 0], ring[slot, 1] - 1
        first, end = span[slot, 0], span[slot, 1]
        oldest = end
        for r in range(ranges):
            low, high = cursor[slot, r, 0], cursor[slot, r, 1]
            until = now - delay[r]
            since = until - window[r]
            while high < end and past[base + (high & mask)] <= until:
                at = base + (high & mask)
                frauds[slot, r] += known[at]
                for c in range(columns):
                    sums[slot, r, c] += amounts[at, c]
                if queues:
                    _enter(s, p, slot, r, high)
                high += 1
            while low < high and past[base + (low & mask)] <= since:
                at = base + (low & mask)
                frauds[slot, r] -= known[at]
                for c in range(columns):
                    sums[slot, r, c] -= amounts[at, c]
                if queues:
                    _leave(s, p, slot, r, low)
                low += 1
            cursor[slot, r, 0], cursor[slot, r, 1] = low, high
            oldest = min(oldest, low)
        while first < oldest and past[base + (first & mask)] <= now - retain:
            first += 1
        span[slot, 0] = first
        # Put the row in.
        if end - first == ring[slot, 1]:
            if not _make_room(s, slot):
                return (row, label), NEED_ENTRIES
            base, mask = ring[slot, 0], ring[slot, 1] - 1
        at = base + (end & mask)
        past[at], known[at], identities[at] = now, fraud[row], ids[row]
        for c in range(columns):
            amounts[at, c] = values[row, c]
        span[slot, 1] = end + 1
        newest[slot] = now
        for r in range(ranges):
            if delay[r] == 0:
                frauds[slot, r] += fraud[row]
                for c in range(columns):
                    sums[slot, r, c] += values[row, c]
                if queues:
                    _enter(s, p, slot, r, end)
                cursor[slot, r, 1] = end + 1
        # Read its features off.
        for f in range(kinds.shape[0]):
            kind, r = kinds[f], range_of[f]
            count = cursor[slot, r, 1] - cursor[slot, r, 0]
            value = 0.0
            if kind == COUNT:
                value = np.float64(count)
            elif kind == MEAN:
                value = sums[slot, r, column_of[f]] / (scale[f] * count) if count else 0.0
            elif kind == RISK:
                value = frauds[slot, r] / count if count else 0.0
            elif kind == SUM:
                value = sums[slot, r, column_of[f]] / scale[f]
            elif kind == TIME_SINCE_LAST:
                value = cap[f]
                if end > first:
                    value = min(value, (now - past[base + ((end - 1) & mask)]) / 1e6)
            elif kind == DISTINCT:
                value = np.float64(s.kinds[slot, p.distinct[f]])
            elif count:  # MIN and MAX
                m = p.extreme[f]
                best = s.candidates[base + (s.deque[slot, m, 0] & mask), m]
                value = amounts[base + (best & mask), column_of[f]] / scale[f]
            out[row, f] = value
    while label < labels.arrival.shape[0]:
        learn_one(s, p, labels, label)
        label += 1
    return (entity.shape[0], label), DONE


@numba.njit(cache=True, nogil=True)
def fill_table(table: Any, entities: Any) -> Any:
    """Lay out the table from entity to slot anew."""
    mask = table.shape[0] - 1
    for slot in range(entities.shape[0]):
        at = np.int64(entities[slot] & np.uint64(mask))
        while table[at] != 0:
            at = (at + 1) & mask
        table[at] = slot + 1


@numba.njit(cache=True, nogil=True)
def fill_tally(keys: Any, counts: Any, old_keys: Any, old_counts: Any) -> Any:
    """Lay out the tally of distinct values anew."""
    mask = keys.shape[0] - 1
    for place in range(old_keys.shape[0]):
        if old_keys[place] == 0:
            continue
        at = np.int64((old_keys[place] >> np.uint64(20)) & np.uint64(mask))
        while keys[at] != 0:
            at = (at + 1) & mask
        keys[at], counts[at] = old_keys[place], old_counts[place]
