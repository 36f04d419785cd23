"""What can be known to be wrong before anything is read or written: the stream, rights, times, the consumer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import botocore.exceptions

from io_connectors.aws import error_code
from io_connectors.kinesis.connect import api_of
from io_connectors.kinesis.settings import ReadSettings, Stream
from transforms.errors import UserError, did_you_mean

#: Streams listed to find one of a similar name.
_MOST_NAMES = 100
_USABLE = ("ACTIVE", "UPDATING")


def check_source(settings: ReadSettings, now: Callable[[], float] = time.time) -> ReadSettings:
    """Refuse what cannot be read; the settings, with the consumer's ARN in the place of its name.

    Args:
        settings: of the source.
        now: seconds since 1970.

    Raises:
        UserError: as `check_stream`; a start or an end that lies in the future; an end before the start; a consumer
            that is not registered.
    """
    place, start, until = f"kinesis://{settings.stream.name}", settings.start, settings.until
    for name, moment in (("start", start), ("until", until)):
        if moment is not None and moment.word == "timestamp" and moment.millis > now() * 1000:
            hint = "; to stop after a while, give max_duration=" if name == "until" else ""
            raise UserError(f"{place}: {name} lies in the future{hint}")
    if until is not None and until.word == "timestamp" and (start.word == "latest" or start.millis > until.millis):
        raise UserError(f"{place}: until lies before start")
    if settings.consumer is None:
        check_stream(settings.stream)
        return settings
    return replace(settings, consumer=consumer_arn(settings.stream, settings.consumer))


def check_stream(stream: Stream) -> dict[str, Any]:
    """What DescribeStreamSummary says of a stream that can be read and written.

    Raises:
        UserError: there is no such stream, it is not ready, or nobody answers or lets us in.
    """
    client = api_of(stream).client
    try:
        summary = client.describe_stream_summary(**stream.target)["StreamDescriptionSummary"]
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        if error_code(error) == "ResourceNotFoundException":
            known = _names(client)
            raise UserError(
                f"kinesis://{stream.name}: no such stream in {client.meta.region_name}; "
                f"{_there(known)}{did_you_mean(stream.name, known)}"
            ) from error
        raise refusal(stream, error) from error
    if summary["StreamStatus"] not in _USABLE:
        raise UserError(
            f"kinesis://{stream.name}: the stream is {summary['StreamStatus']}; try again once it is ACTIVE"
        )
    return dict(summary)


def consumer_arn(stream: Stream, consumer: str) -> str:
    """The ARN of a consumer that is registered for enhanced fan-out.

    Args:
        stream: it reads.
        consumer: its name or ARN.

    Raises:
        UserError: there is none of that name, or it is not ready.
    """
    client = api_of(stream).client
    arn = check_stream(stream)["StreamARN"]
    query = {"ConsumerARN": consumer} if consumer.startswith("arn:") else {"StreamARN": arn, "ConsumerName": consumer}
    try:
        found = client.describe_stream_consumer(**query)["ConsumerDescription"]
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        if error_code(error) == "ResourceNotFoundException":
            raise UserError(
                f"kinesis://{stream.name}: no consumer {consumer} is registered; register it: "
                f"aws kinesis register-stream-consumer --stream-arn {arn} --consumer-name NAME"
            ) from error
        raise refusal(stream, error) from error
    if found["ConsumerStatus"] != "ACTIVE":
        raise UserError(
            f"kinesis://{stream.name}: consumer {consumer} is {found['ConsumerStatus']}; try again in a while"
        )
    return str(found["ConsumerARN"])


def refusal(stream: Stream, error: Exception) -> UserError:
    """What a user can do about a call that failed.

    Example:
        >>> print(refusal(Stream("s"), botocore.exceptions.NoCredentialsError()))
        kinesis://s: no AWS credentials: give AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role
    """
    if isinstance(error, (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError)):
        hint = "no AWS credentials: give AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role"
    elif isinstance(error, (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError)):
        where = stream.endpoint or "Kinesis"
        hint = f"{where} does not answer: {error}; check region= and endpoint=, and that a server listens there"
    else:
        hint = f"AWS refused: {error}; check the credentials and that they allow what the call names"
    return UserError(f"kinesis://{stream.name}: {hint}")


def _names(client: Any) -> list[str]:
    try:
        return list(client.list_streams(Limit=_MOST_NAMES)["StreamNames"])
    except botocore.exceptions.ClientError:
        return []  # whoever may read one stream need not be allowed to list all


def _there(known: list[str]) -> str:
    more = ", ..." if len(known) > 10 else ""
    return f"there are {', '.join(known[:10])}{more}" if known else "no other is known"
