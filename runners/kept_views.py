"""Beam's options, parsed once."""

from __future__ import annotations

from typing import Any, TypeVar

from apache_beam.options.pipeline_options import PipelineOptions

_View = TypeVar("_View", bound=PipelineOptions)


class KeptViews(PipelineOptions):
    """Options that keep each view that was made of them.

    Beam asks for a view several times a transform, and makes an argument parser and parses all flags for each: half a
    second of a job's start. Views share their values, so one of a kind is as good as many.
    """

    def view_as(self, cls: type[_View]) -> _View:
        # In `__dict__`, since every other attribute of options is taken for an option.
        kept: dict[type[PipelineOptions], Any] = self.__dict__.setdefault("_kept_views", {})
        if cls not in kept:
            kept[cls] = super().view_as(cls)
        view: _View = kept[cls]
        return view

    def __getstate__(self) -> Any:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]  # Beam's has no types
        return {name: value for name, value in state.items() if name != "_kept_views"}
