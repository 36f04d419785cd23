"""What the pipeline needs of a Kafka client. Two libraries give it, and nothing else knows which of them is in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from transforms.raw_batch import Headers

Refusal = Literal["login", "certificate", "right"]
Int64s = np.ndarray[Any, np.dtype[np.int64]]


class Damaged(NamedTuple):
    """Offsets from `first` to before `stop` that cannot be read: the broker holds other bytes than it was sent.

    Attributes:
        error: what the client says of it.
    """

    first: int
    stop: int
    error: str


class Lost(NamedTuple):
    """Offsets from `first` to before `stop` that a partition had lost before they were read."""

    first: int
    stop: int


@dataclass(frozen=True)
class Fetched:
    """What one poll of a partition gave: columns of the same length.

    Attributes:
        offsets: ascending; where they skip some, those hold no record (markers of transactions, compaction).
        values: None where the record has none (a tombstone).
        keys: likewise.
        headers: of each record; None when no record of the poll has any.
        timestamps: of the broker or the producer, as the topic is set up, in microseconds since 1970; -1: none.
        position: every offset before this one has been read or holds no record.
        damaged: what could not be read.
        lost: what was skipped before these records.
    """

    offsets: Int64s
    values: Sequence[bytes | None]
    keys: Sequence[bytes | None]
    headers: Sequence[Headers] | None
    timestamps: Int64s
    position: int
    damaged: Sequence[Damaged] = ()
    lost: Sequence[Lost] = ()

    def __len__(self) -> int:
        return len(self.offsets)


class Ends(NamedTuple):
    """What a partition holds: offsets from `first` to before `end`; with read_committed, what is committed."""

    first: int
    end: int


class OutOfRangeError(Exception):
    """The partition does not hold the wanted offset: it was deleted, or the log was cut or made anew."""


class UnreachableError(Exception):
    """No broker answered in time."""


class RefusedError(Exception):
    """The brokers answered, or one side broke off: a wrong password, an unknown certificate, a right that is missing.

    Attributes:
        what: `login`, `certificate` or `right`.
    """

    def __init__(self, message: str, what: Refusal) -> None:
        super().__init__(message)
        self.what: Refusal = what


class PartitionReader(Protocol):
    """An open connection that reads one partition. One thread at a time uses it."""

    def seek(self, offset: int) -> None:
        """Read from here on."""

    def poll(self, most: int, seconds: float) -> Fetched:
        """At most `most` records, as soon as there are some, or none when none come within `seconds`.

        A broker that is out of reach gives none; the client goes on connecting by itself.

        Raises:
            OutOfRangeError: the partition does not hold the offset that comes next.
            RefusedError: the brokers let nobody in.
        """

    def close(self) -> None:
        """Let go of the connection."""


class TopicLooker(Protocol):
    """An open connection that asks about topics."""

    def topics(self, seconds: float) -> Mapping[str, int]:
        """Every topic's number of partitions.

        Raises:
            UnreachableError: no broker answered.
            RefusedError: the brokers let nobody in.
        """

    def ends(self, topic: str, partitions: int, seconds: float) -> list[Ends | None]:
        """What the partitions of a topic hold, in order; None of one whose broker did not say.

        Raises:
            UnreachableError, RefusedError: as `topics`.
        """

    def offsets_at(self, topic: str, partitions: int, millis: int, seconds: float) -> list[int | None]:
        """For each partition the first offset whose time is not before `millis`, its end where there is none.

        None of one whose broker did not say; it raises as `ends`.
        """

    def close(self) -> None:
        """Let go of the connection."""


class CommitError(Exception):
    """A group's offsets could not be committed."""


class GroupCommitter(Protocol):
    """An open connection that commits offsets in the name of a group that nobody is a member of."""

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Commit for each partition the offset that comes next.

        Raises:
            CommitError: the brokers did not take it.
        """

    def close(self) -> None:
        """Let go of the connection."""
