"""A stream that is stopped with a savepoint, and the next version that goes on from there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from io_connectors.kafka.connect import COMMITTERS, LOOKERS, READERS
from runners.flink.cluster import FlinkCluster
from runners.flink.rest import FlinkError
from runners.local import Kafka
from tests.integration.flink_versions import RULES, SIMULATED, Versions, ids_of, rows_of, split_at

SOURCE = "simulator:?customers=40&terminals=60&days=30"
DAY = 86_400_000


@pytest.fixture(autouse=True)
def _no_connections_left() -> Iterator[None]:
    yield
    for pool in (READERS, LOOKERS, COMMITTERS):
        pool.close()


@pytest.fixture
def versions(kafka: Kafka, flink: FlinkCluster, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Versions]:
    """Versions whose last job ends with the test."""
    (tmp_path / "rules.toml").write_text(RULES)
    made = Versions(kafka, flink, tmp_path, request.node.name[5:25])
    yield made
    made.cancel()


def test_the_next_version_goes_on_with_the_state_of_the_one_before(versions: Versions) -> None:
    """Decisions over the break, and alerts, are those of a run without one, though the next version has more parts.

    When the first version is stopped it has decided on some rows, holds others back, and has not seen the rest. The
    second has one more sink, and a source of labels before all else in the pipeline: whatever numbers or places state
    lay under would be others. It runs at another parallelism, too.
    """
    rules = ("--config", str(versions.directory / "rules.toml"))
    rows = rows_of(SOURCE)
    decided, waiting, unseen = split_at(rows, SIMULATED + 14 * DAY, SIMULATED + 21 * DAY)
    versions.send(decided)
    versions.start(SIMULATED + 14 * DAY, *rules, "--parallelism=1")
    versions.wait_for_decisions(ids_of(decided))
    versions.send(waiting)
    versions.wait_until_remembered(ids_of(waiting))
    savepoint = versions.stop()
    assert len(versions.results("flink")) < len(decided) + len(waiting)

    versions.send(unseen)
    more = ("--labels", versions.url("labels"), "--sink", f"file:{versions.directory / 'more'}")
    versions.start(None, *rules, *more, savepoint=savepoint)
    found = versions.wait_for_decisions(ids_of(rows))
    versions.run_without_a_break("here", *rules)
    expected = versions.results("here")
    assert {n: (found.get(n), expected[n]) for n in expected if found.get(n) != expected[n]} == {}
    alerts = versions.results("here", "alerts")
    flagged = [name for name, decision in expected.items() if b'"decision":"approve"' not in decision]
    assert 0 < len(alerts) < len(flagged)  # some are suppressed
    versions.wait(lambda: len(versions.results("flink", "alerts")) >= len(alerts), "the alerts")
    assert versions.results("flink", "alerts") == alerts


def test_state_that_no_part_has_any_more_is_not_dropped_unasked(versions: Versions) -> None:
    """A version without deduplication does not start from a savepoint with its state: the error says what to do."""
    decided, _ = split_at(rows_of(SOURCE), SIMULATED + 3 * DAY)
    versions.send(decided)
    versions.start(None)
    versions.wait_for_decisions(ids_of(decided))
    savepoint = versions.stop()
    with pytest.raises(FlinkError, match="--allow_non_restored_state"):
        versions.start(None, "--set", "pipeline.deduplicate=false", savepoint=savepoint)
    drop = "--allow_non_restored_state"
    versions.start(None, "--set", "pipeline.deduplicate=false", drop, savepoint=savepoint)
