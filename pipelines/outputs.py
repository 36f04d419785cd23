"""Where everything the pipeline produces goes: the sinks that were named, or files in the output directory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PCollection

from io_connectors.delivery import Delivered
from io_connectors.output_directory import OutputDirectory
from io_connectors.sinks import DECISION_SINKS, RECORD_SINKS, decision_sink, record_sink
from io_connectors.sources import Source
from io_connectors.urls import parse_url
from pipelines.fraud import FraudOutputs
from pipelines.settings import Output
from transforms.batch import CANONICAL_FIELDS, PROVENANCE_COLUMNS
from transforms.errors import UserError
from transforms.shadow import SHADOW_COLUMNS
from transforms.tally_rows import Count

_SHADOW_SINKS = ("file", "s3", "kafka", "kinesis")
Sink = beam.PTransform[PCollection[Any], Delivered]


@dataclass(frozen=True)
class Sinks:
    """Opened sinks: each may be used in one pipeline, once.

    Attributes:
        decisions, alerts: one or more each.
        dead_letters, summaries, drift, calibration: one each.
        last_resort: a local file for what even these refuse for good.
        shadows: where candidates' scores go; None without candidates.
    """

    decisions: tuple[Sink, ...]
    alerts: tuple[Sink, ...]
    dead_letters: Sink
    summaries: Sink
    drift: Sink
    calibration: Sink
    last_resort: Sink
    shadows: Sink | None = None


def open_sinks(output: Output, files: Sequence[str], columns: Sequence[str], has_shadows: bool = False) -> Sinks:
    """The sinks that the settings name, as far as they can be looked at before anything is written.

    Args:
        output: where results go.
        files: those that will be read.
        columns: of decisions.
        has_shadows: whether candidates score beside the model.

    Raises:
        UserError: a sink is none, or would spoil what is to be read; names the sink or the file.
    """
    local = OutputDirectory(output.directory)
    sinks = Sinks(
        decisions=tuple(decision_sink(url, columns=columns) for url in output.sinks or (f"file:{local.decisions}",)),
        alerts=tuple(record_sink(url, "--alert") for url in output.alerts or (f"file:{local.alerts}",)),
        dead_letters=record_sink(output.dead_letters or f"file:{local.dead_letters}", "--dead_letters"),
        summaries=record_sink(output.summaries or f"file:{local.windows}", "output.summaries"),
        drift=record_sink(output.drift or f"file:{local.drift}", "output.drift"),
        calibration=record_sink(output.calibration or f"file:{local.calibration}", "output.calibration"),
        last_resort=record_sink(_file_of(output.dead_letters) or f"file:{local.dead_letters}", "--dead_letters"),
        shadows=_shadow_sink(output, local) if has_shadows else None,
    )
    _check_files(output, files, local)
    check_watched(output, files)
    return sinks


def _shadow_sink(output: Output, local: OutputDirectory) -> Sink:
    """Where candidates' rows go: tables of decisions keep one row a transaction, and here each candidate has one."""
    text = output.shadow or f"file:{local.shadow}"
    url = parse_url(text, DECISION_SINKS, "--shadow_sink")
    if url.scheme not in _SHADOW_SINKS:
        raise UserError(
            f"--shadow_sink: {url.scheme}: keeps one row a transaction, and each candidate has its own; "
            f"name a directory, a bucket or a topic ({', '.join(f'{scheme}:' for scheme in _SHADOW_SINKS)})"
        )
    names = (*(field.name for field in CANONICAL_FIELDS if field.name not in PROVENANCE_COLUMNS), *SHADOW_COLUMNS)
    return decision_sink(text, "--shadow_sink", columns=names)


def _file_of(text: str | None) -> str | None:
    """A URL, if it names a local file: those take everything, or fail."""
    return text if text and parse_url(text, RECORD_SINKS, "--dead_letters").scheme == "file" else None


def _check_files(output: Output, files: Sequence[str], local: OutputDirectory) -> None:
    """Refuse two kinds of records in one file, and results that go where input lies."""
    records = {
        "--alert": output.alerts,
        "--dead_letters": [output.dead_letters],
        **_window_records(output),
    }
    added: dict[str, str] = {}
    for flag, text in ((flag, url) for flag, urls in records.items() for url in urls if url):
        url = parse_url(text, RECORD_SINKS, flag)
        if url.scheme != "file":
            continue
        path = os.path.realpath(url.path)
        if path in added:
            raise UserError(f"{flag}: {added[path]} goes to {path} already; a file takes one kind of record, once")
        added[path] = flag
    removed = [os.path.realpath(path) for path in local.artefacts]
    for file in files:
        path = os.path.realpath(file)
        if path in added:
            raise UserError(f"{added[path]}: {file} is to be read, so nothing can be added to it; name another file")
        if any(Path(path).is_relative_to(artefact) for artefact in removed):
            raise UserError(
                f"{file} is to be read, but a run into {output.directory} first removes the results of the one before, "
                "and it is one of them; name another directory with --output"
            )


def _window_records(output: Output) -> dict[str, list[str | None]]:
    """By setting, where what is told of windows goes."""
    return {
        "output.summaries": [output.summaries],
        "output.drift": [output.drift],
        "output.calibration": [output.calibration],
    }


def check_watched(output: Output, files: Sequence[str]) -> None:
    """Refuse results where a source waits for more objects to read."""
    watched = [file.removeprefix("s3://") for file in files if file.startswith("s3://")]
    if not watched:
        return
    from io_connectors.s3.apart import check_apart
    from io_connectors.s3.objects import locations

    flags: dict[str, Sequence[str | None]] = {
        "--sink": output.sinks, "--alert": output.alerts, "--dead_letters": [output.dead_letters],
        "--shadow_sink": [output.shadow],
    }  # fmt: skip
    flags |= _window_records(output)
    for flag, text in ((flag, text) for flag, texts in flags.items() for text in texts if text):
        url = parse_url(text, DECISION_SINKS if flag in ("--sink", "--shadow_sink") else RECORD_SINKS, flag)
        if url.scheme == "s3":
            written = [(flag, each) for each in locations(url.path, url.parameters.get("flagged"))]
            for pattern in watched:
                check_apart(pattern, written)


def write(outputs: FraudOutputs, sinks: Sinks, source: Source) -> None:
    """Branch the pipeline's outputs to their sinks, and tell the source what they hold, if it wants to know.

    What a sink refuses for good becomes a dead letter as well; these are counted as `undelivered`, apart from the
    records that got no decision.
    """
    decided = [outputs.decisions | f"WriteDecisions[{at}]" >> sink for at, sink in enumerate(sinks.decisions)]
    alerts = outputs.alerts
    alerted = [alerts | f"WriteAlerts[{at}]" >> sink for at, sink in enumerate(sinks.alerts)] if alerts else []
    shadowed = [outputs.shadows | "WriteShadows" >> sinks.shadows] if outputs.shadows and sinks.shadows else []
    refused = [delivered.dead_letters for delivered in (*decided, *alerted, *shadowed)]
    undelivered = refused | "GatherUndelivered" >> beam.Flatten() | "CountUndelivered" >> Count("undelivered")
    letters = (outputs.dead_letters, undelivered) | "WithUndelivered" >> beam.Flatten()
    dead = letters | "WriteDeadLetters" >> sinks.dead_letters
    if source.commit is not None:
        held = {f"decisions[{at}]": delivered.written for at, delivered in enumerate(decided)}
        _ = {"read": outputs.raw, "dead_letters": dead.written, **held} | "CommitOffsets" >> source.commit
    told = []
    if outputs.summaries is not None:
        told.append(outputs.summaries | "WriteSummaries" >> sinks.summaries)
    if outputs.drift is not None:
        told.append(outputs.drift | "WriteDrift" >> sinks.drift)
    if outputs.calibration is not None:
        told.append(outputs.calibration | "WriteCalibration" >> sinks.calibration)
    refused_again = [dead.dead_letters, *(each.dead_letters for each in told)] | "GatherRefused" >> beam.Flatten()
    _ = refused_again | "WriteRefused" >> sinks.last_resort
