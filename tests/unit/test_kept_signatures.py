"""Arguments that are kept are those that Beam finds."""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.coders import BytesCoder
from apache_beam.transforms import core, userstate
from apache_beam.transforms.userstate import BagStateSpec

from runners import kept_signatures
from runners.kept_signatures import arguments_of
from runners.presets import pipeline_options

_LOG = BagStateSpec("log", BytesCoder())


class Remember(beam.DoFn):
    """With state, which Beam finds among default values."""

    def process(self, element: Any, log: Any = beam.DoFn.StateParam(_LOG), *, only: int = 3) -> Iterator[Any]:
        log.add(element)
        yield only

    def finish_bundle(self, *_: Any, **__: Any) -> None:
        """Nothing of ours."""

    @staticmethod
    def double(value: int) -> int:
        return 2 * value


def make(kind: type[beam.DoFn]) -> Any:
    """Beam's DoFn has no typed constructor, which a type checker sees only of a class that it knows."""
    return kind()


@functools.wraps(Remember.double)
def wrapped(*arguments: Any) -> Any:
    """Whose signature is that of another function."""
    return Remember.double(*arguments)


def plain(first: int, second: str) -> None:
    """No default values."""


def preset(first: int, second: str = "x") -> None:
    """One."""


@pytest.mark.parametrize(
    "function",
    [
        plain,
        preset,
        wrapped,
        make(Remember).process,
        Remember.process,
        make(Remember).finish_bundle,
        Remember.finish_bundle,
        Remember.double,
        Remember,
        functools.partial(plain, 1),
        len,
        str.upper,
        "text".upper,
    ],
)
def test_the_first_look_and_all_later_ones_find_what_beam_does(function: Any) -> None:
    """Bound or not, wrapped, with default values, not of Python's at all."""
    for _ in range(3):
        found = arguments_of(function)
        assert found == kept_signatures.beams_arguments_of(function)
        for part in found:
            part.append("a caller's own")  # nobody else's


def test_beam_looks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a run has its options: at what has no default values; and it finds the state of a function that has."""

    class Fresh(Remember):
        def start_bundle(self) -> None:
            """That nobody has looked at."""

    looks: list[str] = []
    beams = kept_signatures.beams_arguments_of

    def look(function: Any) -> Any:
        looks.append(function.__name__)
        return beams(function)

    monkeypatch.setattr(core, "get_function_args_defaults", beams)  # and so again after this test
    monkeypatch.setattr(kept_signatures, "beams_arguments_of", look)
    pipeline_options("DirectRunner", [], bounded=True)
    for _ in range(3):
        assert userstate.get_dofn_specs(make(Fresh)) == ({_LOG}, set())
    assert (looks.count("start_bundle"), looks.count("process")) == (1, 3)


def test_a_function_that_nobody_has_any_more_is_let_go_of() -> None:
    """As those that a pipeline has brought, after its end."""

    def passing(value: int) -> int:
        return value

    assert arguments_of(passing) == (["value"], [])
    alive = weakref.ref(passing)
    del passing
    gc.collect()
    assert alive() is None
