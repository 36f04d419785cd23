"""Offsets that are wanted and that a partition no longer has: an error, or a skip that is counted."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from io_connectors.kafka.clients import (
    Ends,
    Fetched,
    Lost,
    OutOfRangeError,
    PartitionReader,
    RefusedError,
    UnreachableError,
)
from io_connectors.kafka.connect import looker_of
from io_connectors.kafka.partitions import Part
from io_connectors.kafka.security import how_to_get_in
from io_connectors.kafka.seldom import Seldom
from io_connectors.kafka.settings import ReadSettings
from transforms.errors import UserError

LOG = logging.getLogger(__name__)
SELDOM = Seldom(LOG)
_NOTHING = np.empty(0, dtype=np.int64)
ASK_SECONDS = 5.0


def poll(reader: PartitionReader, settings: ReadSettings, part: Part, position: int, seconds: float) -> Fetched:
    """What a partition gives next, from `position` on.

    Raises:
        UserError: the partition has lost what comes next, and nobody said that it may be skipped; or the brokers let
            nobody in.
    """
    try:
        return reader.poll(settings.batch_rows, seconds)
    except OutOfRangeError as error:
        fetched = _go_on(settings, part, position, error)
        reader.seek(fetched.position)
        return fetched
    except RefusedError as error:
        cluster = settings.cluster
        raise UserError(f"kafka://{cluster.brokers}: {error}; {how_to_get_in(cluster, error.what)}") from error


def _go_on(settings: ReadSettings, part: Part, position: int, error: OutOfRangeError) -> Fetched:
    held = _held(settings, part[1])
    if held is None:
        SELDOM.warn("%s-%d: offset %d: %s; will ask again", settings.topic, part[1], position, error)
        return _nothing(position)
    fetched = skip(settings, part, position, held)
    if fetched is None:
        raise UserError(_message(settings, part[1], position, held)) from error
    return fetched


def skip(settings: ReadSettings, part: Part, position: int, held: Ends) -> Fetched | None:
    """A poll that gives nothing and goes on where the partition now begins; None where that would be wrong.

    An offset behind the end can only mean that the log was cut or made anew. Then nobody knows which of the records
    that it has now were read before.
    """
    if held.first <= position <= held.end:
        LOG.warning(
            "%s-%d: offset %d was out of range, and is not any more: a follower lagged behind, or the log was cut and "
            "has grown again",
            *part[:2],
            position,
        )
        return _nothing(position)
    if position > held.end:
        return None
    # Whoever asked for the earliest record there is gets it, though another was the earliest a moment ago.
    if settings.start.word == "earliest" and position == part[2]:
        return _nothing(held.first)
    if not settings.skip_missing:
        return None
    return _nothing(held.first, lost=(Lost(position, held.first),))


def _nothing(position: int, lost: Sequence[Lost] = ()) -> Fetched:
    return Fetched(_NOTHING, (), (), None, _NOTHING, position, lost=lost)


def _held(settings: ReadSettings, partition: int) -> Ends | None:
    """What a partition holds; None while nobody says so."""
    try:
        with looker_of(settings.cluster, settings.isolation) as looker:
            return looker.ends(settings.topic, partition + 1, ASK_SECONDS)[partition]
    except UnreachableError:
        return None


def _message(settings: ReadSettings, partition: int, position: int, held: Ends) -> str:
    place = f"kafka://{settings.cluster.brokers}/{settings.topic}: partition {partition}"
    has = f"the broker has {held.first} to {held.end - 1}" if held.first < held.end else "the broker has no record"
    if position > held.end:
        return (
            f"{place}: offset {position} comes next, and {has}: the log was cut, or the topic made anew; "
            "start without the checkpoint, from start=earliest or start=timestamp:"
        )
    return (
        f"{place}: offset {position} comes next, and {has}: records were deleted before they were read; "
        "on_missing=skip goes on with what there is, and counts what is lost"
    )
