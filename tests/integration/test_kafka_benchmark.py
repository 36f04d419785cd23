"""The benchmark of Kafka runs, and counts what it reads."""

from __future__ import annotations

from benchmarks.kafka_source import measure, results_text
from io_connectors.kafka.settings import CLIENTS
from runners.local import Kafka


def test_every_way_is_measured_with_every_client(kafka: Kafka) -> None:
    """Writing, polling, parsing, and both as a pipeline, each with a speed."""
    speeds = measure(kafka, 2_000)
    assert {speed.client for speed in speeds} == set(CLIENTS)
    assert [speed.what for speed in speeds if speed.client == "confluent"] == [
        "transactions written",
        "decisions written",
        "polled",
        "parsed",
        "pipeline",
    ]
    assert all(speed.records == 2_000 and speed.seconds > 0 and speed.cpu_seconds > 0 for speed in speeds)
    assert results_text(speeds).count("\n") == len(speeds) + 1
