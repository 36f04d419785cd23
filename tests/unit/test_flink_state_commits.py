"""State is written at the end of a bundle in as few waits as there can be."""

from __future__ import annotations

from typing import Any

import pytest
from apache_beam.coders import BytesCoder
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker.bundle_processor import SynchronousBagRuntimeState

from runners.flink.state_commits import commit


class Answer:
    """That a runner gives when it is asked for."""

    def __init__(self, said: list[str], error: str = "") -> None:
        self.said, self.error = said, error

    def get(self) -> beam_fn_api_pb2.StateResponse:
        self.said.append("waited")
        return beam_fn_api_pb2.StateResponse(error=self.error)


class Handler:
    """Takes requests as a runner's does, and notes them."""

    def __init__(self, error: str = "") -> None:
        self.said: list[str] = []
        self.error = error

    def clear(self, key: Any) -> Answer:
        self.said.append(f"clear {key}")
        return Answer(self.said, self.error)

    def extend(self, key: Any, coder: Any, elements: list[bytes]) -> Answer:
        self.said.append(f"extend {key} {elements}")
        return Answer(self.said, self.error)


class Context:
    """Of a bundle that has touched some state."""

    def __init__(self, *states: Any) -> None:
        self._all_states = dict(enumerate(states))


def bag(handler: Handler, key: Any) -> SynchronousBagRuntimeState:
    return SynchronousBagRuntimeState(handler, key, BytesCoder())  # type: ignore[arg-type]  # as much of it as is used


def test_all_requests_are_sent_before_one_is_waited_for() -> None:
    """In the order of Beam's own commit: what is cleared and added to is cleared first; what was read only is left."""
    handler = Handler()
    replaced, added, untouched = (bag(handler, name) for name in ("replaced", "added", "untouched"))
    replaced.clear()
    replaced.add(b"1")
    added.add(b"2")
    commit(Context(replaced, added, untouched))
    assert handler.said == [
        "clear replaced",
        "extend replaced [b'1']",
        "extend added [b'2']",
        "waited",
        "waited",
        "waited",
    ]


def test_a_write_that_failed_fails_the_bundle() -> None:
    """With what the runner says."""
    state = bag(Handler(error="disk full"), "key")
    state.add(b"1")
    with pytest.raises(RuntimeError, match="could not write state: disk full"):
        commit(Context(state))
