"""A function's arguments, looked at once."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

from apache_beam.transforms import core

#: Names of arguments and default values.
Arguments = tuple[list[str], list[Any]]

#: Beam's own.
beams_arguments_of: Callable[[Any], Arguments] = core.get_function_args_defaults
_NAMES: dict[type, WeakKeyDictionary[FunctionType, tuple[str, ...]]] = {
    FunctionType: WeakKeyDictionary(),
    MethodType: WeakKeyDictionary(),
}


def keep_signatures() -> None:
    """Have Beam look at a function once in the life of this process.

    Wherever it wants to know whether a transform has state it looks at every method of its function: 15,000 looks at
    150 functions for the default job, a tenth of its start, and again in each worker.
    """
    core.get_function_args_defaults = arguments_of  # type: ignore[assignment]  # Beam's has its types in a comment


def arguments_of(function: Any) -> Arguments:
    """What Beam's `get_function_args_defaults` says.

    Only of functions without default values is it kept: these may lead back to the function, which would then be kept
    for ever, and few have any.
    """
    kept = _NAMES.get(type(function))
    plain = getattr(function, "__func__", function)
    if kept is None or type(plain) is not FunctionType:
        return beams_arguments_of(function)
    names = kept.get(plain)
    if names is not None:
        return list(names), []
    found, defaults = beams_arguments_of(function)
    if not defaults:
        kept[plain] = tuple(found)
    return found, defaults
