"""What a Flink job is told: the preset, the user's words over it, and the reasons."""

from __future__ import annotations

import pytest
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PortableOptions, WorkerOptions

from pipelines.options import parse_command_line
from runners.flink.options import FlinkOptions
from runners.flink.preset import PRESET, explain_preset, flink_configuration
from runners.presets import explanation, pipeline_options
from transforms.errors import UserError


def test_a_stream_is_checkpointed_and_its_checkpoints_stay() -> None:
    """Without a word of the user's, state survives a failure and a cancellation."""
    options = pipeline_options("FlinkRunner", [], bounded=False)
    own = options.view_as(FlinkOptions)
    assert own.checkpointing_interval > 0
    assert own.checkpointing_mode == "EXACTLY_ONCE"
    assert own.retain_externalized_checkpoints_on_cancellation is True
    assert options.view_as(WorkerOptions).max_cache_memory_usage_mb > 0
    assert options.view_as(PortableOptions).environment_type == "EXTERNAL"
    configuration = flink_configuration(options, bounded=False)
    assert configuration["state.backend.type"] == "rocksdb"
    assert configuration["execution.checkpointing.externalized-checkpoint-retention"] == "RETAIN_ON_CANCELLATION"
    assert configuration["restart-strategy.type"] == "exponential-delay"


def test_input_that_ends_is_neither_checkpointed_nor_restarted() -> None:
    """A batch job that failed is run again by whoever wants it: what it wrote half is known to them."""
    options = pipeline_options("FlinkRunner", [], bounded=True)
    assert options.view_as(FlinkOptions).checkpointing_interval is None
    assert flink_configuration(options, bounded=True)["restart-strategy.type"] == "none"


@pytest.mark.parametrize("setting", [each for each in PRESET if each.kind == "beam"], ids=lambda each: each.name)
def test_every_flag_of_the_preset_can_be_overridden(setting: object) -> None:
    """Of a flag that the preset and the user set, the user's value counts, and the explanation says so."""
    name, value = setting.name, setting.value  # type: ignore[attr-defined]  # parametrize passes it as an object
    bounded = setting.mode == "batch"  # type: ignore[attr-defined]  # likewise
    other = {bool: "false", int: str(int(value) + 1) if isinstance(value, int) else ""}.get(type(value), "1.19")
    options = pipeline_options("FlinkRunner", [f"--{name}={other}"], bounded=bounded, shards=3)
    found = {row[0]: row for row in explain_preset(options, bounded, shards=2)}[f"--{name}"]
    assert found[1].lower() == other
    assert found[2] == f"given; the preset has {value}"


def test_flink_settings_are_overridden_by_key() -> None:
    """`--flink_config` wins over the preset, adds what the preset has not, and may hold an equals sign."""
    given = ["--flink_config=state.backend.type=hashmap", "--flink_config", "a.b=c=d"]
    options = pipeline_options("FlinkRunner", given, bounded=False)
    configuration = flink_configuration(options, bounded=False)
    assert (configuration["state.backend.type"], configuration["a.b"]) == ("hashmap", "c=d")
    rows = {name: (value, reason) for name, value, reason in explain_preset(options, bounded=False)}
    assert rows["state.backend.type"] == ("hashmap", "given; the preset has rocksdb")
    assert rows["a.b"] == ("c=d", "given")


@pytest.mark.parametrize("text", ["nothing", "=x", " =x"])
def test_a_flink_setting_without_key_or_value_is_refused(text: str) -> None:
    """With the text that was given, and the form that was meant."""
    options = pipeline_options("FlinkRunner", ["--flink_config", text], bounded=False)
    with pytest.raises(UserError, match="KEY=VALUE"):
        flink_configuration(options, bounded=False)


def test_every_setting_has_a_reason_of_its_own() -> None:
    """`--explain_runner` is of use only if it says why."""
    reasons = [setting.reason for setting in PRESET]
    assert all(len(reason) > 15 for reason in reasons)
    assert len(set(reasons)) == len(reasons)


def test_the_explanation_is_a_table_of_what_holds() -> None:
    """Name, value and reason stand in columns, for every runner."""
    options = pipeline_options("FlinkRunner", ["--parallelism=7"], bounded=False, shards=8)
    lines = explanation(options, bounded=False, shards=8).splitlines()
    (parallelism,) = [line.split(None, 2) for line in lines if line.startswith("--parallelism")]
    assert parallelism == ["--parallelism", "7", "given; the preset has 2"]
    assert explanation(pipeline_options("DirectRunner", [], bounded=True), bounded=True).startswith("--runner")


def test_flags_of_flinks_java_half_are_known() -> None:
    """Beam's Python half does not know them, and a strict command line would refuse them."""
    line = parse_command_line(["--runner=flink", "--checkpointing_interval=5000", "--object_reuse", "--explain_runner"])
    assert line.explain_runner
    options = pipeline_options(line.runner, line.beam_args, bounded=False)
    assert options.view_as(FlinkOptions).checkpointing_interval == 5000
    assert options.view_as(FlinkOptions).object_reuse is True
    assert options.view_as(FlinkRunnerOptions).flink_version == "1.20"


@pytest.mark.parametrize("flag", ["--checkpointing_intervall=5", "--object_reuse=perhaps"])
def test_a_misspelt_flag_is_refused(flag: str) -> None:
    """As everywhere on the command line."""
    with pytest.raises(UserError):
        parse_command_line(["--runner=flink", flag])


def test_a_bundle_has_as_many_pieces_as_there_are_shards() -> None:
    """Of a stream; the explanation does not take that for something the user gave."""
    options = pipeline_options("FlinkRunner", [], bounded=False, shards=6)
    rows = {name: (value, reason) for name, value, reason in explain_preset(options, bounded=False, shards=6)}
    assert rows["--max_bundle_size"][0] == "6"
    assert rows["--max_bundle_size"][1].startswith("pipeline.shards")


def test_more_subtasks_than_shards_are_refused() -> None:
    """With what to set, and that it stays."""
    with pytest.raises(UserError, match=r"--parallelism=8 is more than pipeline.shards = 2.*pipeline.shards=8"):
        pipeline_options("FlinkRunner", ["--parallelism=8"], bounded=False, shards=2)
