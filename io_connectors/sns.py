"""Messages to a topic on Amazon SNS: `sns:arn:aws:sns:REGION:ACCOUNT:TOPIC`. Who is told is a matter of subscriptions.

Each message's body is its JSON; its id and what subscriptions may filter by are message attributes (`id`, and for
alerts `decision`). With `format=text` e-mails and text messages say the same in words, and all others get the JSON.

A call is repeated whenever it is not known that it worked. A FIFO topic drops what comes again within five minutes. A
standard topic does not: whoever receives must tell a repetition by the attribute `id`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from botocore.config import Config

from io_connectors.aws import client
from io_connectors.aws_messages import (
    attribute_values,
    attributes_size,
    failures_of_entries,
    fault_of_aws,
    fifo_ids,
    reason_of_aws,
)
from io_connectors.delivery import Message, MessageWriter, OnRetry
from io_connectors.message_calls import PATIENCE, Calls, Failure, MessageCalls
from io_connectors.retry import Backoff
from io_connectors.urls import ConnectorUrl
from transforms.alert_text import alert_line, alert_subject, alert_text
from transforms.errors import UserError, did_you_mean

#: Of a call and of a message, body and attributes together. A topic may be set to take more.
MOST_BYTES = 262_144
MOST_MESSAGES = 10
FORMATS = ("json", "text")

_ARN = re.compile(r"arn:aws[\w-]*:sns:(?P<region>[a-z0-9-]+):\d{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?")
_CONTENT = frozenset(
    (
        "BatchRequestTooLong",
        "BatchRequestTooLongException",
        "InvalidParameter",
        "InvalidParameterValue",
        "ValidationException",
    )
)


@dataclass(frozen=True)
class SnsSink:
    """Where messages go: a `MessageSink`.

    Attributes:
        topic_arn: the topic.
        text: whether people are told in words.
        minor_digits: decimals of an amount, for those words.
        concurrency: calls a worker has under way at once; one to a FIFO topic, so that it keeps an order.
        backoff: when to try again, and when to give up.
        endpoint: as for `aws.client`.
    """

    topic_arn: str
    text: bool = False
    minor_digits: int = 2
    concurrency: int = 8
    backoff: Backoff = field(default_factory=lambda: Backoff(give_up_after=PATIENCE))
    endpoint: str | None = None

    @property
    def fifo(self) -> bool:
        """Whether the topic keeps an order and drops repetitions."""
        return self.topic_arn.endswith(".fifo")

    def open(self, on_retry: OnRetry) -> MessageWriter:
        """Connect."""
        at_once = 1 if self.fifo else self.concurrency
        sns = self._client(max_pool_connections=at_once)

        def send(messages: Sequence[Message]) -> Sequence[Failure]:
            entries = [{"Id": str(at), **self._entry(message)} for at, message in enumerate(messages)]
            answer = sns.publish_batch(TopicArn=self.topic_arn, PublishBatchRequestEntries=entries)
            return failures_of_entries(answer, _CONTENT)

        calls = Calls(
            send,
            lambda error: fault_of_aws(error, _CONTENT),
            reason_of_aws,
            self._size,
            MOST_MESSAGES,
            MOST_BYTES,
            at_once,
        )
        return MessageCalls(calls, on_retry, self.backoff, sns.close)

    def _entry(self, message: Message) -> dict[str, Any]:
        body, attributes = message.body.decode(), dict(message.attributes)
        entry: dict[str, Any] = {"Message": body, "MessageAttributes": attribute_values(message)}
        if "decision" in attributes:
            entry["Subject"] = alert_subject(attributes)
            if self.text:
                entry |= {"Message": self._words(body), "MessageStructure": "json"}
        return {**entry, **fifo_ids(message)} if self.fifo else entry

    def _words(self, body: str) -> str:
        """The message for each kind of subscription."""
        alert = json.loads(body)
        words = {
            "default": body,
            "email": alert_text(alert, self.minor_digits),
            "sms": alert_line(alert, self.minor_digits),
        }
        return json.dumps(words, ensure_ascii=False)

    def _size(self, message: Message) -> int:
        return len(self._entry(message)["Message"].encode()) + attributes_size(message)

    def _client(self, **settings: Any) -> Any:
        match = _ARN.fullmatch(self.topic_arn)
        return client("sns", match and match["region"], self.endpoint, Config(**settings))


def sns_sink(url: ConnectorUrl) -> SnsSink:
    """The sink of `sns:TOPIC_ARN?format=&minor_digits=&concurrency=&give_up_after=&endpoint=`.

    `format` is `json` (the default) or `text`, `minor_digits` the decimals of amounts in text (2), `concurrency` how
    many calls a worker has under way at once (8), `give_up_after` how many seconds messages that cannot be delivered
    are tried again (60).

    Raises:
        UserError: the topic is no ARN, or a parameter makes no sense.

    Example:
        >>> sns_sink(ConnectorUrl("sns", "arn:aws:sns:eu-west-1:123456789012:fraud", {"format": "text"})).text
        True
    """
    if not _ARN.fullmatch(url.path):
        raise UserError(f"{url}: {url.path!r} is no topic's ARN; write sns:arn:aws:sns:REGION:ACCOUNT:TOPIC")
    form = url.parameters.get("format", "json")
    if form not in FORMATS:
        raise UserError(f"{url}: format must be {' or '.join(FORMATS)}; found {form!r}{did_you_mean(form, FORMATS)}")
    sink = SnsSink(
        url.path,
        text=form == "text",
        minor_digits=url.integer("minor_digits", default=2),
        concurrency=url.integer("concurrency", default=8, least=1),
        backoff=Backoff(give_up_after=url.number("give_up_after", default=PATIENCE)),
        endpoint=url.parameters.get("endpoint"),
    )
    sink._client().close()  # an endpoint that is none
    return sink
