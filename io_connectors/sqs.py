"""Messages to a queue on Amazon SQS: `sqs://queue-name`, or the queue's URL or ARN.

Each message's body is its JSON; its id and what it may be routed by are message attributes (`id`, and for alerts
`decision`). A call is repeated whenever it is not known that it worked. A FIFO queue drops what comes again within
five minutes. A standard queue does not: whoever receives must tell a repetition by the attribute `id`, as must
receivers of a FIFO queue after five minutes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import botocore.exceptions
from botocore.config import Config

from io_connectors.aws import client, error_code
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
from transforms.errors import UserError

#: Of a call and of a message, body and attributes together. A queue may be set to take less; then it says so.
MOST_BYTES = 1_048_576
MOST_MESSAGES = 10

_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo")
_ARN = re.compile(
    r"arn:aws[\w-]*:sqs:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):(?P<name>[A-Za-z0-9_-]{1,80}(\.fifo)?)"
)
_AWS_HOST = re.compile(r"(sqs\.(?P<region>[a-z0-9-]+)|(?P<legacy>[a-z0-9-]+)\.queue)\.amazonaws\.com(\.cn)?")
_CONTENT = frozenset(
    (
        "AWS.SimpleQueueService.BatchRequestTooLong",
        "BatchRequestTooLong",
        "InvalidMessageContents",
        "InvalidParameterValue",
    )
)


@dataclass(frozen=True)
class SqsSink:
    """Where messages go: a `MessageSink`.

    Attributes:
        queue: its name or URL.
        account: the queue's owner, where that is not us.
        concurrency: calls a worker has under way at once; one to a FIFO queue, so that it keeps an order.
        backoff: when to try again, and when to give up.
        region, endpoint: as for `aws.client`.
    """

    queue: str
    account: str | None = None
    concurrency: int = 8
    backoff: Backoff = field(default_factory=lambda: Backoff(give_up_after=PATIENCE))
    region: str | None = None
    endpoint: str | None = None

    @property
    def fifo(self) -> bool:
        """Whether the queue keeps an order and drops repetitions."""
        return self.queue.endswith(".fifo")

    def open(self, on_retry: OnRetry) -> MessageWriter:
        """Connect. The queue is looked up by the first call, where it is given by its name."""
        at_once = 1 if self.fifo else self.concurrency
        sqs = self._client(max_pool_connections=at_once)
        urls = {} if "/" not in self.queue else {self.queue: self.queue}

        def send(messages: Sequence[Message]) -> Sequence[Failure]:
            if self.queue not in urls:
                urls[self.queue] = self._url(sqs)
            entries = [{"Id": str(at), **self._entry(message)} for at, message in enumerate(messages)]
            answer = sqs.send_message_batch(QueueUrl=urls[self.queue], Entries=entries)
            return failures_of_entries(answer, _CONTENT)

        calls = Calls(
            send,
            lambda error: fault_of_aws(error, _CONTENT),
            reason_of_aws,
            lambda message: len(message.body) + attributes_size(message),
            MOST_MESSAGES,
            MOST_BYTES,
            at_once,
        )
        return MessageCalls(calls, on_retry, self.backoff, sqs.close)

    def _entry(self, message: Message) -> dict[str, Any]:
        entry = {"MessageBody": message.body.decode(), "MessageAttributes": attribute_values(message)}
        return {**entry, **fifo_ids(message)} if self.fifo else entry

    def _url(self, sqs: Any) -> str:
        """The queue's URL, which its name stands for.

        Raises:
            UserError: there is no such queue.
        """
        owner = {"QueueOwnerAWSAccountId": self.account} if self.account else {}
        try:
            return str(sqs.get_queue_url(QueueName=self.queue, **owner)["QueueUrl"])
        except botocore.exceptions.ClientError as error:
            if error_code(error).endswith(("QueueDoesNotExist", "NonExistentQueue")):
                raise UserError(f"sqs: there is no queue {self.queue} in {sqs.meta.region_name}") from error
            raise

    def _client(self, **settings: Any) -> Any:
        return client("sqs", self.region, self.endpoint, Config(**settings))


def sqs_sink(url: ConnectorUrl) -> SqsSink:
    """The sink of `sqs://QUEUE?concurrency=&give_up_after=&region=&endpoint=`, where QUEUE is a name, a URL or an ARN.

    `concurrency` is how many calls a worker has under way at once (8), `give_up_after` how many seconds messages
    that cannot be delivered are tried again (60).

    Raises:
        UserError: the queue is named in none of these ways, or a parameter makes no sense.

    Example:
        >>> sqs_sink(ConnectorUrl("sqs", "https://sqs.eu-west-1.amazonaws.com/123456789012/alerts.fifo")).region
        'eu-west-1'
    """
    queue, account, region, endpoint = _parts(url)
    sink = SqsSink(
        queue,
        account,
        concurrency=url.integer("concurrency", default=8, least=1),
        backoff=Backoff(give_up_after=url.number("give_up_after", default=PATIENCE)),
        region=url.parameters.get("region") or region,
        endpoint=url.parameters.get("endpoint") or endpoint,
    )
    sink._client().close()  # a region that is missing, an endpoint that is none
    return sink


def _parts(url: ConnectorUrl) -> tuple[str, str | None, str | None, str | None]:
    """The queue, its owner, region and endpoint, as far as the path says."""
    if _NAME.fullmatch(url.path):
        return url.path, None, None, None
    arn = _ARN.fullmatch(url.path)
    if arn:
        return arn["name"], arn["account"], arn["region"], None
    parts = urlsplit(url.path)
    if parts.scheme in ("http", "https") and re.fullmatch(r"/\d{12}/[A-Za-z0-9_-]+(\.fifo)?", parts.path):
        host = _AWS_HOST.fullmatch(parts.hostname or "")
        # A queue of a local server lives where its URL says; botocore itself goes by the endpoint alone.
        endpoint = None if host else f"{parts.scheme}://{parts.netloc}"
        return url.path, None, (host["region"] or host["legacy"]) if host else None, endpoint
    raise UserError(f"{url}: {url.path!r} is no queue's name, URL or ARN; write sqs://NAME?region=REGION")
