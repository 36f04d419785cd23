"""A small table to train on: seventy days of one hundred transactions, with frauds that can be learnt."""

from __future__ import annotations

from importlib.util import find_spec

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from model_artifacts.manifest import ModelKind
from pipelines.training import TrainingRequest
from transforms.batch import EVENT_TIME
from transforms.durations import DAY
from transforms.features import FeatureSet

DAYS, ROWS_A_DAY, CARDS = 70, 100, 150
FIRST_DAY = 17_700 * DAY

#: Keras is an extra; requirements-dev.txt has it, so CI skips nothing.
needs_keras = pytest.mark.skipif(find_spec("keras") is None, reason="Keras is not installed: requirements-dev.txt")

FEATURES = msgspec.convert(
    {
        "name": "small",
        "features": [
            {"kind": "amount"},
            {"kind": "night"},
            {"kind": "count", "entity": "customer_id", "windows": ["1d"]},
            {"kind": "risk", "entity": "terminal_id", "windows": ["7d"], "delay": "7d"},
        ],
    },
    FeatureSet,
)


def training_table(seed: int = 0) -> pa.Table:
    """Canonical columns and the four features; about one transaction in twenty-five is a fraud."""
    rng = np.random.default_rng(seed)
    rows = DAYS * ROWS_A_DAY
    amount = rng.integers(100, 30_000, rows)
    night = rng.random(rows) < 0.2
    count = rng.integers(1, 12, rows)
    risk = rng.choice([0.0, 0.0, 0.0, 0.1, 0.5], rows)
    log_odds = -6.5 + amount / 10_000 + 0.8 * night + 0.1 * count + 4.0 * risk
    frauds = rng.random(rows) < 1.0 / (1.0 + np.exp(-log_odds))
    return pa.table(
        {
            "transaction_id": pa.array([f"t{at:05}" for at in range(rows)]),
            "event_time": pa.array(FIRST_DAY + np.sort(rng.integers(0, DAYS * DAY, rows))).view(EVENT_TIME),
            "customer_id": pa.array([f"c{card}" for card in rng.integers(0, CARDS, rows)]),
            "amount_minor": pa.array(amount),
            "is_fraud": pa.array(frauds.astype(np.int8)),
            "amount": pa.array(amount / 100),
            "night": pa.array(night.astype(np.float64)),
            "customer_count_1d": pa.array(count.astype(np.float64)),
            "terminal_risk_7d_delay_7d": pa.array(risk),
        }
    )


def training_request(kind: ModelKind = "logistic") -> TrainingRequest:
    """A request that fits the table."""
    return TrainingRequest(
        name="small", kind=kind, source="memory", schema="handbook", feature_set=FEATURES, label_delay=7 * DAY
    )
