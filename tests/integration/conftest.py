"""Real servers for the tests: each is started when a test asks for it and serves all tests of the session.

A test that kills or stops a server starts it again. A server that cannot be had here skips the tests that need it,
with the reason; where `CI` is set it fails them: there nothing is skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

from runners.flink.cluster import FlinkCluster, start_cluster
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
    Server,
    free_port,
)
from runners.local.processes import reap
from runners.prism import get_prism
from transforms.errors import UserError

ROOT = Path(__file__).parents[2]
#: Ends the servers and removes what they have left, once its input ends: closed by the session, or by its death.
GUARD = """
import shutil, sys
from pathlib import Path
from runners.local import stop_all
sys.stdin.read()
for directory in [*filter(Path.is_dir, Path(sys.argv[1]).iterdir()), Path(sys.argv[1])]:
    stop_all(directory)  # a cluster has its processes a level below
shutil.rmtree(sys.argv[1])
"""

T = TypeVar("T")
S = TypeVar("S", bound=Server)


@pytest.fixture(scope="session")
def servers() -> Iterator[Path]:
    """A directory for servers; whatever runs in it is ended and removed when the session is over, however it ends."""
    directory = Path(tempfile.mkdtemp(prefix="fraud-servers-"))
    directory.chmod(0o755)  # a server that drops root's rights must reach its data
    # In a session of its own: what ends the tests, be it Ctrl-C, must not end it.
    guard = subprocess.Popen(
        [sys.executable, "-c", GUARD, directory], cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True
    )
    yield directory
    guard.communicate()
    reap()


def at_hand(get: Callable[[], T]) -> T:
    """What `get` returns; when this machine cannot have it, the test is skipped, or fails where CI runs it."""
    try:
        return get()
    except UserError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


def running(server: S) -> S:
    return at_hand(server.start)


@pytest.fixture(scope="session")
def kafka(servers: Path) -> Kafka:
    """A broker without authentication: `.bootstrap`, `.url`, `.create_topic(name, partitions)`."""
    return running(Kafka(servers / "kafka", free_port()))


@pytest.fixture(scope="session")
def kafka_scram(servers: Path) -> KafkaScram:
    """A broker with SASL_SSL and SCRAM-SHA-512: `.bootstrap`, `.url`, `.ca`, `.username`, `.password`."""
    return running(KafkaScram(servers / "kafka-scram", free_port()))


@pytest.fixture(scope="session")
def kafka_oauth(servers: Path) -> KafkaOauth:
    """A broker with SASL_SSL that wants MSK's tokens: `.bootstrap`, `.url`, `.ca`, `.environment` (AWS credentials)."""
    return running(KafkaOauth(servers / "kafka-oauth", free_port()))


@pytest.fixture(scope="session")
def postgres(servers: Path) -> Postgres:
    """A database server: `.url`, `.environment` (PGPASSFILE), `.password`, `.connect()`."""
    return running(Postgres(servers / "postgres", free_port()))


@pytest.fixture(scope="session")
def dynamodb(servers: Path) -> DynamoDb:
    """DynamoDB Local: `.endpoint`, `.environment`, `.client()`. Its data outlives a kill."""
    return running(DynamoDb(servers / "dynamodb", free_port(), in_memory=False))


@pytest.fixture(scope="session")
def kinesis(servers: Path) -> Kinesis:
    """kinesalite: `.endpoint`, `.environment`, `.client()`, `.create_stream(name, shards)`."""
    return running(Kinesis(servers / "kinesis", free_port()))


@pytest.fixture(scope="session")
def kinesis_local(servers: Path) -> KinesisLocal:
    """kinesis-local, for ChildShards and iterators that expire; otherwise like `kinesis`."""
    return running(KinesisLocal(servers / "kinesis-local", free_port()))


@pytest.fixture(scope="session")
def s3(servers: Path) -> S3:
    """A strict S3: `.endpoint`, `.environment`, `.client()`, `.create_bucket(name)`."""
    return running(S3(servers / "s3", free_port()))


@pytest.fixture(scope="session")
def flink(servers: Path) -> FlinkCluster:
    """A Flink cluster with one TaskManager of two slots: `.rest`, `.flags` for the pipeline, `.process(name)`."""
    return at_hand(lambda: start_cluster(servers / "flink", ports={"rest": 0, "workers": 0}))


@pytest.fixture(scope="session")
def aws(servers: Path) -> Aws:
    """Lambda, SNS, SQS and more: `.client(service)`, `.topic_arn`, `.queue_url`, `.dead_letters_url`.

    `.deploy_function(name, zip, handler)` deploys a function. What it holds outlives a stop, but no kill.
    """
    return running(Aws(servers / "aws", free_port()))


@pytest.fixture
def lambda_emulator(servers: Path) -> Iterator[Callable[..., LambdaEmulator]]:
    """Starts AWS's runtime emulator: `lambda_emulator(zip, "module.function", variables).invoke(event)`."""
    started: list[LambdaEmulator] = []

    def start(package: Path, handler: str, variables: Mapping[str, str] | None = None) -> LambdaEmulator:
        directory = Path(tempfile.mkdtemp(prefix="lambda-emulator-", dir=servers))
        started.append(running(LambdaEmulator(directory, free_port(), package, handler, variables or {})))
        return started[-1]

    yield start
    for emulator in started:
        emulator.stop()


@pytest.fixture(scope="session")
def prism() -> Path:
    """The Prism program, for `--prism_location`."""
    return at_hand(get_prism)
