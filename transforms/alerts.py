"""What an analyst is told of a transaction that was not approved."""

from __future__ import annotations

import hashlib
from typing import Any

import apache_beam as beam
import msgspec
import numpy as np
import pyarrow.compute as pc
from apache_beam.pvalue import PCollection

from transforms.batch import TransactionBatch
from transforms.decide import APPROVE
from transforms.struct_coder import StructCoder


class Alert(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One transaction to look at.

    Attributes:
        alert_id: depends on the transaction's id alone: the same transaction raises the same alert,
            however often it is processed.
        event_time: ISO 8601, UTC.
        amount_minor: in minor units.
        score: calibrated probability of fraud.
        reasons: rules that applied, then the features that pushed the score up, each `name: words`.
        late: whether newer transactions had been decided before this one came.
        suppressed: alerts of the same card that came before this one and were not sent; see `SuppressAlerts`. In JSON
            it stands only where there are some.
    """

    alert_id: str
    transaction_id: str
    event_time: str
    customer_id: str | None
    terminal_id: str | None
    amount_minor: int
    score: float
    decision: str
    reasons: list[str]
    model_id: str
    feature_set: str
    late: bool
    suppressed: int = 0

    def to_json(self) -> bytes:
        """One line of JSON, without the line's end."""
        return msgspec.json.encode(self)


def alert_id(transaction_id: str) -> str:
    """The id of the alert about a transaction: 32 hexadecimal digits.

    Example:
        >>> alert_id("42") == alert_id("42"), len(alert_id("42"))
        (True, 32)
    """
    return hashlib.blake2b(transaction_id.encode(), digest_size=16, person=b"alert").hexdigest()


def alerts_of(batch: TransactionBatch) -> list[Alert]:
    """An alert for every row of a decided batch that was not approved, in the rows' order."""
    flagged = np.flatnonzero(np.asarray(pc.not_equal(batch.rows.column("decision"), APPROVE)))
    if not len(flagged):
        return []
    rows = batch.take(flagged).rows
    names = [name for name in Alert.__struct_fields__ if name in rows.schema.names and name != "event_time"]
    columns = {name: rows.column(name).to_pylist() for name in names}
    columns["alert_id"] = map(alert_id, columns["transaction_id"])
    columns["event_time"] = iso_times(batch.numpy("event_time")[flagged])
    return [Alert(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]


def iso_times(times: np.ndarray[Any, np.dtype[np.int64]]) -> list[str]:
    """Microseconds since 1970 as `datetime.isoformat` has them, in UTC: a fraction of a second only where there is one.

    Example:
        >>> iso_times(np.array([1_500_000, 2_000_000]))
        ['1970-01-01T00:00:01.500000+00:00', '1970-01-01T00:00:02+00:00']
    """
    texts = np.datetime_as_string(times.view("datetime64[us]"), unit="us").tolist()
    return [f"{text.removesuffix('.000000')}+00:00" for text in texts]


class RaiseAlerts(beam.PTransform[PCollection[TransactionBatch], PCollection[Alert]]):
    """An `Alert` for every transaction of decided batches that was not approved.

    Example:
        >>> import pyarrow as pa
        >>> import apache_beam as beam
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> from apache_beam.testing.util import assert_that, equal_to
        >>> from transforms.batch import from_rows
        >>> row = {"event_time": 0, "amount_minor": 1, "score": 0.9, "reasons": [], "model_id": "m", "feature_set": "f"}
        >>> extra = {"score": pa.float64(), "reasons": pa.list_(pa.string()), "decision": pa.string(),
        ...          "model_id": pa.string(), "feature_set": pa.string()}
        >>> batch = from_rows([{**row, "transaction_id": d, "decision": d} for d in ("approve", "review")], extra)
        >>> with TestPipeline() as pipeline:
        ...     alerts = pipeline | beam.Create([batch]) | RaiseAlerts()
        ...     _ = assert_that(alerts | beam.Map(lambda alert: alert.decision), equal_to(["review"]))
    """

    def expand(self, pcoll: PCollection[TransactionBatch]) -> PCollection[Alert]:
        alerts: PCollection[Alert] = pcoll | "Raise" >> beam.FlatMap(alerts_of).with_output_types(Alert)
        return alerts


beam.coders.registry.register_coder(Alert, StructCoder)
