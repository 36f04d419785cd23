"""Names by which Flink finds a job's state again, of what a transform is called alone.

Beam numbers the parts of a pipeline as it comes upon them, and Flink derives the names of sources from their place in
the graph. Timers lie in a savepoint under the one, sources under the other. So a step more or less anywhere in a
pipeline would have the next version of a job lose timers, or read its topics from the beginning. Here each part of a
pipeline is named after its transform before it is packaged:

* what state lies under on Flink (an operator's uid) is the unique name of the transform that has it;
* what timers lie under (Beam's id of a transform) is the same;
* one impulse starts all sources. Flink names it after its place among sources and after what it is chained to: it is
  the only one and chained to nothing, whatever the pipeline and its parallelism.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2

_IMPULSE = common_urns.primitives.IMPULSE.urn
_RESHUFFLE = common_urns.composites.RESHUFFLE.urn
_PAR_DO = common_urns.primitives.PAR_DO.urn
#: The name of the impulse, and of what it gives.
START = "Start"


def name_state(pipeline: Any) -> None:
    """Name the parts of a pipeline, in place, so that its state is found whatever else a pipeline consists of.

    Args:
        pipeline: Beam's `Pipeline` message, as runners are sent it.

    Example:
        >>> import apache_beam as beam
        >>> pipeline = beam.Pipeline()
        >>> _ = pipeline | "Read" >> beam.Create([1], reshuffle=False) | "Double" >> beam.Map(lambda each: 2 * each)
        >>> proto = pipeline.to_runner_api()
        >>> name_state(proto)
        >>> "Double" in proto.components.transforms, proto.components.transforms["Read/Impulse"].spec.urn
        (True, 'beam:transform:reshuffle:v1')
    """
    components = pipeline.components
    for name, transform in sorted(components.transforms.items(), key=lambda each: each[1].unique_name):
        if name not in pipeline.root_transform_ids and (local := _remembered_input(transform)):
            components.pcollections[transform.inputs[local]].unique_name = f"{transform.unique_name}.input"
    _rename(pipeline, {name: each.unique_name for name, each in components.transforms.items()})
    _rename_collections(components, {name: each.unique_name for name, each in components.pcollections.items()})
    _start_together(pipeline)


def _remembered_input(transform: Any) -> str | None:
    """Which of its inputs a transform with state of its own, timers or restrictions takes its elements from."""
    if transform.spec.urn != _PAR_DO:
        return None
    payload = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
    if not (payload.state_specs or payload.timer_family_specs or payload.restriction_coder_id):
        return None
    (main,) = set(transform.inputs) - set(payload.side_inputs)
    return str(main)


def _rename(pipeline: Any, names: Mapping[str, str]) -> None:
    transforms = _moved(pipeline.components.transforms, names)
    for transform in transforms.values():
        _replace(transform.subtransforms, names)
    _replace(pipeline.root_transform_ids, names)


def _rename_collections(components: Any, names: Mapping[str, str]) -> None:
    _moved(components.pcollections, names)
    for transform in components.transforms.values():
        for ends in (transform.inputs, transform.outputs):
            for local, name in list(ends.items()):
                ends[local] = names[name]


def _moved(messages: Any, names: Mapping[str, str]) -> Any:
    """A map of messages, in place, with other keys."""
    held = {names[name]: type(message).FromString(message.SerializeToString()) for name, message in messages.items()}
    messages.clear()
    for name, message in sorted(held.items()):
        messages[name].CopyFrom(message)
    return messages


def _replace(found: Any, names: Mapping[str, str]) -> None:
    renamed: Iterable[str] = [names[name] for name in found]
    del found[:]
    found.extend(renamed)


def _start_together(pipeline: Any) -> None:
    """Give a pipeline one impulse, from which all that had one of their own take theirs."""
    components = pipeline.components
    impulses = [each for each in components.transforms.values() if each.spec.urn == _IMPULSE]
    if not impulses:
        return
    (output,) = impulses[0].outputs.values()
    components.pcollections[START].CopyFrom(components.pcollections[output])
    components.pcollections[START].unique_name = START
    for impulse in impulses:
        impulse.spec.urn = _RESHUFFLE
        impulse.inputs["in"] = START
    start = components.transforms[START]
    start.unique_name, start.spec.urn, start.outputs["out"] = START, _IMPULSE, START
    (root,) = pipeline.root_transform_ids
    components.transforms[root].subtransforms.insert(0, START)
