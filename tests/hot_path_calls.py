"""Each step of the hot path as a call on so many rows, the same apart from their number, for guards of its cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from benchmarks.hot_path import HotPath, linear_model, records
from benchmarks.traffic import Traffic
from model_artifacts.artifact import Model, load_model
from transforms.batch import TransactionBatch
from transforms.deduplicate import DuplicateEngine
from transforms.durations import DAY
from transforms.raw_batch import RawBatch

#: So few live rows that no table of a history has to grow: how often one grows depends on how many rows there are.
CALM = Traffic(customers=4, terminals=4, per_day=1)
MODELS: dict[str, Callable[[], Model]] = {"fraud-1": linear_model, "handbook": partial(load_model, "handbook")}
#: Flagged rows get reasons one by one, so there are as many of them however many rows there are.
FLAGGED = 5
_MOST_ROWS = 30_000


def step_call(step: str, model: str, rows: int) -> Callable[[], Any]:
    """A call that takes a new hot path, in which nothing has happened, through one step."""
    path = HotPath(_model(model), shards=1)  # one piece a batch
    if step == "parse":
        return partial(path.parse, _records(rows))
    if step == "duplicates":
        return _duplicates(rows)
    batch = _transactions().slice(0, rows)
    if step == "features":
        return partial(path.enrich, batch)
    if step == "score":
        return partial(path.score, path.enrich(batch))
    scored = _scored(model, rows)
    return partial(path.decide, scored) if step == "decide" else partial(path.format, path.decide(scored))


@lru_cache
def _model(name: str) -> Model:
    return MODELS[name]()


@lru_cache
def _records(rows: int) -> RawBatch:
    return next(records(CALM, rows, rows))


@lru_cache
def _transactions() -> TransactionBatch:
    return next(CALM.batches(_MOST_ROWS, _MOST_ROWS))


def _scored(model: str, rows: int) -> TransactionBatch:
    """So many scored rows, `FLAGGED` of them above the threshold, always the same."""
    scored = _all_scored(model)
    flagged = scored.numpy("score") >= 0.5
    some, others = np.flatnonzero(flagged)[:FLAGGED], np.flatnonzero(~flagged)[: rows - FLAGGED]
    assert len(some) + len(others) == rows
    return scored.take(np.concatenate([some, others]))


@lru_cache
def _all_scored(model: str) -> TransactionBatch:
    path = HotPath(_model(model), shards=1)
    return path.score(path.enrich(_transactions()))


def _duplicates(rows: int) -> Callable[[], Any]:
    """Ids that are new, for a table that has room for thousands more."""
    engine, batch = DuplicateEngine(30 * DAY), _transactions()
    engine.take(batch.slice(0, _MOST_ROWS - rows), None)
    return partial(engine.take, batch.slice(_MOST_ROWS - rows), None)
