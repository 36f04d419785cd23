"""How far the reader of a slice has come, as a restriction of a splittable DoFn.

It lies in checkpoints and savepoints, which must outlive the names of classes: MessagePack behind a version byte.
"""

from __future__ import annotations

import msgspec
from apache_beam.coders import Coder
from apache_beam.io.iobase import RestrictionProgress, RestrictionTracker

from io_connectors.kinesis.shards import Segments


class Progress(msgspec.Struct, frozen=True, array_like=True):
    """What of a slice has been read. Fields may be added at the end, never moved.

    Attributes:
        segments: how far each part of the slice has come.
        left: how many records are still to be read; -1: there is no such end.
        bounded: whether reading ends.
        over: whether it has.
    """

    segments: Segments
    left: int = -1
    bounded: bool = False
    over: bool = False


class ProgressCoder(Coder):
    """A version byte, then the fields in order.

    Example:
        >>> from io_connectors.kinesis.shards import Keys, unread
        >>> coder = ProgressCoder()
        >>> coder.decode(coder.encode(Progress(unread(Keys(0, 9)), left=7))).left
        7
    """

    VERSION = 1

    def encode(self, value: Progress) -> bytes:
        return bytes([self.VERSION]) + msgspec.msgpack.encode(value)

    def decode(self, encoded: bytes) -> Progress:
        if encoded[0] != self.VERSION:
            raise ValueError(
                f"a slice's progress of coder version {encoded[0]} cannot be read by version {self.VERSION}: "
                "restore with the release that wrote it"
            )
        return msgspec.msgpack.decode(encoded[1:], type=Progress)

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> type[Progress]:
        return Progress


class ProgressTracker(RestrictionTracker):
    """Claims progress. A split is a checkpoint: one reader has a slice, so that keys stay in order."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._cut = False

    def current_restriction(self) -> Progress:
        return self._progress

    def try_claim(self, position: Progress) -> bool:
        """Have come this far, unless the runner has given the rest to somebody else."""
        if self._cut or self._progress.over:
            return False
        self._progress = position
        return True

    def try_split(self, fraction_of_remainder: float) -> tuple[Progress, Progress] | None:
        if fraction_of_remainder > 0 or self._cut or self._progress.over:
            return None
        self._cut = True
        rest = self._progress
        self._progress = msgspec.structs.replace(rest, over=True)
        return self._progress, rest

    def check_done(self) -> None:
        if not self._progress.over:
            raise ValueError("reading a slice stopped before its end, without a checkpoint")

    def current_progress(self) -> RestrictionProgress:
        # How much is left nobody knows; some work is what runners have to see.
        return RestrictionProgress(completed=0, remaining=0 if self._progress.over else 1)

    def is_bounded(self) -> bool:
        return self._progress.bounded
