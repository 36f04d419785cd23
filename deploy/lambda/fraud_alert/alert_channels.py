"""Where the alert function sends alerts: an SNS topic, and a Slack webhook."""

from __future__ import annotations

import hashlib
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from alert_events import Alert, Problem, code_of
from transforms.alert_text import alert_line, alert_subject, alert_text
from transforms.card_numbers import mask_card_numbers

_WEBHOOK = re.compile(r"https://[\w.-]+(:\d+)?/[\w./-]+|http://(localhost|127\.0\.0\.1):\d+/[\w./-]+")
#: What SNS says of messages that it will never take.
_TOO_LARGE = frozenset(("BatchRequestTooLong", "InvalidParameter", "InvalidParameterValue", "ValidationError"))
_TEXT_LIMIT = 1500  # characters of one alert in Slack, which takes 40,000 a message
_JOINED_ON = frozenset(("alert_id", "transaction_id"))  # a number of 16 digits passes for a card one time in ten
SECRET_AGE = 300.0  # seconds after which a secret is read again, in case it was rotated


class Channel(Protocol):
    """A way to tell people.

    Attributes:
        name: as it is recorded; stable.
        most: how many alerts one message or call may hold.
    """

    @property
    def name(self) -> str: ...
    @property
    def most(self) -> int: ...

    def send(self, alerts: Sequence[Alert]) -> dict[str, Problem]:
        """Send alerts; those that could not be sent, by id."""


@dataclass(frozen=True)
class TopicChannel:
    """Every alert is a message on an SNS topic: JSON for programs, words for e-mail and text messages.

    On a FIFO topic the alert's id is the message's deduplication id, so that a repetition within five minutes has
    no effect.
    """

    sns: Any
    topic_arn: str
    minor_digits: int
    name: str = "sns"
    most: int = 10

    def send(self, alerts: Sequence[Alert]) -> dict[str, Problem]:
        """One `PublishBatch`; of alerts too large to go together, one each."""
        entries = [{"Id": str(at), **self._entry(alert)} for at, alert in enumerate(alerts)]
        ids = [alert["alert_id"] for alert in alerts]
        try:
            answer = self.sns.publish_batch(TopicArn=self.topic_arn, PublishBatchRequestEntries=entries)
        except ClientError as error:
            code = code_of(error)
            if code in _TOO_LARGE and len(alerts) > 1:
                return {name: problem for alert in alerts for name, problem in self.send([alert]).items()}
            return dict.fromkeys(ids, Problem(f"SNS: {code}", retryable=code not in _TOO_LARGE))
        except BotoCoreError as error:
            return dict.fromkeys(ids, Problem(f"SNS: {code_of(error)}", retryable=True))
        return {
            ids[int(failed["Id"])]: Problem(f"SNS: {failed['Code']}", retryable=failed["Code"] not in _TOO_LARGE)
            for failed in answer.get("Failed", ())
        }

    def _entry(self, alert: Alert) -> dict[str, Any]:
        words = {
            "default": json.dumps(masked(alert), separators=(",", ":"), ensure_ascii=False),
            "email": alert_text(alert, self.minor_digits),
            "sms": alert_line(alert, self.minor_digits),
        }
        attributes = {"id": alert["alert_id"], "decision": alert.get("decision")}
        entry: dict[str, Any] = {
            # Text that is no Unicode, such as half a surrogate pair, would fail the whole call.
            "Message": json.dumps({name: text.encode("utf-8", "replace").decode() for name, text in words.items()}),
            "MessageStructure": "json",
            "Subject": alert_subject(alert),
            "MessageAttributes": {
                name: {"DataType": "String", "StringValue": value}
                for name, value in attributes.items()
                if isinstance(value, str) and value and value.isprintable()
            },
        }
        if self.topic_arn.endswith(".fifo"):
            entry["MessageGroupId"] = _digest(str(alert.get("customer_id") or alert["alert_id"]))
            entry["MessageDeduplicationId"] = _digest(alert["alert_id"])
        return entry


@dataclass
class WebhookSecret:
    """The URL of a Slack webhook: in Secrets Manager, in this process for a while, and never written anywhere.

    The secret is the URL, or a JSON object with it as `webhook_url`.
    """

    secrets: Any
    arn: str
    clock: Callable[[], float] = time.monotonic
    _url: str = field(default="", repr=False)
    _read_at: float = 0.0

    def url(self) -> str | Problem:
        """The URL, or why there is none."""
        if self._url and self.clock() - self._read_at < SECRET_AGE:
            return self._url
        try:
            text = str(self.secrets.get_secret_value(SecretId=self.arn).get("SecretString", "")).strip()
        except (ClientError, BotoCoreError) as error:
            return Problem(f"the secret of the Slack webhook: {code_of(error)}", retryable=True)
        url = _url_in(text)
        if not _WEBHOOK.fullmatch(url):
            return Problem("the secret of the Slack webhook holds no https:// URL", retryable=True)
        self._url, self._read_at = url, self.clock()
        return url

    def forget(self) -> None:
        """Read it again next time: it may have been revoked, and another put in its place."""
        self._url = ""


@dataclass(frozen=True)
class SlackChannel:
    """Up to twenty alerts are one message of a Slack channel: a webhook takes one message a second.

    Slack cannot tell a repetition: an alert whose post timed out, or whose invocation was killed just after it, may
    be posted twice.
    """

    secret: WebhookSecret
    minor_digits: int
    seconds_left: Callable[[], float]
    name: str = "slack"
    most: int = 20
    sleep: Callable[[float], None] = time.sleep

    def send(self, alerts: Sequence[Alert]) -> dict[str, Problem]:
        """One message with all of them."""
        url = self.secret.url()
        problem = url if isinstance(url, Problem) else self._post(url, self._message(alerts))
        return dict.fromkeys((alert["alert_id"] for alert in alerts), problem) if problem else {}

    def _message(self, alerts: Sequence[Alert]) -> bytes:
        texts = [alert_text(alert, self.minor_digits)[:_TEXT_LIMIT] for alert in alerts]
        head = alert_subject(alerts[0]) if len(alerts) == 1 else f"{len(alerts)} fraud alerts"
        text = "\n\n".join([head, *texts])
        for special, escape in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            text = text.replace(special, escape)
        return json.dumps({"text": text}).encode()

    def _post(self, url: str, message: bytes, again: bool = True) -> Problem | None:
        headers = {"Content-Type": "application/json; charset=utf-8"}
        request = urllib.request.Request(url, message, headers)  # noqa: S310 - the scheme was checked
        try:
            with urllib.request.urlopen(request, timeout=10):  # noqa: S310 - likewise
                return None
        except urllib.error.HTTPError as error:
            with error:
                wait = error.headers.get("Retry-After", "")
            if error.code == 429 and again and wait.isdecimal() and int(wait) + 5 < self.seconds_left():
                self.sleep(int(wait))
                return self._post(url, message, again=False)
            self.secret.forget()
            return Problem(f"Slack: HTTP status {error.code}", retryable=error.code != 400)
        except (OSError, HTTPException) as error:
            # Its words could hold the URL; its kind does not.
            return Problem(f"Slack: {type(error).__name__}", retryable=True)


def masked(alert: Alert) -> Alert:
    """The alert with card numbers masked in all its texts but the ids that receivers join on.

    Example:
        >>> masked({"alert_id": "4111111111111111", "customer_id": "4111111111111111", "amount_minor": 100})
        {'alert_id': '4111111111111111', 'customer_id': '************1111', 'amount_minor': 100}
    """
    return {name: value if name in _JOINED_ON else _masked(value) for name, value in alert.items()}


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask_card_numbers(value)
    if isinstance(value, list):
        return [_masked(each) for each in value]
    if isinstance(value, dict):
        return {name: _masked(each) for name, each in value.items()}
    return value


def _digest(text: str) -> str:
    """Any text as SNS takes ids: at most 128 letters and digits, and no card number."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _url_in(secret: str) -> str:
    if not secret.startswith("{"):
        return secret
    try:
        content = json.loads(secret)
    except ValueError:
        return ""
    return str(content.get("webhook_url", "")) if isinstance(content, dict) else ""
