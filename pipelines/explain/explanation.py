"""Everything that is told of one decision, as a value that is text, JSON and a picture."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from model_artifacts.artifact import Model
from model_artifacts.manifest import Costs, Thresholds
from model_artifacts.onnx_graph import sigmoid
from pipelines.explain.rebuild import Rebuilt
from pipelines.explain.shapley import contributions
from pipelines.plan import Plan
from pipelines.training.card import metrics_lines
from transforms.batch import TransactionBatch
from transforms.card_numbers import mask_card_numbers
from transforms.decide import decide_batch
from transforms.errors import UserError
from transforms.features import describe
from transforms.score import score_batch


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A feature's part in a score.

    Attributes:
        feature, words: its name, and what it is.
        value, typical: what it is here, and in the median of the training data.
        contribution: its Shapley value, in log-odds.
        error: the standard error of that; 0 where it is exact.
    """

    feature: str
    words: str
    value: float
    typical: float
    contribution: float
    error: float


class RuleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A rule, and whether it applies."""

    name: str
    when: str
    action: str
    applies: bool


class Otherwise(msgspec.Struct, frozen=True, kw_only=True):
    """A value that was served otherwise than it is computed now; None where it was not served."""

    name: str
    served: float | None
    rebuilt: float


class ServedFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The decision as it was served.

    Attributes:
        model_id, score, decision, reasons, late: as served.
        same_score, same_decision: whether it is the one that is made now.
        features: how many of the model's features were served by name.
        differing: those of them that are other numbers now.
    """

    model_id: str
    score: float
    decision: str
    reasons: list[str]
    late: bool
    same_score: bool
    same_decision: bool
    features: int
    differing: list[Otherwise]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """One decision explained.

    Attributes:
        transaction_id: which.
        event_time: ISO 8601, UTC.
        amount_minor: in minor units, of which `minor_digits` are decimals.
        columns: its entities and the schema's own columns.
        past: how many rows its features are computed from, its own among them.
        model_id, model: what scored, and what is known of it, a line each.
        score, log_odds: of the transaction; the log-odds are calibrated.
        typical_score, typical_log_odds: of a transaction whose features all have their typical values.
        method: how the parts were computed.
        parts: of all features, the largest first; they sum to `log_odds` - `typical_log_odds`.
        rules: in their order.
        thresholds, costs: the policy.
        decision, reasons: what it came to, as the pipeline tells it.
        decided_by: the threshold or the rules that made it so.
        served: what was served, if it was asked for and found.
    """

    transaction_id: str
    event_time: str
    amount_minor: int
    minor_digits: int
    columns: dict[str, str | float | None]
    past: int
    model_id: str
    model: list[str]
    score: float
    log_odds: float
    typical_score: float
    typical_log_odds: float
    method: str
    parts: list[Part]
    rules: list[RuleFacts]
    thresholds: Thresholds
    costs: Costs
    decision: str
    decided_by: str
    reasons: list[str]
    served: ServedFacts | None = None


def explain(plan: Plan, model: Model, rebuilt: Rebuilt, served: pa.Table | None = None) -> Explanation:
    """Score and decide on a transaction with its features, and say why; card numbers are masked.

    Args:
        plan: the policy and the rules.
        model: of the plan.
        rebuilt: the transaction.
        served: its row as it was served, or None.

    Raises:
        UserError: a feature is not a finite number, so that there is no score.
    """
    scored, letters = score_batch(rebuilt.row, model)
    if scored is None:
        raise UserError(f"the transaction got no decision: {letters[0].error}")
    decided = decide_batch(scored, model, plan.thresholds, plan.rules, plan.segments)
    row, manifest = decided.rows.to_pylist()[0], model.manifest
    matrix = decided.feature_matrix(manifest.feature_names)
    found = contributions(matrix[0], model)
    parts = [
        Part(feature=f.name, words=describe(f), value=value, typical=usual, contribution=each, error=error)
        for f, value, usual, each, error in zip(
            manifest.feature_set.features,
            matrix[0].tolist(),
            manifest.baseline,
            found.values.tolist(),
            found.errors.tolist(),
            strict=True,
        )
    ]
    rules = [
        RuleFacts(name=rule.name, when=rule.when, action=rule.action, applies=bool(mask[0]))
        for rule, mask in plan.rules.apply(decided)
    ]
    explanation = Explanation(
        transaction_id=row["transaction_id"],
        event_time=row["event_time"].isoformat(),
        amount_minor=row["amount_minor"],
        minor_digits=manifest.feature_set.minor_digits,
        columns={name: row[name] for name in _told(plan)},
        past=rebuilt.past,
        model_id=manifest.model_id,
        model=_about(model),
        score=row["score"],
        log_odds=found.log_odds,
        typical_score=float(sigmoid(np.array([found.typical]))[0]),
        typical_log_odds=found.typical,
        method=found.method,
        parts=sorted(parts, key=lambda part: (-abs(part.contribution), part.feature)),
        rules=rules,
        thresholds=plan.thresholds,
        costs=plan.costs,
        decision=row["decision"],
        decided_by=_decided_by(row["score"], plan.thresholds, row["decision"], rules),
        reasons=row["reasons"],
        served=_served(served, decided, model) if served is not None else None,
    )
    return msgspec.convert(_masked(msgspec.to_builtins(explanation)), Explanation)


def _told(plan: Plan) -> list[str]:
    """Columns worth telling: entities and the schema's own, unless a feature stands in their place."""
    entities = [name for name in ("customer_id", "terminal_id") if name in plan.schema.columns]
    return [name for name in (*entities, *plan.schema.own_columns) if name not in plan.manifest.feature_names]


def _about(model: Model) -> list[str]:
    """The head of the model's card, out of its manifest."""
    manifest, training = model.manifest, model.manifest.training
    return [
        f"{manifest.kind} on the {len(manifest.feature_names)} features of {manifest.feature_set.name}",
        f"trained on {training.rows:,} transactions with {training.frauds:,} frauds, {training.train_from} up to "
        f"{training.train_to}, of {training.source}",
        f"tested on {training.test_from} up to {training.test_to}; labels known after {training.label_delay}",
        *metrics_lines(manifest),
    ]


def _decided_by(score: float, thresholds: Thresholds, decision: str, rules: list[RuleFacts]) -> str:
    """The threshold that the score has reached, or the rules that are stricter."""
    of_score = "decline" if score >= thresholds.decline else "review" if score >= thresholds.review else "approve"
    if of_score != decision:
        names = ", ".join(rule.name for rule in rules if rule.applies and rule.action == decision)
        return f"rule {names}; by its score alone it would be {of_score}"
    if decision == "approve":
        return f"the score is below {thresholds.review:.4g}, from which on transactions are reviewed"
    return f"the score is not below {getattr(thresholds, decision):.4g}"


def _served(served: pa.Table, decided: TransactionBatch, model: Model) -> ServedFacts:
    """What was served beside what is decided now, to the bit."""
    before, now = served.to_pylist()[0], decided.rows.to_pylist()[0]
    shared = [name for name in model.manifest.feature_names if name in served.column_names]
    differing = [
        Otherwise(name=name, served=before[name], rebuilt=now[name]) for name in shared if before[name] != now[name]
    ]
    return ServedFacts(
        model_id=before["model_id"],
        score=before["score"],
        decision=before["decision"],
        reasons=before["reasons"],
        late=before["late"],
        same_score=before["score"] == now["score"],
        same_decision=before["decision"] == now["decision"],
        features=len(shared),
        differing=differing,
    )


def _masked(value: Any) -> Any:
    """Plain data with the card numbers in all its text masked."""
    if isinstance(value, str):
        return mask_card_numbers(value)
    if isinstance(value, dict):
        return {name: _masked(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_masked(each) for each in value]
    return value
