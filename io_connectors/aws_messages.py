"""Messages as SNS and SQS take them, and what AWS's errors mean for a call of messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from io_connectors.aws import error_code, is_transient
from io_connectors.delivery import Message
from io_connectors.message_calls import Failure, Fault
from transforms.hashing import text_digest

_ID = re.compile(r"[!-~]{1,128}")


class _About(msgspec.Struct):
    customer_id: str | None = None


def attribute_values(message: Message) -> dict[str, dict[str, str]]:
    """The message's id and attributes, which receivers see without opening the body.

    Example:
        >>> attribute_values(Message("a1", b"{}", None, (("decision", "review"),)))["decision"]
        {'DataType': 'String', 'StringValue': 'review'}
    """
    named = (("id", message.id), *message.attributes)
    return {name: {"DataType": "String", "StringValue": value} for name, value in named if value}


def attributes_size(message: Message) -> int:
    """Bytes that the attributes take: names, types and values count."""
    named = (("id", message.id), *message.attributes)
    return sum(len(name) + len("String") + len(value.encode()) for name, value in named)


def fifo_ids(message: Message) -> dict[str, str]:
    """What a FIFO queue or topic tells repetitions by, and keeps in order: messages about one customer.

    Example:
        >>> fifo_ids(Message("a1", b'{"customer_id":"596"}'))
        {'MessageDeduplicationId': 'a1', 'MessageGroupId': '8845cc57b825df890d44a0cf4751dc92'}
    """
    customer = msgspec.json.decode(message.body, type=_About).customer_id
    return {
        "MessageDeduplicationId": message.id if _ID.fullmatch(message.id) else text_digest(message.id.encode()),
        # A digest: a customer's id may hold what an id here may not, or be a card number.
        "MessageGroupId": text_digest((customer or message.id).encode()),
    }


def failures_of_entries(answer: Mapping[str, Any], content: frozenset[str]) -> list[Failure]:
    """What the answer to a batch says of its entries, whose ids are their places.

    Args:
        answer: of `SendMessageBatch` or `PublishBatch`.
        content: codes by which the service says that it will never take an entry.
    """
    return [
        Failure(int(each["Id"]), each["Code"], each.get("Message", each["Code"]), each["Code"] not in content)
        for each in answer.get("Failed", ())
    ]


def fault_of_aws(error: Exception, content: frozenset[str]) -> Fault:
    """What an error of a boto3 client means.

    Args:
        error: what a call raised.
        content: codes by which the service says that it will not take what is in the call.

    Example:
        >>> import botocore.exceptions
        >>> too_long = botocore.exceptions.ClientError({"Error": {"Code": "BatchRequestTooLong"}}, "SendMessageBatch")
        >>> fault_of_aws(too_long, frozenset(["BatchRequestTooLong"])).name
        'CONTENT'
    """
    if is_transient(error):
        return Fault.SERVICE
    return Fault.CONTENT if error_code(error) in content else Fault.SETUP


def reason_of_aws(error: Exception) -> str:
    """AWS's code of an error, or the name of an error that got no answer."""
    return error_code(error) or type(error).__name__
