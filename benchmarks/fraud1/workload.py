"""What FRAUD-1 reads, and what has to come out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from model_artifacts.artifact import save_model
from model_artifacts.manifest import Calibration, Costs, Manifest, ModelKind, Thresholds, TrainingFacts
from model_artifacts.onnx_export import linear_to_onnx
from transforms.features import Declaration, FeatureSet

CUSTOMERS, TERMINALS, DAYS = 5_000, 10_000, 60
SCHEMA = str(Path(__file__).with_name("schema.toml"))
DEFAULT_SCHEMA = str(Path(__file__).with_name("default_schema.toml"))
_FIRST = np.datetime64("2026-01-01", "ms")
_WINDOWS = ("1d", "7d", "30d")
_FEATURES = FeatureSet(
    name="fraud-1",
    declared=(
        Declaration(kind="amount"),
        Declaration(kind="weekend"),
        Declaration(kind="night", last_hour=5),
        Declaration(kind="count", entity="customer_id", windows=_WINDOWS),
        Declaration(kind="mean", entity="customer_id", column="amount", windows=_WINDOWS),
    ),
)
#: In the order of the features' names: a logistic regression of such transactions. Peers have the same.
_WEIGHTS = (
    *(0.03616128946980871, 0.007839410633944416, 0.0753099389597369),
    *(-0.019501270363731966, -0.010957688580730344, 0.0038932249012009553),
    *(-0.001349147477133944, -0.0033828121627273834, -0.03069380142747954),
)
_INTERCEPT = -1.32716107003596
_THRESHOLD = 0.5
_WORDS = {
    "merchant_category": ("Electronics", "Fashion", "Gaming", "Grocery", "Restaurant", "Travel"),
    "location": ("Austin", "Boston", "Chicago", "Denver", "Miami", "New York", "Seattle"),
    "payment_method": ("CreditCard", "DebitCard", "PayPal", "Wire"),
}


@dataclass(frozen=True)
class Transactions:
    """Made-up transactions in the order of their event times: an array of each column.

    Attributes:
        ids: 32 hexadecimal digits each.
        times: datetime64[ms].
        customers, terminals: numbers.
        cents: amounts.
        words: columns that are read past, as places in `_WORDS`.
        frauds: 0 or 1, likewise.
    """

    ids: list[str]
    times: np.ndarray[Any, Any]
    customers: np.ndarray[Any, Any]
    terminals: np.ndarray[Any, Any]
    cents: np.ndarray[Any, Any]
    words: dict[str, np.ndarray[Any, Any]]
    frauds: np.ndarray[Any, Any]


def make_transactions(rows: int, seed: int = 1) -> Transactions:
    """So many transactions, spread evenly over sixty days; the same for a seed on every machine."""
    chance = np.random.default_rng(seed)
    customers = chance.integers(0, CUSTOMERS, rows)
    usual = chance.uniform(5.0, 100.0, CUSTOMERS)[customers]
    compromised = chance.random(rows) < 0.02
    amounts = np.abs(chance.normal(usual, usual / 2)) * np.where(compromised, 5.0, 1.0)
    return Transactions(
        ids=[chance.bytes(16).hex() for _ in range(rows)],
        times=_FIRST + np.arange(rows) * (DAYS * 86_400_000) // rows + 100,
        customers=customers,
        terminals=chance.integers(0, TERMINALS, rows),
        cents=np.maximum(np.rint(amounts * 100).astype(np.int64), 1),
        words={name: chance.integers(0, len(words), rows) for name, words in _WORDS.items()},
        frauds=(compromised & (chance.random(rows) < 0.9)).astype(np.int8),
    )


def messages(made: Transactions) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each transaction's record; the key is its customer."""
    times = np.datetime_as_string(made.times)
    words = [[f'"{name}":"{_WORDS[name][at]}"' for at in places] for name, places in made.words.items()]
    columns = (made.ids, made.customers, made.terminals, made.cents, times, made.frauds, *words)
    for name, customer, terminal, cents, time, fraud, *rest in zip(*columns, strict=True):
        body = (
            f'{{"transaction_id":"{name}","user_id":{customer},"terminal_id":{terminal},'
            f'"amount":{cents // 100}.{cents % 100:02d},"timestamp":"{time}",{",".join(rest)},"is_fraud":{fraud}}}'
        )
        yield str(customer).encode(), body.encode()


def expected(made: Transactions) -> pd.DataFrame:
    """The score of each transaction and whether it is flagged, by its id; slow and obvious."""
    table = pd.DataFrame({"id": made.ids, "customer": made.customers, "time": made.times, "amount": made.cents / 100})
    table = table.sort_values(["customer", "time"], kind="stable").reset_index(drop=True)
    found = {
        "amount": table.amount,
        "weekend": (table.time.dt.day_of_week >= 5).astype(float),
        "night": (table.time.dt.hour < 6).astype(float),
    }
    amounts = table.set_index("time").groupby("customer").amount
    for window in _WINDOWS:
        past = amounts.rolling(window.upper())  # after its beginning, up to the transaction itself
        found[f"customer_count_{window}"] = past.count().reset_index(drop=True)
        found[f"customer_amount_mean_{window}"] = past.mean().reset_index(drop=True)
    log_odds = sum(found[name] * weight for name, weight in zip(_FEATURES.names, _WEIGHTS, strict=True)) + _INTERCEPT
    score = 1.0 / (1.0 + np.exp(-log_odds))
    return pd.DataFrame({"score": score.to_numpy(), "flag": score.to_numpy() >= _THRESHOLD}, index=table.id)


def write_model(directory: Path) -> None:
    """The model as this project's pipeline takes it."""
    graph = linear_to_onnx(np.array(_WEIGHTS), _INTERCEPT)
    manifest = make_manifest(_FEATURES, "logistic", hashlib.sha256(graph).hexdigest())
    save_model(directory, graph, manifest, "# FRAUD-1\n\nWeights that were given, not learnt.\n", {})


def make_manifest(features: FeatureSet, kind: ModelKind, digest: str) -> Manifest:
    """The manifest of a model that was given; `digest` is its graph's sha256."""
    return Manifest(
        model_id=f"{features.name}-{digest[:12]}",
        kind=kind,
        schema="fraud-1",
        feature_set=features,
        feature_names=features.names,
        fingerprint=features.fingerprint,
        model_sha256=digest,
        calibration=Calibration(),
        thresholds=Thresholds(review=_THRESHOLD, decline=1.0),
        costs=Costs(),
        baseline=(0.0,) * len(features.names),
        training=TrainingFacts(
            source="given",
            train_from="",
            train_to="",
            test_from="",
            test_to="",
            label_delay="0d",
            rows=0,
            frauds=0,
        ),
        metrics={},
    )
