"""The alert function's zip in AWS's own emulator of the Lambda runtime, called by the pipeline's sink."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from io_connectors.delivery import Message
from io_connectors.lambda_function import LambdaSink
from io_connectors.retry import Backoff
from runners.local import Aws, DynamoDb, LambdaEmulator
from tests.integration.alert_servers import alert_items, create_alert_table, create_topic, drain
from tests.integration.sink_conformance import messages, send_all

build = import_module("deploy.lambda.build").build  # "lambda" is a keyword
HANDLER = "lambda_handler.lambda_handler"
Start = Callable[..., LambdaEmulator]


@dataclass(frozen=True)
class Emulated:
    """The function as the emulator runs it, and what it has told and written down."""

    emulator: LambdaEmulator
    sink: LambdaSink
    table: str
    seen: str


@pytest.fixture
def function(
    aws: Aws, dynamodb: DynamoDb, lambda_emulator: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Emulated:
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    name = f"emulated-{uuid4().hex}"
    topic, seen = create_topic(aws, name)
    create_alert_table(dynamodb, name)
    build(tmp_path / "fraud_alert.zip")
    variables = {
        "ALERT_TABLE": name,
        "ALERT_TOPIC_ARN": topic,
        "AWS_ENDPOINT_URL_DYNAMODB": dynamodb.endpoint,
        "AWS_ENDPOINT_URL_SNS": aws.endpoint,
    }
    emulator = lambda_emulator(tmp_path / "fraud_alert.zip", HANDLER, variables)
    backoff = Backoff(first=0.05, most=0.5, give_up_after=20)
    # One call at a time is all that the emulator stands.
    return Emulated(
        emulator, LambdaSink("function", concurrency=1, backoff=backoff, endpoint=emulator.endpoint), name, seen
    )


def test_the_zip_tells_each_alert_once(aws: Aws, dynamodb: DynamoDb, function: Emulated) -> None:
    """What is sent again is known, and what is no alert is refused alone."""
    sent = messages(120)
    send_all(function.sink, sent)
    send_all(function.sink, sent[50:])
    writer = function.sink.open(lambda error: None)
    (refused,) = writer.write([*messages(2, "b"), Message("poison", b'{"alert_id":""}')])
    writer.close()
    assert (refused.at, refused.reason) == (2, "function_refused")
    seen = sorted(message["Body"].encode() for message in drain(aws, function.seen))
    assert seen == [message.body for message in [*sent, *messages(2, "b")]]
    assert {item["status"]["S"] for item in alert_items(dynamodb, function.table).values()} == {"done"}


def test_what_the_function_raises_fails_the_call(function: Emulated) -> None:
    """An asynchronous call with a bad alert in it fails, which is what makes Lambda keep it."""
    answer: Any = function.emulator.invoke({"alerts": [{"alert_id": "good"}, 7]})
    assert answer["errorType"] == "AlertsFailedError"
    assert answer["errorMessage"] == "1 alerts were not delivered; the first: an alert must be a JSON object"


def test_settings_that_are_missing_are_said_by_the_function(lambda_emulator: Start, tmp_path: Path) -> None:
    """A function deployed without its table says so, and not something about a key."""
    build(tmp_path / "fraud_alert.zip")
    answer: Any = lambda_emulator(tmp_path / "fraud_alert.zip", HANDLER).invoke({"alerts": []})
    assert answer["errorType"] == "SettingsError"
    assert "ALERT_TABLE is not set" in json.dumps(answer)
