"""SeenIds against a dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from transforms.deduplicate import SeenIds

WINDOW = 10


@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 40)), max_size=300), st.integers(0, 300), st.booleans())
def test_an_id_passes_once_within_the_window(rows: list[tuple[int, int]], cut: int, rebuild: bool) -> None:
    """Rows in event order pass as a dictionary of last times says, also after a rebuild from what still counts."""
    ordered = sorted(rows, key=lambda row: row[1])
    known: dict[int, int] = {}
    expected = []
    for identity, time in ordered:
        fresh = identity not in known or abs(time - known[identity]) >= WINDOW
        expected.append(fresh)
        if fresh:
            known[identity] = time
    seen, found = SeenIds(WINDOW), []
    for part in (ordered[:cut], ordered[cut:]):
        ids = np.array([identity for identity, _ in part], dtype=np.uint64)
        times = np.array([time for _, time in part], dtype=np.int64)
        found += seen.first_seen(ids, times).tolist()
        if rebuild and part:
            live, seen = seen.live(part[-1][1]), SeenIds(WINDOW)
            seen.first_seen(live[0].view(np.uint64), live[1])
    assert found == expected


def test_memory_of_ids_is_bounded_by_the_places_they_need() -> None:
    """A hundred thousand ids take at most 64 bytes each."""
    seen = SeenIds(WINDOW)
    seen.first_seen(np.arange(1, 100_001, dtype=np.uint64), np.zeros(100_000, dtype=np.int64))
    assert seen.bytes_held <= 64 * 100_000
