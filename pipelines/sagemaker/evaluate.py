"""`python -m pipelines.sagemaker.evaluate`: the processing job between training and promotion.

The model that a training job has left is added to the registry and becomes its challenger. On the days it was tested
on it is compared with the champion, by the same measures as `python -m model_artifacts promote` compares: what that
command needs is left as evidence, and what it would say as `evaluation.json`, for the pipeline's condition.
"""

from __future__ import annotations

import argparse
import os
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model_artifacts.aliases import Move, history, promote, standing, timestamp
from model_artifacts.artifact import Model, load_model
from model_artifacts.evidence import Compared, against, compare, read_evidence
from model_artifacts.manifest import Manifest
from model_artifacts.registry import Registry, open_registry
from pipelines.matrix import build_matrix
from pipelines.sagemaker.container import files_url, told
from transforms.decide import decisions_of
from transforms.durations import parse_duration
from transforms.errors import UserError

EVALUATION_FILE, EVIDENCE_FILE = "evaluation.json", "evidence.parquet"
_BY = "pipelines.sagemaker"


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """What the pipeline's condition looks at.

    Attributes:
        passed: whether the version may be promoted.
        why: what speaks against it, or for it.
        version: that was trained.
        champion: that it was compared with; empty where there is none.
    """

    passed: bool
    why: str
    version: str
    champion: str = ""


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One measure; see `model_artifacts.evidence.Compared`."""

    champion: float
    challenger: float
    low: float
    high: float


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """`evaluation.json`.

    Attributes:
        gate: whether it passed.
        measures: by name; none where there is no champion.
        transactions, frauds: that both were compared on.
    """

    gate: Gate
    measures: dict[str, Measure] = {}
    transactions: int = 0
    frauds: int = 0


def evaluate(
    registry: Registry, version: str, source: str, labels: str | None, output: Path, label_delay: str | None = None
) -> Evaluation:
    """Compare a version with the champion on the days that the version was tested on.

    Args:
        registry: that has both.
        version: to compare.
        source, labels: URLs of what it was trained on.
        output: where the evidence goes.
        label_delay: of evidence, see `read_evidence`; None: as the champion was trained.

    Raises:
        UserError: there are too few frauds to compare on, or something cannot be read.
    """
    stack = standing(history(registry, "champion"))
    if not stack:
        return Evaluation(gate=Gate(passed=True, why="there is no champion yet", version=version))
    if stack[0] == version:
        why = "it is the champion itself: the data has nothing new, or training gave the same"
        return Evaluation(gate=Gate(passed=False, why=why, version=version, champion=version))
    champion, candidate = registry.model(stack[0]), registry.model(version)
    pq.write_table(_evidence(champion, candidate, source, labels), output / EVIDENCE_FILE)
    manifest = champion.manifest
    delay = parse_duration(label_delay or manifest.training.label_delay)
    judged = read_evidence([str(output)], stack[0], version, manifest.costs, delay)
    compared = compare(judged)
    wrong = against(compared)
    gate = Gate(passed=not wrong, why=wrong or "it is not shown to be worse", version=version, champion=stack[0])
    return Evaluation(
        gate=gate,
        measures={each.name.replace(" ", "_"): _measure(each) for each in compared},
        transactions=len(judged.labels),
        frauds=int(judged.labels.sum()),
    )


def _measure(each: Compared) -> Measure:
    return Measure(champion=each.champion, challenger=each.challenger, low=each.low, high=each.high)


def _evidence(champion: Model, candidate: Model, source: str, labels: str | None) -> pa.Table:
    """What `--shadow_sink` would have written had the candidate scored beside the champion on its test days."""
    scored = [_scored(model, source, labels) for model in (champion, candidate)]
    mine, theirs = scored[1], scored[0]
    if not mine["transaction_id"].equals(theirs["transaction_id"]):
        raise UserError(f"{source}: champion and candidate do not score the same transactions")
    table = mine
    for name in ("model_id", "score", "decision"):
        table = table.append_column(f"champion_{name}", theirs[name])
    facts = candidate.manifest.training
    # What the champion has learnt from is no test of it.
    start = max(_micros(facts.test_from), _micros(champion.manifest.training.train_to))
    times = table["event_time"].cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    days = pc.and_(pc.greater_equal(times, start), pc.less(times, _micros(facts.test_to)))
    return table.filter(pc.and_(days, pc.and_(pc.is_finite(table["score"]), pc.is_finite(table["champion_score"]))))


def _scored(model: Model, source: str, labels: str | None) -> pa.Table:
    manifest: Manifest = model.manifest
    delay = parse_duration(manifest.training.label_delay)
    rows = build_matrix(source, manifest.schema, manifest.feature_set, delay, labels)
    matrix = np.column_stack([rows[name].to_numpy() for name in manifest.feature_names]).astype(np.float64)
    scores = model.score(matrix)
    kept = ["transaction_id", "event_time", "amount_minor", "customer_id", "is_fraud"]
    return (
        rows.select(kept)
        .append_column("model_id", pa.repeat(manifest.model_id, rows.num_rows))
        .append_column("score", pa.array(scores))
        .append_column("decision", decisions_of(np.nan_to_num(scores), manifest.thresholds))
    )


def _micros(text: str) -> int:
    """Microseconds of a moment as manifests have it."""
    moment = datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()) * 1_000_000


def _unpack(directory: Path, into: Path) -> Path:
    """The model directory of what a training job has left: `model.tar.gz`, or the directory itself."""
    archive = directory / "model.tar.gz"
    if not archive.is_file():
        return directory
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(into, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{archive} cannot be read: {error}") from error
    return into


def _register(registry: Registry, directory: Path, now: datetime) -> str:
    """Add the model, and have `challenger` name it; its version.

    The same graph is the version that is there: what else is known of it may have changed with the days of its test.
    """
    version = load_model(f"file:{directory}").manifest.model_id
    if version not in registry.versions():
        registry.add(directory, _BY, now)
    before = history(registry, "challenger")
    if standing(before)[:1] != [version]:
        move = Move(action="promote", version=version, at=timestamp(now), by=_BY, reason="trained anew")
        promote(registry, "challenger", move, before)
    return version


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help")


def _parser() -> _Parser:
    parser = _Parser(
        prog="python -m pipelines.sagemaker.evaluate", description="Compare a new model with the champion."
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="with model.tar.gz, or a model directory")
    parser.add_argument("--data", required=True, metavar="DIR", help="the files that it was trained on")
    parser.add_argument("--labels", metavar="DIR", help="the files of labels that arrived apart from these")
    parser.add_argument("--registry", required=True, metavar="URL", help="a directory or s3://bucket/prefix")
    parser.add_argument("--output", required=True, metavar="DIR", help="where evaluation and evidence go")
    parser.add_argument("--label_delay", metavar="SPAN", help="until labels are known (as the champion was trained)")
    return parser


def main(argv: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Evaluate as `argv` says; returns 0 whether the gate is passed or not, 2 after a mistake of the user's."""
    with told(os.environ if environment is None else environment) as ended, tempfile.TemporaryDirectory() as scratch:
        given = _parser().parse_args(sys.argv[1:] if argv is None else argv)
        registry, output = open_registry(given.registry), Path(given.output)
        version = _register(registry, _unpack(Path(given.model), Path(scratch)), datetime.now(UTC))
        source = files_url("--data", Path(given.data))
        labels = files_url("--labels", Path(given.labels)) if given.labels else None
        output.mkdir(parents=True, exist_ok=True)
        evaluation = evaluate(registry, version, source, labels, output, given.label_delay)
        (output / EVALUATION_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(evaluation), indent=2))
        gate = evaluation.gate
        print(f"{gate.version}: {'passed' if gate.passed else 'refused'}: {gate.why}")
    return ended.code


if __name__ == "__main__":
    sys.exit(main())
