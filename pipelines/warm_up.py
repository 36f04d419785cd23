"""Have a process do once, on made-up transactions, what it will do for each: load, compile, open the model."""

from __future__ import annotations

import time

import numpy as np

from io_connectors.decision_json import decision_messages
from model_artifacts.artifact import load_model
from transforms.batch import TransactionBatchCoder
from transforms.decide import decide_batch
from transforms.deduplicate import DuplicateEngine
from transforms.durations import DAY, HOUR
from transforms.enrich import EntityEngine
from transforms.parse import parse
from transforms.raw_batch import RawBatch
from transforms.schema import load_schema
from transforms.score import score_batch
from transforms.shard_state import Engine
from transforms.sharding import split_by_shard
from transforms.window_counts import Windows
from transforms.window_summary import window_partials

_PAYLOADS = [
    b'{"transaction_id": "t", "user_id": "u", "amount": 1.5, "timestamp": "2026-01-02T03:04:05Z"}',
    b'{"transaction_id": "s", "user_id": "u", "amount": 2.5, "timestamp": "2026-01-02T02:04:05Z"}',  # it is late
]


def warm_up() -> None:
    """Take transactions all the way, into nothing.

    The first transactions of a worker would otherwise wait for all of it: seconds, and after a failure again.

    Example:
        >>> warm_up()
    """
    raw = RawBatch("warm-up", time.time_ns() // 1000, np.arange(len(_PAYLOADS)), payloads=_PAYLOADS)
    batch, _ = parse(raw, load_schema("transaction-events"))
    model = load_model("transaction-events")
    if batch is None:
        raise RuntimeError("the transaction to warm up with is refused")
    engines: list[Engine] = [DuplicateEngine(DAY)]
    features = model.manifest.feature_set
    engines += [EntityEngine(features, entity, HOUR, inline_labels=True) for entity in features.entities]
    for engine in engines:
        _, batch = next(split_by_shard(batch, "customer_id", 2))
        taken = engine.take(batch, None)
        engine.restore(taken.log)
        engine.snapshot(raw.ingest_time)
        batch = taken.rows or batch
    coder = TransactionBatchCoder()
    scored, _ = score_batch(coder.decode(coder.encode(batch)), model)
    if scored is not None:
        decided = decide_batch(scored, model, model.manifest.thresholds)
        decision_messages(decided)
        list(window_partials(decided, Windows(HOUR, HOUR), None))
