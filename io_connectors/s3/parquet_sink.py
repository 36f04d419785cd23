"""Decisions as Parquet objects, in a folder for each day."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from io_connectors.delivery import OnRetry, Refused
from io_connectors.parquet_files import ROWS_PER_GROUP, ParquetFiles
from io_connectors.retry import Backoff
from io_connectors.s3.objects import Location, Putter, locations, s3_client
from io_connectors.urls import ConnectorUrl
from transforms.batch import PROVENANCE_COLUMNS, TransactionBatch
from transforms.decide import APPROVE
from transforms.durations import DAY
from transforms.errors import UserError

_PARQUET = "application/vnd.apache.parquet"


@dataclass(frozen=True)
class S3ParquetSink:
    """Decisions as Parquet objects named `prefix/event_date=2026-01-02/part-<earliest event time>-<digest>.parquet`.

    Athena, Glue and Spark take `event_date` for a partition. The name of an object depends on the transactions,
    scores and decisions in it: the same rows of a batch, in whatever order, give the same object, which is put once,
    however often the batch is written. The same rows in another cut, as a runner may make after recovery, give
    other objects: there `transaction_id` tells rows that come twice. An object appears whole or not at all; the store
    must know conditional writes (If-None-Match), as S3 does. Permissions needed: PutObject, and of a
    `kms_key` GenerateDataKey and Decrypt.

    The URL is `s3://bucket/prefix`, with `region` and `endpoint` as every AWS connector has them, and

    - `flagged`: what is not approved is also written there: a prefix of the same bucket, or `s3://bucket/prefix`;
    - `rows_per_file`: objects have at most so many rows, 1,048,576 unless given;
    - `kms_key`: id or ARN of the key that encrypts them on the server; as the bucket says unless given.

    Attributes:
        url: as parsed.
        decisions: where all go.
        flagged: where what was not approved goes as well.
        rows_per_file: see above.
        kms_key: likewise.
        backoff: how often a call is made again.
    """

    url: ConnectorUrl
    decisions: Location
    flagged: Location | None = None
    rows_per_file: int = 1 << 20
    kms_key: str | None = None
    backoff: Backoff = field(default_factory=Backoff)

    def open(self, on_retry: OnRetry) -> ParquetWriter:
        """Connect."""
        return ParquetWriter(self, Putter(s3_client(self.url), self.kms_key, self.backoff, on_retry))


def s3_parquet_sink(url: ConnectorUrl) -> S3ParquetSink:
    """The sink a URL names.

    Raises:
        UserError: a parameter that cannot be, no name of a bucket, an endpoint that is none.

    Example:
        >>> url = ConnectorUrl("s3", "fraud/decisions", {"flagged": "to-review", "region": "eu-west-1"})
        >>> str(s3_parquet_sink(url).flagged)
        's3://fraud/to-review'
    """
    decisions, *others = locations(url.path, url.parameters.get("flagged"))
    flagged = others[0] if others else None
    if flagged and (decisions.holds(flagged) or flagged.holds(decisions)):
        raise UserError(
            f"{url}: flagged is {flagged}, and {decisions} has all decisions: who reads the outer one would meet "
            "rows twice; name prefixes of which neither is within the other"
        )
    s3_client(url).close()  # an endpoint that is none is known before anything is read
    rows = url.integer("rows_per_file", default=1 << 20, least=1)
    return S3ParquetSink(url, decisions, flagged, rows, url.parameters.get("kms_key"))


class ParquetWriter:
    """An open bucket; see `io_connectors.delivery.BatchWriter`. Files lie on disk until they are put."""

    def __init__(self, sink: S3ParquetSink, putter: Putter) -> None:
        self.sink = sink
        self.putter = putter

    def write(self, batch: TransactionBatch) -> Sequence[Refused]:
        """Put every row into the bucket; it refuses none.

        Raises:
            UserError: there is no such bucket.
            Exception: a call failed for good; some objects may be there.
        """
        rows = batch.without_columns(PROVENANCE_COLUMNS)
        self._put_days(self.sink.decisions, rows)
        if self.sink.flagged:
            flagged = np.flatnonzero(np.asarray(pc.not_equal(rows.rows.column("decision"), APPROVE)))
            self._put_days(self.sink.flagged, rows.take(flagged))
        return []

    def close(self) -> None:
        self.putter.client.close()

    def _put_days(self, location: Location, batch: TransactionBatch) -> None:
        most = min(ROWS_PER_GROUP, self.sink.rows_per_file)
        for day, rows in days(batch):
            with tempfile.TemporaryDirectory(prefix="s3-") as directory:
                files = ParquetFiles(Path(directory), self.sink.rows_per_file)
                for piece in rows.pieces(most):
                    files.add(piece.rows)
                for path in files.commit():
                    key = location.key(f"event_date={day}/{path.name}")
                    self.putter.put(location.bucket, key, path, _PARQUET)


def days(batch: TransactionBatch) -> Iterator[tuple[str, TransactionBatch]]:
    """The rows of each day of event time, UTC, in order of event time and id.

    Example:
        >>> from transforms.batch import from_rows
        >>> rows = [{"transaction_id": str(n), "event_time": n * DAY // 2, "amount_minor": n} for n in (2, 0, 1)]
        >>> [(day, part.rows.column("transaction_id").to_pylist()) for day, part in days(from_rows(rows))]
        [('1970-01-01', ['0', '1']), ('1970-01-02', ['2'])]
    """
    order = pc.sort_indices(
        pa.Table.from_batches([batch.rows.select(["event_time", "transaction_id"])]),
        sort_keys=[("event_time", "ascending"), ("transaction_id", "ascending")],
    )
    ordered = batch.take(np.asarray(order))
    numbers = ordered.numpy("event_time") // DAY
    for number, start in zip(*np.unique(numbers, return_index=True), strict=True):
        count = int(np.searchsorted(numbers, number, side="right")) - int(start)
        yield str(np.datetime64(int(number), "D")), ordered.slice(int(start), count)
