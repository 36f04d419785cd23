"""Whatever is killed or paused, and when: each transaction is decided once, as if nothing had been, and told once."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.command import run_command
from tests.faults.kills import FAULTS, Recovery, strike
from tests.faults.stream import Decided, Stream, wait_for
from transforms.alerts import alert_id

LONG = os.environ.get("FAULTS") == "long"
KILLS = int(os.environ.get("KILLS", "100"))
SEED = int(os.environ.get("SEED", "0")) or Random().randrange(1, 10**6)  # noqa: S311 - no secret
EVERY = [(fault, mid) for fault in FAULTS for mid in ("bundle", "checkpoint")]
#: Each fault once, and each moment with several.
SOME = [
    ("worker killed", "bundle"),
    ("TaskManager killed", "checkpoint"),
    ("JobManager killed", "checkpoint"),
    ("Kafka killed", "bundle"),
    ("PostgreSQL killed", "checkpoint"),
    ("worker pool killed", "bundle"),
    ("TaskManager paused", "bundle"),
]
RESCALED = [("TaskManager killed", "bundle")]


def uninterrupted(stream: Stream, directory: Path) -> dict[str, Decided]:
    """What a run that nothing happens to decides on the same topic: another runner's, and one that ends."""
    run = run_command(directory, "--source", f"{stream.source}&until=latest", *stream.flags)
    assert run.code == 0, run.stderr
    columns = [run.decisions.column(name).to_pylist() for name in ["transaction_id", *stream.columns]]
    return {name: tuple(rest) for name, *rest in zip(*columns, strict=True)}


def check(stream: Stream, directory: Path) -> None:
    """See that every sink holds what it would hold had nothing happened."""
    with stream.traffic.paused():
        sent = stream.settle()
        decided, expected = stream.decided(), uninterrupted(stream, directory)
        assert stream.dead_letters() == []
        assert set(decided) == set(expected) == sent
        different = {name: (decided[name], expected[name]) for name in sent if decided[name] != expected[name]}
        assert different == {}
        assert stream.items() == decided
        flagged = [name for name, (_, decision, *_) in decided.items() if decision != "approve"]
        assert len(flagged) > len(sent) / 50
        assert stream.hear() == Counter(alert_id(name) for name in flagged)


@pytest.mark.parametrize(("fault", "mid"), EVERY if LONG else SOME)
def test_a_fault_leaves_no_trace(
    stream: Stream, fault: str, mid: str, recovered: list[Recovery], tmp_path: Path
) -> None:
    """No transaction is missing, doubled or decided otherwise, in the middle of a write or of a checkpoint."""
    wait_for(lambda: stream.progress()[0], "the first decision")
    recovered.append(strike(stream, fault, mid, Random(SEED)))  # noqa: S311 - no secret
    check(stream, tmp_path)


def test_a_savepoint_is_gone_on_from_with_twice_the_subtasks(stream: Stream, tmp_path: Path) -> None:
    """The job that starts from it remembers what the one before did, in whichever subtask, and reads on."""
    wait_for(lambda: stream.progress()[0], "the first decision")
    stream.start(parallelism=2, savepoint=stream.stop())
    check(stream, tmp_path)


@pytest.mark.parametrize(("fault", "mid"), EVERY if LONG else RESCALED)
def test_a_fault_leaves_no_trace_on_two_taskmanagers(
    stream: Stream, fault: str, mid: str, recovered: list[Recovery], tmp_path: Path
) -> None:
    """Likewise where the subtasks of the job are spread, and none is to spare."""
    assert stream.parallelism == 2, "the test before this one has not got so far"
    recovered.append(strike(stream, fault, mid, Random(SEED)))  # noqa: S311 - no secret
    check(stream, tmp_path)


@pytest.mark.skipif(not LONG, reason="takes long: make faults")
def test_random_kills_leave_no_trace(stream: Stream, recovered: list[Recovery], tmp_path: Path) -> None:
    """A hundred kills at moments that nobody chose."""
    print(f"SEED={SEED}")
    chance = Random(SEED)  # noqa: S311 - no secret
    kills = [fault for fault in FAULTS if fault.endswith("killed")]
    for number in range(KILLS):
        time.sleep(chance.uniform(0, 4))
        recovered.append(strike(stream, chance.choice(kills), "anything", chance))
        print(f"{number + 1} of {KILLS}: {recovered[-1].fault}, silent for {recovered[-1].silence} s", flush=True)
        stream.settle()
    check(stream, tmp_path)
