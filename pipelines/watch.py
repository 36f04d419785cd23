"""The statistics of a run that has no end: of the decisions made in this process, so far."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import apache_beam as beam

from transforms.batch import TransactionBatch, concat_batches
from transforms.statistics import RunStatistics, empty_statistics, merge, observe, system_clock

_lock = threading.Lock()
_so_far: RunStatistics | None = None


def reset() -> None:
    """Forget everything: a process may run more than one pipeline."""
    global _so_far
    with _lock:
        _so_far = None


def so_far(feature_names: Sequence[str]) -> RunStatistics:
    """What has been decided in this process; workers in other processes are not seen."""
    with _lock:
        return _so_far or empty_statistics(feature_names)


class WatchDecisions(beam.DoFn):
    """Adds decided batches to what `so_far` gives; nothing comes out.

    Args:
        feature_names: the feature columns to average.
    """

    def __init__(self, feature_names: Sequence[str]) -> None:
        self.feature_names = tuple(feature_names)

    def start_bundle(self) -> None:
        self.batches: list[TransactionBatch] = []

    def process(self, element: TransactionBatch) -> Iterator[None]:
        self.batches.append(element)
        yield from ()

    def finish_bundle(self) -> None:
        # Batches of a stream are small: looked at together they cost a fraction.
        global _so_far
        if self.batches:
            mine = observe(concat_batches(self.batches), self.feature_names, system_clock())
            with _lock:
                _so_far = merge(_so_far, mine) if _so_far else mine
