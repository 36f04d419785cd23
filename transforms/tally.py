"""Counters of this process that can be read while a pipeline runs.

The DirectRunner answers `run()` only at the end, so its metrics cannot be shown on the way. These
counters can: workers that share the process add to them, the progress display reads them. They are
for people to look at; what must be right comes from the pipeline's own outputs.

Names in use: `read`, `scored`, `alerts`, `dead_letters`, `undelivered` (records; dead letters also by their reason, as
`dead_letters.duplicate`), `alerts.suppressed`, `alerts.over_budget`, `watermark_us` (the highest event
time seen, in microseconds since 1970).

Example:
    >>> reset()
    >>> add("read", 3); add("read"); highest("watermark_us", 7); highest("watermark_us", 5)
    >>> snapshot()
    {'read': 4, 'watermark_us': 7}
    >>> reset()
"""

from __future__ import annotations

import threading

_lock = threading.Lock()
_values: dict[str, int] = {}


def add(name: str, number: int = 1) -> None:
    """Count `number` more of `name`."""
    with _lock:
        _values[name] = _values.get(name, 0) + number


def highest(name: str, value: int) -> None:
    """Raise `name` to `value`; a lower one changes nothing."""
    with _lock:
        _values[name] = max(value, _values.get(name, value))


def snapshot() -> dict[str, int]:
    """All values, as of one moment."""
    with _lock:
        return dict(_values)


def reset() -> None:
    """Forget everything: a process may run more than one pipeline."""
    with _lock:
        _values.clear()
