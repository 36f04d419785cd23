"""Alerts to a function on AWS Lambda: `lambda://function`.

A call carries many alerts: `{"version": 1, "invocation": "RequestResponse", "alerts": [...]}`, each alert as it is in
`alerts.jsonl`. Calls are repeated whenever it is not known that they worked, so the function must tell an alert
that it has dealt with by its `alert_id`; the one in `deploy/lambda/fraud_alert` does.

With `RequestResponse` the function's answer decides: `{"failed": [{"alert_id": ..., "error": ..., "retryable": true}]}`
names what is to be sent again, or is refused for good; what it does not name is done. With `Event` Lambda has
queued the call, and what goes wrong after that is known to Lambda alone: give the function an on-failure destination.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import botocore.exceptions
import msgspec
from botocore.config import Config

from io_connectors.aws import client, error_code, is_transient
from io_connectors.aws_messages import fault_of_aws, reason_of_aws
from io_connectors.delivery import Message, MessageWriter, OnRetry
from io_connectors.message_calls import PATIENCE, Calls, Failure, Fault, MessageCalls
from io_connectors.retry import Backoff
from io_connectors.urls import ConnectorUrl
from transforms.dead_letters import safe_payload
from transforms.errors import UserError, did_you_mean

Invocation = Literal["Event", "RequestResponse"]

PAYLOAD_VERSION = 1
#: Bytes of a call. Lambda takes 1 MB of an event and 6 MB of a request; some is left for what surrounds the alerts.
MOST_BYTES: dict[str, int] = {"Event": 900_000, "RequestResponse": 5_500_000}

_NAME = re.compile(
    r"(arn:aws[a-zA-Z-]*:lambda:(?P<region>[a-z]{2}[a-z-]+-\d):\d{12}:function:)?[a-zA-Z0-9_-]{1,64}(:[a-zA-Z0-9$_-]{1,128})?"
)
_CONTENT = frozenset(("RequestTooLargeException", "InvalidRequestContentException", "413"))
#: A version of the function that is being made ready: it goes away by itself.
_NOT_READY = frozenset(("ResourceConflictException", "ResourceNotReadyException"))


class _FailedAlert(msgspec.Struct):
    alert_id: str | None
    error: str = "the function gave no reason"
    retryable: bool = True


class _Answer(msgspec.Struct):
    failed: list[_FailedAlert] = []


class FunctionFailedError(Exception):
    """The function was called and failed, or did not answer as it should."""


@dataclass(frozen=True)
class LambdaSink:
    """Where alerts go: a `MessageSink`.

    Attributes:
        function: its name or ARN.
        qualifier: a version or an alias.
        invocation: `RequestResponse` waits for the answer, `Event` for Lambda to have queued the call.
        batch: most alerts of a call.
        concurrency: calls under way at once.
        backoff: when to try again, and when to give up.
        region, endpoint: as for `aws.client`.
    """

    function: str
    qualifier: str | None = None
    invocation: Invocation = "RequestResponse"
    batch: int = 100
    concurrency: int = 4
    backoff: Backoff = field(default_factory=lambda: Backoff(give_up_after=PATIENCE))
    region: str | None = None
    endpoint: str | None = None

    def open(self, on_retry: OnRetry) -> MessageWriter:
        """Connect.

        Raises:
            UserError: there is no such function, or it cannot run.
        """
        timeout = self._check_function()
        lambda_client = self._client(read_timeout=timeout + 5, max_pool_connections=self.concurrency)
        target = {"FunctionName": self.function, "InvocationType": self.invocation}
        if self.qualifier:
            target["Qualifier"] = self.qualifier

        def send(messages: Sequence[Message]) -> Sequence[Failure]:
            answer = lambda_client.invoke(**target, Payload=payload_of(messages, self.invocation))
            content = answer["Payload"].read()
            if "FunctionError" in answer:
                raise FunctionFailedError(f"the function failed: {safe_payload(content)[:500]}")
            return [] if self.invocation == "Event" else failures_in(content, messages)

        calls = Calls(
            send,
            _fault_of,
            _reason_of,
            lambda message: len(message.body) + 1,
            self.batch,
            MOST_BYTES[self.invocation],
            self.concurrency,
        )
        return MessageCalls(calls, on_retry, self.backoff, lambda_client.close)

    def _check_function(self) -> int:
        """The function's timeout in seconds, or 60 where nobody says; raises where it can never be called."""
        asking = self._client()
        qualified = {"Qualifier": self.qualifier} if self.qualifier else {}
        try:
            found = asking.get_function_configuration(FunctionName=self.function, **qualified)
        except botocore.exceptions.ClientError as error:
            if error_code(error) == "ResourceNotFoundException":
                raise UserError(
                    f"lambda: there is no function {self._full_name} in {asking.meta.region_name}; "
                    "deploy it first (deploy/lambda/fraud_alert/README.md), or name another"
                ) from error
            # Whoever may call a function need not be allowed to look at it. Whatever else it is, the first call says.
            return 60
        except botocore.exceptions.BotoCoreError as error:
            if is_transient(error):
                return 60
            raise
        finally:
            asking.close()
        if found.get("State") == "Failed":
            raise UserError(f"lambda: function {self._full_name} cannot run: {found.get('StateReason', 'it failed')}")
        return int(found["Timeout"])

    @property
    def _full_name(self) -> str:
        return f"{self.function}:{self.qualifier}" if self.qualifier else self.function

    def _client(self, **settings: Any) -> Any:
        return client("lambda", self.region, self.endpoint, Config(tcp_keepalive=True, **settings))


def lambda_sink(url: ConnectorUrl) -> LambdaSink:
    """The sink of `lambda://FUNCTION?qualifier=&invocation=&batch=&concurrency=&give_up_after=&region=&endpoint=`.

    `invocation` is `RequestResponse` (the default) or `Event`, `batch` the most alerts of a call (100),
    `concurrency` the calls a worker has under way at once (4), `give_up_after` how many seconds alerts that cannot
    be delivered are tried again before they become dead letters (60).

    Raises:
        UserError: the name is none, or a parameter makes no sense.

    Example:
        >>> lambda_sink(ConnectorUrl("lambda", "fraud-alert", {"region": "eu-west-1"})).invocation
        'RequestResponse'
    """
    match = _NAME.fullmatch(url.path)
    if not match:
        raise UserError(f"{url}: {url.path!r} is no function's name or ARN; write lambda://NAME?region=REGION")
    invocation = url.parameters.get("invocation", "RequestResponse")
    if invocation not in MOST_BYTES:
        known = " or ".join(MOST_BYTES)
        raise UserError(
            f"{url}: invocation must be {known}; found {invocation!r}{did_you_mean(invocation, MOST_BYTES)}"
        )
    qualifier = url.parameters.get("qualifier")
    if qualifier and match[3]:
        raise UserError(f"{url}: names two versions of the function; give the one in the name or qualifier=, not both")
    sink = LambdaSink(
        function=url.path,
        qualifier=qualifier,
        invocation=cast(Invocation, invocation),
        batch=url.integer("batch", default=100, least=1),
        concurrency=url.integer("concurrency", default=4, least=1),
        backoff=Backoff(give_up_after=url.number("give_up_after", default=PATIENCE)),
        region=url.parameters.get("region") or match["region"],
        endpoint=url.parameters.get("endpoint"),
    )
    sink._client().close()  # a region that is missing, an endpoint that is none
    return sink


def payload_of(messages: Sequence[Message], invocation: str) -> bytes:
    """What the function is called with.

    Example:
        >>> payload_of([Message("a1", b'{"alert_id":"a1"}')], "Event")
        b'{"version":1,"invocation":"Event","alerts":[{"alert_id":"a1"}]}'
    """
    head = b'{"version":%d,"invocation":"%s","alerts":[' % (PAYLOAD_VERSION, invocation.encode())
    return head + b",".join(message.body for message in messages) + b"]}"


def failures_in(answer: bytes, messages: Sequence[Message]) -> list[Failure]:
    """The messages a function's answer says it failed on.

    Raises:
        FunctionFailedError: it does not say so as it should.

    Example:
        >>> sent = [Message("a1", b"{}"), Message("a2", b"{}")]
        >>> failures_in(b'{"failed": [{"alert_id": "a2", "error": "no topic", "retryable": false}]}', sent)
        [Failure(at=1, reason='function_refused', error='no topic', transient=False)]
        >>> failures_in(b"null", sent)
        []
    """
    if not answer.lstrip().startswith(b"{"):
        return []  # a function that says nothing of failures has had none
    try:
        failed = {each.alert_id: each for each in msgspec.json.decode(answer, type=_Answer).failed}
    except msgspec.DecodeError as error:
        raise FunctionFailedError(f"the function's answer is not of the agreed form: {error}") from error
    unknown = failed.keys() - {message.id for message in messages}
    if unknown and len(messages) == 1:
        failed = {messages[0].id: failed.popitem()[1]}  # whatever it calls the only one
    elif unknown:
        raise FunctionFailedError(f"the function's answer names an alert that it was not given: {unknown.pop()!r}")
    return [
        Failure(at, _code_of(each), safe_payload(each.error), each.retryable)
        for at, message in enumerate(messages)
        if (each := failed.get(message.id))
    ]


def _code_of(failed: _FailedAlert) -> str:
    return "function_failed" if failed.retryable else "function_refused"


def _fault_of(error: Exception) -> Fault:
    if isinstance(error, FunctionFailedError):
        return Fault.RECEIVER
    return Fault.SERVICE if error_code(error) in _NOT_READY else fault_of_aws(error, _CONTENT)


def _reason_of(error: Exception) -> str:
    return "function_failed" if isinstance(error, FunctionFailedError) else reason_of_aws(error)
