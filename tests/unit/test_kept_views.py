"""Options that keep their views are the same options."""

from __future__ import annotations

import pickle

import pytest
from apache_beam.options import pipeline_options as beam_options
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions, TypeOptions

from runners.kept_views import KeptViews


def test_a_view_is_made_once_and_sees_what_others_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with Beam's own, of which each look makes another."""
    options = KeptViews(["--streaming", "--direct_num_workers=3"])
    assert options.view_as(StandardOptions).streaming
    assert options.view_as(StandardOptions) is options.view_as(StandardOptions)
    options.view_as(StandardOptions).view_as(TypeOptions).pipeline_type_check = False
    assert options.view_as(TypeOptions).pipeline_type_check is False
    assert options.get_all_options()["direct_num_workers"] == options.view_as(DirectOptions).direct_num_workers == 3
    monkeypatch.setattr(beam_options, "_BeamArgumentParser", None)  # what a view is made with
    for kind in (StandardOptions, TypeOptions, DirectOptions):
        options.view_as(kind)
    with pytest.raises(TypeError):
        options.view_as(beam_options.DebugOptions)


def test_options_that_travel_to_a_worker_keep_their_values() -> None:
    """And leave the views at home."""
    options = KeptViews(["--streaming"])
    options.view_as(StandardOptions).runner = "there"
    again = pickle.loads(pickle.dumps(options))  # noqa: S301 - what this test has pickled itself
    assert isinstance(again, PipelineOptions)
    assert again.view_as(StandardOptions).runner == "there"
    assert again.view_as(StandardOptions).streaming
    assert "_kept_views" in vars(options)
    assert "_kept_views" not in options.__getstate__()
