"""Which features may be made of which, and in what order they are computed.

First come the features of the row alone, then a stage for each entity, in the order in which entities are first
declared. Within its stage an entity's windows are taken in layers: the first over columns that are there, the
second over features made of the first, and so on. So a customer's history can be asked for a usual amount, a row
be flagged for being far above it, and the same history be asked how many of its rows were flagged; and the terminal's
stage, which comes later, can count flagged rows too.

A row's features are made once, when it is taken, of its past up to and including itself. What a window counts of an
earlier row is what that row was given then: a row that comes late changes no value of the rows after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from transforms.errors import UserError

if TYPE_CHECKING:
    from transforms.features import Feature


class Place(NamedTuple):
    """When a feature is computed: the stage, 0 for features of the row alone, and the layer within it."""

    stage: int
    layer: int


class Layer(NamedTuple):
    """A step of an entity's stage: windows first, then what is made of them."""

    windowed: tuple[Feature, ...]
    derived: tuple[Feature, ...]


def layers_of(features: Sequence[Feature], entity: str) -> tuple[Layer, ...]:
    """The layers of one entity's stage, in order.

    Example:
        >>> from transforms.features import load_feature_set
        >>> len(layers_of(load_feature_set("handbook").features, "customer_id"))
        1
    """
    places = places_of(features)
    stage = next(places[f.name].stage for f in features if f.entity == entity)
    mine = [f for f in features if places[f.name].stage == stage]
    return tuple(
        Layer(
            tuple(f for f in mine if f.entity and places[f.name].layer == layer),
            tuple(f for f in mine if not f.entity and places[f.name].layer == layer),
        )
        for layer in range(1 + max(places[f.name].layer for f in mine))
    )


def places_of(features: Sequence[Feature]) -> dict[str, Place]:
    """The place of each feature, by name.

    Raises:
        UserError: a feature is made of one that is declared below it, or that a later stage computes.
    """
    stages = {entity: at + 1 for at, entity in enumerate(dict.fromkeys(f.entity for f in features if f.entity))}
    # A number is a column of the schema under its own name, and there from the start.
    made = {f.name for f in features if f.kind != "number"} - {"amount"}
    places: dict[str, Place] = {}
    for f in features:
        needed = [_needed(f, name, places) for name in f.inputs if not f.entity or name in made]
        if f.entity:
            places[f.name] = _windowed_place(f, stages[f.entity], needed, places)
        else:
            places[f.name] = max((places[name] for name in needed), default=Place(0, 0))
    return places


def _needed(feature: Feature, name: str, places: Mapping[str, Place]) -> str:
    if name not in places:
        raise UserError(
            f"feature {feature.name} is made of {name}, which is not a feature declared above it; "
            f"there are {', '.join(places) or 'none'}"
        )
    return name


def _windowed_place(feature: Feature, stage: int, needed: Sequence[str], places: Mapping[str, Place]) -> Place:
    layer = 0
    for name in needed:
        if places[name].stage > stage:
            raise UserError(
                f"feature {feature.name} looks at {name}, but the history of {feature.entity} is taken before that is "
                "known: entities are taken in the order they are first declared. Declare a feature of the other first"
            )
        if places[name].stage == stage:
            layer = max(layer, places[name].layer + 1)
    return Place(stage, layer)
