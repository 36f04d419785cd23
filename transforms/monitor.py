"""Watch decisions in windows of event time: do they still look like what the model was trained on, and come true?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import apache_beam as beam
import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.pvalue import PCollection
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.timestamp import Timestamp

from model_artifacts.reference import Reference
from transforms.batch import TransactionBatch
from transforms.calibration import Calibration, WindowCalibration
from transforms.drift import Alarm, Cells, ColumnDrift, Drift
from transforms.durations import DAY, HOUR, SECOND
from transforms.histograms import Ints
from transforms.open_windows import Kind, OfAKind, TellWindows, tell_open_windows
from transforms.window_counts import CELL, COLUMNS, COUNT, START, Windows, write_counts
from transforms.windowing import IntoWindows, in_window, windowing

__all__ = ["ColumnDrift", "MonitorCalibration", "MonitorDrift", "WindowCalibration"]

_LOGGER = logging.getLogger(__name__)
_MINUTE = 60 * SECOND
_DAYS = Windows(DAY, DAY)


class MonitorDrift(beam.PTransform[PCollection[TransactionBatch], PCollection[ColumnDrift]]):
    """Compare features and scores of each window with a reference: PSI, KS, missing and unknown values by column.

    On a stream a window is told of when the watermark passes its end, and again for late rows, a minute of the clock
    at a time; rows that are too late count in the metric `monitor.rows_too_late`. Input that is bounded at
    its end. A column that has drifted counts in the metric `monitor.drifted`, and on a stream is a line of the log:
    drift is for whoever runs the model, and no alert on a transaction, so it does not go where those go.

    Args:
        reference: what the data looked like in training.
        windows: a day's is the shortest that does not compare nights with days.
        alarm: when a column has drifted.
        allowed_lateness_us: how long a closed window still takes late rows, in microseconds.
        now: the clock by which late rows gather.

    Example:
        >>> import apache_beam as beam
        >>> import numpy as np
        >>> import pyarrow as pa
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> from apache_beam.testing.util import assert_that, equal_to
        >>> from model_artifacts.reference import number_reference
        >>> from transforms.batch import from_rows
        >>> trained = number_reference("score", np.linspace(0, 1, 100))
        >>> reference = Reference(model_id="m", fingerprint="f", made_from="memory", columns=(trained,))
        >>> rows = [{"transaction_id": str(n), "event_time": n, "amount_minor": 1, "score": n / 400}
        ...         for n in range(100)]
        >>> with TestPipeline() as pipeline:
        ...     batches = pipeline | beam.Create([from_rows(rows, {"score": pa.float64()})])
        ...     drifts = batches | MonitorDrift(reference, alarm=Alarm(rows=100))
        ...     told = drifts | beam.Map(lambda d: (d.column, d.rows, round(d.ks, 2), d.drifted))
        ...     _ = assert_that(told, equal_to([("score", 100, 0.74, True)]))
    """

    def __init__(
        self,
        reference: Reference,
        windows: Windows = _DAYS,
        alarm: Alarm | None = None,
        allowed_lateness_us: int = HOUR,
        now: Callable[[], Timestamp] = Timestamp.now,
    ) -> None:
        super().__init__()
        self.drift = Drift(Cells(reference), alarm or Alarm())
        self.windows = windows
        self.allowed_lateness_us = allowed_lateness_us
        self.now = now

    def expand(self, pcoll: PCollection[TransactionBatch]) -> PCollection[ColumnDrift]:
        measured = MeasureWindows(self.drift, ColumnDrift, self.windows, self.allowed_lateness_us, self.now)
        tell = beam.ParDo(_TellDrift(log=not pcoll.is_bounded)).with_output_types(ColumnDrift)
        drifts: PCollection[ColumnDrift] = pcoll | "Measure" >> measured | "Tell" >> tell
        return drifts


class _TellDrift(beam.DoFn):
    """Count what has drifted, and log it."""

    def __init__(self, log: bool) -> None:
        self.log = log

    def process(self, element: ColumnDrift) -> Iterator[ColumnDrift]:
        if element.drifted:
            Metrics.counter("monitor", "drifted").inc()
        if element.drifted and self.log:
            start = Timestamp(micros=element.window_start).to_rfc3339()
            _LOGGER.warning(
                "%s has drifted in the window from %s: PSI %.3f of %d rows", element.column, start, element.psi,
                element.rows,
            )  # fmt: skip
        yield element


class MonitorCalibration(beam.PTransform[PCollection[TransactionBatch], PCollection[WindowCalibration]]):
    """Compare the scores of each window with the labels that are known: the share of frauds by bin of scores.

    Rows without a label count for nothing, so a window is judged on what has matured.

    Args:
        windows: to compare in.
        allowed_lateness_us: how long a closed window still takes late rows, in microseconds.
    """

    def __init__(self, windows: Windows = _DAYS, allowed_lateness_us: int = HOUR) -> None:
        super().__init__()
        self.windows = windows
        self.allowed_lateness_us = allowed_lateness_us

    def expand(self, pcoll: PCollection[TransactionBatch]) -> PCollection[WindowCalibration]:
        measured: PCollection[WindowCalibration] = pcoll | "Measure" >> MeasureWindows(
            Calibration(), WindowCalibration, self.windows, self.allowed_lateness_us
        )
        return measured


class Measure(Protocol):
    """Something that is counted in whole numbers, added up, and told of a window at once."""

    @property
    def key(self) -> str:
        """Differs where counts cannot be added."""

    @property
    def width(self) -> int:
        """How many numbers are counted."""

    def count(self, batch: TransactionBatch, windows: Windows) -> Iterator[tuple[int, Ints]]:
        """Of each window that a batch touches: its start, and the counts."""

    def rows(self, counts: Ints) -> int:
        """How many rows were counted."""

    def tell(self, counts: Ints, start: int, end: int) -> Iterable[Any]:
        """What the counts of a whole window say, as of on time."""


class MeasureWindows(beam.PTransform[PCollection[TransactionBatch], PCollection[Any]]):
    """Count batches in columns, add up the counts of each window, and tell what they say.

    On a stream late rows gather for a minute of the clock before their window is told of again: it is many records.

    Args:
        measure: what is counted and told.
        kind: the type of what it tells.
        windows: to tell of.
        allowed_lateness_us: how long a closed window still takes late rows, in microseconds.
        now: the clock by which late rows gather.
    """

    def __init__(
        self,
        measure: Measure,
        kind: type,
        windows: Windows,
        allowed_lateness_us: int,
        now: Callable[[], Timestamp] = Timestamp.now,
    ) -> None:
        super().__init__()
        self.measure = measure
        self.kind = kind
        self.windows = windows
        self.allowed_lateness_us = allowed_lateness_us
        self.now = now

    def expand(self, pcoll: PCollection[TransactionBatch]) -> PCollection[Any]:
        into = windowing(self.windows, self.allowed_lateness_us)
        told: PCollection[Any]
        if pcoll.is_bounded:
            told = (
                pcoll
                | "Count" >> beam.ParDo(_CountWindows(self.measure, self.windows)).with_output_types(_Keyed)
                | "UntilTheEnd" >> beam.WindowInto(GlobalWindows())
                | "AddUp" >> beam.CombinePerKey(_AddUp())
                | "Tell" >> IntoWindows(_TellKeyed(self.measure, self.windows), self.kind, into)
            )
            return told
        how = TellWindows(Measured(self.measure), self.allowed_lateness_us, late=_MINUTE, now=self.now)
        told = (
            pcoll
            | "CountOpen" >> beam.ParDo(_CountOpen(self.measure, self.windows)).with_output_types(OfAKind)
            | "AnyWindow" >> beam.WindowInto(GlobalWindows())
            | "Tell" >> IntoWindows(tell_open_windows(how, "measure"), self.kind, into)
        )
        return told


@dataclass(frozen=True)
class Measured:
    """A measure as `TellWindows` tells it: of the windows whose counts have its key."""

    measure: Measure
    metrics = "monitor"

    def rows(self, counts: Ints) -> int:
        return sum(self.measure.rows(whole) for _, whole in self._whole(counts))

    def tell(self, kind: Kind, counts: Ints) -> list[Any]:
        if kind.category != self.measure.key:
            # Rows that were counted for another model's reference cannot be compared with this one's.
            Metrics.counter("monitor", "windows_of_another_reference").inc(len(np.unique(counts[:, START])))
            return []
        whole = self._whole(counts)
        return [each for start, cells in whole for each in self.measure.tell(cells, start, start + kind.size)]

    def _whole(self, counts: Ints) -> Iterator[tuple[int, Ints]]:
        """Each window's start, and its counts with those that are 0."""
        for start in np.unique(counts[:, START]).tolist():
            mine, whole = counts[counts[:, START] == start], np.zeros(self.measure.width, dtype=np.int64)
            whole[mine[:, CELL]] = mine[:, COUNT]
            yield start, whole


@dataclass(frozen=True, eq=False)
class WindowCounts:
    """Counts that can be added."""

    values: Ints


class WindowCountsCoder(beam.coders.Coder):
    """Most counts are 0: a version byte, how many there are, how many are not 0, then places and values of those."""

    VERSION = 1

    def encode(self, value: WindowCounts) -> bytes:
        places = np.flatnonzero(value.values)
        head = bytes([self.VERSION]) + len(value.values).to_bytes(4, "big") + len(places).to_bytes(4, "big")
        return head + places.astype("<u4").tobytes() + value.values[places].astype("<i8").tobytes()

    def decode(self, encoded: bytes) -> WindowCounts:
        if encoded[0] != self.VERSION:
            raise ValueError(
                f"a window's counts of coder version {encoded[0]} cannot be read by version {self.VERSION}: "
                "restore with the release that wrote it"
            )
        total, used = int.from_bytes(encoded[1:5], "big"), int.from_bytes(encoded[5:9], "big")
        values = np.zeros(total, dtype=np.int64)
        values[np.frombuffer(encoded, "<u4", used, 9)] = np.frombuffer(encoded, "<i8", used, 9 + 4 * used)
        return WindowCounts(values)

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> type[WindowCounts]:
        return WindowCounts


beam.coders.registry.register_coder(WindowCounts, WindowCountsCoder)

#: (the measure's key, a window's start) and counts.
_Keyed = tuple[tuple[str, int], WindowCounts]


@beam.typehints.with_input_types(WindowCounts)
@beam.typehints.with_output_types(WindowCounts)
class _AddUp(beam.CombineFn):
    def __init__(self) -> None:  # Beam's own has no types
        pass

    def create_accumulator(self) -> WindowCounts:
        return WindowCounts(np.zeros(0, dtype=np.int64))

    def add_input(self, mutable_accumulator: WindowCounts, element: WindowCounts) -> WindowCounts:
        if not len(mutable_accumulator.values):
            return element
        return WindowCounts(mutable_accumulator.values + element.values) if len(element.values) else mutable_accumulator

    def merge_accumulators(self, accumulators: Iterable[WindowCounts]) -> WindowCounts:
        total = self.create_accumulator()
        for part in accumulators:
            total = self.add_input(total, part)
        return total

    def extract_output(self, accumulator: WindowCounts) -> WindowCounts:
        return accumulator

    def get_accumulator_coder(self) -> WindowCountsCoder:
        return WindowCountsCoder()


class _Measuring(beam.DoFn):
    def __init__(self, measure: Measure, windows: Windows) -> None:
        self.measure = measure
        self.windows = windows


class _CountWindows(_Measuring):
    def process(self, element: TransactionBatch) -> Iterator[_Keyed]:
        for start, counts in self.measure.count(element, self.windows):
            yield (self.measure.key, start), WindowCounts(counts)


class _CountOpen(_Measuring):
    def process(self, element: TransactionBatch) -> Iterator[OfAKind]:
        tables = [_as_rows(start, counts) for start, counts in self.measure.count(element, self.windows)]
        if tables:
            # Counts of another reference, which a savepoint may hold, are of another kind, never added to these.
            kind = ("reference", self.measure.key, self.windows.size, self.windows.every)
            yield kind, write_counts(np.concatenate(tables))


def _as_rows(start: int, counts: Ints) -> Ints:
    """A window's counts that are not 0."""
    cells = np.flatnonzero(counts)
    table = np.zeros((len(cells), COLUMNS), dtype=np.int64)
    table[:, START], table[:, CELL], table[:, COUNT] = start, cells, counts[cells]
    return table


class _TellKeyed(_Measuring):
    def process(self, element: _Keyed) -> Iterator[Any]:
        (_, start), counts = element
        end = start + self.windows.size
        for row in self.measure.tell(counts.values, start, end):
            yield in_window(row, start, self.windows.size, Timestamp(micros=end - 1000))
