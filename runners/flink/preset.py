"""What a Flink job of this pipeline is told, each setting with its reason; whatever the user says goes before it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from apache_beam.options.pipeline_options import PipelineOptions

from runners.flink.options import FlinkOptions
from runners.flink.versions import DEFAULT_FLINK
from transforms.errors import UserError

DEFAULT_MASTER, DEFAULT_POOL = "localhost:8081", "localhost:50000"
DEFAULT_SHARDS = 2


@dataclass(frozen=True)
class Setting:
    """One setting of the preset.

    Attributes:
        kind: `beam` for a flag of the pipeline, `flink` for a key of Flink's configuration.
        name: of the flag, or the key.
        value: what it is set to unless the user says otherwise.
        reason: why, in one line.
        mode: `stream` for endless input only, `batch` for input that ends, or both.
    """

    kind: Literal["beam", "flink"]
    name: str
    value: str | int | bool
    reason: str
    mode: Literal["both", "stream", "batch"] = "both"


PRESET = (
    Setting("beam", "flink_master", DEFAULT_MASTER, "the cluster of `python -m runners.flink up`"),
    Setting("beam", "flink_version", DEFAULT_FLINK, "what EMR 7.7 and later run; Beam would take the newest there is"),
    Setting("beam", "environment_type", "EXTERNAL", "workers come from a pool on each node, with all dependencies"),
    Setting("beam", "environment_config", DEFAULT_POOL, "where that pool listens, on every node"),
    Setting("beam", "parallelism", 2, "subtasks of each stage; a local cluster has two slots"),
    Setting("beam", "max_parallelism", 128, "key groups; savepoints fix it, so it leaves room to grow to 128 subtasks"),
    Setting(
        "beam",
        "sdk_worker_parallelism",
        4,
        "Python processes a TaskManager: Beam deals them the stages in turn, and two a slot even out",
    ),
    Setting("beam", "max_cache_memory_usage_mb", 256, "state that a worker keeps instead of asking Flink; off in Beam"),
    Setting(
        "beam",
        "max_bundle_time_mills",
        40,
        "results leave when a bundle ends, in Beam after a second; stages look twice in that time, which costs",
        "stream",
    ),
    Setting(
        "beam",
        "max_bundle_size",
        DEFAULT_SHARDS,
        "pipeline.shards: a bundle ends once each subtask before has sent the pieces of a batch, without a clock",
        "stream",
    ),
    Setting("beam", "max_bundle_size", 100_000, "of input that ends nobody waits for the first results", "batch"),
    Setting("beam", "checkpointing_interval", 10_000, "what a failure repeats, at most; off in Beam", "stream"),
    Setting("beam", "checkpointing_mode", "EXACTLY_ONCE", "state that counts every transaction once", "stream"),
    Setting("beam", "checkpoint_timeout_millis", 300_000, "five minutes, for a restored state of gigabytes", "stream"),
    Setting("beam", "min_pause_between_checkpoints", 2_000, "work goes on between long checkpoints", "stream"),
    Setting(
        "beam",
        "finish_bundle_before_checkpointing",
        True,
        "Beam would keep a bundle's output back till after the checkpoint, and let the watermark pass it: late rows",
        "stream",
    ),
    Setting(
        "beam",
        "retain_externalized_checkpoints_on_cancellation",
        True,
        "a job that somebody cancels can still go on from its last checkpoint",
        "stream",
    ),
    Setting(
        "flink",
        "execution.buffer-timeout.interval",
        "0 ms",
        "a record is a batch and leaves at once; in Flink after 100 ms at most, at each of four exchanges",
        "stream",
    ),
    Setting("flink", "state.backend.type", "rocksdb", "state larger than memory, and checkpoints of changes", "stream"),
    Setting("flink", "state.backend.incremental", "true", "a checkpoint costs what changed", "stream"),
    Setting(
        "flink",
        "execution.checkpointing.externalized-checkpoint-retention",
        "RETAIN_ON_CANCELLATION",
        "likewise, in Flink's own words",
        "stream",
    ),
    Setting(
        "flink",
        "execution.checkpointing.tolerable-failed-checkpoints",
        "10",
        "a store that is away for a while does not restart the job",
        "stream",
    ),
    Setting("flink", "restart-strategy.type", "exponential-delay", "restarts without end, ever more slowly", "stream"),
    Setting(
        "flink", "restart-strategy.exponential-delay.initial-backoff", "500 ms", "soon back after a kill", "stream"
    ),
    Setting("flink", "restart-strategy.exponential-delay.max-backoff", "30 s", "and gently while it lasts", "stream"),
    Setting(
        "flink",
        "restart-strategy.exponential-delay.reset-backoff-threshold",
        "2 min",
        "what ran that long is taken to be well again",
        "stream",
    ),
    Setting("flink", "restart-strategy.type", "none", "input that ends is read again by whoever wants it", "batch"),
)


def preset_arguments(bounded: bool, shards: int = DEFAULT_SHARDS) -> list[str]:
    """The preset's Beam flags, to stand before the user's: of a flag that is given twice, Beam takes the second.

    Args:
        bounded: whether the sources end.
        shards: keys of the stages that remember.
    """
    return [f"--{setting.name}={setting.value}" for setting in _of("beam", bounded, shards)]


def flink_configuration(options: PipelineOptions, bounded: bool) -> dict[str, str]:
    """Flink's settings of the job: the preset's, and the user's over them.

    Raises:
        UserError: a `--flink_config` is not of the form KEY=VALUE.
    """
    found = {setting.name: str(setting.value) for setting in _of("flink", bounded)}
    for text in options.view_as(FlinkOptions).flink_config or ():
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UserError(f"--flink_config {text!r} is not of the form KEY=VALUE")
        found[key.strip()] = value.strip()
    return found


def explain_preset(options: PipelineOptions, bounded: bool, shards: int = DEFAULT_SHARDS) -> list[tuple[str, str, str]]:
    """Every setting of the preset: name, the value it has, and why.

    Args:
        options: with the preset applied.
        bounded: whether the sources end.
        shards: keys of the stages that remember.
    """
    flags, configuration = options.get_all_options(), flink_configuration(options, bounded)
    rows = []
    for setting in (*_of("beam", bounded, shards), *_of("flink", bounded)):
        value = flags[setting.name] if setting.kind == "beam" else configuration.pop(setting.name)
        reason = setting.reason if str(value) == str(setting.value) else f"given; the preset has {setting.value}"
        rows.append((f"--{setting.name}" if setting.kind == "beam" else setting.name, str(value), reason))
    return [*rows, *((key, value, "given") for key, value in configuration.items())]


def _of(kind: str, bounded: bool, shards: int = DEFAULT_SHARDS) -> list[Setting]:
    found = [each for each in PRESET if each.kind == kind and each.mode in ("both", "batch" if bounded else "stream")]
    return [replace(e, value=shards) if e.name == "max_bundle_size" and not bounded else e for e in found]
