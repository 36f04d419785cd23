"""A stream that everything happens to: one cluster, one topic, one job, from the first test to the last.

`FAULTS=long` has every fault in the middle of everything, and `KILLS` (100) random kills from the seed `SEED`. How long
the job took to go on is printed in the end, and written as JSON to the file that `FAULTS_REPORT` names.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from io_connectors.kafka.connect import COMMITTERS, LOOKERS, READERS
from runners.flink.cluster import start_cluster, stop_cluster
from runners.local import Aws, DynamoDb, Kafka, Postgres
from tests.faults.kills import Recovery
from tests.faults.stream import PARTITIONS, Stream
from tests.faults.traffic import Traffic
from tests.integration.alert_servers import deploy
from tests.integration.conftest import at_hand, aws, dynamodb, kafka, postgres, servers  # noqa: F401 - fixtures of ours

_RECOVERIES: list[Recovery] = []
_RATE = 60.0  # transactions a second


@pytest.fixture(scope="module")
def stream(servers: Path, kafka: Kafka, postgres: Postgres, dynamodb: DynamoDb, aws: Aws) -> Iterator[Stream]:  # noqa: F811 - used
    """A job of one subtask between a topic that is written to and all sinks; a second TaskManager has nothing to do."""
    name, directory = "faults", Path(tempfile.mkdtemp(prefix="faults-", dir=servers))
    kafka.create_topic(name, PARTITIONS)
    function = deploy(aws, dynamodb, directory, f"{name}-alerts")
    with pytest.MonkeyPatch.context() as patch:
        for server in (postgres, dynamodb, aws):
            for variable, value in server.environment.items():
                patch.setenv(variable, value)  # the pool hands them to its workers
        home = servers / "faults-flink"
        cluster = at_hand(lambda: start_cluster(home, taskmanagers=2, slots=1, ports={"rest": 0, "workers": 0}))
        traffic = Traffic(f"kafka://{kafka.bootstrap}/{name}", _RATE)
        stream = Stream(cluster, kafka, postgres, dynamodb, aws, function, traffic, name, directory)
        try:
            stream.start(parallelism=1)
            with traffic:
                yield stream
        finally:
            stop_cluster(home)
            for pool in (READERS, LOOKERS, COMMITTERS):
                pool.close()


@pytest.fixture
def recovered() -> list[Recovery]:
    """Where tests leave what they have measured."""
    return _RECOVERIES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How soon the job went on after each fault."""
    if not _RECOVERIES:
        return
    terminalreporter.section("recovery, seconds")
    terminalreporter.line(f"{'fault':<24}{'mid-':<12}{'subtasks':>8}{'first new decision':>20}{'longest silence':>17}")
    for each in _RECOVERIES:
        line = f"{each.fault:<24}{each.mid:<12}{each.parallelism:>8}{each.first_decision:>20.1f}{each.silence:>17.1f}"
        terminalreporter.line(line)
    if report := os.environ.get("FAULTS_REPORT"):
        Path(report).parent.mkdir(parents=True, exist_ok=True)
        Path(report).write_bytes(msgspec.json.format(msgspec.json.encode(_RECOVERIES)) + b"\n")
