"""The default run on a small simulation, pinned: what a release changes without meaning to shows here."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.command import run_command

SOURCE = "simulator:?customers=200&terminals=400&days=60&seed=5"
TRANSACTIONS, FRAUDS = 21_471, 175
DECISIONS = "9f434b7c1a7f4f135d16ef7b2585f6b9ceb422a4fa33cad5fcaf8b79f4a95c8f"


def test_the_default_run_decides_as_it_did(tmp_path: Path) -> None:
    """As many transactions, as many frauds, and for each the decision and the score, to six decimals, of before.

    The first two come from the simulator and should never change. The digest changes with the shipped
    model, the features or the thresholds: where that was meant, take the new one from the failure's message,
    and say so in CHANGELOG.md.
    """
    run = run_command(tmp_path / "output", "--source", SOURCE)
    figures = run.summary
    assert figures["read"] == figures["transactions"] == TRANSACTIONS
    assert figures["frauds_caught"] + figures["frauds_missed"] == FRAUDS
    rows = run.decisions.select(["transaction_id", "decision", "score"]).to_pylist()
    lines = sorted(f"{row['transaction_id']},{row['decision']},{row['score']:.6f}\n" for row in rows)
    assert hashlib.sha256("".join(lines).encode()).hexdigest() == DECISIONS
