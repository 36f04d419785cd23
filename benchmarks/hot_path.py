"""A transaction's way from JSON to JSON by the functions that the transforms wire, with no runner between them.

What is made of it: FRAUD-1 (`benchmarks.fraud1`), with windows, models and traffic of any size.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.transforms.window import TimestampedValue

from benchmarks.fraud1.workload import SCHEMA, make_manifest
from benchmarks.subjects import Bag
from benchmarks.traffic import Traffic
from io_connectors.decision_json import decision_messages, rows_as_json
from io_connectors.delivery import Message
from model_artifacts.artifact import Model, OnnxModel
from model_artifacts.manifest import ModelKind, Thresholds
from model_artifacts.onnx_export import Tree, linear_to_onnx, trees_to_onnx
from model_artifacts.onnx_graph import OnnxGraph
from transforms.batch import TransactionBatch, concat_batches
from transforms.decide import decide_batch, thresholds_for
from transforms.durations import DAY, HOUR, format_duration
from transforms.enrich import EntityEngine
from transforms.features import Declaration, FeatureSet
from transforms.parse import parse
from transforms.raw_batch import RawBatch
from transforms.schema import load_schema
from transforms.score import score_batch
from transforms.shard_log import ShardLog
from transforms.shard_state import TakeInOrder
from transforms.sharding import split_by_shard

STEPS = ("parse", "features", "score", "decide", "format")
#: What a record of a decision has in FRAUD-1.
COLUMNS = ("transaction_id", "score", "decision")
#: One transaction in a hundred is of more than this, and flagged whatever the model.
_FLAGGED_FROM = 198.0
_DEPTH = 4
_WORDS = {"merchant_category": "Electronics", "location": "New York", "payment_method": "CreditCard"}


class HotPath:
    """JSON records in, messages of decisions out, and the processor time of each step.

    One is used at a time: a second of the same process would have its histories built again and again, as the
    product does when a shard moves.

    Args:
        model: also says which features there are.
        shards: of each entity's state.

    Attributes:
        seconds: of processor time by step, so far.
        rows: so far.
    """

    def __init__(self, model: Model, shards: int = 2) -> None:
        self.model = model
        self.shards = shards
        self.schema = load_schema(SCHEMA)
        self.features = model.manifest.feature_set
        self.seconds = dict.fromkeys(STEPS, 0.0)
        self.rows = 0
        self._stages = {entity: _Stage(self.features, entity, shards) for entity in self.features.entities}
        self._thresholds = thresholds_for(model.manifest, Thresholds(review=0.5, decline=1.0))

    def take(self, raw: RawBatch) -> list[Message]:
        """Decide on a batch.

        Raises:
            RuntimeError: a row was lost on the way.
        """
        moments = [time.process_time()]
        batch = self.parse(raw)
        moments.append(time.process_time())
        batch = self.enrich(batch)
        moments.append(time.process_time())
        batch = self.score(batch)
        moments.append(time.process_time())
        batch = self.decide(batch)
        moments.append(time.process_time())
        messages = self.format(batch)
        moments.append(time.process_time())
        if len(messages) != len(raw):
            raise RuntimeError(f"{len(raw)} transactions went in, {len(messages)} came out")
        for step, begin, end in zip(STEPS, moments, moments[1:], strict=False):
            self.seconds[step] += end - begin
        self.rows += len(raw)
        return messages

    def parse(self, raw: RawBatch) -> TransactionBatch:
        """As `ParseTransactions`.

        Raises:
            RuntimeError: no row is good.
        """
        batch, dead = parse(raw, self.schema)
        if batch is None:
            raise RuntimeError(f"the first of {len(dead)} records is refused: {dead[0].error}")
        return batch

    def enrich(self, batch: TransactionBatch) -> TransactionBatch:
        """As `EnrichTransactions` in order of arrival."""
        for stage in self._stages.values():
            batch = stage.take(batch)
        return batch

    def score(self, batch: TransactionBatch) -> TransactionBatch:
        """As `ScoreTransactions`.

        Raises:
            RuntimeError: the model has no score for a row.
        """
        scored, letters = score_batch(batch, self.model)
        if scored is None or letters:
            raise RuntimeError(f"{len(letters)} of {len(batch)} rows have no score")
        return scored

    def decide(self, batch: TransactionBatch) -> TransactionBatch:
        """As `DecideTransactions`."""
        return decide_batch(batch, self.model, self._thresholds)

    def format(self, batch: TransactionBatch) -> list[Message]:
        """As the sinks that write JSON."""
        return decision_messages(batch, COLUMNS)

    def state_bytes(self) -> int:
        """Bytes in the state that a runner would keep."""
        return sum(bag.size() for stage in self._stages.values() for pair in stage.bags for bag in pair)

    def live(self, now: int) -> tuple[int, int]:
        """Transactions that can still matter at an event time, and the entities that they are of."""
        logs = [engine.snapshot(now) for stage in self._stages.values() for engine in stage.engines.values()]
        return sum(log.shape[1] for log in logs), sum(len(np.unique(log[1])) for log in logs)


class _Stage:
    """All shards of one entity, with lists in place of the runner's state."""

    def __init__(self, features: FeatureSet, entity: str, shards: int) -> None:
        self.entity = entity
        self.bags = [(Bag(), Bag()) for _ in range(shards)]
        self.engines: dict[int, EntityEngine] = {}
        self._shard = 0
        self._make = partial(EntityEngine, features, entity, HOUR, inline_labels=True)
        self._how = TakeInOrder(
            stage="enrich",
            name=f"hot path:{entity}",
            make_engine=self._engine_made,
            ordering="arrival",
            allowed_lateness=HOUR,
            batch_rows=1 << 20,
            bounded=False,
        )

    def take(self, batch: TransactionBatch) -> TransactionBatch:
        pieces = []
        for shard, piece in split_by_shard(batch, self.entity, len(self.bags)):
            self._shard = shard
            outputs = self._how.take_at_once(shard, piece, ShardLog(*self.bags[shard]))
            # A dead letter is missed at the end.
            pieces += [output.value for output in outputs if isinstance(output, TimestampedValue)]
        return concat_batches(pieces)

    def _engine_made(self) -> EntityEngine:
        """An engine is made at the start and whenever the log has been rewritten; the newest is the one in use."""
        self.engines[self._shard] = engine = self._make()
        return engine


def records(traffic: Traffic, rows: int, batch_rows: int) -> Iterator[RawBatch]:
    """The first transactions of some traffic as a topic has them: JSON of about 250 bytes each."""
    for batch in traffic.batches(rows, batch_rows):
        count, columns = len(batch), batch.rows
        filled = {
            "transaction_id": pc.utf8_lpad(columns.column("transaction_id"), 32, "0"),
            "user_id": columns.column("customer_id").cast(pa.int64()),
            "terminal_id": columns.column("terminal_id").cast(pa.int64()),
            "amount": pa.array(batch.numpy("amount_minor") / 100),
            "timestamp": columns.column("event_time"),
            **{name: pa.repeat(word, count) for name, word in _WORDS.items()},
            "is_fraud": columns.column("is_fraud"),
        }
        now = int(batch.numpy("event_time")[-1])
        yield RawBatch("benchmark", now, batch.numpy("position"), payloads=rows_as_json(pa.record_batch(filled)))


def features_over(windows: Sequence[int]) -> FeatureSet:
    """FRAUD-1's features over windows of so many microseconds instead of a day, a week and thirty days."""
    names = tuple(format_duration(window) for window in windows)
    return FeatureSet(
        name="hot-path",
        declared=(
            Declaration(kind="amount"),
            Declaration(kind="weekend"),
            Declaration(kind="night", last_hour=5),
            Declaration(kind="count", entity="customer_id", windows=names),
            Declaration(kind="mean", entity="customer_id", column="amount", windows=names),
        ),
    )


FEATURES = features_over((DAY, 7 * DAY, 30 * DAY))


def linear_model(features: FeatureSet = FEATURES) -> OnnxModel:
    """A logistic regression that flags by the amount; the other features cost their time and weigh next to nothing."""
    weights = np.full(len(features.names), 1e-9)
    weights[features.names.index("amount")] = 1.0
    return _model(linear_to_onnx(weights, -_FLAGGED_FROM), features, "logistic")


def tree_model(trees: int, features: FeatureSet = FEATURES, seed: int = 1) -> OnnxModel:
    """So many full trees of depth four, with splits at random; one more, on the amount, says what is flagged."""
    random = np.random.default_rng(seed)
    made = [_full_tree(features, random) for _ in range(trees)]
    made.append(_by_amount(features))
    return _model(trees_to_onnx(made, len(features.names), "log_odds", "<"), features, "xgboost")


def _full_tree(features: FeatureSet, random: np.random.Generator) -> Tree:
    inner = 2**_DEPTH - 1
    nodes = 2 * inner + 1
    places, leaves = np.arange(nodes), np.arange(nodes) >= inner
    split = random.integers(0, len(features.names), nodes)
    reach = np.array([_usual_reach(name) for name in features.names])
    return Tree(
        left=np.where(leaves, -1, 2 * places + 1),
        right=np.where(leaves, -1, 2 * places + 2),
        feature=split,
        threshold=(random.random(nodes) * reach[split]).astype(np.float32),
        value=(random.random(nodes) * 1e-6).astype(np.float32),
    )


def _usual_reach(name: str) -> float:
    """Up to where a feature's values lie, roughly: splits beyond it would send all rows one way."""
    if "count" in name:
        return 40.0
    return 200.0 if "amount" in name else 1.0


def _by_amount(features: FeatureSet) -> Tree:
    amount = features.names.index("amount")
    values = np.array([_FLAGGED_FROM, -4.0, 2.0], dtype=np.float32)
    return Tree(np.array([1, -1, -1]), np.array([2, -1, -1]), np.full(3, amount), values, values)


def _model(graph: bytes, features: FeatureSet, kind: ModelKind) -> OnnxModel:
    digest = hashlib.sha256(graph).hexdigest()
    return OnnxModel(make_manifest(features, kind, digest), OnnxGraph(graph))
