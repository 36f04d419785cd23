"""Kinesis as a source, against two real servers: kinesalite, strict and fast, and kinesis-local, which knows more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from io_connectors.kinesis.connect import READERS
from runners.local import Kinesis
from tests.integration.kinesis_streams import KinesisSubject, subject_on
from tests.integration.source_conformance import SourceConformance


@pytest.fixture(autouse=True)
def _no_readers_left() -> Iterator[None]:
    yield
    READERS.close()


@pytest.fixture
def subject(kinesis: Kinesis, monkeypatch: pytest.MonkeyPatch) -> KinesisSubject:
    for name, value in kinesis.environment.items():
        monkeypatch.setenv(name, value)
    return subject_on(kinesis)


class TestKinesisSource(SourceConformance):
    """What every source must stand."""
