"""What `benchmarks.feature_state` measures: a history of features alone, and a whole stage that remembers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
from apache_beam.transforms.window import TimestampedValue

from benchmarks.traffic import Traffic
from transforms.batch import TransactionBatch
from transforms.deduplicate import DuplicateEngine
from transforms.durations import DAY, HOUR
from transforms.enrich import EntityEngine
from transforms.features import Declaration, FeatureSet, load_feature_set
from transforms.hashing import stable_hash
from transforms.history import EntityHistory, value_column
from transforms.history_kernels import Rows
from transforms.shard_log import ShardLog
from transforms.shard_state import TakeInOrder

BATCH_ROWS = 2_048

#: What needs more than a sum: running minima and maxima, and the number of different values.
EXTREMES = FeatureSet(
    name="extremes",
    declared=(
        Declaration(kind="min", entity="terminal_id", column="amount", windows=("1d", "7d", "30d")),
        Declaration(kind="max", entity="terminal_id", column="amount", windows=("1d", "7d", "30d")),
        Declaration(kind="distinct", entity="terminal_id", column="customer_id", windows=("1d", "7d", "30d")),
    ),
)
#: One terminal makes all transactions: every window is one long one.
HOT_TERMINAL = Traffic(terminals=1)


class Held(NamedTuple):
    """What a subject holds at a moment.

    Attributes:
        live: transactions that lie in a window still open.
        memory_bytes: of the arrays that hold them, and what is not let go of yet.
        log_bytes: what the same takes in Beam's state.
        rewritten_bytes: how little that was right after it was last rewritten; 0 before.
    """

    live: int
    memory_bytes: int
    log_bytes: int = 0
    rewritten_bytes: int = 0


class Subject(Protocol):
    """What is measured."""

    name: str

    def take(self, batch: TransactionBatch) -> float:
        """Take many transactions, `BATCH_ROWS` at once; returns the seconds that took."""

    def held(self, now: int) -> Held:
        """What is held at an event time."""


class HistoryAlone:
    """The features of one entity without anything around them."""

    def __init__(self, name: str, feature_set: FeatureSet, entity: str) -> None:
        self.name = name
        self._entity = entity
        self._history = EntityHistory(feature_set.of_entity(entity), feature_set.minor_digits, lateness=HOUR)

    def take(self, batch: TransactionBatch) -> float:
        """See `Subject`; turning text into hashes is not counted."""
        pieces = [self._rows(piece) for piece in batch.pieces(BATCH_ROWS)]
        started = time.perf_counter()
        for piece in pieces:
            self._history.observe(piece)
        return time.perf_counter() - started

    def held(self, now: int) -> Held:
        """See `Subject`."""
        return Held(self._history.snapshot(now).shape[1], self._history.bytes_held)

    def _rows(self, batch: TransactionBatch) -> Rows:
        values = [
            value_column(name, batch.rows.column("amount_minor" if name == "amount" else name))
            for name in self._history.columns
        ]
        return Rows(
            stable_hash(batch.rows.column(self._entity)),
            batch.numpy("event_time"),
            np.column_stack(values) if values else np.empty((len(batch), 0), dtype=np.int64),
            batch.numpy("is_fraud"),
            stable_hash(batch.rows.column("transaction_id")),
        )


class WholeStage:
    """One shard of a stage that remembers, with lists in place of the runner's state."""

    def __init__(self, name: str, make_engine: Callable[[], EntityEngine | DuplicateEngine]) -> None:
        self.name = name
        self._make_engine = make_engine
        self._engine = make_engine()
        self._rewritten_bytes = 0
        self._log, self._recent = Bag(), Bag()
        self._how = TakeInOrder(
            stage="enrich",
            name=f"benchmark:{name}",
            make_engine=self._engine_made,
            ordering="arrival",
            allowed_lateness=HOUR,
            batch_rows=BATCH_ROWS,
            bounded=False,
        )

    def take(self, batch: TransactionBatch) -> float:
        """See `Subject`."""
        pieces, passed_on, before = list(batch.pieces(BATCH_ROWS)), 0, self._engine
        started = time.perf_counter()
        for piece in pieces:
            for output in self._how.take_at_once(0, piece, ShardLog(self._recent, self._log)):
                passed_on += len(output.value) if isinstance(output, TimestampedValue) else 0  # else a dead letter
            if self._engine is not before:
                self._rewritten_bytes = self._log_bytes
            before = self._engine
        seconds = time.perf_counter() - started
        if passed_on != len(batch):
            raise RuntimeError(f"{self.name}: {len(batch)} transactions went in, {passed_on} came out")
        return seconds

    def held(self, now: int) -> Held:
        """See `Subject`."""
        engine = self._engine
        part = engine.history if isinstance(engine, EntityEngine) else engine.seen
        return Held(engine.snapshot(now).shape[1], part.bytes_held, self._log_bytes, self._rewritten_bytes)

    @property
    def _log_bytes(self) -> int:
        return self._log.size() + self._recent.size()

    def _engine_made(self) -> EntityEngine | DuplicateEngine:
        """An engine is made at the start and whenever the log has been rewritten; the newest is the one in use."""
        self._engine = self._make_engine()
        return self._engine


class Bag:
    """A bag state in memory."""

    def __init__(self) -> None:
        self._held: list[bytes] = []

    def add(self, value: bytes) -> None:
        self._held.append(value)

    def read(self) -> Sequence[bytes]:
        return self._held

    def clear(self) -> None:
        self._held = []

    def size(self) -> int:
        return sum(len(value) for value in self._held)


def default_stages() -> list[Subject]:
    """The stages of the default run that remember something."""
    handbook = load_feature_set("handbook")
    return [
        _entity_stage("customer stage", handbook, "customer_id"),
        _entity_stage("terminal stage", handbook, "terminal_id"),
        WholeStage("duplicates stage", partial(DuplicateEngine, 30 * DAY)),
    ]


def default_histories() -> list[Subject]:
    """The histories inside those stages."""
    handbook = load_feature_set("handbook")
    return [
        HistoryAlone("customer history", handbook, "customer_id"),
        HistoryAlone("terminal history", handbook, "terminal_id"),
    ]


def extremes_subjects() -> list[Subject]:
    """History and stage with minima, maxima and distinct counts; for `HOT_TERMINAL`."""
    return [
        HistoryAlone("one terminal, history", EXTREMES, "terminal_id"),
        _entity_stage("one terminal, stage", EXTREMES, "terminal_id"),
    ]


def _entity_stage(name: str, feature_set: FeatureSet, entity: str) -> WholeStage:
    return WholeStage(name, partial(EntityEngine, feature_set, entity, HOUR, inline_labels=True))
