"""The engine in memory is only a cache of Beam's state: retries, moves and restores change nothing."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

import transforms.shard_state as shard_state
from tests.bag import Bag
from transforms.batch import TransactionBatch, from_rows
from transforms.enrich import EntityEngine, add_row_features
from transforms.features import load_feature_set
from transforms.shard_log import LOG_SLACK, ShardLog
from transforms.shard_state import TakeInOrder, Timers

DAY = 86_400_000_000
FEATURES = load_feature_set("handbook")
NAMES = [feature.name for feature in FEATURES.of_entity("customer_id")]


class Clock:
    """A timer that remembers when it was set to."""

    def set(self, at: Timestamp) -> None:
        self.at = at


class Holding(Clock):
    """A timer that can hold the watermark, too."""

    _timer_coder_impl = None
    hold: Timestamp | None = None

    def clear(self) -> None:
        self.hold = None


class Shard:
    """One key of the stage: its state and what it emitted."""

    def __init__(self, **how: Any) -> None:
        make_engine = partial(EntityEngine, FEATURES, "customer_id", 0, inline_labels=True)
        settings = {"ordering": "arrival", "allowed_lateness": 0, "batch_rows": 1000, "bounded": False, **how}
        self.stage = TakeInOrder(stage="enrich", name="test", make_engine=make_engine, **settings)
        self.state = {"pending": Bag(), "recent": Bag(), "log": Bag()}
        self.timer = Clock()

    @property
    def log(self) -> ShardLog:
        return ShardLog(self.state["recent"], self.state["log"])

    def take(self, batch: TransactionBatch, timers: Timers) -> list[Any]:
        if self.stage.ordering == "arrival":
            return list(self.stage.take_at_once(0, batch, self.log))
        return list(self.stage.take_later(0, batch, self.state["pending"], self.log, timers))

    def flush(self, timers: Timers, at: Timestamp | None = None) -> list[Any]:
        return list(self.stage.flush(0, at or timers.flush.at, self.state["pending"], self.log, timers))

    def process(self, batch: TransactionBatch) -> list[Any]:
        return [self.features(value) for value in self.take(batch, self.timers)]

    @property
    def timers(self) -> Timers:
        return Timers(self.timer, None, None)

    @staticmethod
    def features(value: TimestampedValue[TransactionBatch]) -> Any:
        return value.value.feature_matrix(NAMES).tolist()


def batches(count: int, rows: int = 50) -> list[TransactionBatch]:
    rng = np.random.default_rng(4)
    return [
        from_rows(
            {
                "transaction_id": f"{number}-{row}",
                "event_time": (number * rows + row) * (DAY // 20),
                "customer_id": f"c{rng.integers(3)}",
                "amount_minor": int(rng.integers(1, 9999)),
                "ingest_time": 400 * DAY,
            }
            for row in range(rows)
        )
        for number in range(count)
    ]


@pytest.fixture(autouse=True)
def _no_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_state, "_ENGINES", shard_state._Engines())


def uninterrupted(count: int, rows: int = 50) -> list[Any]:
    shard = Shard()
    result = [shard.process(batch) for batch in batches(count, rows)]
    shard_state._ENGINES = shard_state._Engines()
    return result


def test_an_engine_lost_at_any_moment_is_built_again_from_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has forgotten everything before every batch gives the same features to the bit."""
    expected = uninterrupted(6)
    shard, found = Shard(), []
    for batch in batches(6):
        monkeypatch.setattr(shard_state, "_ENGINES", shard_state._Engines())
        found.append(shard.process(batch))
    assert found == expected


def test_a_bundle_that_failed_leaves_no_trace() -> None:
    """After a bundle whose state was rolled back, the retry and all that follows are as if it had never run."""
    expected = uninterrupted(6)
    shard, found = Shard(), []
    for number, batch in enumerate(batches(6)):
        if number in (2, 5):
            before = copy.deepcopy(shard.state)
            shard.process(batch)  # its outputs and its state are thrown away; the engine has seen the rows
            shard.state = before
        found.append(shard.process(batch))
    assert found == expected


def test_rows_that_wait_since_an_earlier_release_go_with_those_of_this_one() -> None:
    """They had the features of the row when they came; those of this release get them when they are taken."""
    shard = Shard(ordering="event_time", remade=tuple(feature.name for feature in FEATURES.of_row))
    before, now = batches(2)
    for batch in (add_row_features(before, FEATURES), now):
        assert not shard.take(batch, shard.timers)
    taken = []
    while shard.state["pending"].content:
        taken += shard.flush(shard.timers)
    names = [feature.name for feature in FEATURES.features if feature.entity in (None, "customer_id")]
    whole = Shard()
    expected = [each.value.feature_matrix(names) for batch in (before, now) for each in whole.take(batch, whole.timers)]
    found = [each.value.feature_matrix(names) for each in taken]
    np.testing.assert_array_equal(np.vstack(found), np.vstack(expected))


def test_an_engine_of_other_content_is_never_used() -> None:
    """Two shards that took different rows in as many steps do not take each other's engine."""
    mine, other = Shard(), Shard()
    first, second = batches(2)
    mine.process(first)
    other.process(second)  # leaves its engine under the same name and key
    alone = uninterrupted(2)
    assert mine.process(second) == alone[1]


def test_the_log_is_rewritten_when_most_of_it_has_expired() -> None:
    """State follows the open windows: of 16,000 rows over 800 days it holds less than the slack and twice a month's."""
    expected = uninterrupted(80, rows=200)
    shard = Shard()
    found = [shard.process(batch) for batch in batches(80, rows=200)]
    assert found == expected
    assert sum(matrix.shape[1] for matrix in shard.log.rows()) <= LOG_SLACK + 2 * 30 * 20


def test_event_time_rows_wait_and_the_timer_stands_at_the_oldest() -> None:
    """On a runner that cannot hold the watermark apart, the timer fires for the oldest row, a millisecond later."""
    shard = Shard(ordering="event_time")
    row = {"customer_id": "c", "amount_minor": 1}
    later = from_rows([{**row, "transaction_id": "b", "event_time": 9_000_000}])
    earlier = from_rows([{**row, "transaction_id": "a", "event_time": 4_000_000}])
    assert shard.process(later) == []
    assert shard.timer.at == Timestamp(micros=9_001_000)
    assert shard.process(earlier) == []
    assert shard.timer.at == Timestamp(micros=4_001_000)
    flushed = shard.flush(shard.timers)
    assert [value.value.rows.column("transaction_id").to_pylist() for value in flushed] == [["a"]]
    assert shard.timer.at == Timestamp(micros=9_001_000)
    assert pa.concat_batches([b.rows for b in shard.state["pending"].content]).num_rows == 1


def test_a_stream_holds_the_watermark_until_what_was_flushed_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush does not move the hold, though its timer has fired; only what comes after its bundle does."""

    def set_both(timer: Holding, fire: Timestamp, hold: Timestamp) -> None:
        timer.at, timer.hold = fire, hold

    monkeypatch.setattr(shard_state, "set_timer_with_hold", set_both)
    shard, timers = Shard(ordering="event_time"), Timers(Holding(), Holding(), Clock())
    row = {"customer_id": "c", "amount_minor": 1}
    rows = [from_rows([{**row, "transaction_id": f"t{at}", "event_time": at * 1_000_000}]) for at in (4, 9)]
    for batch in rows:
        assert shard.take(batch, timers) == []
    assert (timers.flush.at, timers.hold.hold) == (Timestamp(micros=4_001_000), Timestamp(4))
    flushed = shard.flush(timers)
    assert [value.value.rows.column("transaction_id").to_pylist() for value in flushed] == [["t4"]]
    assert timers.hold.hold == Timestamp(4)
    assert timers.passed.at <= timers.flush.at == Timestamp(micros=9_001_000)
    shard.stage.let_go(shard.log, timers)
    assert timers.hold.hold == Timestamp(9)
    assert len(shard.flush(timers)) == 1
    assert timers.hold.hold == Timestamp(9)
    shard.stage.let_go(shard.log, timers)
    assert timers.hold.hold is None


def test_a_flush_timer_that_fires_early_takes_no_more_than_it_stands_for() -> None:
    """A timer that was set anew while it fired comes twice: rows that the watermark has not passed go on waiting."""
    shard = Shard(ordering="event_time")
    row = {"customer_id": "c", "amount_minor": 1}
    shard.process(from_rows([{**row, "transaction_id": "b", "event_time": 9_000_000}]))
    early = Timestamp(micros=4_001_000)
    assert shard.flush(shard.timers, early) == []
    assert shard.timer.at == Timestamp(micros=9_001_000)
