"""The servers that users and tests start: real, on loopback, and alive again after any death."""

from __future__ import annotations

import base64
import json
import socket
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from confluent_kafka import KafkaError, Producer

from runners.local import (
    S3,
    Aws,
    DynamoDb,
    Kafka,
    KafkaOauth,
    KafkaScram,
    Kinesis,
    KinesisLocal,
    LambdaEmulator,
    Postgres,
    free_port,
)
from runners.local.certificates import certificates
from tests.integration.conftest import at_hand
from transforms.errors import UserError


def test_kafka_keeps_its_topics_and_its_port_when_it_is_killed(kafka: Kafka) -> None:
    """A broker that was killed comes back at the same address with what it had."""
    kafka.create_topic("kept", 2)
    kafka.kill()
    assert not kafka.is_running()
    kafka.start()
    topics = kafka.admin().list_topics(timeout=10.0).topics
    assert [len(topics[name].partitions) for name in ("transaction-events", "kept")] == [3, 2]


# What a client is told once and for all; anything else (a broker that is still starting) librdkafka tries again.
FINAL = {KafkaError._AUTHENTICATION, KafkaError._SSL}


def what_goes_wrong(broker: KafkaScram | KafkaOauth, **settings: Any) -> str:
    """What a client is told that sends one message; empty when the message arrives."""
    told: list[KafkaError] = []
    address = {
        "bootstrap.servers": broker.bootstrap,
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": broker.mechanism,
    }
    quiet = {"log_level": 0, "error_cb": told.append}
    producer = Producer({"ssl.ca.location": str(broker.ca), **address, **quiet, **settings})
    producer.produce("transaction-events", b"{}")
    deadline = time.monotonic() + 60.0
    while producer.flush(0.1) and time.monotonic() < deadline:
        if any(error.code() in FINAL for error in told):
            break
    left = len(producer)
    producer.purge()
    return "; ".join(map(str, told)) or "no answer" if left else ""


def test_kafka_with_scram_lets_in_who_knows_the_password(kafka_scram: KafkaScram, tmp_path: Path) -> None:
    """The password is enough; another password, or trust in another authority than the broker's, is not."""
    others = certificates(tmp_path / "certificates").authority
    login = {"sasl.username": kafka_scram.username, "sasl.password": kafka_scram.password}
    assert what_goes_wrong(kafka_scram, **login) == ""
    assert "invalid credentials" in what_goes_wrong(kafka_scram, **login | {"sasl.password": "another"})
    assert "certificate verify failed" in what_goes_wrong(kafka_scram, **login, **{"ssl.ca.location": str(others)})


def signed_url(secret_key: str, service: str = "kafka-cluster", expires: int = 900) -> str:
    """A token as MSK's IAM access control wants it, when nothing else is asked for."""
    request = AWSRequest("GET", "https://kafka.us-east-1.amazonaws.com/?Action=kafka-cluster%3AConnect")
    SigV4QueryAuth(Credentials("local", secret_key), service, "us-east-1", expires).add_auth(request)
    return base64.urlsafe_b64encode(f"{request.url}&User-Agent=test".encode()).decode().rstrip("=")


# Tokens are signed when a test asks for them: they are good for 15 minutes, and the tests before may take longer.
@pytest.mark.parametrize(
    ("token", "accepted"),
    [
        (lambda: signed_url("local-secret"), True),
        (lambda: signed_url("another key"), False),
        (lambda: signed_url("local-secret", service="s3"), False),
        (lambda: signed_url("local-secret", expires=-1), False),
        (lambda: "nonsense", False),
    ],
    ids=["signed", "another key", "another service", "expired", "nonsense"],
)
def test_kafka_with_oauth_lets_in_who_has_signed_as_msk_wants(
    kafka_oauth: KafkaOauth, token: Callable[[], str], accepted: bool
) -> None:
    """A URL signed with the right key for the right service and not expired is enough, and nothing less is."""
    told = what_goes_wrong(kafka_oauth, oauth_cb=lambda _: (token(), time.time() + 900))
    if accepted:
        assert told == ""
    else:
        assert "invalid_token" in told


def test_postgres_keeps_what_was_committed_when_it_is_killed(postgres: Postgres) -> None:
    """Rows that were committed are there after a kill, and those that were not are not."""
    with postgres.connect() as connection:
        connection.execute("CREATE TABLE kept (id int)")
    with postgres.connect() as connection:
        connection.execute("INSERT INTO kept VALUES (1)")
        connection.commit()
        connection.execute("INSERT INTO kept VALUES (2)")
        postgres.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    postgres.start()
    with postgres.connect() as connection:
        assert connection.execute("SELECT id FROM kept").fetchall() == [(1,)]
        connection.execute("DROP TABLE kept")


def test_postgres_asks_for_the_password_of_its_passfile(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the passfile the URL is enough to connect; without it nobody gets in."""
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(postgres.url, passfile="/nowhere")
    for name, value in postgres.environment.items():
        monkeypatch.setenv(name, value)
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT current_user, current_database()").fetchall() == [("fraud", "fraud")]
    assert postgres.passfile.stat().st_mode & 0o777 == 0o600


def test_dynamodb_keeps_its_items_when_it_is_killed(dynamodb: DynamoDb) -> None:
    """An item that was put is there after a kill, and its condition still holds."""
    client = dynamodb.client()
    client.create_table(
        TableName="kept",
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    item = {"pk": {"S": "one"}}
    client.put_item(TableName="kept", Item=item)
    dynamodb.kill()
    dynamodb.start()
    assert client.scan(TableName="kept")["Items"] == [item]
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        client.put_item(TableName="kept", Item=item, ConditionExpression="attribute_not_exists(pk)")
    client.delete_table(TableName="kept")


@pytest.mark.parametrize("name", ["kinesis", "kinesis_local"])
def test_kinesis_keeps_its_records_when_it_is_killed(name: str, request: pytest.FixtureRequest) -> None:
    """A record that was put is read after a kill, from the stream of transactions and its two shards."""
    kinesis: Kinesis | KinesisLocal = request.getfixturevalue(name)
    client, stream = kinesis.client(), "transaction-events"
    put = client.put_record(StreamName=stream, Data=b"kept", PartitionKey="a")
    time.sleep(1.5)  # kinesis-local saves every second
    kinesis.kill()
    kinesis.start()
    assert len(client.list_shards(StreamName=stream)["Shards"]) == 2
    where = {"StreamName": stream, "ShardId": put["ShardId"], "StartingSequenceNumber": put["SequenceNumber"]}
    iterator = client.get_shard_iterator(**where, ShardIteratorType="AT_SEQUENCE_NUMBER")["ShardIterator"]
    assert [record["Data"] for record in client.get_records(ShardIterator=iterator)["Records"]] == [b"kept"]


def test_s3_keeps_its_objects_when_it_is_killed(s3: S3) -> None:
    """An object is there after a kill, and is not written over on the condition that there is none."""
    client = s3.client()
    client.put_object(Bucket="fraud", Key="kept/one", Body=b"content", Metadata={"of": "it"})
    s3.kill()
    s3.start()
    found = client.get_object(Bucket="fraud", Key="kept/one")
    assert (found["Body"].read(), found["Metadata"]) == (b"content", {"of": "it"})
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket="fraud", Key="kept/one", Body=b"other", IfNoneMatch="*")


def test_aws_runs_a_function_and_keeps_its_messages_when_it_is_stopped(aws: Aws, tmp_path: Path) -> None:
    """A function's code really runs, before and after a stop, and a queue's messages are there again."""
    package = tmp_path / "function.zip"
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("doubling.py", "def handler(event, context):\n    return event * 2\n")
    aws.deploy_function("doubling", package, "doubling.handler")
    aws.client("sqs").send_message(QueueUrl=aws.queue_url, MessageBody="kept")
    for restart in (False, True):
        if restart:
            aws.stop()
            aws.start()
        assert aws.client("lambda").invoke(FunctionName="doubling", Payload=b"21")["Payload"].read() == b"42"
    (message,) = aws.client("sqs").receive_message(QueueUrl=aws.queue_url)["Messages"]
    assert message["Body"] == "kept"
    assert aws.client("sns").get_topic_attributes(TopicArn=aws.topic_arn)["Attributes"]["TopicArn"] == aws.topic_arn


def test_the_lambda_emulator_runs_a_zip_and_again_after_a_kill(
    lambda_emulator: Callable[..., LambdaEmulator], tmp_path: Path
) -> None:
    """The function gets its event and its variables, its errors are told, and it runs again when it was killed."""
    package = tmp_path / "function.zip"
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("dividing.py", "import os\ndef handler(event, context): return int(os.environ['N']) / event\n")
    emulator = lambda_emulator(package, "dividing.handler", {"N": "6"})
    assert emulator.invoke(3) == 2.0
    failed = emulator.invoke(0)
    assert isinstance(failed, dict)
    assert failed["errorType"] == "ZeroDivisionError"
    emulator.kill()
    emulator.start()
    assert emulator.invoke(2) == 3.0


def test_the_alert_function_is_there_once_its_zip_is(servers: Path, tmp_path: Path) -> None:
    """With the zip the function runs, with its table and its topic; after another start its code is the zip's again."""
    package = tmp_path / "fraud_alert.zip"
    aws = at_hand(Aws(servers / "aws-with-alerts", free_port(), package).start)
    assert ("--alert", "lambda://FraudAlertHandler") not in aws.urls
    for answer in ("first", "second"):
        with zipfile.ZipFile(package, "w") as archive:
            code = f"import os\ndef lambda_handler(event, context): return [{answer!r}, os.environ['ALERT_TABLE']]\n"
            archive.writestr("lambda_handler.py", code)
        aws.start()
        called = aws.client("lambda").invoke(FunctionName="FraudAlertHandler", Payload=b"{}")["Payload"].read()
        assert json.loads(called) == [answer, "fraud-alerts"]
    assert ("--alert", "lambda://FraudAlertHandler") in aws.urls
    assert aws.client("dynamodb").describe_table(TableName="fraud-alerts")["Table"]["TableStatus"] == "ACTIVE"
    aws.stop()


def test_nothing_listens_beyond_this_machine(
    kafka: Kafka,
    kinesis: Kinesis,
    kinesis_local: KinesisLocal,
    dynamodb: DynamoDb,
    postgres: Postgres,
    s3: S3,
    aws: Aws,
) -> None:
    """No server's port is open at any other of this machine's addresses."""
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for server in (kafka, kinesis, kinesis_local, dynamodb, postgres, s3, aws):
        for address in ("127.0.0.2", *others - {"127.0.0.1"}):  # 127.0.0.2: where there is no other, and on Linux
            with socket.socket() as client, pytest.raises(OSError, match=r"refused|unreachable|assign"):
                client.connect((address, server.port))


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_a_server_that_cannot_be_had_skips_tests_but_not_in_ci(
    ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is the error's words; where CI runs the tests it is a failure."""
    monkeypatch.setenv("CI", ci)

    def get() -> None:
        raise UserError("kafka needs java")

    with pytest.raises(outcome, match="kafka needs java"):
        at_hand(get)
