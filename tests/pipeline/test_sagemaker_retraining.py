"""A retraining pipeline's definition, run step by step as SageMaker would, by real processes in trees like /opt/ml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from io_connectors.simulation import Simulation, simulate
from model_artifacts.aliases import current, history
from model_artifacts.artifact import load_model
from model_artifacts.manifest import TrainingFacts
from model_artifacts.registry import open_registry
from pipelines.sagemaker.arguments import parse, retraining
from pipelines.sagemaker.definition import definition
from pipelines.sagemaker.evaluate import EVIDENCE_FILE, evaluate
from tests.sagemaker_pipeline import ROOT, Execution, Json
from tests.small_models import make_model

DAYS = 56
FLAGS = [
    *("--role", "arn:aws:iam::111122223333:role/fraud-training"),
    *("--image", "111122223333.dkr.ecr.eu-west-1.amazonaws.com/fraud:1"),
    *("--data", "s3://data/transactions", "--registry", "s3://models/registry", "--output", "s3://jobs/retraining"),
    *("--group", "fraud", "--gate_delay", "0"),
    *("--schema", "handbook", "--model", "logistic", "--test_days", "14"),
]


def pipeline() -> Json:
    found: Json = json.loads(definition(retraining(*parse(["definition", *FLAGS]))))
    return found


def put_days(buckets: Path, first: int, last: int) -> None:
    """Files of days in the bucket, as a lake has them."""
    table = simulate(Simulation(customers=600, terminals=1000, days=DAYS, seed=11))
    start = table["TX_DATETIME"].to_numpy().min().astype("datetime64[D]")
    day = (table["TX_DATETIME"].to_numpy().astype("datetime64[D]") - start).astype(int)
    place = buckets / "data" / "transactions"
    place.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.filter(np.isin(day, range(first, last))), place / f"days-{first}-{last}.parquet")


def test_training_again_promotes_what_is_not_worse(tmp_path: Path) -> None:
    """First model, then the same data, then more of it: promoted, refused as nothing new, compared and promoted."""
    buckets = tmp_path / "buckets"
    put_days(buckets, 0, DAYS - 7)
    registry = open_registry(str(buckets / "models" / "registry"))

    first = Execution(pipeline(), buckets, tmp_path, "one").run()
    assert first.done == ["Train", "Evaluate", "Gate", "Register", "Promote"]
    assert "there is no champion yet" in first.said["Evaluate"]
    champion = current(registry, "champion")
    assert champion.startswith("fraud-retraining-")
    assert registry.verify(champion).by == "pipelines.sagemaker"
    (package,) = first.registered
    assert package["ModelApprovalStatus"] == "PendingManualApproval"
    assert first.place(package["InferenceSpecification"]["Containers"][0]["ModelDataUrl"]).is_file()
    assert first.place(package["ModelMetrics"]["ModelQuality"]["Statistics"]["S3Uri"]).is_file()

    again = Execution(pipeline(), buckets, tmp_path, "two").run()
    assert again.done == ["Train", "Evaluate", "Gate", "Refuse"]
    assert again.failure.startswith("not promoted: it is the champion itself")
    assert current(registry, "champion") == champion

    put_days(buckets, DAYS - 7, DAYS)
    more = Execution(pipeline(), buckets, tmp_path, "three").run()
    assert more.done == ["Train", "Evaluate", "Gate", "Register", "Promote"]
    (_, move) = history(registry, "champion")
    assert move.version == current(registry, "challenger") != champion
    assert move.reason == "pipeline execution three"
    assert move.evidence["champion"] == champion
    assert int(move.evidence["frauds"]) >= 50
    told = json.loads(more.place("s3://jobs/retraining/evaluations/three/evaluation.json").read_bytes())
    assert told["gate"] == {
        "passed": True,
        "why": "it is not shown to be worse",
        "version": move.version,
        "champion": champion,
    }
    assert told["measures"]["average_precision"]["challenger"] == move.evidence["average_precision_challenger"]


def test_a_worse_model_is_refused(tmp_path: Path) -> None:
    """On the days that it was tested on, less those that the champion has learnt from."""
    put_days(tmp_path, 20, DAYS)
    source = f"file:{tmp_path}/data/transactions/*.parquet"
    registry, features = open_registry(str(tmp_path / "registry")), load_model("handbook").manifest.feature_set
    made = []
    for name, weight, train_to in (("good", 0.01, "2026-02-13"), ("bad", -0.01, "2026-02-04")):
        facts = TrainingFacts(
            source=source,
            train_from="2026-01-21",
            train_to=train_to,
            test_from="2026-02-11",
            test_to="2026-02-26",
            label_delay="7d",
            rows=1,
            frauds=1,
        )
        changed = {"schema": "handbook", "training": facts}
        made.append(make_model(tmp_path / name, name, -3.0, features, weight, **changed))
    for name in ("good", "bad"):
        registry.add(tmp_path / name, "test", datetime(2026, 1, 1, tzinfo=UTC))
    command = [sys.executable, "-m", "model_artifacts", "promote", made[0], "--registry", registry.url]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    found = evaluate(registry, made[1], source, None, tmp_path, label_delay="0")
    assert not found.gate.passed
    assert "average precision is worse" in found.gate.why
    days = pq.read_table(tmp_path / EVIDENCE_FILE)["event_time"].to_numpy().astype("datetime64[D]")
    assert (str(days.min()), str(days.max())) == ("2026-02-13", "2026-02-25")


def test_a_job_in_a_script_mode_container_is_the_same(tmp_path: Path) -> None:
    """SM_* variables and hyperparameters as flags, or a tree with hyperparameters.json: the same bytes."""
    put_days(tmp_path, 0, 35)
    channel, models = tmp_path / "data" / "transactions", []
    flags = {"model": "logistic", "name": "job", "test_days": "7"}
    for kind in ("script", "tree"):
        base = tmp_path / kind / "opt" / "ml"
        (base / "model").mkdir(parents=True)
        variables, words = {"SAGEMAKER_BASE_DIR": str(base)}, list[str]()
        if kind == "script":
            variables |= {"SM_CHANNEL_TRAINING": str(channel), "SM_MODEL_DIR": str(base / "model")}
            words = [word for name, value in flags.items() for word in (f"--{name}", value)]
        else:
            (base / "input" / "config").mkdir(parents=True)
            (base / "input" / "config" / "hyperparameters.json").write_text(json.dumps(flags))
            (base / "input" / "data").mkdir()
            (base / "input" / "data" / "training").symlink_to(channel)
        ended = subprocess.run(
            [sys.executable, "-m", "pipelines.sagemaker.train", *words],
            cwd=ROOT,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        models.append((base / "model" / "model.onnx").read_bytes())
        assert load_model(str(base / "model")).manifest.model_id.startswith("job-")
    assert models[0] == models[1]


@pytest.mark.parametrize("module", ["train", "evaluate"])
def test_a_job_that_fails_says_why_where_sagemaker_looks(tmp_path: Path, module: str) -> None:
    """In /opt/ml/output, of which the console shows the first letters."""
    (tmp_path / "output").mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", f"pipelines.sagemaker.{module}"],
        cwd=ROOT,
        env={**os.environ, "SAGEMAKER_BASE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    told = {"train": "give the job a channel called training", "evaluate": "--model"}[module]
    assert ended.returncode == 2
    assert told in ended.stderr
    assert told in (tmp_path / "output" / "failure").read_text()
