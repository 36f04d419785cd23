"""Decisions that the S3 sink wrote are what a replay compares with."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path

import pytest

from pipelines.explain.__main__ import main as explain
from pipelines.replay.__main__ import main as replay
from runners.local import S3
from tests.command import run_command

SOURCE = ("--source", "simulator:?customers=30&terminals=40&days=8")
BUCKETS = (f"replay-{n}" for n in count())


@pytest.fixture(autouse=True)
def _environment(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)


def test_a_bucket_of_decisions_is_compared_day_by_day(
    s3: S3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing differs from what was put, a transaction is found there, and a prefix without decisions is refused."""
    bucket = next(BUCKETS)
    s3.create_bucket(bucket)
    run = run_command(tmp_path / "output", *SOURCE, "--sink", f"s3://{bucket}/decisions")
    assert run.code == 0
    given = (*SOURCE, "--quiet", "--served", f"s3://{bucket}/decisions")
    days = ("--from", "2026-01-03", "--to", "2026-01-06", "--output", str(tmp_path / "replay"))
    assert replay([*given, *days, "--fail_on_difference"]) == 0
    figures = json.loads((tmp_path / "replay" / "summary.json").read_bytes())
    assert figures["identical"]
    assert figures["transactions"] > 0
    capsys.readouterr()
    assert explain(["100", *given]) == 0
    assert "the same 15 features, to the bit" in capsys.readouterr().out
    assert replay([*given[:-1], f"s3://{bucket}/elsewhere", *days]) == 2
    assert "holds no event_date=DATE" in capsys.readouterr().err
