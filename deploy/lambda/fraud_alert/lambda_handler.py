"""The alert function: tells people of fraud alerts, each once.

`lambda_handler.lambda_handler` is its handler. README.md beside it says what it is called with, what it answers, and
what it needs. It uses Python's own library and boto3, which Lambda's runtime brings.
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import boto3
from botocore.config import Config

from alert_channels import Channel, SlackChannel, TopicChannel, WebhookSecret
from alert_events import Alert, Problem, Received, Results, alerts_in, answer_to
from alert_ledger import AlertLedger, Claim
from alert_settings import AlertSettings, settings_from

RESERVE = 3.0  # seconds before the function is stopped in which nothing new is begun
LEASE_MARGIN = 5  # seconds by which a lease outlasts its invocation
THREADS = 8


def lambda_handler(event: Any, context: Any) -> dict[str, Any]:
    """What Lambda calls.

    Raises:
        SettingsError: an environment variable is missing or makes no sense.
        UnknownEventError: the call holds no alerts.
        AlertsFailedError: an asynchronous call's alerts were not all delivered.
    """

    def seconds_left() -> float:
        return float(context.get_remaining_time_in_millis()) / 1000

    started = time.monotonic()
    clients = _clients()
    caller, received = alerts_in(event)
    results = deliver(received, ledger_of(clients, seconds_left()), channels_of(clients, seconds_left), seconds_left)
    _log(caller, results, getattr(context, "aws_request_id", ""), time.monotonic() - started)
    return answer_to(caller, results)


@dataclass(frozen=True)
class Clients:
    """What is made once and serves every invocation of this process."""

    settings: AlertSettings
    dynamodb: Any
    sns: Any
    webhook: WebhookSecret | None


@lru_cache(maxsize=1)
def _clients() -> Clients:
    return make_clients(os.environ)


def make_clients(environment: Mapping[str, str]) -> Clients:
    """The clients that an environment asks for.

    Raises:
        SettingsError: a variable is missing or makes no sense.
    """
    settings = settings_from(environment)
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 4},
        connect_timeout=3,
        read_timeout=10,
        max_pool_connections=THREADS,
    )
    session, secret = boto3.session.Session(), settings.slack_secret_arn
    return Clients(
        settings,
        session.client("dynamodb", config=config),
        session.client("sns", config=config),
        WebhookSecret(session.client("secretsmanager", config=config), secret) if secret else None,
    )


def ledger_of(clients: Clients, seconds_left: float) -> AlertLedger:
    """The table of alerts as one invocation sees it, which has so long to run."""
    now = int(time.time())
    return AlertLedger(
        clients.dynamodb,
        clients.settings.table,
        owner=uuid.uuid4().hex,  # a repeated invocation has the request id of the first
        lease_until=now + int(seconds_left) + LEASE_MARGIN,
        forget_at=now + clients.settings.retention_days * 86_400,
        now=time.time,
    )


def channels_of(clients: Clients, seconds_left: Callable[[], float]) -> list[Channel]:
    """Where alerts go."""
    settings = clients.settings
    channels: list[Channel] = []
    if settings.topic_arn:
        channels.append(TopicChannel(clients.sns, settings.topic_arn, settings.minor_digits))
    if clients.webhook:
        channels.append(SlackChannel(clients.webhook, settings.minor_digits, seconds_left))
    return channels


def deliver(
    received: Sequence[Received], ledger: AlertLedger, channels: Sequence[Channel], seconds_left: Callable[[], float]
) -> Results:
    """Send every alert to every channel that has not had it; what became of each."""
    alerts: dict[str, Alert] = {}
    repeated = 0
    for each in received:
        if each.alert is not None:
            repeated += each.alert["alert_id"] in alerts
            alerts.setdefault(each.alert["alert_id"], each.alert)
    with ThreadPoolExecutor(THREADS) as pool:
        claims = dict(zip(alerts, pool.map(ledger.claim, alerts), strict=True))
        problems = {name: claim.problem for name, claim in claims.items() if claim.problem}
        mine = {name: claim for name, claim in claims.items() if claim.mine}
        problems |= _send_all(alerts, mine, ledger, channels, seconds_left, pool)
        list(pool.map(ledger.release, [name for name in mine if name in problems]))
    failed = [(each, each.problem or problems.get(each.alert_id or "")) for each in received]
    return Results(
        delivered=len(mine.keys() - problems.keys()),
        duplicates=repeated + sum(claim.done for claim in claims.values()),
        failed=[(each, problem) for each, problem in failed if problem],
    )


def _send_all(
    alerts: Mapping[str, Alert],
    mine: Mapping[str, Claim],
    ledger: AlertLedger,
    channels: Sequence[Channel],
    seconds_left: Callable[[], float],
    pool: ThreadPoolExecutor,
) -> dict[str, Problem]:
    """Send what was claimed, channel by channel, and write down each success before the next; what failed, by id."""
    problems: dict[str, Problem] = {}
    missing = {name: {channel.name for channel in channels} - claim.channels for name, claim in mine.items()}
    for name in [name for name, left in missing.items() if not left]:
        # It went everywhere that is configured now, and was waiting for a channel that no longer is.
        ledger.record(name, channels[0].name, last=True)
    for channel in channels:
        waiting = [name for name in mine if channel.name in missing[name]]
        for names in _chunks(waiting, channel.most):
            if seconds_left() < RESERVE:
                problems |= dict.fromkeys(names, Problem("the function ran out of time", retryable=True))
                continue
            failed = channel.send([alerts[name] for name in names])
            problems |= failed
            sent = [name for name in names if name not in failed]
            for name in sent:
                missing[name].discard(channel.name)
            record = [(name, channel.name, not missing[name]) for name in sent]
            unrecorded = zip(sent, pool.map(lambda each: ledger.record(*each), record), strict=True)
            problems |= {name: problem for name, problem in unrecorded if problem}
    return problems


def _chunks(names: Sequence[str], most: int) -> Iterable[Sequence[str]]:
    return (names[at : at + most] for at in range(0, len(names), most))


def _log(caller: str, results: Results, request_id: str, seconds: float) -> None:
    """One line of JSON: numbers, ids and causes, nothing of what the alerts say."""
    line = {
        "level": "ERROR" if results.failed else "INFO",
        "message": "alerts",
        "request_id": request_id,
        "caller": caller,
        "delivered": results.delivered,
        "duplicates": results.duplicates,
        "milliseconds": round(seconds * 1000),
        "failed": [
            {"alert_id": received.alert_id, "error": problem.error, "retryable": problem.retryable}
            for received, problem in results.failed
        ],
    }
    print(json.dumps(line), file=sys.stdout, flush=True)
