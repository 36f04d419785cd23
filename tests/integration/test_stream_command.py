"""The command on an endless source: what comes out of a broker ends up in every sink, and the run ends when told to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from io_connectors.delivery import Message
from io_connectors.kafka.connect import COMMITTERS, LOOKERS, READERS
from io_connectors.sinks import message_sink
from pipelines.produce import main as produce
from runners.local import Aws, DynamoDb, Kafka, Kinesis, Postgres
from tests.command import run_command
from tests.integration.alert_servers import alert_items, deploy, drain

ROOT = Path(__file__).parents[2]
COUNT = 600
#: A tenth of the transactions is above this.
RULE = '[[rules]]\nname = "large"\nwhen = "amount > 120"\naction = "review"\n'
PATIENCE = 120.0


@pytest.fixture(autouse=True)
def _no_connections_left() -> Iterator[None]:
    yield
    for pool in (READERS, LOOKERS, COMMITTERS):
        pool.close()


def environment_of(*servers: Any) -> dict[str, str]:
    return {name: value for server in servers for name, value in server.environment.items()}


@contextmanager
def running(environment: Mapping[str, str], *flags: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m pipelines.fraud` with these flags, killed if it still runs at the end."""
    command = [sys.executable, "-m", "pipelines.fraud", "--runner=DirectRunner", "--quiet", *flags]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until(done: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something is so; the run must go on meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        if process.poll() is not None:
            pytest.fail(f"the run ended: {process.communicate()}")
        if time.monotonic() > deadline:
            pytest.fail("it did not happen in time")
        time.sleep(0.2)


@pytest.fixture(params=["kafka", "kinesis"])
def stream(request: pytest.FixtureRequest) -> tuple[str, str, Any]:
    """The URLs to send to and to read from, and the server."""
    if request.param == "kafka":
        kafka: Kafka = request.getfixturevalue("kafka")
        kafka.create_topic("stream-command", 3)
        url = f"kafka://{kafka.bootstrap}/stream-command"
        return url, f"{url}?start=earliest&group=stream-command", kafka
    kinesis: Kinesis = request.getfixturevalue("kinesis")
    kinesis.create_stream("stream-command", 2)
    return "kinesis://stream-command", "kinesis://stream-command?start=earliest", kinesis


def test_a_stream_reaches_every_sink_and_stops_when_told(
    stream: tuple[str, str, Any],
    postgres: Postgres,
    dynamodb: DynamoDb,
    aws: Aws,
    prism: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PostgreSQL and DynamoDB hold each transaction once with the same score, each alert has had its effect once."""
    sent_to, read_from, server = stream
    name = f"stream-{server.name}"
    function = deploy(aws, dynamodb, tmp_path, name, fifo=True)
    environment = {**environment_of(postgres, dynamodb, aws, server), "PRISM": str(prism)}
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    (tmp_path / "fraud.toml").write_text(RULE)
    flags = [
        *("--source", read_from, "--schema", "transaction-events", "--config", str(tmp_path / "fraud.toml")),
        *("--sink", f"{postgres.url}/public/{server.name}_decisions?create=true"),
        *("--sink", f"dynamodb://{name}-decisions?create=true"),
        *("--alert", f"lambda://{function.name}", "--dead_letters", f"file:{tmp_path / 'dead.jsonl'}"),
        *("--output", str(tmp_path / "output")),
    ]
    simulated = ["--source", "simulator:?customers=20000&terminals=2000&days=1", "--rate", "300", "--quiet"]
    assert produce([*simulated, "--count", str(COUNT), "--sink", sent_to]) == 0

    def rows() -> dict[str, tuple[float, str]]:
        with postgres.connect() as connection:
            found = connection.execute("select to_regclass(%s)", [f"public.{server.name}_decisions"]).fetchone()
            if found is None or found[0] is None:
                return {}
            read = connection.execute(f"select transaction_id, score, decision from {server.name}_decisions")  # noqa: S608 - a name of ours
            return {row[0]: (row[1], row[2]) for row in read.fetchall()}

    def items() -> dict[str, tuple[float, str]]:
        if f"{name}-decisions" not in dynamodb.client().list_tables()["TableNames"]:
            return {}
        pages = dynamodb.client().get_paginator("scan").paginate(TableName=f"{name}-decisions")
        found = [item for page in pages for item in page["Items"]]
        return {row["transaction_id"]["S"]: (float(row["score"]["N"]), row["decision"]["S"]) for row in found}

    with running(environment, *flags) as process:
        wait_until(lambda: len(rows()) >= COUNT and len(items()) >= COUNT, process)
        alerts = {transaction for transaction, (_, decision) in rows().items() if decision != "approve"}
        wait_until(lambda: len(alert_items(dynamodb, function.table)) >= len(alerts), process)
        time.sleep(1)  # the last bundle ends a moment after its effects
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err.splitlines()) == (
        130,
        ["stopped: what the sinks hold stands; records that were on their way to them are not in it"],
    )
    assert "TRANSACTIONS" in out
    figures = json.loads((tmp_path / "output" / "summary.json").read_bytes())
    assert figures["read"] == figures["transactions"] == COUNT
    assert items() == rows()
    assert len(alerts) > COUNT / 50
    told = [json.loads(message["Body"]) for message in drain(aws, function.seen)]
    assert sorted(alert["transaction_id"] for alert in told) == sorted(alerts)
    assert (tmp_path / "dead.jsonl").read_bytes() == b""
    if isinstance(server, Kafka):
        assert sum(committed(server, "stream-command", "stream-command", 3)) == COUNT


def committed(kafka: Kafka, group: str, topic: str, partitions: int) -> list[int]:
    """A group's offsets of a topic."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": group, "log_level": 0})
    try:
        places = consumer.committed([TopicPartition(topic, partition) for partition in range(partitions)], 30)
    finally:
        consumer.close()
    return [place.offset for place in places]


def test_a_groups_offsets_say_how_far_the_sinks_have_come(kafka: Kafka, tmp_path: Path) -> None:
    """Of decisions, of records that were refused, and of duplicates: each is in a sink when its offset is committed."""
    kafka.create_topic("group-command", 2)
    url = f"kafka://{kafka.bootstrap}/group-command"
    source = ["--source", "simulator:?customers=500&days=2", "--times", "recorded", "--quiet", "--sink", url]
    assert produce([*source, "--count", "300"]) == 0
    assert produce([*source, "--count", "40"]) == 0  # the first ones once more
    message_sink(url, "--sink").open(lambda error: None).write([Message("poison", b"{")])
    run = run_command(tmp_path, "--source", f"{url}?until=latest&group=group-command", "--schema", "transaction-events")
    assert run.code == 0
    assert run.summary["dead_letters"] == {"duplicate": 40, "json_invalid": 1}
    assert sum(committed(kafka, "group-command", "group-command", 2)) == 341


def test_without_prism_an_endless_source_is_refused_at_once(kafka: Kafka, tmp_path: Path) -> None:
    """It names the ways out, and does not hang."""
    kafka.create_topic("stream-refused", 1)
    environment = {"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path), "PRISM": ""}
    with running(
        environment, "--source", f"kafka://{kafka.bootstrap}/stream-refused", "--output", str(tmp_path)
    ) as run:
        _, err = run.communicate(timeout=60)
    assert run.returncode == 2
    assert err.count("\n") == 1
    for way_out in ("python -m runners.prism get", "until=latest", "max_duration=", "--runner=FlinkRunner"):
        assert way_out in err


def test_a_topic_gives_the_decisions_that_the_simulator_gives(kafka: Kafka, tmp_path: Path) -> None:
    """Spread over partitions and read in turns, no transaction is late, and each has the same features and score."""
    kafka.create_topic("same-command", 3)
    url = f"kafka://{kafka.bootstrap}/same-command"
    simulator = "simulator:?customers=500&days=12"
    assert produce(["--source", simulator, "--times", "recorded", "--quiet", "--sink", url]) == 0
    direct = run_command(tmp_path / "direct", "--source", simulator, "--schema", "transaction-events")
    through = run_command(tmp_path / "through", "--source", f"{url}?until=latest", "--schema", "transaction-events")
    assert (direct.code, through.code, through.summary["late"]) == (0, 0, 0)
    assert len(direct.decisions) > 10_000
    assert through.decisions.equals(direct.decisions)
