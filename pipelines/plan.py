"""Settings made concrete and checked against each other, before anything is read or written."""

from __future__ import annotations

from dataclasses import dataclass

from io_connectors.sources import Source, open_source
from model_artifacts.manifest import Costs, Manifest, Thresholds
from pipelines.monitor.watched import Watched, watched
from pipelines.served import ServedModel, patience, served, shadows
from pipelines.settings import Settings
from transforms.batch import CANONICAL_FIELDS, PROVENANCE_COLUMNS
from transforms.candidates import Candidate, Patience
from transforms.decide import DECIDE_COLUMNS, ThresholdPolicy, thresholds_for
from transforms.durations import HOUR, SECOND, parse_duration
from transforms.errors import UserError
from transforms.features import FeatureSet, check_label_delay
from transforms.policy import CompiledSegments, compile_segments
from transforms.rules import CompiledRules, compile_rules, rule_columns
from transforms.schema import Schema, load_schema
from transforms.score import SCORE_COLUMNS
from transforms.shard_state import Ordering


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        model: what scores, and what it is replaced by on the way.
        shadows: candidates that score beside it.
        patience: with these.
        policy: the settings' thresholds over whichever model's.
        thresholds: of the model at the start under that policy.
        allowed_lateness, label_delay: in microseconds.
        deduplicate_window: likewise; 0 lets every transaction through.
        suppress_window: likewise; 0 sends every alert.
        summary_window, summary_every, summary_early, summary_lateness: see `SummarizeWindows`, in microseconds.
        watched: what is compared with the model's training.
    """

    settings: Settings
    schema: Schema
    source: Source
    labels: Source | None
    model: ServedModel
    shadows: tuple[Candidate, ...]
    patience: Patience
    policy: ThresholdPolicy
    thresholds: Thresholds
    costs: Costs
    rules: CompiledRules
    segments: CompiledSegments
    ordering: Ordering
    allowed_lateness: int
    label_delay: int
    deduplicate_window: int
    suppress_window: int
    summary_window: int
    summary_every: int | None
    summary_early: int | None
    summary_lateness: int
    watched: Watched

    @property
    def model_uri(self) -> str:
        """The model at the start; for ever the same one."""
        return self.model.uri

    @property
    def manifest(self) -> Manifest:
        """Of the model at the start; its feature set is what is computed, whatever model follows it."""
        return self.model.manifest

    @property
    def bounded(self) -> bool:
        """Whether the run ends by itself."""
        return self.source.bounded and (self.labels is None or self.labels.bounded)

    @property
    def judged(self) -> bool:
        """Whether the windows of its decisions are compared with labels: where it ends, and there may be some."""
        carried = self.schema.columns.get("is_fraud")
        labelled = self.labels is not None or (carried is not None and carried.field is not None)
        return self.bounded and self.settings.monitor.calibration and labelled

    @property
    def decision_columns(self) -> tuple[str, ...]:
        """What is known of a transaction once it is decided on, less where it came from."""
        return _decision_columns(self.schema, self.manifest)

    @property
    def files(self) -> tuple[str, ...]:
        """The local files that will be read."""
        return (*self.source.files, *(self.labels.files if self.labels else ()))


def make_plan(settings: Settings) -> Plan:
    """What these settings mean.

    Raises:
        UserError: something named does not exist, is broken, or does not go with the rest.
    """
    schema = load_schema(settings.input.schema)
    rows, pipeline = settings.pipeline.batch_rows, settings.pipeline
    source = open_source(settings.input.source, schema, rows)
    labels = open_source(settings.input.labels, schema, rows, "--labels") if settings.input.labels else None
    bounded = source.bounded and (labels is None or labels.bounded)
    model = served(settings, schema, bounded)
    manifest = model.manifest
    check_columns(manifest.feature_set, schema, f"model {manifest.model_id}")
    label_delay = parse_duration(settings.labels.delay)
    if settings.input.labels is None:
        check_label_delay(manifest.feature_set, label_delay)
    ordering: Ordering = "event_time" if bounded else "arrival"
    policy = ThresholdPolicy(settings.policy.review, settings.policy.decline)
    return Plan(
        settings=settings,
        schema=schema,
        source=source,
        labels=labels,
        model=model,
        shadows=shadows(settings, model),
        patience=patience(settings, bounded),
        policy=policy,
        thresholds=thresholds_for(manifest, policy),
        costs=_costs(settings, manifest),
        rules=compile_rules(settings.rules, rule_columns(schema, manifest.feature_set)),
        segments=compile_segments(settings.policy.segments, rule_columns(schema, manifest.feature_set)),
        ordering=ordering if pipeline.ordering == "auto" else pipeline.ordering,
        allowed_lateness=parse_duration(pipeline.allowed_lateness),
        label_delay=label_delay,
        deduplicate_window=parse_duration(pipeline.deduplicate_window) if pipeline.deduplicate else 0,
        suppress_window=parse_duration(settings.alerts.suppress),
        summary_window=_summary_window(settings, bounded),
        summary_every=parse_duration(settings.summary.every) if settings.summary.every else None,
        summary_early=parse_duration(settings.summary.early) or None,
        summary_lateness=parse_duration(settings.summary.allowed_lateness),
        watched=watched(settings.monitor, model.uri, manifest, _decision_columns(schema, manifest)),
    )


def _decision_columns(schema: Schema, manifest: Manifest) -> tuple[str, ...]:
    canonical = (field.name for field in CANONICAL_FIELDS if field.name not in PROVENANCE_COLUMNS)
    names = (*canonical, *schema.own_columns, *manifest.feature_names, *SCORE_COLUMNS, *DECIDE_COLUMNS)
    return tuple(dict.fromkeys(names))  # a feature may replace the column that it is made of


def check_columns(feature_set: FeatureSet, schema: Schema, who: str) -> None:
    """Refuse a feature set that needs columns the schema does not have.

    Raises:
        UserError: names the columns.
    """
    missing = [name for name in feature_set.columns if name not in schema.columns]
    if missing:
        raise UserError(
            f"{who} needs {', '.join(missing)}, which schema {schema.name} does not have; it has "
            f"{', '.join(schema.columns)}. Train a model on this schema: python -m pipelines.training --schema "
            f"{schema.name} --features FILE"
        )
    hidden = [f.name for f in feature_set.features if f.name in schema.own_columns and f.column != f.name]
    if hidden:
        raise UserError(
            f"{who} has a feature called {hidden[0]}, and schema {schema.name} a column: one would replace the other. "
            "Give the column another name"
        )
    optional = [name for name in feature_set.entities if not schema.columns[name].required]
    if optional:
        raise UserError(f"{who} keeps a history for each {', '.join(optional)}: schema {schema.name} must require it")
    digits = schema.columns["amount_minor"].minor_digits
    if digits != feature_set.minor_digits:
        raise UserError(
            f"{who} counts amounts with {feature_set.minor_digits} decimals, schema {schema.name} with {digits}: "
            "set minor_digits in the feature set and train again"
        )


def _costs(settings: Settings, manifest: Manifest) -> Costs:
    policy, own = settings.policy, manifest.costs
    return Costs(
        review=own.review if policy.review_cost_minor is None else policy.review_cost_minor,
        decline=own.decline if policy.decline_cost_minor is None else policy.decline_cost_minor,
    )


def _summary_window(settings: Settings, bounded: bool) -> int:
    if settings.summary.window:
        return parse_duration(settings.summary.window)
    # Past data spans months: an hour a window shows them; a stream is watched by the minute.
    return HOUR if bounded else 60 * SECOND
