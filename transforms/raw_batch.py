"""What a source hands on: records as they were read, before anything is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from transforms.dead_letters import DeadLetter


@dataclass(frozen=True, eq=False)
class RawBatch:
    """Some raw records of one source, either as bytes (JSON) or as columns (CSV, Parquet).

    Attributes:
        source: where they were read: a file's name, or a topic and partition.
        ingest_time: when, in microseconds since 1970.
        positions: int64 array, the place of each record in its source (row number, offset).
        payloads: one bytes object a record, each a JSON object; None when `columns` is given.
        columns: Arrow columns named as the source names them, text or typed; None when `payloads` is given.
        rejected: records the reader itself could not make sense of.

    Exactly one of `payloads` and `columns` is given, and it is as long as `positions`.
    """

    source: str
    ingest_time: int
    positions: np.ndarray[Any, np.dtype[np.int64]]
    payloads: list[bytes] | None = None
    columns: pa.RecordBatch | None = None
    rejected: tuple[DeadLetter, ...] = ()

    def __len__(self) -> int:
        return len(self.positions) + len(self.rejected)
