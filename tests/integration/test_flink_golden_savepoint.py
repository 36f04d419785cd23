"""A savepoint that an earlier commit wrote, restored by this one; see `tests/golden/make_savepoint.py`."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from runners.flink.cluster import FlinkCluster
from runners.local import Kafka
from tests.golden.make_savepoint import DAY, DECIDED, DIRECTORY, LONG, NAME, read_results, read_rows
from tests.integration.flink_versions import Versions, ids_of

WINDOW = 2 * DAY  # of `LONG`; Beam's begin at multiples of it


@pytest.fixture
def versions(kafka: Kafka, flink: FlinkCluster, tmp_path: Path) -> Iterator[Versions]:
    """A job on the savepoint's topic, which ends with the test."""
    (tmp_path / "rules.toml").write_text(LONG)
    made = Versions(kafka, flink, tmp_path, NAME)
    yield made
    made.cancel()


def values_of(records: Mapping[str, bytes], names: Iterable[str] | None = None) -> dict[str, Any]:
    """What records say, by transaction; of some transactions, or of all."""
    return {name: json.loads(records[name]) for name in (records if names is None else names)}


def millis_of(decision: bytes) -> int:
    """The event time of a decision, in milliseconds since 1970."""
    return int(datetime.fromisoformat(json.loads(decision)["event_time"]).timestamp() * 1000)


def told(lines: Path) -> dict[int, int]:
    """How many transactions windows had when the watermark passed them, by their start in milliseconds."""
    windows = [json.loads(line) for line in lines.read_bytes().splitlines()] if lines.exists() else []
    return {each["window_start"] // 1000: each["transactions"] for each in windows if each["pane"] == "on_time"}


def test_what_an_earlier_release_remembered_is_still_understood(versions: Versions) -> None:
    """Of rows that wait in it, and of rows after it, each decision and alert says what it did, to the last bit.

    The window that is open in it, and those after it, tell of every decision in them, those before it included.

    How JSON spells a number may change between releases, not which number it is. The savepoint has been moved since it
    was written, and goes on at another parallelism. When this fails, either streams that run cannot be upgraded any
    more, or it is features, model or thresholds that were changed: then the expected decisions are written anew
    (python -m tests.golden.make_savepoint), and CHANGELOG.md says so.
    """
    decided, waiting, unseen = read_rows()
    versions.send([*decided, *waiting, *unseen])
    moved = versions.directory / "moved"
    shutil.copytree(DIRECTORY / "state", moved)
    versions.start(None, "--config", str(versions.directory / "rules.toml"), savepoint=moved.as_uri())
    names = ids_of([*waiting, *unseen])
    found = versions.wait_for_decisions(names)
    expected = read_results("decisions")
    assert values_of(found, names) == values_of(expected, names)
    alerts = {name: alert for name, alert in read_results("alerts").items() if name in names}
    versions.wait(lambda: len(versions.results("flink", "alerts")) >= len(alerts), "the alerts")
    assert values_of(versions.results("flink", "alerts")) == values_of(alerts)
    assert set(found) == set(names)  # nothing is decided again
    windows = Counter(millis_of(each) // WINDOW * WINDOW for each in expected.values())
    after = {start: rows for start, rows in windows.items() if start + WINDOW > DECIDED}
    assert min(after) < DECIDED  # one was open
    versions.wait(lambda: told(versions.directory / "flink" / "windows.jsonl") == after, "windows")
