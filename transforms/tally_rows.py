"""Count what passes, for Beam's metrics and for the progress display."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import PCollection

from transforms import tally
from transforms.batch import TransactionBatch
from transforms.dead_letters import DeadLetter
from transforms.raw_batch import RawBatch


class Count(beam.PTransform[PCollection[Any], PCollection[Any]]):
    """Pass elements on, counting the rows of batches and everything else as one, as `records.<name>`.

    Dead letters are counted by their reason as well, as `<name>.<reason>`.

    Args:
        name: of the counter, such as `scored`.

    Example:
        >>> import apache_beam as beam
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> tally.reset()
        >>> with TestPipeline() as pipeline:
        ...     _ = pipeline | beam.Create(["one", "two"]) | Count("alerts")
        >>> tally.snapshot()
        {'alerts': 2}
        >>> tally.reset()
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def expand(self, pcoll: PCollection[Any]) -> PCollection[Any]:
        counted: PCollection[Any] = pcoll | beam.ParDo(_Count(self.name)).with_output_types(pcoll.element_type)
        return counted


class _Count(beam.DoFn):
    def __init__(self, name: str) -> None:
        self.name = name
        self.counter = Metrics.counter("records", name)

    def process(self, element: Any) -> Iterator[Any]:
        count = len(element) if isinstance(element, TransactionBatch | RawBatch) else 1
        if isinstance(element, TransactionBatch):
            tally.highest("watermark_us", int(element.numpy("event_time").max()))
        if isinstance(element, DeadLetter):
            Metrics.counter(self.name, element.reason).inc()
            tally.add(f"{self.name}.{element.reason}")
        self.counter.inc(count)
        tally.add(self.name, count)
        yield element
