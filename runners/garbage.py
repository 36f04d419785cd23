"""How often Python's collector of garbage looks at what a job leaves behind."""

from __future__ import annotations

import gc

#: New objects before a look at the young ones, such looks before one at the older, and so on. By default Python looks
#: every 700 objects: a batch has thousands, of which none is in a cycle, and looking took a sixth of a job's CPU time.
_THRESHOLDS = (50_000, 20, 50)


def collect_seldom() -> None:
    """Look for cycles seldom, as suits batches; what has no references is freed at once all the same."""
    gc.set_threshold(*_THRESHOLDS)
