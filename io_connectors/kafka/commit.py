"""Committing a group's offsets, so that whoever watches the group sees how far all sinks have come.

Nothing is ever read from them: a job goes on from its runner's checkpoint. They are never ahead of what is durable.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import apache_beam as beam
import msgspec
import numpy as np
from apache_beam.coders import BytesCoder
from apache_beam.metrics import Metrics
from apache_beam.pvalue import PCollection
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec
from apache_beam.transforms.window import GlobalWindow, GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from io_connectors.delivery import Written
from io_connectors.kafka.clients import CommitError
from io_connectors.kafka.connect import committer_of
from io_connectors.kafka.progress import NO_RANGES, Progress, Ranges, merge, without
from io_connectors.kafka.settings import ReadSettings
from transforms.raw_batch import RawBatch
from transforms.struct_coder import StructCoder

LOG = logging.getLogger(__name__)
READ, DEAD_LETTERS = "read", "dead_letters"


class CommitOffsets(beam.PTransform[Any, PCollection[tuple[str, int]]]):
    """Commit to the group of the settings what every sink holds: a mapping of PCollections to what was committed.

    The mapping has `read`, the source's `RawBatch`es; `dead_letters`, the `Written` of the sink of all dead letters;
    and under any other names the `Written` of the sinks that each hold every decision. A record is done when each
    of these sinks holds it, or when it is a dead letter and its sink does.

    Returns:
        (topic-partition, the offset behind the last record that is done) whenever it moves on.

    Args:
        settings: of the source, with a group.
    """

    def __init__(self, settings: ReadSettings) -> None:
        super().__init__()
        if settings.group is None:
            raise ValueError("offsets are committed in the name of a group, and the settings have none")
        self.settings = settings

    def expand(self, inputs: Mapping[str, PCollection[Any]]) -> PCollection[tuple[str, int]]:
        sinks = sorted(set(inputs) - {READ, DEAD_LETTERS})
        if not sinks or not {READ, DEAD_LETTERS} <= set(inputs):
            raise ValueError(f"needs {READ}, {DEAD_LETTERS} and a sink at least, found {', '.join(inputs)}")
        told = [
            pcoll
            | f"AnyWindow {name}" >> beam.WindowInto(GlobalWindows())
            | f"Gather {name}"
            >> beam.ParDo(_Gather(name))
            .with_input_types(RawBatch if name == READ else Written)
            .with_output_types(tuple[str, _Told])
            for name, pcoll in sorted(inputs.items())
        ]
        together = told | "Together" >> beam.Flatten()
        done = together | "Follow" >> beam.ParDo(_Follow(sinks)).with_output_types(tuple[str, int])
        commit = beam.ParDo(_Commit(self.settings)).with_output_types(tuple[str, int])
        committed: PCollection[tuple[str, int]] = done | "Commit" >> commit
        return committed


class _Told(msgspec.Struct, frozen=True):
    """What was told of one source: by whom, which positions, and where reading began, from who reads."""

    by: str
    ranges: bytes
    begin: int | None = None


class _Gather(beam.DoFn):
    """Puts together what a bundle tells of each source."""

    def __init__(self, name: str) -> None:
        self.name = name

    def start_bundle(self) -> None:
        self.ranges: dict[str, Ranges] = {}
        self.begin: dict[str, int] = {}

    def process(self, element: RawBatch | Written) -> None:
        if isinstance(element, Written):
            self._add(element.source, np.array(element.ranges, dtype=np.int64).reshape(-1, 2))
        elif element.reach is not None:
            begin, first, stop = element.reach
            self.begin[element.source] = begin
            # Every sink counts as holding what is no record. A record that was refused has its own dead letter.
            records = [*element.positions.tolist(), *(letter.position for letter in element.rejected)]
            self._add(element.source, without(first, stop, records))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        window = GlobalWindow()
        for source, ranges in self.ranges.items():
            told = _Told(self.name, ranges.astype("<i8").tobytes(), self.begin.get(source))
            yield WindowedValue((source, told), window.max_timestamp(), (window,))

    def _add(self, source: str, ranges: Ranges) -> None:
        self.ranges[source] = merge(self.ranges.get(source, NO_RANGES), ranges)


class _Follow(beam.DoFn):
    """Follows the progress of each source in Beam's state."""

    progress_spec = ReadModifyWriteStateSpec("progress", BytesCoder())

    def __init__(self, sinks: list[str]) -> None:
        self.sinks = sinks

    def process(
        self, element: tuple[str, _Told], progress: Any = beam.DoFn.StateParam(progress_spec)
    ) -> Iterator[tuple[str, int]]:
        source, told = element
        stored = progress.read()
        known = Progress.of(self.sinks) if stored is None else Progress.decode(stored, self.sinks)
        holders = self.sinks if told.by in (READ, DEAD_LETTERS) else [told.by]
        now = known.add(holders, np.frombuffer(told.ranges, "<i8").reshape(-1, 2), told.begin)
        progress.write(now.encode())
        if now.done is not None and now.done != known.done:
            yield source, now.done


class _Commit(beam.DoFn):
    """Commits the last of what a bundle brings, once for all partitions.

    A commit that fails is said and counted, and the next one makes up for it: nobody depends on it.
    """

    def __init__(self, settings: ReadSettings) -> None:
        self.settings = settings
        self.failed = Metrics.counter("source.kafka", "commits_failed")

    def start_bundle(self) -> None:
        self.offsets: dict[str, int] = {}

    def process(self, element: tuple[str, int]) -> None:
        source, offset = element
        self.offsets[source] = max(offset, self.offsets.get(source, 0))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if not self.offsets:
            return
        partitions = {int(source.rpartition("-")[2]): offset for source, offset in self.offsets.items()}
        try:
            with committer_of(self.settings) as committer:
                committer.commit(partitions)
        except CommitError as error:
            self.failed.inc()
            LOG.warning("committing offsets of group %s: %s", self.settings.group, error)
            return
        window = GlobalWindow()
        for committed in self.offsets.items():
            yield WindowedValue(committed, window.max_timestamp(), (window,))


beam.coders.registry.register_coder(_Told, StructCoder)
