"""What the alert function is called with, whoever calls it, as alerts; and what it answers each caller."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

Alert = dict[str, Any]
Caller = Literal["request", "event", "sqs"]


class UnknownEventError(ValueError):
    """The function was called with something that holds no alerts."""


class AlertsFailedError(Exception):
    """Some alerts were not delivered; Lambda calls the function again, or hands the event to its on-failure target."""


class Problem(NamedTuple):
    """Why an alert was not delivered.

    Attributes:
        error: what went wrong, without anything from the alert.
        retryable: whether it may work later.
    """

    error: str
    retryable: bool


class Received(NamedTuple):
    """One alert, or what should have been one.

    Attributes:
        alert: its fields; None where there is none.
        record: the id of the record it came in, where records can fail one by one.
        problem: what is wrong with it, where it is no alert.
    """

    alert: Alert | None
    record: str = ""
    problem: Problem | None = None

    @property
    def alert_id(self) -> str | None:
        """The alert's id."""
        return self.alert["alert_id"] if self.alert else None


def code_of(error: ClientError | BotoCoreError) -> str:
    """AWS's code of an error, or the name of an error that got no answer. Neither says anything of an alert."""
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else type(error).__name__


@dataclass(frozen=True)
class Results:
    """What became of the alerts of one call.

    Attributes:
        delivered: how many had their effect now.
        duplicates: how many had had it before.
        failed: those that have not, and why.
    """

    delivered: int
    duplicates: int
    failed: Sequence[tuple[Received, Problem]]


def alerts_in(event: Any) -> tuple[Caller, list[Received]]:
    """Who is calling, and the alerts that are brought.

    `request`: the pipeline, which waits for the answer. `event`: somebody who does not. `sqs`: a queue.

    Raises:
        UnknownEventError: it is no call that this function knows.

    Example:
        >>> alerts_in({"alerts": [{"alert_id": "a1"}]})
        ('event', [Received(alert={'alert_id': 'a1'}, record='', problem=None)])
    """
    if isinstance(event, Mapping) and isinstance(event.get("alerts"), list):
        _check_version(event)
        caller: Caller = "request" if event.get("invocation") == "RequestResponse" else "event"
        return caller, [_checked(alert) for alert in event["alerts"]]
    records = event.get("Records") if isinstance(event, Mapping) else None
    if isinstance(records, list) and all(isinstance(record, Mapping) for record in records):
        if all(record.get("eventSource") == "aws:sqs" for record in records):
            return "sqs", [each for r in records for each in _in_text(r.get("body"), str(r.get("messageId", "")))]
        if all(record.get("EventSource") == "aws:sns" for record in records):
            return "event", [each for r in records for each in _in_text(r.get("Sns", {}).get("Message"))]
    raise UnknownEventError('called with neither {"alerts": [...]} nor records of SQS or SNS')


def answer_to(caller: Caller, results: Results) -> dict[str, Any]:
    """What the caller is told.

    Raises:
        AlertsFailedError: something failed, and an exception is the only way to tell this caller.
    """
    if caller == "sqs":
        failed = dict.fromkeys(received.record for received, _ in results.failed)
        return {"batchItemFailures": [{"itemIdentifier": record} for record in failed]}
    if caller == "event" and results.failed:
        first = results.failed[0][1].error
        raise AlertsFailedError(f"{len(results.failed)} alerts were not delivered; the first: {first}")
    return {
        "delivered": results.delivered,
        "duplicates": results.duplicates,
        "failed": [
            {"alert_id": received.alert_id, "error": problem.error, "retryable": problem.retryable}
            for received, problem in results.failed
        ],
    }


def _check_version(event: Mapping[str, Any]) -> None:
    if event.get("version", 1) != 1:
        raise UnknownEventError(
            f"the call is of version {event['version']!r}; this function knows version 1: update it"
        )


def _in_text(text: Any, record: str = "") -> Iterator[Received]:
    """The alerts in a message's body: one, many as in a direct call, or what SNS wraps around either."""
    try:
        content = json.loads(text)
    except (TypeError, ValueError):
        yield Received(None, record, Problem("the message is no JSON", retryable=False))
        return
    if isinstance(content, dict) and content.get("Type") == "Notification" and "Message" in content:
        yield from _in_text(content["Message"], record)
    elif isinstance(content, dict) and isinstance(content.get("alerts"), list):
        yield from (_checked(alert, record) for alert in content["alerts"])
    else:
        yield _checked(content, record)


def _checked(alert: Any, record: str = "") -> Received:
    if not isinstance(alert, dict):
        return Received(None, record, Problem("an alert must be a JSON object", retryable=False))
    name = alert.get("alert_id")
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= 256:
        problem = Problem("the alert has no alert_id: text of 1 to 256 printable characters", retryable=False)
        return Received(None, record, problem)
    return Received(alert, record)
