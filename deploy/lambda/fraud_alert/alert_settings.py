"""What the alert function is told by its environment, checked before it does anything."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_TABLE = re.compile(r"[a-zA-Z0-9_.-]{3,255}|arn:aws[\w-]*:dynamodb:[\w-]+:\d{12}:table/[a-zA-Z0-9_.-]{3,255}")
_TOPIC = re.compile(r"arn:aws[\w-]*:sns:[\w-]+:\d{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?")
_SECRET = re.compile(r"arn:aws[\w-]*:secretsmanager:[\w-]+:\d{12}:secret:[\w/+=.@-]+")


class SettingsError(ValueError):
    """An environment variable of the function is missing or makes no sense; the message says which."""


@dataclass(frozen=True)
class AlertSettings:
    """What the function is to do.

    Attributes:
        table: DynamoDB table that remembers which alerts were dealt with.
        topic_arn: SNS topic that gets every alert.
        slack_secret_arn: secret that holds the URL of a Slack webhook.
        retention_days: how long an alert is remembered.
        minor_digits: decimals of amounts.
    """

    table: str
    topic_arn: str | None = None
    slack_secret_arn: str | None = None
    retention_days: int = 90
    minor_digits: int = 2


def settings_from(environment: Mapping[str, str]) -> AlertSettings:
    """The settings in ALERT_TABLE, ALERT_TOPIC_ARN, SLACK_SECRET_ARN, RETENTION_DAYS and MINOR_DIGITS.

    Raises:
        SettingsError: names the variable, what it holds and what it should.

    Example:
        >>> settings_from({"ALERT_TABLE": "fraud-alerts", "RETENTION_DAYS": "30",
        ...                "ALERT_TOPIC_ARN": "arn:aws:sns:eu-west-1:123456789012:fraud"}).retention_days
        30
    """
    settings = AlertSettings(
        table=_matching(environment, "ALERT_TABLE", _TABLE, "the name or ARN of a DynamoDB table") or "",
        topic_arn=_matching(environment, "ALERT_TOPIC_ARN", _TOPIC, "the ARN of an SNS topic"),
        slack_secret_arn=_matching(environment, "SLACK_SECRET_ARN", _SECRET, "the ARN of a secret"),
        retention_days=_whole(environment, "RETENTION_DAYS", 90, 1, 3650),
        minor_digits=_whole(environment, "MINOR_DIGITS", 2, 0, 4),
    )
    if not settings.table:
        raise SettingsError("ALERT_TABLE is not set; it must name the DynamoDB table that remembers alerts")
    if not settings.topic_arn and not settings.slack_secret_arn:
        raise SettingsError("alerts have nowhere to go: set ALERT_TOPIC_ARN, SLACK_SECRET_ARN or both")
    return settings


def _matching(environment: Mapping[str, str], name: str, form: re.Pattern[str], what: str) -> str | None:
    text = environment.get(name, "")
    if not text:
        return None
    if not form.fullmatch(text):
        # What was meant for another place, such as a webhook's URL, must not end up in a log.
        raise SettingsError(f"{name} must be {what}; what it holds is none")
    return text


def _whole(environment: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = environment.get(name, "") or str(default)
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not least <= int(text) <= most:
        raise SettingsError(f"{name} must be a whole number from {least} to {most}; found {text!r}")
    return int(text)
