"""How far damage reaches: clients refuse a batch whose checksum is wrong, and do not say where the next one begins."""

from __future__ import annotations

from collections.abc import Callable


def end_of_damage(first: int, is_damaged: Callable[[int], bool]) -> int:
    """The first offset behind a batch that cannot be read, found in few attempts: steps that double, then halves.

    Args:
        first: an offset in it.
        is_damaged: whether reading from an offset meets the same damage. When that cannot be told it says no: then
            less is skipped, and what is left is found the next time.

    Example:
        >>> end_of_damage(100, lambda offset: offset < 777)
        777
    """
    low, step = first, 1
    while is_damaged(first + step):
        low, step = first + step, step * 2
    high = first + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_damaged(middle) else (low, middle)
    return high
