"""Explain a transaction of a log: find it, compute its features again, and look up what was served."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from model_artifacts.artifact import load_model
from pipelines.explain.explanation import Explanation, explain
from pipelines.explain.rebuild import Rebuilt, rebuild
from pipelines.past import plan_the_past
from pipelines.replay.decisions import Decisions, open_decisions
from pipelines.settings import Settings
from transforms.durations import DAY
from transforms.errors import UserError


def explain_transaction(settings: Settings, transaction_id: str, served: str | None = None) -> Explanation:
    """Why these settings decide on a transaction as they do.

    Args:
        settings: the log, the model, the policy and the rules.
        transaction_id: which.
        served: where the decisions are that were served, as `open_decisions` takes it, or None.

    Raises:
        UserError: the log has no such transaction or several, what was served has none, or the settings are wrong.
    """
    plan = plan_the_past(settings)
    decisions = open_decisions(served) if served else None
    rebuilt = rebuild(plan, transaction_id)
    row = served_row(decisions, rebuilt, str(served)) if decisions else None
    return explain(plan, load_model(plan.model_uri, plan.model.public_key), rebuilt, row)


def served_row(decisions: Decisions, rebuilt: Rebuilt, where: str) -> pa.Table:
    """The decision that was served on a transaction, as a table of one row.

    Raises:
        UserError: there is none.
    """
    time = int(rebuilt.row.numpy("event_time")[0])
    transaction_id = rebuilt.row.rows.column("transaction_id")[0]
    day = decisions.day(time // DAY)
    if day is not None:
        of_time = pc.equal(day["event_time"].cast(pa.int64()), time)
        found = day.filter(pc.and_(pc.equal(day["transaction_id"], transaction_id), of_time))
        if len(found):
            return found.slice(0, 1)
    raise UserError(
        f"--served {where} holds no decision on transaction {transaction_id} of that time: it was not served"
    )
