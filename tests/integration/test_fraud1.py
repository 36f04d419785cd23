"""FRAUD-1 as it is measured: a contender's records are counted, timed and compared with pandas."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.fraud1.__main__ import Measured, results_text
from benchmarks.fraud1.job import START
from benchmarks.fraud1.measure import Contender, Contest, own_contenders, peers_of
from runners.local import Kafka
from transforms.errors import UserError

ROWS = 5_000
#: A contender that answers at once, whatever it is asked.
GUESS = f"""
import json, os
from confluent_kafka import Consumer, Producer, TopicPartition
source, sink, rows = os.environ["IN_TOPIC"], os.environ["OUT_TOPIC"], int(os.environ["N"])
consumer = Consumer({{"bootstrap.servers": os.environ["BOOT"], "group.id": "guess"}})
print("{START}", flush=True)
consumer.assign([TopicPartition(source, at, 0) for at in range(4)])
producer, seen = Producer({{"bootstrap.servers": os.environ["BOOT"]}}), 0
while seen < rows:
    for message in consumer.consume(1000, 1.0):
        name = json.loads(message.value())["transaction_id"]
        producer.produce(sink, json.dumps({{"transaction_id": name, "score": 0.1, "flag": 0}}).encode())
        seen += 1
producer.flush()
"""


@pytest.fixture
def contest(kafka: Kafka, tmp_path: Path) -> Contest:
    """A topic of transactions."""
    return Contest(kafka, tmp_path, ROWS)


def test_this_project_is_right_to_the_last_record(contest: Contest) -> None:
    """Every transaction has the score of pandas; the table says what it took, and the share of the limit."""
    contender, *_ = own_contenders()
    run = contest.throughput(contender)
    assert run.rows == ROWS
    assert 0 < run.cpu_seconds < run.cpu_in_all
    assert run.peak_bytes > 50e6
    text = results_text(Measured({run.name: [run], "limit": [replace(run, name="limit")]}, limit="limit"))
    assert text.count("| 100% |") == 2


def test_the_default_job_decides_on_all_of_it(contest: Contest) -> None:
    """Its scores are its own model's: every transaction has one."""
    contender = next(each for each in own_contenders() if not each.scores)
    assert contest.throughput(contender).rows == ROWS


def test_a_wrong_score_counts_for_nothing(contest: Contest) -> None:
    """A contender that is fast and wrong is refused."""
    with pytest.raises(UserError, match=r"guess: [45],\d{3} of 5,000 records are missing or wrong"):
        contest.throughput(Contender("guess", [sys.executable, "-c", GUESS], ()))


def test_a_missing_record_counts_for_nothing(contest: Contest) -> None:
    """Also where the scores are not looked at."""
    twice = GUESS.replace('"transaction_id": name', '"transaction_id": name if seen else "another"')
    with pytest.raises(UserError, match="guess: 1 of 5,000 records are missing or wrong"):
        contest.throughput(Contender("guess", [sys.executable, "-c", twice], (), scores=False))


def test_a_middle_has_what_streams(contest: Contest) -> None:
    """What gives everything out at its end has none."""
    run = contest.throughput(Contender("guess", [sys.executable, "-c", GUESS], (), scores=False))
    assert run.middle_cpu_rate > 0
    at_once = contest.throughput(Contender("guess", [sys.executable, "-c", GUESS], (), scores=False, at_once=True))
    assert results_text(Measured({"guess": [at_once]})).count("| - |") >= 2


def test_a_contender_that_fails_is_told_of_in_its_own_words(contest: Contest) -> None:
    """Before it reads, and after."""
    for said, code in (
        ("before it read anything", "exit('no fuel')"),
        ("with 1", f"print('{START}'); exit('no fuel')"),
    ):
        with pytest.raises(UserError, match=rf"(?s)broken ended {said}: .*no fuel"):
            contest.throughput(Contender("broken", [sys.executable, "-c", code], ()))


def test_peers_are_those_that_are_installed(tmp_path: Path) -> None:
    """Each by the environment that its command needs."""
    assert peers_of(tmp_path) == []
    for name in ("venv-tools/bin/python", "venv-bytewax/bin/python"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    limit, bytewax = peers_of(tmp_path)
    assert limit.limit
    assert not limit.steady
    assert (bytewax.directory, bytewax.steady[0]) == (tmp_path, "env")
