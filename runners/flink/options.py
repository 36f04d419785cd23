"""Flags of Flink jobs: those that only the Java half of Beam's runner declares, and ours."""

from __future__ import annotations

import argparse

from apache_beam.options.pipeline_options import PipelineOptions

#: Options of Beam's FlinkPipelineOptions (Java), by type. Python hands them on without knowing them.
_INTEGERS = {
    "checkpointing_interval": "milliseconds between checkpoints; -1: none",
    "checkpoint_timeout_millis": "milliseconds after which a checkpoint is given up",
    "min_pause_between_checkpoints": "milliseconds between the end of one checkpoint and the start of the next",
    "max_bundle_size": "most elements in a bundle",
    "max_bundle_time_mills": "most milliseconds that a bundle stays open",
    "number_of_execution_retries": "how often a failed job starts again; unset: as Flink is configured",
    "execution_retry_delay": "milliseconds before it does",
    "auto_watermark_interval": "milliseconds between two watermarks of a source",
}
_TEXTS = {
    "checkpointing_mode": "EXACTLY_ONCE or AT_LEAST_ONCE",
    "execution_mode_for_batch": "PIPELINED, BATCH or a forced one of these",
    "savepoint_path": "a savepoint or retained checkpoint that the job goes on from",
}
_SWITCHES = {
    "object_reuse": "whether operators that are chained hand objects on without a copy",
    "operator_chaining": "whether operators are chained",
    "retain_externalized_checkpoints_on_cancellation": "whether the last checkpoint stays when the job is cancelled",
    "allow_non_restored_state": "whether state of a savepoint that no transform has any more may be dropped",
    "unaligned_checkpoint_enabled": "whether checkpoints overtake what waits between operators",
    "finish_bundle_before_checkpointing": "whether bundles end before a checkpoint rather than with it",
    "disable_metrics": "whether Beam's metrics stay away from Flink's",
    "use_data_stream_for_batch": "whether input that ends is run by Flink's DataStream interface too",
}


class FlinkOptions(PipelineOptions):
    """Beam options that a Flink job takes and that Beam's Python half does not declare."""

    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        for name, text in _INTEGERS.items():
            parser.add_argument(f"--{name}", type=int, help=text)
        for name, text in _TEXTS.items():
            parser.add_argument(f"--{name}", help=text)
        for name, text in _SWITCHES.items():
            parser.add_argument(f"--{name}", type=_switch, nargs="?", const=True, help=text)
        parser.add_argument("--worker_directory", help="where Python workers run; relative paths start there")
        parser.add_argument(
            "--flink_config",
            action="append",
            metavar="KEY=VALUE",
            help="a Flink setting of the job, over the preset's; may be repeated",
        )


def _switch(text: str) -> bool:
    """A Boolean as Java writes it.

    Example:
        >>> _switch("true"), _switch("False")
        (True, False)
    """
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"
