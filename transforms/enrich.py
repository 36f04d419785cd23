"""Give each transaction its features, from its own row and from the past of its customer and terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.pvalue import PCollection

from transforms.batch import TransactionBatch
from transforms.dead_letters import DeadLetter
from transforms.derive import add_derived
from transforms.durations import DAY, HOUR
from transforms.features import DERIVED_KINDS, LABEL_KINDS, Feature, FeatureSet
from transforms.hashing import stable_hash
from transforms.history import LOG_HEAD, EntityHistory, log_of, log_of_labels, value_column
from transforms.history_kernels import Rows
from transforms.history_late import Labels
from transforms.join import JoinBatches
from transforms.shard_state import Ordering, TakeInOrder, Taken, take_in_order
from transforms.sharding import ShardBy

Array = np.ndarray[Any, Any]


def add_row_features(batch: TransactionBatch, feature_set: FeatureSet) -> TransactionBatch:
    """The batch with every feature that depends on the row alone: amount, calendar, columns, categories.

    Hours and days are those of UTC.

    Example:
        >>> from transforms.batch import from_rows
        >>> from transforms.features import load_feature_set
        >>> saturday_morning = 1_768_023_000_000_000  # 2026-01-10 05:30
        >>> batch = from_rows([{"transaction_id": "t", "event_time": saturday_morning, "amount_minor": 5716}])
        >>> enriched = add_row_features(batch, load_feature_set("handbook"))
        >>> [enriched.rows.column(name)[0].as_py() for name in ("amount", "weekend", "night")]
        [57.16, 1.0, 1.0]
    """
    own = [f for f in feature_set.of_row if f.kind not in DERIVED_KINDS]
    batch = batch.with_columns({f.name: pa.array(_row_feature(batch, f, feature_set.minor_digits)) for f in own})
    return add_derived(batch, (f for f in feature_set.of_row if f.kind in DERIVED_KINDS))


def _row_feature(batch: TransactionBatch, feature: Feature, minor_digits: int) -> Array:
    if feature.kind == "amount":
        return batch.numpy("amount_minor") / 10.0**minor_digits
    if feature.kind == "night":
        return (batch.numpy("event_time") % DAY // HOUR <= feature.last_hour).astype(np.float64)
    if feature.kind == "weekend":
        # 1970-01-01 was a Thursday: three days after a Monday.
        return ((batch.numpy("event_time") // DAY + 3) % 7 >= 5).astype(np.float64)
    values = batch.rows.column(str(feature.column))
    if feature.kind == "number":
        return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)
    matches = pc.fill_null(pc.equal(values, feature.value), False)
    return np.asarray(matches.to_numpy(zero_copy_only=False)).astype(np.float64)


class EntityEngine:
    """The histories of one shard of an entity, between batches and arrays.

    Args:
        feature_set: what is declared.
        entity: the column whose values have a history each.
        lateness: how much later than the newest row of its entity a row may come, in microseconds.
        inline_labels: whether the label a transaction carries counts (features with a delay see it
            only after that delay), or only what a label stream says.
    """

    def __init__(self, feature_set: FeatureSet, entity: str, lateness: int, inline_labels: bool) -> None:
        self.entity = entity
        self.inline_labels = inline_labels
        # Here and not before, so that what a row says itself does not wait in state or travel to the first shards.
        self.of_row = feature_set if feature_set.entities[0] == entity else None
        self.layers = feature_set.layers(entity)
        longest = [max(f.window + f.delay for f in layer.windowed) for layer in self.layers]
        # All keep a row for the same time, so that what one holds the others hold too, in the same order.
        self.histories = tuple(
            EntityHistory(layer.windowed, feature_set.minor_digits, lateness + max(longest) - own)
            for layer, own in zip(self.layers, longest, strict=True)
        )

    @property
    def history(self) -> EntityHistory:
        """The history of the first layer; most feature sets need no other."""
        return self.histories[0]

    def take(self, transactions: TransactionBatch | None, labels: TransactionBatch | None) -> Taken:
        """Add the entity's features to the transactions, learning the labels that arrive among them.

        The first entity's engine adds those of the row, too.
        """
        unknown_before = self.history.unknown_labels
        known = self._labels(labels) if labels is not None else None
        log = [log_of_labels(known, sum(len(h.columns) for h in self.histories))] if known is not None else []
        if transactions is None:
            for history in self.histories:
                history.observe(self._no_rows(history), known)
            return Taken(log=log, unknown_labels=self.history.unknown_labels - unknown_before)
        batch = add_row_features(transactions, self.of_row) if self.of_row else transactions
        rows, values = self._rows(transactions), []
        for history, layer in zip(self.histories, self.layers, strict=True):
            rows = rows._replace(values=_values(history, batch))
            values.append(rows.values)
            features, late = history.observe(rows, known)
            by_feature = np.ascontiguousarray(features.T)
            columns = {f.name: pa.array(each) for f, each in zip(history.features, by_feature, strict=True)}
            batch = add_derived(batch.with_columns(columns), layer.derived)
        if late.any():
            batch = batch.with_columns({"late": pa.array(late | transactions.numpy("late"))})
        unknown = self.history.unknown_labels - unknown_before
        kept = rows if len(values) == 1 else rows._replace(values=np.hstack(values))
        return Taken(batch, log=[log_of(kept), *log], unknown_labels=unknown)

    def snapshot(self, now: int) -> Array:
        """See `EntityHistory.snapshot`; the values of later layers follow those of the first."""
        first, *later = [history.snapshot(now) for history in self.histories]
        return np.vstack([first, *(matrix[LOG_HEAD:] for matrix in later)]) if later else first

    def restore(self, log: Iterable[Array]) -> None:
        """See `EntityHistory.restore`."""
        if len(self.histories) == 1:
            self.history.restore(log)
            return
        for matrix in log:
            start = LOG_HEAD
            for history in self.histories:
                end = start + len(history.columns)
                history.restore([np.vstack([matrix[:LOG_HEAD], matrix[start:end]])])
                start = end

    def _rows(self, batch: TransactionBatch) -> Rows:
        fraud = _known_frauds(batch) if self.inline_labels else np.zeros(len(batch), dtype=np.int8)
        return Rows(
            stable_hash(batch.rows.column(self.entity)),
            batch.numpy("event_time"),
            np.empty((len(batch), 0), dtype=np.int64),
            fraud,
            stable_hash(batch.rows.column("transaction_id")),
        )

    def _no_rows(self, history: EntityHistory) -> Rows:
        none = np.empty(0, dtype=np.int64)
        values = np.empty((0, len(history.columns)), dtype=np.int64)
        return Rows(none.view(np.uint64), none, values, none.astype(np.int8), none.view(np.uint64))

    def _labels(self, labels: TransactionBatch) -> Labels:
        return Labels(
            labels.numpy("label_arrival"),
            stable_hash(labels.rows.column(self.entity)),
            labels.numpy("event_time"),
            stable_hash(labels.rows.column("transaction_id")),
            _known_frauds(labels),
        )


def _values(history: EntityHistory, batch: TransactionBatch) -> Array:
    """The columns a history aggregates, as it keeps them: int64[n, columns]."""
    columns = [
        value_column(name, batch.rows.column("amount_minor" if name == "amount" else name)) for name in history.columns
    ]
    return np.column_stack(columns) if columns else np.empty((len(batch), 0), dtype=np.int64)


def _known_frauds(batch: TransactionBatch) -> np.ndarray[Any, np.dtype[np.int8]]:
    """1 where a row is labelled a fraud; a label that is not known counts as none."""
    return np.asarray(pc.fill_null(batch.rows.column("is_fraud"), 0).to_numpy(), dtype=np.int8)


@dataclass(frozen=True)
class Enriched:
    """What `EnrichTransactions` gives: batches with every feature, and what came too late."""

    batches: PCollection[TransactionBatch]
    dead_letters: PCollection[DeadLetter]


class EnrichTransactions(beam.PTransform[PCollection[TransactionBatch], Enriched]):
    """Add every feature of a set to the batches: first those of the row, then entity by entity.

    Args:
        feature_set: what to compute.
        shards: keys of each entity's state; fixed for the life of a stream's state.
        ordering: `event_time` for results that depend on no order of arrival, `arrival` to wait for
            nothing.
        allowed_lateness: see `TakeInOrder`, in microseconds.
        labels: batches of labels with a `label_arrival` column, if labels are a stream of their own;
            what the transactions carry is then not looked at.
        batch_rows: the most rows a batch has on its way out.

    Example:
        >>> import apache_beam as beam
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> from apache_beam.testing.util import assert_that, equal_to
        >>> from transforms.batch import from_rows
        >>> from transforms.features import load_feature_set
        >>> rows = [{"transaction_id": i, "event_time": int(i), "customer_id": "c", "amount_minor": 100} for i in "12"]
        >>> with TestPipeline() as pipeline:
        ...     enriched = pipeline | beam.Create([from_rows(rows)]) | EnrichTransactions(
        ...         load_feature_set("transaction-events"), shards=2)
        ...     counts = enriched.batches | beam.FlatMap(lambda batch: batch.numpy("customer_count_1d").tolist())
        ...     _ = assert_that(counts, equal_to([1.0, 2.0]))
    """

    def __init__(
        self,
        feature_set: FeatureSet,
        shards: int = 2,
        ordering: Ordering = "event_time",
        allowed_lateness: int = HOUR,
        labels: PCollection[TransactionBatch] | None = None,
        batch_rows: int = 16_384,
    ) -> None:
        super().__init__()
        self.feature_set = feature_set
        self.shards = shards
        self.ordering = ordering
        self.allowed_lateness = allowed_lateness
        self.labels = labels
        self.batch_rows = batch_rows

    def expand(self, pcoll: PCollection[TransactionBatch]) -> Enriched:
        batches, dead_letters = pcoll | JoinBatches(self.batch_rows), []
        if not self.feature_set.entities:
            add = beam.Map(add_row_features, self.feature_set).with_output_types(TransactionBatch)
            batches = batches | "AddRowFeatures" >> add
        for entity in self.feature_set.entities:
            # Another number of shards would look for the past in other places: under another name it finds none.
            name = f"Remember[{entity}, {self.shards} shards]"
            outputs = self._keyed(batches, entity) | name >> self._remember(entity, pcoll.is_bounded)
            batches = outputs.batches
            dead_letters.append(outputs.dead_letters)
        return Enriched(batches, dead_letters | beam.Flatten(pipeline=pcoll.pipeline))

    def _keyed(self, batches: PCollection[TransactionBatch], entity: str) -> Any:
        keyed = batches | f"ShardBy[{entity}]" >> ShardBy(entity, self.shards)
        if self.labels is None or not any(f.kind in LABEL_KINDS for f in self.feature_set.of_entity(entity)):
            return keyed
        labels = self.labels | f"ShardLabelsBy[{entity}]" >> ShardBy(entity, self.shards)
        return (keyed, labels) | f"WithLabels[{entity}]" >> beam.Flatten()

    def _remember(self, entity: str, bounded: bool) -> beam.PTransform[Any, Any]:
        make_engine = partial(
            EntityEngine, self.feature_set, entity, self.allowed_lateness, inline_labels=self.labels is None
        )
        known = self.feature_set.columns
        own = tuple(feature.name for feature in self.feature_set.of_row if feature.name not in known)
        how = TakeInOrder(
            stage="enrich",
            name=f"enrich:{entity}",
            make_engine=make_engine,
            ordering=self.ordering,
            allowed_lateness=self.allowed_lateness,
            batch_rows=self.batch_rows,
            bounded=bounded,
            remade=own if entity == self.feature_set.entities[0] else (),
        )
        return take_in_order(how)
