"""The servers that users and tests start: real, on loopback, and alive again after any death."""

from __future__ import annotations

import psycopg
import pytest

from runners.local import Kafka, Postgres


def test_kafka_keeps_its_topics_and_its_port_when_it_is_killed(kafka: Kafka) -> None:
    """A broker that was killed comes back at the same address with what it had."""
    kafka.create_topic("kept", 2)
    kafka.kill()
    assert not kafka.is_running()
    kafka.start()
    topics = kafka.admin().list_topics(timeout=10.0).topics
    assert {name: len(topic.partitions) for name, topic in topics.items()} == {"transaction-events": 3, "kept": 2}


def test_postgres_keeps_what_was_committed_when_it_is_killed(postgres: Postgres) -> None:
    """Rows that were committed are there after a kill, and those that were not are not."""
    with postgres.connect() as connection:
        connection.execute("CREATE TABLE kept (id int)")
    with postgres.connect() as connection:
        connection.execute("INSERT INTO kept VALUES (1)")
        connection.commit()
        connection.execute("INSERT INTO kept VALUES (2)")
        postgres.kill()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    postgres.start()
    with postgres.connect() as connection:
        assert connection.execute("SELECT id FROM kept").fetchall() == [(1,)]
        connection.execute("DROP TABLE kept")


def test_postgres_asks_for_the_password_of_its_passfile(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the passfile the URL is enough to connect; without it nobody gets in."""
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(postgres.url, passfile="/nowhere")
    for name, value in postgres.environment.items():
        monkeypatch.setenv(name, value)
    with psycopg.connect(postgres.url) as connection:
        assert connection.execute("SELECT current_user, current_database()").fetchall() == [("fraud", "fraud")]
    assert postgres.passfile.stat().st_mode & 0o777 == 0o600
