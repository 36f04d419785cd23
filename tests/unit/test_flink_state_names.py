"""Names under which Flink keeps state: what they depend on, and what not."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
from apache_beam.coders import VarIntCoder
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

from runners.flink.state_names import START, name_state

COUNT = ReadModifyWriteStateSpec("count", VarIntCoder())


class Counting(beam.DoFn):
    """Remembers how many."""

    def process(self, element: tuple[str, int], count: Any = beam.DoFn.StateParam(COUNT)) -> None:
        count.write((count.read() or 0) + 1)


def pipeline_with(before: int, sources: int) -> Any:
    """A pipeline with something to remember, so many steps before it and so many sources that it flattens."""
    pipeline = beam.Pipeline()
    made = [pipeline | f"Read{at}" >> beam.Create([("a", at)], reshuffle=False) for at in range(sources)]
    rows = made[0] if sources == 1 else tuple(made) | "All" >> beam.Flatten()
    for step in range(before):
        rows = rows | f"Step{step}" >> beam.Map(lambda row: row).with_output_types(tuple[str, int])
    _ = rows | "Count" >> beam.ParDo(Counting())  # type: ignore[no-untyped-call]  # Beam's DoFn has no typed constructor
    proto = pipeline.to_runner_api()
    name_state(proto)
    return proto


def test_state_is_found_whatever_comes_before_it() -> None:
    """The id that timers lie under and the name of the input, which Flink names state after, are those of the step."""
    for proto in (pipeline_with(0, 1), pipeline_with(3, 1), pipeline_with(1, 3)):
        (collection,) = proto.components.transforms["Count"].inputs.values()
        assert proto.components.pcollections[collection].unique_name == "Count.input"


def test_all_sources_start_from_one_impulse() -> None:
    """However many there are: Flink names an impulse after its place among them."""
    for sources in (1, 3):
        transforms = pipeline_with(0, sources).components.transforms
        impulses = [name for name, each in transforms.items() if each.spec.urn == "beam:transform:impulse:v1"]
        assert impulses == [START]


def test_a_named_pipeline_is_whole() -> None:
    """Every name that is referred to is there; transforms and collections share none, for Beam sorts them together."""
    components = pipeline_with(2, 3).components
    used = {name for each in components.transforms.values() for name in (*each.inputs.values(), *each.outputs.values())}
    assert used == set(components.pcollections)
    assert not set(components.pcollections) & set(components.transforms)
    parts = [name for each in components.transforms.values() for name in each.subtransforms]
    assert set(parts) < set(components.transforms)
    assert len(parts) == len(set(parts)) == len(components.transforms) - 1
    assert isinstance(components, beam_runner_api_pb2.Components)
