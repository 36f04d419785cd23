"""Which alerts were dealt with: one DynamoDB item an alert, so that each has its effects once.

An invocation first claims an alert. The claim is a lease that outlasts the invocation: should it die, the next one
takes over when the lease has run out, and repeats only the channels that are not recorded as done. `done` is final.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from alert_events import Problem, code_of

CLAIMED, DONE = "in_progress", "done"
_MINE_OR_FREE = "attribute_not_exists(alert_id) OR (#status = :claimed AND (lease_until < :now OR #owner = :owner))"


class Claim(NamedTuple):
    """What came of asking for an alert.

    Attributes:
        mine: whether this invocation is to deal with it.
        done: whether it was dealt with before.
        channels: those that have had it.
        problem: why it can be neither, now.
    """

    mine: bool = False
    done: bool = False
    channels: frozenset[str] = frozenset()
    problem: Problem | None = None


@dataclass(frozen=True)
class AlertLedger:
    """The table, as one invocation sees it.

    Attributes:
        dynamodb: a boto3 client, safe to use from many threads.
        table: its name.
        owner: names this invocation and no other.
        lease_until: when what it has claimed is free again, in seconds since 1970.
        forget_at: when items may be deleted, likewise.
        now: the time, likewise.
    """

    dynamodb: Any
    table: str
    owner: str
    lease_until: int
    forget_at: int
    now: Callable[[], float]

    def claim(self, alert_id: str) -> Claim:
        """Ask to deal with an alert."""
        try:
            answer = self._update(
                alert_id,
                "SET #status = :claimed, lease_until = :until, #owner = :owner, expires_at = :forget",
                _MINE_OR_FREE,
                {
                    ":claimed": {"S": CLAIMED},
                    ":until": {"N": str(self.lease_until)},
                    ":forget": {"N": str(self.forget_at)},
                    ":now": {"N": str(int(self.now()))},
                },
                ReturnValues="ALL_NEW",
            )
        except (ClientError, BotoCoreError) as error:
            held = _held_item(error)
            if held is None:
                return Claim(problem=_problem(error))
            if held["status"]["S"] == DONE:
                return Claim(done=True)
            return Claim(problem=Problem("another invocation is dealing with this alert", retryable=True))
        return Claim(mine=True, channels=frozenset(answer["Attributes"].get("channels", {}).get("SS", ())))

    def record(self, alert_id: str, channel: str, last: bool) -> Problem | None:
        """Write down that a channel has had an alert, and, with the `last` one, that it is dealt with for good."""
        update = "ADD channels :channel"
        values: dict[str, Any] = {":channel": {"SS": [channel]}}
        if last:
            update += " SET #status = :done, delivered_at = :now REMOVE lease_until, #owner"
            values |= {":done": {"S": DONE}, ":now": {"N": str(int(self.now()))}}
        try:
            self._update(alert_id, update, "#owner = :owner", values)
        except (ClientError, BotoCoreError) as error:
            held = _held_item(error)
            if held is None:
                return _problem(error)
            if channel not in held.get("channels", {}).get("SS", ()):  # or it was this call, whose answer was lost
                return Problem("the lease ran out, and another invocation has taken over", retryable=True)
        return None

    def release(self, alert_id: str) -> Problem | None:
        """Let the next invocation have an alert at once."""
        try:
            self._update(alert_id, "SET lease_until = :free", "#owner = :owner", {":free": {"N": "0"}})
        except (ClientError, BotoCoreError) as error:
            return _problem(error)  # the lease runs out by itself
        return None

    def _update(self, alert_id: str, update: str, condition: str, values: dict[str, Any], **more: Any) -> Any:
        names = {name: name[1:] for name in ("#status", "#owner") if name in update + condition}
        return self.dynamodb.update_item(
            TableName=self.table,
            Key={"alert_id": {"S": alert_id}},
            UpdateExpression=update,
            ConditionExpression=condition,
            ExpressionAttributeNames=names,
            ExpressionAttributeValues={**values, ":owner": {"S": self.owner}},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
            **more,
        )


def _held_item(error: Exception) -> dict[str, Any] | None:
    """What is in the table, where that is why a condition failed."""
    if isinstance(error, ClientError) and error.response["Error"]["Code"] == "ConditionalCheckFailedException":
        item: dict[str, Any] = error.response.get("Item", {})
        return item or {"status": {"S": CLAIMED}}
    return None


def _problem(error: ClientError | BotoCoreError) -> Problem:
    return Problem(f"the table of alerts: {code_of(error)}", retryable=True)
