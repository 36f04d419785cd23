"""Kinesis' calls as the reader needs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from botocore.config import Config

from io_connectors.aws import client, error_code, is_transient
from io_connectors.kinesis.settings import Stream
from io_connectors.kinesis.shards import Keys, Segment, Shard
from io_connectors.retry import Backoff
from transforms.durations import HOUR, SECOND

#: Errors that go away by themselves, beyond those that every service has.
_AGAIN = frozenset(("KMSThrottlingException", "InternalFailureException", "ResourceInUseException"))
EARLIEST = -1


class Answer(NamedTuple):
    """What one GetRecords, or one event of a subscription, gave.

    Attributes:
        records: as boto3 gives them.
        next: the iterator to go on with; None: the shard has been read to its end.
        behind: milliseconds behind the shard's tip.
        served: microseconds since 1970 by the server's clock, not later than when it looked.
    """

    records: list[dict[str, Any]]
    next: str | None
    behind: int
    served: int


class Subscription(NamedTuple):
    """A shard that sends what comes.

    Attributes:
        events: as boto3 gives them; they can be closed.
        shift: microseconds by which the server's clock is ahead of ours.
    """

    events: Any
    shift: int


class Moments(NamedTuple):
    """A moment on the server's clock, which is known to the second: not before `earliest`, not after `latest`."""

    earliest: int
    latest: int


class KinesisApi:
    """One stream's calls.

    Args:
        stream: which.
        now: microseconds since 1970.
    """

    def __init__(self, stream: Stream, now: Callable[[], int]) -> None:
        self.stream = stream
        self._now = now
        config = Config(read_timeout=20, max_pool_connections=64, tcp_keepalive=True)
        self.client = client("kinesis", stream.region, stream.endpoint, config)

    def shards(self) -> dict[str, Shard]:
        """Every shard that has records or may get some, also those that are closed."""
        return {shard.id: shard for shard in self.shards_at()[0]}

    def shards_at(self) -> tuple[list[Shard], Moments]:
        """Likewise, and when the server was asked."""
        found: list[Shard] = []
        query: dict[str, str] = self.stream.target
        asked: Moments | None = None
        while True:
            answer = self.client.list_shards(**query)
            asked = asked or moments_of(answer, self._now())
            found += [_shard(each) for each in answer["Shards"]]
            if not answer.get("NextToken"):
                return found, asked
            query = {"NextToken": answer["NextToken"]}

    def has(self, shard: str) -> bool:
        """Whether the stream still holds a shard."""
        query = {**self.stream.target, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
        try:
            self.client.get_shard_iterator(**query)
        except self.client.exceptions.ResourceNotFoundException:
            return False
        return True

    def retention(self) -> int:
        """Microseconds for which the stream holds a record."""
        return int(self.summary()["RetentionPeriodHours"]) * HOUR

    def summary(self) -> dict[str, Any]:
        """What DescribeStreamSummary says of it."""
        describe = self.client.describe_stream_summary
        answer = Backoff(give_up_after=10).call(lambda: describe(**self.stream.target), may_pass)
        return dict(answer["StreamDescriptionSummary"])

    def iterator(self, segment: Segment, start: int) -> str:
        """Where to go on reading a segment's shard: at its last record, or where reading starts.

        Args:
            segment: with its shard.
            start: microseconds since 1970, or `EARLIEST`.
        """
        shard = {**self.stream.target, "ShardId": segment.shard}
        answer = self.client.get_shard_iterator(**shard, **starting(segment, start, "ShardIteratorType"))
        return str(answer["ShardIterator"])

    def records(self, iterator: str) -> Answer:
        """The next records of a shard: at most 10,000 or 10 MB, and perhaps none though there are more."""
        arn = {"StreamARN": self.stream.arn} if self.stream.arn else {}
        asked = self._now()
        answer = self.client.get_records(ShardIterator=iterator, Limit=10_000, **arn)
        behind = int(answer.get("MillisBehindLatest") or 0)
        served = min(asked, moments_of(answer, self._now()).earliest)
        return Answer(answer["Records"], answer.get("NextShardIterator"), behind, served)

    def subscribe(self, consumer: str, segment: Segment, start: int) -> Subscription:
        """Have a segment's shard send what comes, for five minutes.

        Args:
            consumer: the ARN of one that is registered for enhanced fan-out.
            segment: with its shard.
            start: as for `iterator`.
        """
        answer = self.client.subscribe_to_shard(
            ConsumerARN=consumer, ShardId=segment.shard, StartingPosition=starting(segment, start, "Type")
        )
        now = self._now()
        return Subscription(answer["EventStream"], moments_of(answer, now).earliest - now)

    def close(self) -> None:
        """Let go of the connections."""
        self.client.close()


def starting(segment: Segment, start: int, kind: str) -> dict[str, Any]:
    """The parameters of a call that say where to begin; `kind` is what the call calls that of `kind`s.

    Example:
        >>> starting(Segment("shardId-0", "0", "9"), EARLIEST, "Type")
        {'Type': 'TRIM_HORIZON'}
        >>> starting(Segment("shardId-0", "0", "9", sequence="495"), EARLIEST, "ShardIteratorType")
        {'ShardIteratorType': 'AT_SEQUENCE_NUMBER', 'StartingSequenceNumber': '495'}
    """
    if segment.sequence:
        # At it and not after it: it may be an aggregate, of which a part was taken.
        name = "StartingSequenceNumber" if kind == "ShardIteratorType" else "SequenceNumber"
        return {kind: "AT_SEQUENCE_NUMBER", name: segment.sequence}
    if start == EARLIEST:
        return {kind: "TRIM_HORIZON"}
    return {kind: "AT_TIMESTAMP", "Timestamp": start / SECOND}


def moments_of(answer: Mapping[str, Any], now: int) -> Moments:
    """When an answer was given, on the clock of the server, which writes the times of records.

    The server says it to the second. Our own clock says it closer, where it agrees.

    Args:
        answer: of boto3.
        now: our own clock, microseconds since 1970.

    Example:
        >>> answer = {"ResponseMetadata": {"HTTPHeaders": {"date": "Thu, 01 Jan 1970 00:00:07 GMT"}}}
        >>> moments_of(answer, 7_250_000), moments_of(answer, 9_000_000)
        (Moments(earliest=7250000, latest=7250000), Moments(earliest=7000000, latest=7999999))
    """
    text = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    if text is None:
        return Moments(now, now)
    second = int(parsedate_to_datetime(text).timestamp()) * SECOND
    if second <= now < second + SECOND:
        return Moments(now, now)
    return Moments(second, second + SECOND - 1)


def may_pass(error: Exception) -> bool:
    """Whether a failed call may succeed when it is made again."""
    return is_transient(error) or error_code(error) in _AGAIN


def _shard(found: Mapping[str, Any]) -> Shard:
    keys = found["HashKeyRange"]
    parents = (found.get("ParentShardId"), found.get("AdjacentParentShardId"))
    return Shard(
        found["ShardId"],
        Keys(int(keys["StartingHashKey"]), int(keys["EndingHashKey"])),
        tuple(parent for parent in parents if parent),
        found["SequenceNumberRange"].get("EndingSequenceNumber") is None,
    )
