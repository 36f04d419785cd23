"""Decisions, reasons and rules on plain batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from model_artifacts.artifact import load_model
from model_artifacts.manifest import Thresholds
from transforms.batch import TransactionBatch, from_rows
from transforms.decide import decide_batch
from transforms.reasons import pushes
from transforms.rules import Rule, compile_rules, rule_columns
from transforms.schema import load_schema

MODEL = load_model("handbook")
NAMES = MODEL.manifest.feature_names


def scored(scores: list[float], **features: float) -> TransactionBatch:
    """A batch of one row a score, every feature typical but those given."""
    typical = dict(zip(NAMES, MODEL.manifest.baseline, strict=True)) | features
    rows = [
        {"transaction_id": str(at), "event_time": 0, "amount_minor": 100, "score": score, **typical}
        for at, score in enumerate(scores)
    ]
    return from_rows(rows, {name: pa.float64() for name in (*NAMES, "score")})


def column(batch: TransactionBatch, name: str) -> list[Any]:
    values: list[Any] = batch.rows.column(name).to_pylist()
    return values


def test_scores_at_a_threshold_are_above_it() -> None:
    """From the review threshold on a transaction is reviewed, from the decline threshold on declined."""
    decided = decide_batch(scored([0.0, 0.2, 0.49, 0.5, 1.0]), MODEL, Thresholds(review=0.2, decline=0.5))
    assert column(decided, "decision") == ["approve", "review", "review", "decline", "decline"]


def test_only_what_is_not_approved_has_reasons_and_the_strongest_comes_first() -> None:
    """A large amount at a terminal with known frauds: both are named, in the order of their push."""
    batch = scored([0.0, 0.9], amount=900.0, terminal_risk_7d_delay_7d=0.8)
    decided = decide_batch(batch, MODEL, Thresholds(review=0.5, decline=0.95))
    approved, reviewed = column(decided, "reasons")
    assert approved == []
    pushed = pushes(batch.feature_matrix(NAMES)[1:], MODEL)[0]
    strongest = [NAMES[at] for at in np.argsort(-pushed, kind="stable")[: len(reviewed)]]
    assert [reason.split(":")[0] for reason in reviewed] == strongest
    assert {"amount", "terminal_risk_7d_delay_7d"} == set(strongest)


def test_a_typical_row_has_no_push() -> None:
    """A row at the baseline is pushed nowhere: every push is exactly 0."""
    assert not pushes(scored([0.5]).feature_matrix(NAMES), MODEL).any()


@pytest.mark.parametrize(("action", "expected"), [("review", ["review", "decline"]), ("decline", ["decline"] * 2)])
def test_a_rule_makes_a_decision_stricter_and_never_laxer(action: Any, expected: list[str]) -> None:
    """A rule lifts an approval to its action, leaves a declined row declined, and comes first in the reasons."""
    rule = Rule(name="small", when="amount_minor < 200", action=action)
    rules = compile_rules([rule], rule_columns(load_schema("handbook"), MODEL.manifest.feature_set))
    decided = decide_batch(scored([0.0, 0.9]), MODEL, Thresholds(review=0.5, decline=0.8), rules)
    assert column(decided, "decision") == expected
    assert all(reasons[0] == "rule small: amount_minor < 200" for reasons in column(decided, "reasons"))
