"""The evidence for a promotion: what counts, what it says, and what it refuses."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from model_artifacts.__main__ import main
from model_artifacts.aliases import Move, history, promote
from model_artifacts.evidence import Judged, compare, read_evidence
from model_artifacts.manifest import Costs
from model_artifacts.registry import open_registry
from pipelines.training.metrics import average_precision
from tests.small_models import make_model
from transforms.durations import DAY
from transforms.errors import UserError

ROWS = 4_000


def scores(labels: NDArray[np.int8], noise: float, seed: int) -> NDArray[np.float64]:
    """Scores that know the labels, but for the noise."""
    return 1.0 / (1.0 + np.exp(3.0 - 3.0 * labels - noise * np.random.default_rng(seed).normal(size=len(labels))))


def table(champion: str, challenger: str, noises: tuple[float, float], **columns: Any) -> pa.Table:
    """What a shadow sink writes."""
    rng = np.random.default_rng(1)
    labels = (rng.random(ROWS) < 0.05).astype(np.int8)
    of = [scores(labels, noise, seed) for seed, noise in enumerate(noises)]
    decisions = [np.where(each > 0.4, "review", "approve") for each in of]
    return pa.table(
        {
            "transaction_id": [f"t{n}" for n in range(ROWS)],
            "event_time": pa.array(np.arange(ROWS) * (40 * DAY // ROWS)).cast(pa.timestamp("us", "UTC")),
            "customer_id": [f"c{n}" for n in rng.integers(0, 300, ROWS)],
            "amount_minor": rng.integers(100, 20_000, ROWS),
            "is_fraud": labels,
            "model_id": [challenger] * ROWS,
            "score": of[1],
            "decision": decisions[1],
            "champion_model_id": [champion] * ROWS,
            "champion_score": of[0],
            "champion_decision": decisions[0],
        }
        | columns
    )


def judged(path: Path, rows: pa.Table, *more: str) -> Judged:
    pq.write_table(rows, path / "rows.parquet")
    return read_evidence([str(path / "rows.parquet"), *more], "a", "b", Costs(), 7 * DAY)


def test_only_what_both_have_scored_and_whose_label_is_known_counts(tmp_path: Path) -> None:
    """The last seven days are left out, as are rows of other models; a transaction written twice counts once."""
    rows = table("a", "b", (1.0, 1.0))
    known = int(np.sum(np.arange(ROWS) * (40 * DAY // ROWS) <= (ROWS - 1) * (40 * DAY // ROWS) - 7 * DAY))
    other = table("a", "c", (1.0, 1.0))
    assert len(judged(tmp_path, pa.concat_tables([rows, rows, other])).labels) == known


def test_labels_may_come_from_another_file(tmp_path: Path) -> None:
    """Chargebacks that arrived later are frauds; what nobody has called a fraud by then is none."""
    rows = table("a", "b", (1.0, 1.0))
    blank = rows.set_column(4, "is_fraud", pa.nulls(ROWS, pa.int8()))
    frauds = rows.filter(pa.compute.equal(rows["is_fraud"], 1)).select(["transaction_id", "is_fraud"])
    lines = (f'{{"transaction_id": "{name}", "is_fraud": 1}}' for name in frauds["transaction_id"].to_pylist())
    (tmp_path / "chargebacks.jsonl").write_text("\n".join(lines))
    found = judged(tmp_path, blank, str(tmp_path / "chargebacks.jsonl"))
    assert sorted(found.labels) == sorted(judged(tmp_path, rows).labels)


def test_the_measures_are_those_of_the_model_card(tmp_path: Path) -> None:
    """Average precision as training computes it, costs row by row as a person would add them."""
    found = judged(tmp_path, table("a", "b", (1.0, 2.0)))
    precision, cost = compare(found, resamples=10)
    assert precision.champion == pytest.approx(average_precision(found.scores[0], found.labels))
    assert precision.challenger == pytest.approx(average_precision(found.scores[1], found.labels))
    rows = pq.read_table(tmp_path / "rows.parquet").to_pylist()[: 0 or None]
    newest = max(row["event_time"] for row in rows)
    by_hand = 0
    for row in rows:
        if (newest - row["event_time"]).total_seconds() >= 7 * 86_400:
            lost = row["amount_minor"] if row["is_fraud"] and row["decision"] == "approve" else 0
            by_hand += lost + 500 * (row["decision"] == "review")
    assert cost.challenger == by_hand


def test_a_worse_one_is_told_and_a_better_or_equal_one_is_not(tmp_path: Path) -> None:
    """The same seed gives the same intervals; equal models differ by nothing."""
    worse = compare(judged(tmp_path, table("a", "b", (0.5, 3.0))), resamples=200)
    better = compare(judged(tmp_path, table("a", "b", (3.0, 0.5))), resamples=200)
    assert [each.worse for each in worse] == [True, True]
    assert [each.worse for each in better] == [False, False]
    assert compare(judged(tmp_path, table("a", "b", (3.0, 0.5))), resamples=200) == better
    rows = table("a", "b", (1.0, 1.0))
    same = rows.set_column(6, "score", rows["champion_score"]).set_column(7, "decision", rows["champion_decision"])
    assert [(each.low, each.high) for each in compare(judged(tmp_path, same), resamples=50)] == [(0.0, 0.0)] * 2


def test_the_interval_holds_the_truth_as_often_as_it_says(tmp_path: Path) -> None:
    """Of fifty draws of two equally good models few intervals leave out 0: 95 % of them should not."""
    misses = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        labels = (rng.random(1_500) < 0.1).astype(np.int8)
        pair = scores(labels, 1.5, 1000 + seed), scores(labels, 1.5, 2000 + seed)
        free = np.zeros(len(labels))
        precision, _ = compare(Judged(labels, np.arange(len(labels)), pair, (free, free)), seed, resamples=100)
        misses += not precision.low <= 0.0 <= precision.high
    assert misses <= 8


def test_too_little_says_nothing(tmp_path: Path) -> None:
    """A handful of frauds is refused rather than compared."""
    with pytest.raises(UserError, match="known frauds, and fewer than 50 say nothing"):
        judged(tmp_path, table("a", "b", (1.0, 1.0)).slice(0, 300))
    with pytest.raises(UserError, match="no file has rows of --shadow_sink"):
        judged(tmp_path, table("a", "b", (1.0, 1.0)).drop_columns(["champion_score"]))


def test_promotion_asks_for_evidence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A worse challenger is refused, on record when it is promoted all the same; a better one passes."""
    url = str(tmp_path / "registry")
    registry = open_registry(url)
    for name in ("a", "b"):
        make_model(tmp_path / name, name, intercept=-ord(name) / 50)
        registry.add(tmp_path / name, "ann", datetime(2026, 11, 1, tzinfo=UTC))
    one, two = registry.versions()
    promote(registry, "champion", Move(action="promote", version=one, at="", by="ann"), [])
    words = ["promote", two, "--registry", url, "--evidence", str(tmp_path / "shadow.parquet")]
    pq.write_table(table(one, two, (0.5, 3.0)), tmp_path / "shadow.parquet")
    assert main(words) == 2
    assert "its average precision is worse; its cost is worse" in capsys.readouterr().err
    assert main([*words, "--override", "the old one is forbidden"]) == 0
    move = history(registry, "champion")[-1]
    assert move.overridden == "its average precision is worse; its cost is worse"
    assert move.evidence["transactions"] > 3000  # type: ignore[operator]  # it is a number
    pq.write_table(table(two, one, (3.0, 0.5)), tmp_path / "shadow.parquet")
    assert main(["promote", one, *words[2:]]) == 0
    assert history(registry, "champion")[-1].overridden == ""
