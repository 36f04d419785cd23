"""What a worker's state cache holds is weighed by its bytes.

Beam weighs each value that is put into the cache, at every write, with objsize, which first looks through the globals
of all loaded modules: milliseconds for a value of a hundred bytes, most of what writing state costs a worker.
"""

from __future__ import annotations

from typing import Any

from apache_beam.runners.worker import statecache

from transforms.batch import TransactionBatch

_measure = statecache.get_deep_size
#: Bytes that a Python object takes beside what is in it, about.
_OBJECT = 64


def weigh_by_bytes() -> None:
    """Have this process's state caches weigh values by `weight`."""
    statecache.get_deep_size = weight


def weight(*values: Any) -> int:
    """About the bytes of memory that values of state take; what is no value of ours Beam measures.

    Example:
        >>> weight([b"12345678", b""]) < 300, weight([b"0" * 10_000]) > 10_000
        (True, True)
    """
    return sum(map(_weight, values))


def _weight(value: Any) -> int:
    if isinstance(value, bytes):
        return _OBJECT + len(value)
    if isinstance(value, int):
        return _OBJECT
    if isinstance(value, list | tuple):
        return _OBJECT + sum(map(_weight, value))
    if isinstance(value, TransactionBatch):
        return _OBJECT + int(value.rows.nbytes)
    return int(_measure(value))
