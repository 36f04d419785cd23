"""The settings of `python -m pipelines.fraud`: what there is, where it may be said, and nothing else.

A setting has one name, `section.key`, wherever it is given. A flag (`--source URL`) goes before
`--set input.source=URL`, which goes before a file (`--config FILE.toml`), which goes before the default:

    [input]
    source = "file:transactions/*.csv"

    [[rules]]
    name = "large"
    when = "amount > 2000"
    action = "review"

What is misspelt, of the wrong type or out of range is refused, with the place it was given.
`python -m pipelines.fraud --print_config` writes every setting with its meaning, as such a file.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from pipelines.setting_tables import rules_of, segments_of
from pipelines.setting_values import (
    Budget,
    Cost,
    Duration,
    LongDuration,
    Probability,
    Text,
    convert_setting,
    declared_settings,
    mask_secrets,
)
from transforms.durations import parse_duration
from transforms.errors import UserError, did_you_mean
from transforms.rule_syntax import Rule, Segment


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is read. Each setting's meaning is its description."""

    source: Annotated[Text, Meta(description="URL the transactions are read from")] = "simulator:"
    schema: Annotated[Text, Meta(description="how its fields are named: a shipped schema or a TOML file")] = "handbook"
    labels: Annotated[Text | None, Meta(description="URL of the labels that arrive later (chargebacks)")] = None


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where results go."""

    directory: Annotated[Text, Meta(description="where local results and the report are written")] = "output"
    sinks: Annotated[tuple[Text, ...], Meta(description="URLs for decisions; none: Parquet in the directory")] = ()
    alerts: Annotated[tuple[Text, ...], Meta(description="URLs for alerts; none: alerts.jsonl in the directory")] = ()
    dead_letters: Annotated[
        Text | None, Meta(description="URL for what could not be processed; none: dead_letters.jsonl in the directory")
    ] = None
    summaries: Annotated[
        Text | None, Meta(description="URL for the summaries of windows; none: windows.jsonl in the directory")
    ] = None
    drift: Annotated[
        Text | None, Meta(description="URL for the drift of columns by window; none: drift.jsonl in the directory")
    ] = None
    calibration: Annotated[
        Text | None, Meta(description="URL for scores against labels; none: calibration.jsonl in the directory")
    ] = None
    shadow: Annotated[
        Text | None, Meta(description="URL for candidates' scores; none: shadow/*.parquet in the directory")
    ] = None


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What scores."""

    uri: Annotated[
        Text | None,
        Meta(
            description="a shipped model, a trained one's directory, registry:DIRECTORY#champion or "
            "sagemaker:ENDPOINT; none: the schema's own"
        ),
    ] = None
    public_key: Annotated[
        Text | None,
        Meta(description="PEM file of the key that a registry's models must be signed with; none: unsigned"),
    ] = None
    refresh: Annotated[
        Duration | None,
        Meta(description="how often a stream looks at a registry's alias; 0: never; none: 30s. Input that ends: never"),
    ] = None
    shadow: Annotated[
        tuple[Text, ...], Meta(description="candidates that score beside it and decide nothing, named likewise")
    ] = ()
    shadow_budget: Annotated[
        LongDuration | None,
        Meta(description="how long a batch waits for a candidate; none: 1s for streams, 60s for input that ends"),
    ] = None


class Pipeline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How rows are ordered, spread and cut into batches."""

    ordering: Annotated[
        Literal["auto", "event_time", "arrival"],
        Meta(description="auto: event_time for input that ends, arrival for streams"),
    ] = "auto"
    shards: Annotated[
        int, Meta(ge=1, le=1024, description="parts that customers are spread over: at least the parallelism")
    ] = 2
    batch_rows: Annotated[int, Meta(ge=1, le=1_000_000, description="most transactions in a batch")] = 16_384
    allowed_lateness: Annotated[Duration, Meta(description="how far behind the watermark a row is in time")] = "1h"
    deduplicate: Annotated[bool, Meta(description="whether a transaction_id seen before is a dead letter")] = True
    deduplicate_window: Annotated[
        LongDuration, Meta(description="how long, in event time, a transaction_id is remembered")
    ] = "30d"


class Labels(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When labels are known."""

    delay: Annotated[Duration, Meta(description="how long after a transaction its label is known")] = "7d"


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What scores lead to."""

    review: Annotated[Probability | None, Meta(description="score to review from; none: the model's")] = None
    decline: Annotated[Probability | None, Meta(description="score to decline from; none: the model's")] = None
    review_cost_minor: Annotated[
        Cost | None, Meta(description="an analyst's look at one transaction, in minor units; none: the model's")
    ] = None
    decline_cost_minor: Annotated[
        Cost | None, Meta(description="turning away a good customer, in minor units; none: the model's")
    ] = None
    reasons: Annotated[bool, Meta(description="whether what is not approved gets reasons beside its rules")] = True
    segments: Annotated[
        tuple[Segment, ...],
        Meta(description="[[policy.segments]]: name, when, review, decline; the first that applies to a transaction"),
    ] = ()


class Alerts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which alerts are sent."""

    enabled: Annotated[bool, Meta(description="whether there are any; decisions are written all the same")] = True
    suppress: Annotated[
        Duration, Meta(description="how long after a card's alert its others are only counted; 0: all are sent")
    ] = "0"
    cards_a_day: Annotated[
        Budget | None, Meta(description="most cards that are alerted on in a day (UTC); none: no limit")
    ] = None


class Summary(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The windows that decisions are counted in."""

    enabled: Annotated[bool, Meta(description="whether there are any")] = True
    window: Annotated[
        LongDuration | None,
        Meta(description="length of a window; none: one minute for streams, one hour for input that ends"),
    ] = None
    every: Annotated[LongDuration | None, Meta(description="a sliding window's period; none: fixed windows")] = None
    allowed_lateness: Annotated[Duration, Meta(description="how long a closed window still takes late rows")] = "1h"
    early: Annotated[Duration, Meta(description="how often an open window reports; 0: only when it closes")] = "30s"


class Monitor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whether what comes in is still like what the model learnt from."""

    drift: Annotated[bool, Meta(description="whether features and scores are compared with the reference")] = True
    calibration: Annotated[
        bool, Meta(description="whether scores of input that ends are compared with its labels, where it has some")
    ] = True
    reference: Annotated[
        Text | None, Meta(description="file of what they are compared with; none: the model's own reference.json")
    ] = None
    window: Annotated[LongDuration, Meta(description="length of a window of event time that is compared")] = "1d"
    every: Annotated[LongDuration | None, Meta(description="a sliding window's period; none: fixed windows")] = None
    psi_alert: Annotated[
        float, Meta(gt=0, le=100, description="population stability index from which on a column has drifted")
    ] = 0.25
    least_rows: Annotated[
        int, Meta(ge=1, le=10**12, description="decisions without which a window says too little for that")
    ] = 1000


class Progress(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a run says of itself while it runs."""

    mode: Annotated[
        Literal["auto", "terminal", "plain", "off"],
        Meta(description="auto: a live line on a terminal, plain lines elsewhere"),
    ] = "auto"
    every: Annotated[LongDuration, Meta(description="how often it is brought up to date")] = "1s"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every setting of a run; `Settings()` is the default run."""

    input: Input = Input()
    output: Output = Output()
    model: Model = Model()
    pipeline: Pipeline = Pipeline()
    labels: Labels = Labels()
    policy: Policy = Policy()
    alerts: Alerts = Alerts()
    summary: Summary = Summary()
    monitor: Monitor = Monitor()
    progress: Progress = Progress()
    rules: tuple[Rule, ...] = ()


#: Flags that are short for a setting. `--quiet` says `progress.mode = "off"`.
FLAGS = {
    "source": "input.source",
    "schema": "input.schema",
    "labels": "input.labels",
    "output": "output.directory",
    "sink": "output.sinks",
    "alert": "output.alerts",
    "dead_letters": "output.dead_letters",
    "model": "model.uri",
    "shadow": "model.shadow",
    "shadow_sink": "output.shadow",
    "quiet": "progress.mode",
}

_KINDS = {name: kind for name, kind in get_type_hints(Settings).items() if name != "rules"}
_SECTIONS = {name: declared_settings(kind) for name, kind in _KINDS.items()}
_SETTINGS = {f"{section}.{key}": setting for section, keys in _SECTIONS.items() for key, setting in keys.items()}
_RULE = declared_settings(Rule)
#: Settings that are lists of tables, and what makes them of these.
_TABLES = {"rules": rules_of, "policy.segments": segments_of}


def load_settings(
    config: Path | None = None, sets: Sequence[str] = (), flags: Mapping[str, object] | None = None
) -> Settings:
    """The settings of a run.

    Args:
        config: a TOML file, or None.
        sets: `section.key=value` each. A value is written as in TOML; text needs no quotes.
        flags: values by the names in `FLAGS`; None and empty lists count as not given.

    Raises:
        UserError: names the file or flag, the setting, what was found and what was expected.

    Example:
        >>> load_settings(sets=["pipeline.shards=16", "labels.delay=3d"]).pipeline.shards
        16
    """
    return settings_and_origins(config, sets, flags)[0]


def settings_and_origins(
    config: Path | None = None, sets: Sequence[str] = (), flags: Mapping[str, object] | None = None
) -> tuple[Settings, dict[str, str]]:
    """The settings of a run, and for each that was given the file or flag it came from (see `load_settings`).

    Raises:
        UserError: as `load_settings`.
    """
    given = [*(_of_file(config) if config else ()), *_of_sets(sets), *_of_flags(flags or {})]
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, value, origin in given:  # the last one counts, the others must make sense too
        values[name] = _TABLES[name](value, origin) if name in _TABLES else _checked(name, value, origin)
        origins[name] = origin
    sections: dict[str, Any] = {
        name: kind(**{key: values[f"{name}.{key}"] for key in _SECTIONS[name] if f"{name}.{key}" in values})
        for name, kind in _KINDS.items()
    }
    settings = Settings(**sections, rules=values.get("rules", ()))
    _check_together(settings, origins)
    return settings, origins


_Given = tuple[str, object, str]  # the setting's name, the value, where it was given


def _of_file(path: Path) -> Iterator[_Given]:
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"--config {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a TOML file: {error}") from error
    for section, table in tables.items():
        if section == "rules":
            yield "rules", table, str(path)
        elif section not in _SECTIONS:
            raise UserError(f"{path}: {_unknown(section)}")
        elif not isinstance(table, dict):
            raise UserError(f"{path}: {section} is a section; write [{section}] and its settings below")
        else:
            for key, value in table.items():
                yield f"{section}.{key}", value, str(path)


def _of_sets(sets: Sequence[str]) -> Iterator[_Given]:
    seen = set()
    for text in sets:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not name or not equals:
            raise UserError(f"--set {mask_secrets(text)}: write --set section.key=value")
        if name in seen:
            raise UserError(f"--set {name} is given twice")
        seen.add(name)
        yield name, _toml_value(name, value.strip()), "--set"


def _of_flags(flags: Mapping[str, object]) -> Iterator[_Given]:
    for flag, value in flags.items():
        if value is not None and value != [] and value != ():
            yield FLAGS[flag], value, f"--{flag}"


def _toml_value(name: str, text: str) -> object:
    """What `text` says for a setting: text as it stands, all else as in TOML."""
    quoted = text.startswith(("'", '"', "[", "{"))
    is_text = name in _SETTINGS and isinstance(_SETTINGS[name].info, msgspec.inspect.StrType)
    if is_text and not quoted:
        return text
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if quoted:
            raise UserError(f"--set {name}: {mask_secrets(text)} is not a TOML value: {error}") from error
        return text
    return table["value"] if len(table) == 1 else text


def _checked(name: str, value: object, origin: str) -> object:
    """The value of one setting, as its type."""
    if name not in _SETTINGS:
        raise UserError(f"{origin}: {_unknown(name)}")
    return convert_setting(name, _SETTINGS[name], value, origin)


def _unknown(name: str) -> str:
    """What is wrong with a name that is neither a section nor a setting."""
    section, _, key = name.partition(".")
    if section in _SECTIONS and not key:
        return f"{name} is a section; name one of its settings: {', '.join(_SECTIONS[section])}"
    elsewhere = [known for known in _SETTINGS if known.endswith(f".{key or name}")]
    if elsewhere:
        return f"{name} is not a setting; did you mean {' or '.join(elsewhere)}?"
    if section in _SECTIONS:
        hint = did_you_mean(key, _SECTIONS[section]) or f"; [{section}] has {', '.join(_SECTIONS[section])}"
    else:
        sections = [*_SECTIONS, "rules"]
        hint = did_you_mean(section, sections) or did_you_mean(name, _SETTINGS) or f"; there are {', '.join(sections)}"
    return f"{name} is not a setting{hint}" if key else f"[{name}] is not a section{hint}"


def _check_together(settings: Settings, origins: Mapping[str, str]) -> None:
    """Refuse settings that are each right but do not go together."""
    review, decline = settings.policy.review, settings.policy.decline
    if review is not None and decline is not None and review > decline:
        raise UserError(
            f"policy.review ({review}, {origins['policy.review']}) must be at most policy.decline "
            f"({decline}, {origins['policy.decline']}): what is declined need not be reviewed"
        )
    if settings.output.alerts and not settings.alerts.enabled:
        raise UserError(
            f"alerts.enabled (false, {origins['alerts.enabled']}) leaves nothing to send to output.alerts "
            f"({origins['output.alerts']}): give one of the two"
        )
    for section, window, every in (
        ("summary", settings.summary.window, settings.summary.every),
        ("monitor", settings.monitor.window, settings.monitor.every),
    ):
        if window and every and parse_duration(every) > parse_duration(window):
            given = origins.get(f"{section}.window", "the default")
            raise UserError(
                f"{section}.every ({every}, {origins[f'{section}.every']}) must be at most {section}.window "
                f"({window}, {given}): rows between two windows would be in none"
            )


def settings_as_toml(settings: Settings, origins: Mapping[str, str] | None = None) -> str:
    r"""Every setting as a TOML file that says the same, with its meaning and, where known, where it was given.

    Example:
        >>> text = settings_as_toml(Settings(), {"input.source": "--source"})
        >>> print("\n".join(text.splitlines()[:3]))
        [input]
        # URL the transactions are read from
        source = "simulator:"  # --source
    """
    lines, known = [], origins or {}
    for section, keys in _SECTIONS.items():
        lines.append(f"[{section}]")
        for key, setting in keys.items():
            value = getattr(getattr(settings, section), key)
            said = f"# {key} is not set" if value is None else f"{key} = {_toml(value)}"
            lines += [f"# {setting.description}", _with_origin(said, known.get(f"{section}.{key}"))]
        lines.append("")
    for rule in settings.rules:
        lines.append(_with_origin("[[rules]]", known.get("rules")))
        lines += [*(f"{key} = {_toml(getattr(rule, key))}" for key in _RULE), ""]
    return "\n".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, msgspec.Struct):
        return f"{{ {', '.join(f'{key} = {_toml(each)}' for key, each in msgspec.structs.asdict(value).items())} }}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    # JSON writes text, numbers, true and false as TOML does, but for one character it need not escape.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _with_origin(line: str, origin: str | None) -> str:
    return f"{line}  # {' '.join(origin.split())}" if origin else line
