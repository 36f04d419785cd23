"""Where the pipeline's outputs go when a sink refuses them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from io_connectors.delivery import Message, OnRetry, Refused, SendMessages
from io_connectors.json_lines import WriteJsonLines
from io_connectors.simulation import Simulation
from io_connectors.simulator import SimulateTransactions
from io_connectors.sinks import messages_of
from io_connectors.sources import Source
from pipelines.fraud import FraudOutputs
from pipelines.outputs import Sinks, write
from tests.command import lines_of
from transforms.dead_letters import DeadLetter


class Refusing:
    """A queue that takes nothing."""

    def open(self, on_retry: OnRetry) -> Refusing:
        return self

    def write(self, messages: Sequence[Message]) -> list[Refused]:
        return [Refused(at, "no", "not this one") for at in range(len(messages))]

    def close(self) -> None: ...


def test_a_dead_letter_that_its_sink_refuses_is_kept_in_a_file(tmp_path: Path) -> None:
    """Nothing is dropped, whatever the last sink thinks of it."""

    def lines(name: str) -> WriteJsonLines:
        return WriteJsonLines(tmp_path / name, lambda record: bytes(record.to_json()))

    letter = DeadLetter(stage="parse", reason="bad", error="bad", payload="{", source="topic-0", position=7)
    with beam.Pipeline(FnApiRunner()) as pipeline:
        none: Any = pipeline | "None" >> beam.Create([])
        letters: Any = pipeline | "Letters" >> beam.Create([letter])
        refusing = SendMessages(Refusing(), "refusing", messages_of)
        rest = (lines(name) for name in ("summaries", "drift", "calibration", "last"))
        sinks = Sinks((lines("decisions"),), (lines("alerts"),), refusing, *rest)
        source = Source(SimulateTransactions(Simulation(days=1)), bounded=True)
        write(FraudOutputs(none, none, none, letters, none, None), sinks, source)
    (kept,) = lines_of(tmp_path / "last")
    assert (kept["reason"], kept["error"]) == ("no", "not this one")
    assert '"position":7' in kept["payload"]
