"""How a worker on Flink weighs the state that it keeps."""

from __future__ import annotations

import pytest
from apache_beam.runners.worker import statecache

from runners.flink import state_cache
from runners.flink.state_cache import weigh_by_bytes, weight
from transforms.batch import from_rows


def test_a_full_cache_lets_go_of_what_is_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beam's cache heeds our weights: of two values that do not fit together the older one goes."""
    monkeypatch.setattr(statecache, "get_deep_size", state_cache._measure)
    weigh_by_bytes()
    cache = statecache.StateCache(10_000)
    cache.put("old", [b"0" * 6_000])
    cache.put("new", [b"1" * 6_000])
    assert (cache.peek("old"), cache.peek("new")) == (None, [b"1" * 6_000])


def test_batches_weigh_what_their_columns_do() -> None:
    """Rows that wait for the watermark count with their size, or a cache of megabytes would hold gigabytes."""
    few, many = (
        from_rows({"transaction_id": "t", "event_time": 0, "amount_minor": 1} for _ in range(n)) for n in (1, 10_000)
    )
    assert weight([many]) > many.rows.nbytes > 100 * weight([few])


def test_what_is_no_value_of_ours_is_measured_by_beam() -> None:
    """State of a pipeline that somebody extends is not taken to weigh nothing."""
    assert weight({"a": "b" * 5_000}) > 5_000
