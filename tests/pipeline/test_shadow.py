"""`--shadow`: candidates beside the command's own model, in its own sink, without a trace in what is decided."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from model_artifacts.artifact import Model, load_model
from model_artifacts.manifest import Thresholds
from pipelines.run import main
from tests.small_models import FEATURES, SHIPPED, make_model
from tests.unit.test_shadow import Answers
from transforms.batch import TransactionBatch, TransactionBatchCoder, from_rows
from transforms.candidates import Candidate, Patience
from transforms.decide import DecideTransactions
from transforms.enrich import EnrichTransactions
from transforms.score import ScoreTransactions, SharedModel
from transforms.shadow import ScoreShadows

SOURCE = "simulator:?customers=30&terminals=60&days=12&seed=5"


def run(output: Path, *more: str) -> dict[str, bytes]:
    """The command on simulated transactions; its decisions and alerts, by file."""
    flags = ["--source", SOURCE, "--schema", "transaction-events", "--output", str(output), "--quiet"]
    assert main([*flags, *more]) == 0
    kept = [*output.glob("decisions/*"), output / "alerts.jsonl"]
    return {path.name: path.read_bytes() for path in kept}


def test_the_command_scores_candidates_beside_its_model(tmp_path: Path) -> None:
    """Every transaction has a row for each candidate; decisions and alerts are the same bytes as without them."""
    names = [
        make_model(tmp_path / name, name, intercept, weight=1e-8, thresholds=Thresholds(review=0.2, decline=0.3))
        for name, intercept in (("low", -4.0), ("high", -1.0))
    ]
    alone = run(tmp_path / "alone")
    shadowed = run(
        tmp_path / "shadowed", *(word for name in ("low", "high") for word in ("--shadow", str(tmp_path / name)))
    )
    assert shadowed == alone
    decided = pq.read_table(tmp_path / "shadowed" / "decisions").sort_by("transaction_id")
    rows = pq.read_table(tmp_path / "shadowed" / "shadow").sort_by("transaction_id")
    for name, decision in zip(names, ("approve", "review"), strict=True):
        own = rows.filter(pc.equal(rows["model_id"], name))
        assert own["transaction_id"].equals(decided["transaction_id"])
        assert own["champion_score"].to_pylist() == decided["score"].to_pylist()
        assert own["champion_model_id"].to_pylist() == decided["model_id"].to_pylist()
        assert set(own["decision"].to_pylist()) == {decision}
        scores = load_model(str(tmp_path / name.rpartition("-")[0])).score(
            np.column_stack([decided[feature].to_numpy() for feature in FEATURES.names])
        )
        assert own["score"].to_pylist() == scores.tolist()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--shadow", "handbook"], "--shadow: model handbook-.* it has not"),
        (["--shadow", "transaction-events", "--shadow", "transaction-events"], "is named twice"),
        (
            ["--shadow", "transaction-events", "--shadow_sink", "dynamodb://scores"],
            "--shadow_sink: dynamodb: keeps one row a transaction",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Features that are not computed, a candidate twice, a sink that would keep one candidate's rows only."""
    assert main(["--schema", "transaction-events", "--output", str(tmp_path / "output"), *flags]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "output").exists()


@dataclass(frozen=True)
class Broken(Candidate):
    """A candidate whose model fails."""

    def load(self) -> Model:
        return Answers(_fail)


@dataclass(frozen=True)
class Stalled(Candidate):
    """A candidate whose model never answers."""

    def load(self) -> Model:
        return Answers(_stall)


@dataclass(frozen=True)
class Nonsense(Candidate):
    """A candidate that is not sure of anything."""

    def load(self) -> Model:
        return Answers(lambda: np.array([np.nan]))


def _fail() -> Any:
    raise RuntimeError("broken")


def _stall() -> Any:
    threading.Event().wait()


_BYTES: list[bytes] = []


def _keep(batch: TransactionBatch) -> None:
    _BYTES.append(TransactionBatchCoder().encode(batch))


def _decide(candidates: list[Candidate]) -> tuple[list[bytes], dict[str, int]]:
    """What is decided with candidates beside it, as bytes, and what is counted of them."""
    _BYTES.clear()
    rows = [{"transaction_id": f"{n:03}", "event_time": n, "customer_id": "c", "amount_minor": n} for n in range(40)]
    model = SharedModel("transaction-events")
    pipeline = beam.Pipeline(runner=FnApiRunner())
    batches = pipeline | beam.Create([from_rows(rows[at : at + 4]) for at in range(0, 40, 4)], reshuffle=False)
    enriched = batches | EnrichTransactions(FEATURES, shards=1, batch_rows=4)
    decided = (enriched.batches | ScoreTransactions(model, batch_rows=4)).batches | DecideTransactions(model)
    if candidates:
        _ = decided | ScoreShadows(candidates, Patience(budget=50_000))
    _ = decided | beam.Map(_keep)
    result = pipeline.run()
    result.wait_until_finish()
    counted = result.metrics().query(MetricsFilter())["counters"]
    return sorted(_BYTES), {
        f"{each.key.metric.namespace}.{each.key.metric.name}": each.committed
        for each in counted
        if each.key.metric.namespace.startswith("shadow")
    }


@pytest.mark.parametrize("kind", [Broken, Stalled, Nonsense])
def test_a_bad_candidate_leaves_no_trace_in_what_is_decided(kind: Callable[..., Candidate]) -> None:
    """It raises, never answers or gives nonsense: the decisions are the same bytes, and each of its failures counts."""
    alone, _ = _decide([])
    beside, counted = _decide([kind("", SHIPPED)])
    assert beside == alone
    name = f"shadow.{SHIPPED.model_id}"
    assert counted[f"{name}.failed"] >= 3
    assert set(counted) <= {f"{name}.failed", f"{name}.aside"}
