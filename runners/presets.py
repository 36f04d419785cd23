"""What each runner needs to be told, so that no transform has to know where it runs."""

from __future__ import annotations

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from transforms.errors import UserError

#: Beam's `DirectRunner` picks one of three runners by itself and may download one of them; this is the
#: one of them that input that ends runs on fastest.
IN_MEMORY = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"


def pipeline_options(runner: str, beam_arguments: list[str], bounded: bool) -> PipelineOptions:
    """Beam's options for a run: the runner's preset, overridden by what the user said.

    Args:
        runner: as given by `--runner`.
        beam_arguments: Beam's own flags, as given.
        bounded: whether the sources end.

    Raises:
        UserError: the runner cannot do what is asked of it.
    """
    options = PipelineOptions(beam_arguments)
    standard = options.view_as(StandardOptions)
    standard.runner = runner
    if runner == "DirectRunner":
        if not bounded:
            raise UserError(
                "the DirectRunner's in-memory engine gives nothing out before its source ends, and this one never "
                "does: give the source an end, or run with --runner=PrismRunner or --runner=FlinkRunner"
            )
        standard.runner = IN_MEMORY
    if not bounded:
        standard.streaming = True
    return options
