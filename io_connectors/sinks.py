"""From a sink's URL to the transform that writes there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import apache_beam as beam
from apache_beam.pvalue import PCollection

from io_connectors.delivery import BatchSink, Delivered, Message, MessageSink, SendMessages, WriteBatches
from io_connectors.json_lines import WriteJsonLines
from io_connectors.kafka.settings import KAFKA_DECISIONS, KAFKA_SINK
from io_connectors.kinesis.settings import KINESIS_DECISIONS, KINESIS_SINK
from io_connectors.parquet_files import WriteParquet
from io_connectors.urls import ConnectorUrl, Scheme, parse_url
from transforms.alerts import Alert
from transforms.batch import TransactionBatch
from transforms.dead_letters import DeadLetter, Stage
from transforms.durations import SECOND
from transforms.errors import UserError
from transforms.hashing import text_digest


class Record(Protocol):
    """What a record sink writes: alerts, dead letters, summaries."""

    def to_json(self) -> bytes:
        """One line of JSON."""


class _BatchKind(NamedTuple):
    """A sink of whole batches.

    Attributes:
        scheme: what its URL takes.
        open: the sink that a URL names.
        most_rows: how many rows a call has.
        every: how long the rows of a stream wait for so many, unless the URL's parameter `every` says otherwise;
            None: they do not wait.
    """

    scheme: Scheme
    open: Callable[[ConnectorUrl], BatchSink]
    most_rows: int = 50_000
    every: int | None = None


class _MessageKind(NamedTuple):
    """A sink of messages: likewise."""

    scheme: Scheme
    open: Callable[[ConnectorUrl], MessageSink]


def _open_dynamodb(url: ConnectorUrl) -> BatchSink:
    from io_connectors.dynamodb.sink import dynamodb_sink

    return dynamodb_sink(url)


def _open_kafka_decisions(url: ConnectorUrl) -> BatchSink:
    from io_connectors.kafka.write import kafka_decision_sink

    return kafka_decision_sink(url)


def _open_kafka(url: ConnectorUrl) -> MessageSink:
    from io_connectors.kafka.write import kafka_sink

    return kafka_sink(url)


def _open_kinesis_decisions(url: ConnectorUrl) -> BatchSink:
    from io_connectors.kinesis.write import kinesis_decision_sink

    return kinesis_decision_sink(url)


def _open_kinesis(url: ConnectorUrl) -> MessageSink:
    from io_connectors.kinesis.write import kinesis_sink

    return kinesis_sink(url)


def _open_lambda(url: ConnectorUrl) -> MessageSink:
    from io_connectors.lambda_function import lambda_sink

    return lambda_sink(url)


def _open_postgresql(url: ConnectorUrl) -> BatchSink:
    from io_connectors.postgresql.sink import postgresql_sink

    return postgresql_sink(url)


def _open_redshift(url: ConnectorUrl) -> BatchSink:
    from io_connectors.redshift.sink import redshift_sink

    return redshift_sink(url)


def _open_s3_parquet(url: ConnectorUrl) -> BatchSink:
    from io_connectors.s3.parquet_sink import s3_parquet_sink

    return s3_parquet_sink(url)


def _open_s3_lines(url: ConnectorUrl) -> MessageSink:
    from io_connectors.s3.message_sink import s3_message_sink

    return s3_message_sink(url)


def _open_sns(url: ConnectorUrl) -> MessageSink:
    from io_connectors.sns import sns_sink

    return sns_sink(url)


def _open_sqs(url: ConnectorUrl) -> MessageSink:
    from io_connectors.sqs import sqs_sink

    return sqs_sink(url)


#: Sinks of decisions beside `file:`, and of single records. Each connector has one line. What opens it imports its
#: client then and not before: a run that does without it starts sooner.
_BATCHES: dict[str, _BatchKind] = {
    "dynamodb": _BatchKind(
        Scheme("a table", ("region", "endpoint", "existing", "ttl", "create", "capacity", "concurrency")),
        _open_dynamodb,
    ),
    "kafka": _BatchKind(KAFKA_DECISIONS, _open_kafka_decisions),
    "kinesis": _BatchKind(KINESIS_DECISIONS, _open_kinesis_decisions),
    "postgresql": _BatchKind(
        Scheme(
            "user@host:port/database/schema/table",
            (
                "create",
                "existing",
                "layout",
                "sslmode",
                "sslrootcert",
                "secret",
                "iam",
                "region",
                "endpoint",
                "statement_timeout",
            ),
        ),
        _open_postgresql,
    ),
    "redshift": _BatchKind(
        Scheme(
            "cluster-or-workgroup/database/schema/table",
            (
                "staging",
                "role",
                "serverless",
                "via",
                "user",
                "secret",
                "host",
                "port",
                "sslmode",
                "region",
                "endpoint",
                "create",
                "existing",
                "layout",
                "statement_timeout",
                "every",
            ),
        ),
        _open_redshift,
        most_rows=1 << 18,  # a load costs seconds however few rows it has
        every=60 * SECOND,
    ),
    "s3": _BatchKind(
        Scheme("bucket/prefix", ("region", "endpoint", "rows_per_file", "flagged", "kms_key", "every")),
        _open_s3_parquet,
        most_rows=1 << 18,  # an object a day of each call: few and large ones
        every=60 * SECOND,
    ),
}
_MESSAGES: dict[str, _MessageKind] = {
    "kafka": _MessageKind(KAFKA_SINK, _open_kafka),
    "kinesis": _MessageKind(KINESIS_SINK, _open_kinesis),
    "lambda": _MessageKind(
        Scheme(
            "a function's name or ARN",
            ("qualifier", "invocation", "batch", "concurrency", "give_up_after", "region", "endpoint"),
        ),
        _open_lambda,
    ),
    "sns": _MessageKind(
        Scheme("a topic's ARN", ("format", "minor_digits", "concurrency", "give_up_after", "endpoint")), _open_sns
    ),
    "sqs": _MessageKind(
        Scheme("a queue's name, URL or ARN", ("concurrency", "give_up_after", "region", "endpoint")), _open_sqs
    ),
    "s3": _MessageKind(Scheme("bucket/prefix", ("region", "endpoint", "kms_key")), _open_s3_lines),
}

DECISION_SINKS = {
    "file": Scheme("a directory", ("rows_per_file",)),
    **{name: kind.scheme for name, kind in _BATCHES.items()},
}
RECORD_SINKS = {"file": Scheme("a file"), **{name: kind.scheme for name, kind in _MESSAGES.items()}}


def decision_sink(
    text: str, setting: str = "--sink", columns: Sequence[str] | None = None
) -> beam.PTransform[PCollection[TransactionBatch], Delivered]:
    """Where decisions go: a directory of Parquet files, or a database, a bucket or a topic.

    Args:
        text: the sink's URL.
        setting: where it was given, for messages.
        columns: that decisions have, to check those by that the URL names.

    Raises:
        UserError: an unknown scheme, parameter or column, or a directory that cannot be written.
    """
    url = parse_url(text, DECISION_SINKS, setting)
    url.names("columns", columns)
    if url.scheme in _BATCHES:
        kind = _BATCHES[url.scheme]
        return WriteBatches(kind.open(url), url.scheme, kind.most_rows, url.duration("every", kind.every))
    return WriteParquet(url.path, rows_per_file=url.integer("rows_per_file", default=1 << 20, least=1))


def record_sink(text: str, setting: str) -> beam.PTransform[PCollection[Any], Delivered]:
    """Where single records go: a file of JSON lines, or a queue, a topic or a function; each the record's `to_json`.

    Raises:
        UserError: an unknown scheme or parameter, or a file that cannot be written.
    """
    url = parse_url(text, RECORD_SINKS, setting)
    if url.scheme == "lambda" and setting != "--alert":
        raise UserError(f"{setting}: a function takes alerts alone; name a queue, a topic or a file")
    if url.scheme in _MESSAGES:
        stage: Stage = "alert" if setting == "--alert" else "write"
        return SendMessages(_MESSAGES[url.scheme].open(url), url.scheme, messages_of, stage)
    return WriteJsonLines(url.path, _to_json)


def message_sink(text: str, setting: str) -> MessageSink:
    """A stream or a queue to send messages to without a pipeline.

    Raises:
        UserError: an unknown scheme or parameter.
    """
    url = parse_url(text, {name: kind.scheme for name, kind in _MESSAGES.items()}, setting)
    return _MESSAGES[url.scheme].open(url)


def messages_of(record: Record) -> Sequence[Message]:
    """The message of one alert, dead letter or summary. Its id is the alert's own, or depends on the content."""
    body = record.to_json()
    if isinstance(record, Alert):
        return [Message(record.alert_id, body, record.transaction_id, (("decision", record.decision),))]
    if isinstance(record, DeadLetter):
        return [Message(text_digest(body), body, record.transaction_id, (("reason", record.reason),))]
    return [Message(text_digest(body), body)]


def _to_json(record: Record) -> bytes:
    return record.to_json()
