"""What can be known to be wrong before anything is read or written: brokers, rights, topics, times."""

from __future__ import annotations

import time
from collections.abc import Callable

from io_connectors.kafka.clients import RefusedError, UnreachableError
from io_connectors.kafka.connect import looker_of
from io_connectors.kafka.security import how_to_get_in
from io_connectors.kafka.settings import Cluster, ReadSettings
from io_connectors.moments import Moment
from transforms.errors import UserError, did_you_mean

CHECK_SECONDS = 6.0


def check_topic(cluster: Cluster, topic: str, isolation: str = "read_committed") -> int:
    """How many partitions a topic has.

    Raises:
        UserError: no broker answers, they let nobody in with these credentials, or there is no such topic.
    """
    try:
        with looker_of(cluster, isolation) as looker:
            topics = looker.topics(CHECK_SECONDS)
    except UnreachableError as error:
        raise UserError(
            f"kafka://{cluster.brokers}: no broker answered within {CHECK_SECONDS:.0f} s: {error}; check the address, "
            f"that a broker listens there, and that it speaks security={cluster.security}"
        ) from error
    except RefusedError as error:
        raise UserError(f"kafka://{cluster.brokers}: {error}; {how_to_get_in(cluster, error.what)}") from error
    if topic not in topics:
        known = sorted(name for name in topics if not name.startswith("__"))
        there = f"it has {', '.join(known[:10])}{', ...' if len(known) > 10 else ''}" if known else "it has no topics"
        raise UserError(
            f"kafka://{cluster.brokers}: no topic {topic}, or no right to see it; {there}{did_you_mean(topic, known)}"
        )
    return topics[topic]


def check_source(settings: ReadSettings, now: Callable[[], float] = time.time) -> None:
    """Refuse what cannot be read.

    Args:
        settings: of the source.
        now: seconds since 1970.

    Raises:
        UserError: as `check_topic`; a start or an end that lies in the future; an end before the start.
    """
    millis = now() * 1000
    for name, moment in (("start", settings.start), ("until", settings.until)):
        if moment is not None and moment.word == "timestamp" and moment.millis > millis:
            hint = "; to stop after a while, give max_duration=" if name == "until" else ""
            raise UserError(f"kafka://{settings.cluster.brokers}/{settings.topic}: {name} lies in the future{hint}")
    if _is_after(settings.start, settings.until):
        raise UserError(f"kafka://{settings.cluster.brokers}/{settings.topic}: until lies before start")
    check_topic(settings.cluster, settings.topic, settings.isolation)


def _is_after(start: Moment, until: Moment | None) -> bool:
    if until is None or until.word == "latest":
        return False
    return start.word == "latest" or start.millis > until.millis
