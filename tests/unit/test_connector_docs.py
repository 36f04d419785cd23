"""docs/connectors.md tells of everything there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from io_connectors.sinks import DECISION_SINKS, RECORD_SINKS
from io_connectors.sources import SOURCES
from io_connectors.urls import Scheme

PAGE = (Path(__file__).parents[2] / "docs" / "connectors.md").read_text("utf-8")
ALL = [
    (f"{kind} {name}", scheme)
    for kind, schemes in (("source", SOURCES), ("sink", DECISION_SINKS), ("record sink", RECORD_SINKS))
    for name, scheme in schemes.items()
]


@pytest.mark.parametrize(("name", "scheme"), ALL, ids=[name for name, _ in ALL])
def test_every_scheme_and_parameter_is_told(name: str, scheme: Scheme) -> None:
    """Whoever adds one must say what it does."""
    assert f"`{name.rpartition(' ')[2]}:" in PAGE
    untold = [
        parameter for parameter in scheme.parameters if f"`{parameter}`" not in PAGE and f"`{parameter}=" not in PAGE
    ]
    assert untold == []
