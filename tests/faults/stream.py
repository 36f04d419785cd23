"""The unchanged command on a Flink cluster, between a topic and all its sinks, and what each of them holds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest

from model_artifacts.artifact import load_model
from model_artifacts.manifest import Manifest
from runners.flink.cluster import FlinkCluster, FlinkProcess
from runners.local import Aws, DynamoDb, Kafka, Postgres
from tests.faults.traffic import Traffic
from tests.integration.alert_servers import DeployedFunction, drain
from transforms.alerts import alert_id
from transforms.schema import load_schema

ROOT = Path(__file__).parents[2]
SCHEMA = "transaction-events"
PARTITIONS = 3
PATIENCE = 120.0
#: A tenth of the transactions is above this, so there are alerts to count.
RULE = '[[rules]]\nname = "large"\nwhen = "amount > 120"\naction = "review"\n'
#: A checkpoint takes a fraction of a second here: with one every two seconds each kill repeats some work.
CHECKPOINTS = ("--checkpointing_interval=2000", "--min_pause_between_checkpoints=500")

T = TypeVar("T")
#: What was decided on a transaction: late, decision, score, features in the model's order.
Decided = tuple[Any, ...]


def wait_for(ask: Callable[[], T | None], what: str, patience: float = PATIENCE, pause: float = 0.05) -> T:
    """What `ask` gives once it is something; the test fails when it is nothing for too long."""
    deadline = time.monotonic() + patience
    while not (found := ask()):
        if time.monotonic() > deadline:
            pytest.fail(f"not in {patience:.0f} s: {what}")
        time.sleep(pause)
    return found


def wait_for_all(names: Iterable[str], ask: Callable[[], Collection[str]], where: str) -> None:
    """Wait until all names are among what `ask` gives; the test fails and names some that are missing."""
    deadline = time.monotonic() + PATIENCE
    while missing := sorted(set(names) - set(ask())):
        if time.monotonic() > deadline:
            pytest.fail(f"not in {PATIENCE:.0f} s in {where}: {len(missing)} of them, such as {missing[:5]}")
        time.sleep(0.3)


@dataclass
class Stream:
    """A job that runs for as long as the tests do, and its surroundings.

    Attributes:
        cluster, kafka, postgres, dynamodb, aws: that it runs on, reads from and writes to.
        function: that gets the alerts.
        traffic: what the topic is sent.
        name: of topic and tables.
        directory: for the command's files.
        job, parallelism: the id of the job that runs now, and its subtasks.
        told: how often a subscriber saw each alert, by its id.
        settled: how many of the transactions sent were in every sink when it was last looked.
    """

    cluster: FlinkCluster
    kafka: Kafka
    postgres: Postgres
    dynamodb: DynamoDb
    aws: Aws
    function: DeployedFunction
    traffic: Traffic
    name: str
    directory: Path
    job: str = ""
    parallelism: int = 0
    told: Counter[str] = field(default_factory=Counter)
    settled: int = 0

    @property
    def source(self) -> str:
        """The URL of the topic. A record is appended within a moment of its event time: three seconds are much."""
        return f"kafka://{self.kafka.bootstrap}/{self.name}?watermark_delay=3s"

    @property
    def flags(self) -> list[str]:
        """What the uninterrupted run is told as well."""
        rules = self.directory / "rules.toml"
        rules.write_text(RULE)
        return ["--schema", SCHEMA, "--config", str(rules), "--quiet"]

    def start(self, parallelism: int, savepoint: str | None = None) -> None:
        """Run the command; it leaves the job on the cluster."""
        argv = [
            *(sys.executable, "-m", "pipelines.fraud", *self.cluster.flags, *CHECKPOINTS, *self.flags),
            *("--source", f"{self.source}&group={self.name}", "--set", "pipeline.ordering=event_time"),
            *("--sink", f"{self.postgres.url}/public/{self.table}?create=true"),
            *("--sink", f"dynamodb://{self.name}?create=true", "--alert", f"lambda://{self.function.name}"),
            *("--output", str(self.directory / "output"), f"--parallelism={parallelism}"),
            *("--sdk_worker_parallelism=1", *([f"--savepoint_path={savepoint}"] if savepoint else [])),
        ]
        run = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        said = re.match(r"job (\w+) runs", run.stdout)
        if run.returncode or said is None:
            pytest.fail(f"the job did not start: {run.stdout}{run.stderr}")
        self.job, self.parallelism = said[1], parallelism

    def stop(self) -> str:
        """Stop the job by the command for it; where its savepoint is."""
        argv = [sys.executable, "-m", "runners.flink", "stop", self.job, "--flink_master", self.cluster.rest.address]
        run = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        return run.stdout.strip()

    @property
    def table(self) -> str:
        """Of the decisions in PostgreSQL."""
        return self.name.replace("-", "_")

    @property
    def manifest(self) -> Manifest:
        """Of the model that the job runs."""
        uri = load_schema(SCHEMA).default_model
        assert uri is not None
        return load_model(uri).manifest

    @property
    def columns(self) -> list[str]:
        """Of a decision, as far as it must not depend on what happened on the way."""
        return ["late", "decision", "score", *self.manifest.feature_names]

    def workers(self) -> list[int]:
        """The processes of Python workers that the pool has started for the job and that live."""
        log = self.cluster.processes()["workers"].log.read_text("utf-8", errors="replace")
        started = [int(pid) for pid in re.findall(r"worker \d+-\d+ is process (\d+)", log)]
        return [pid for pid in started if _is_alive(pid)]

    def busy_taskmanagers(self) -> list[FlinkProcess]:
        """The TaskManagers that run tasks of the job."""
        found = self.cluster.rest.get("/taskmanagers")["taskmanagers"]
        names = sorted(each["id"] for each in found if each["freeSlots"] < each["slotsNumber"])
        return [self.cluster.processes()[name] for name in names]

    def ask(self, query: str, *values: Any) -> list[Any] | None:
        """Rows of PostgreSQL; None while it, or the table, is not there."""
        try:
            with self.postgres.connect(connect_timeout=2) as connection:
                return connection.execute(query, values).fetchall()
        except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
            return None

    def progress(self) -> tuple[int, int]:
        """How many decisions PostgreSQL holds, and the newest event time in microseconds; zeros while it is away."""
        query = f"select count(*), (extract(epoch from max(event_time)) * 1000000)::bigint from {self.table}"  # noqa: S608
        count, newest = (self.ask(query) or [(0, 0)])[0]
        return count, newest or 0

    def decided(self) -> dict[str, Decided]:
        """What PostgreSQL holds, by transaction."""
        rows = self.ask(f"select transaction_id, {', '.join(self.columns)} from {self.table}") or []  # noqa: S608
        found = {row[0]: tuple(row[1:]) for row in rows}
        assert len(found) == len(rows)
        return found

    def items(self) -> dict[str, Decided]:
        """What DynamoDB holds, by transaction, as numbers and texts that PostgreSQL gives too."""
        # DynamoDB's own advice for an internal failure is to ask again. Its stand-in had one on a large table.
        client = self.dynamodb.client(retries={"total_max_attempts": 6, "mode": "standard"})
        pages = client.get_paginator("scan").paginate(TableName=self.name, PaginationConfig={"PageSize": 500})
        found = [item for page in pages for item in page["Items"]]
        columns = self.columns  # once: they are the model's, which is loaded for it
        kinds = {"S": str, "N": float, "BOOL": bool}
        return {
            item["transaction_id"]["S"]: tuple(
                kinds[kind](value) for name in columns for kind, value in item[name].items()
            )
            for item in found
        }

    def decisions_on(self, names: Sequence[str]) -> dict[str, str]:
        """What PostgreSQL holds of these transactions: the decision."""
        query = f"select transaction_id, decision from {self.table} where transaction_id = any(%s)"  # noqa: S608
        return dict(self.ask(query, list(names)) or [])

    def items_among(self, names: Sequence[str]) -> set[str]:
        """The transactions among these that DynamoDB holds."""
        client, found = self.dynamodb.client(), set()
        for first in range(0, len(names), 100):
            keys = [{"transaction_id": {"S": name}} for name in names[first : first + 100]]
            asked = {self.name: {"Keys": keys, "ProjectionExpression": "transaction_id"}}
            found |= {
                each["transaction_id"]["S"]
                for each in client.batch_get_item(RequestItems=asked)["Responses"][self.name]
            }
        return found

    def hear(self) -> Counter[str]:
        """Every alert that a subscriber has seen so far, and how often."""
        self.told.update(json.loads(message["Body"])["alert_id"] for message in drain(self.aws, self.function.seen))
        return self.told

    def dead_letters(self) -> list[str]:
        """The lines of what got no decision."""
        path = self.directory / "output" / "dead_letters.jsonl"
        return path.read_text("utf-8").splitlines() if path.exists() else []

    def settle(self) -> set[str]:
        """Wait until all that was sent so far is decided, and told where it is an alert; all of it.

        It looks for what was not there the last time alone: the tables grow with every fault.
        """
        self.traffic.check()
        sent = list(self.traffic.sent)
        fresh = sent[self.settled :]
        wait_for_all(fresh, lambda: self.decisions_on(fresh), "PostgreSQL")
        wait_for_all(fresh, lambda: self.items_among(fresh), "DynamoDB")
        due = {alert_id(name) for name, decision in self.decisions_on(fresh).items() if decision != "approve"}
        wait_for_all(due, self.hear, "what subscribers were told")
        self.settled = len(sent)
        return set(sent)

    def checkpoint_in_progress(self) -> str | None:
        """The name of a checkpoint that was begun and is not complete."""
        begun = [path for path in (self.cluster.directory / "checkpoints" / self.job).glob("chk-*")]
        return next((path.name for path in begun if not (path / "_metadata").exists()), None)

    @contextmanager
    def held_up(self, mid: str) -> Iterator[None]:
        """Inside, a bundle of the job is in the middle of its write, and if so wanted a checkpoint in the middle, too.

        A lock on the table makes it so: the write waits for it, and the checkpoint for the write.

        Args:
            mid: `bundle` or `checkpoint`.
        """
        with self.postgres.connect() as connection, _whatever_becomes_of(connection):
            connection.execute(f"lock table {self.table} in exclusive mode")  # reading goes on
            waiting = "select 1 from pg_stat_activity where wait_event_type = 'Lock'"
            wait_for(lambda: self.ask(waiting), "a write waits for the lock", pause=0.01)
            if mid == "checkpoint":
                wait_for(self.checkpoint_in_progress, "a checkpoint is in progress", pause=0.005)
            yield


@contextmanager
def _whatever_becomes_of(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """The lock ends with its connection, be that because the server was killed."""
    yield
    connection.close()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
