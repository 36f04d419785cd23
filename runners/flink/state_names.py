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

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2

_IMPULSE = common_urns.primitives.IMPULSE.urn
_RESHUFFLE = common_urns.composites.RESHUFFLE.urn
_PAR_DO = common_urns.primitives.PAR_DO.urn
#: The names of the impulse and of what spreads it, and of what they give.
START, SPREAD = "Start", "Start/Spread"


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
        >>> [name for name in ("Double", "Start", "Read/Impulse") if name in proto.components.transforms]
        ['Double', 'Start']
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
    """Give a pipeline one impulse, spread over all subtasks, for all that had one of their own."""
    components = pipeline.components
    impulses = {name: each for name, each in components.transforms.items() if each.spec.urn == _IMPULSE}
    if not impulses:
        return
    given = [output for impulse in impulses.values() for output in impulse.outputs.values()]
    collection = type(components.pcollections[given[0]]).FromString(
        components.pcollections[given[0]].SerializeToString()
    )
    for name in given:
        del components.pcollections[name]
    for name in impulses:
        del components.transforms[name]
    for transform in components.transforms.values():
        _keep(transform.subtransforms, lambda name: name not in impulses)
        for local, name in list(transform.inputs.items()):
            transform.inputs[local] = _given_by(SPREAD) if name in given else name
    (root,) = pipeline.root_transform_ids
    for at, (name, urn) in enumerate(((START, _IMPULSE), (SPREAD, _RESHUFFLE))):
        components.pcollections[_given_by(name)].CopyFrom(collection)
        components.pcollections[_given_by(name)].unique_name = _given_by(name)
        transform = components.transforms[name]
        transform.unique_name, transform.spec.urn, transform.outputs["out"] = name, urn, _given_by(name)
        components.transforms[root].subtransforms.insert(at, name)
    components.transforms[SPREAD].inputs["in"] = _given_by(START)


def _given_by(transform: str) -> str:
    """What a transform's output is called. Not like the transform: Beam sorts both by their names in one list."""
    return f"{transform}.out"


def _keep(found: Any, wanted: Callable[[str], bool]) -> None:
    kept = [name for name in found if wanted(name)]
    del found[:]
    found.extend(kept)
