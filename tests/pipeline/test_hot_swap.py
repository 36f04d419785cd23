"""A model is promoted while a pipeline runs: batches before have the old one, batches after the new one, whole."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from model_artifacts.aliases import Move, history, promote
from model_artifacts.artifact import load_model
from model_artifacts.follow import Follow
from model_artifacts.manifest import Thresholds
from model_artifacts.registry import open_registry
from pipelines.plan import make_plan
from pipelines.served import served
from pipelines.settings import load_settings
from tests.small_models import FEATURES, SHIPPED, make_model
from transforms.batch import TransactionBatch, from_rows, to_rows
from transforms.decide import DecideTransactions, decide_batch
from transforms.durations import SECOND
from transforms.enrich import EnrichTransactions
from transforms.errors import UserError
from transforms.schema import load_schema
from transforms.score import ScoreTransactions, SharedModel, score_batch

_DECIDED: list[TransactionBatch] = []


class _PromoteOnTheWay(beam.DoFn):
    """Passes batches on; at one of them it promotes a version, and from there on takes its time."""

    def __init__(self, url: str, version: str, at: str) -> None:
        self.url, self.version, self.at = url, version, at
        self.promoted = False

    def process(self, element: TransactionBatch) -> Iterator[TransactionBatch]:
        if element.rows.column("transaction_id")[0].as_py() == self.at:
            registry = open_registry(self.url)
            move = Move(action="promote", version=self.version, at="", by="test")
            promote(registry, "champion", move, history(registry, "champion"))
            self.promoted = True
        if self.promoted and not any(_ids(batch) == {self.version} for batch in _DECIDED):
            time.sleep(0.05)
        yield element


def _keep(batch: TransactionBatch) -> None:
    _DECIDED.append(batch)


def _ids(batch: TransactionBatch) -> set[str]:
    return set(batch.rows.column("model_id").to_pylist())


def _registry(tmp_path: Path) -> tuple[str, list[str]]:
    url = str(tmp_path / "registry")
    registry = open_registry(url)
    thresholds = Thresholds(review=0.2, decline=0.3)
    for name, changed in (("one", {}), ("two", {"intercept": -1.0, "thresholds": thresholds})):
        make_model(tmp_path / name, name, weight=1e-8, **changed)  # type: ignore[arg-type]  # fields of a manifest
        registry.add(tmp_path / name, "test", datetime(2026, 11, 1, tzinfo=UTC))
    one, two = registry.versions()
    promote(registry, "champion", Move(action="promote", version=one, at="", by="test"), [])
    return url, [one, two]


def test_a_running_pipeline_swaps_between_batches(tmp_path: Path) -> None:
    """Each batch has one model, its scores, its thresholds and its reasons; none is lost; metrics count one swap."""
    url, (one, two) = _registry(tmp_path)
    follow = Follow(f"registry:{url}#champion", 1_000, FEATURES.fingerprint, SHIPPED.schema)
    model = SharedModel(f"registry:{url}#{one}", follow=follow)
    rows = [{"transaction_id": f"{n:03}", "event_time": n, "customer_id": "c", "amount_minor": 100} for n in range(90)]
    _DECIDED.clear()
    pipeline = beam.Pipeline(runner=FnApiRunner())
    enriched = (
        pipeline
        | beam.Create([from_rows(rows[at : at + 3]) for at in range(0, 90, 3)], reshuffle=False)
        | EnrichTransactions(FEATURES, shards=1, batch_rows=3)
    )
    cut = enriched.batches | "Cut" >> beam.FlatMap(lambda batch: list(batch.pieces(1))).with_output_types(
        TransactionBatch
    )
    slow = cut | "Promote" >> beam.ParDo(_PromoteOnTheWay(url, two, "020")).with_output_types(TransactionBatch)
    scored = slow | ScoreTransactions(model, batch_rows=1)
    _ = scored.batches | DecideTransactions(model) | beam.Map(_keep)
    result = pipeline.run()
    result.wait_until_finish()

    assert sorted(row["transaction_id"] for batch in _DECIDED for row in to_rows(batch)) == [
        f"{n:03}" for n in range(90)
    ]
    assert all(len(_ids(batch)) == 1 for batch in _DECIDED)
    order = [_ids(batch).pop() for batch in _DECIDED]
    assert order == sorted(order, key=[one, two].index)
    assert set(order) == {one, two}
    for batch in _DECIDED:
        own = load_model(f"registry:{url}#{_ids(batch).pop()}")
        again, _ = score_batch(batch.without_columns(("decision", "reasons")), own)
        assert again is not None
        assert batch == decide_batch(again, own, own.manifest.thresholds)
    decisions = {_ids(batch).pop(): batch.rows.column("decision")[0].as_py() for batch in _DECIDED}
    assert decisions == {one: "approve", two: "review"}
    counters = result.metrics().query(MetricsFilter().with_namespace("model"))["counters"]
    assert {each.key.metric.name: each.committed for each in counters} == {"swapped": 1}


def test_a_batch_of_two_models_is_decided_by_each(tmp_path: Path) -> None:
    """Whoever joins scored batches gets each row decided on under the thresholds of the model that scored it."""
    url, versions = _registry(tmp_path)
    follow = Follow(f"registry:{url}#champion", 1_000_000, FEATURES.fingerprint, SHIPPED.schema)
    features = dict.fromkeys(FEATURES.names, 1.0)
    rows = [
        {"transaction_id": each, "event_time": 0, "amount_minor": 100, "model_id": each, "score": 0.35, **features}
        for each in versions
    ]
    kinds: dict[str, Any] = dict.fromkeys((*FEATURES.names, "score"), pa.float64()) | {"model_id": pa.string()}
    _DECIDED.clear()
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        decided = pipeline | beam.Create([from_rows(rows, kinds)]) | DecideTransactions(SharedModel("", follow=follow))
        _ = decided | beam.Map(_keep)
    found = {row["model_id"]: row["decision"] for batch in _DECIDED for row in to_rows(batch)}
    assert found == dict(zip(versions, ("review", "decline"), strict=True))


def test_input_that_ends_has_one_model(tmp_path: Path) -> None:
    """Its alias is pinned to the version it names when the plan is made, whatever `model.refresh` says."""
    url, (one, _) = _registry(tmp_path)
    uri = f"registry:{url}#champion"
    flags = {"source": "simulator:?days=1", "schema": "transaction-events", "model": uri}
    plan = make_plan(load_settings(flags=flags, sets=["model.refresh=5s"]))
    assert plan.model.follow is None
    assert plan.model.uri == f"registry:{url}#{one}"
    assert plan.manifest.model_id == one


def test_a_stream_follows_its_alias(tmp_path: Path) -> None:
    """Every 30 seconds unless told otherwise; told 0, or with a version named, it stays with one model."""
    url, (one, _) = _registry(tmp_path)

    def every(name: str, *sets: str) -> int | None:
        settings = load_settings(flags={"model": f"registry:{url}#{name}"}, sets=sets)
        follow = served(settings, load_schema("transaction-events"), bounded=False).follow
        return follow.every // SECOND if follow else None

    assert every("champion") == 30
    assert every("champion", "model.refresh=5s") == 5
    assert every("champion", "model.refresh=0") is None
    assert every(one) is None
    with pytest.raises(UserError, match=r"model.refresh is 5s, but .* never changes; name an alias"):
        every(one, "model.refresh=5s")
