"""What tests of alerts share: topics with a queue behind them, the alert function deployed, and a Slack of our own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

from runners.local import Aws, DynamoDb

build = import_module("deploy.lambda.build").build  # "lambda" is a keyword


def create_queue(aws: Aws, name: str, **attributes: str) -> str:
    """A queue's URL; a name that ends in .fifo makes it one."""
    if name.endswith(".fifo"):
        attributes["FifoQueue"] = "true"
    url: str = aws.client("sqs").create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    return url


def queue_arn(aws: Aws, url: str) -> str:
    """A queue's ARN."""
    answer = aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return str(answer["Attributes"]["QueueArn"])


def create_topic(aws: Aws, name: str) -> tuple[str, str]:
    """A topic's ARN, and the URL of a queue that gets all its messages as they were published."""
    attributes = {"FifoTopic": "true"} if name.endswith(".fifo") else {}
    topic: str = aws.client("sns").create_topic(Name=name, Attributes=attributes)["TopicArn"]
    queue = create_queue(aws, f"{name.removesuffix('.fifo')}-seen{'.fifo' if attributes else ''}")
    aws.client("sns").subscribe(
        TopicArn=topic, Protocol="sqs", Endpoint=queue_arn(aws, queue), Attributes={"RawMessageDelivery": "true"}
    )
    return topic, queue


def drain(aws: Aws, queue: str) -> list[dict[str, Any]]:
    """Every message that a queue holds; it is empty afterwards."""
    client = aws.client("sqs")
    found: list[dict[str, Any]] = []
    while True:
        answer = client.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, MessageAttributeNames=["All"])
        messages = answer.get("Messages", [])
        if not messages:
            return found
        found += messages
        handles = [{"Id": str(at), "ReceiptHandle": m["ReceiptHandle"]} for at, m in enumerate(messages)]
        client.delete_message_batch(QueueUrl=queue, Entries=handles)


@dataclass
class Slack:
    """A webhook: keeps what is posted, and answers with the next of `answers`, or 200."""

    url: str = ""
    texts: list[str] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)


@contextmanager
def slack_webhook() -> Iterator[Slack]:
    """A Slack on loopback."""
    slack = Slack()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"]
            status, headers = slack.answers.pop(0) if slack.answers else (200, {})
            if status == 200:
                slack.texts.append(text)
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    slack.url = f"http://127.0.0.1:{server.server_address[1]}/services/T0/B0/secretword"
    try:
        yield slack
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def create_alert_table(dynamodb: DynamoDb, name: str) -> None:
    """The table that the alert function needs, as its README creates it."""
    dynamodb.client().create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "alert_id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "alert_id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )


def alert_items(dynamodb: DynamoDb, table: str) -> dict[str, dict[str, Any]]:
    """The items of an alert table by alert."""
    pages = dynamodb.client().get_paginator("scan").paginate(TableName=table)
    return {item["alert_id"]["S"]: item for page in pages for item in page["Items"]}


@dataclass(frozen=True)
class DeployedFunction:
    """The alert function with a topic and a table of its own.

    Attributes:
        name: of the function.
        environment: its variables.
        topic: its SNS topic.
        seen: the queue that gets what is published there.
        table: its DynamoDB table.
    """

    name: str
    environment: Mapping[str, str]
    topic: str
    seen: str
    table: str


def deploy(
    aws: Aws, dynamodb: DynamoDb, directory: Path, name: str, fifo: bool = False, secret: str = ""
) -> DeployedFunction:
    """Build the alert function and deploy it with what it needs.

    Args:
        aws, dynamodb: the servers.
        directory: for the zip.
        name: of the function, and of all else.
        fifo: whether its topic is a FIFO topic.
        secret: the ARN of a Slack webhook's secret.
    """
    topic, seen = create_topic(aws, f"{name}.fifo" if fifo else name)
    create_alert_table(dynamodb, name)
    environment = {
        "ALERT_TABLE": name,
        "ALERT_TOPIC_ARN": topic,
        "AWS_ENDPOINT_URL_DYNAMODB": dynamodb.endpoint,
        **({"SLACK_SECRET_ARN": secret} if secret else {}),
    }
    build(directory / "fraud_alert.zip")
    aws.deploy_function(name, directory / "fraud_alert.zip", "lambda_handler.lambda_handler", environment)
    return DeployedFunction(name, environment, topic, seen, name)
