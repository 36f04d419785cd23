"""Which model a run serves, which alias it follows from there, and which candidates score beside it."""

from __future__ import annotations

from dataclasses import dataclass

from model_artifacts.artifact import is_registered, load_model
from model_artifacts.follow import Follow
from model_artifacts.manifest import Manifest
from model_artifacts.registry_uri import parse_registered, pin
from model_artifacts.signing import read_public_key
from pipelines.settings import Settings
from transforms.candidates import Candidate, Patience, check_candidate
from transforms.durations import SECOND, parse_duration
from transforms.errors import UserError
from transforms.features import shipped_feature_sets
from transforms.schema import Schema

#: How often a stream looks at its model's alias unless `model.refresh` says otherwise, in microseconds.
DEFAULT_REFRESH = 30 * SECOND


@dataclass(frozen=True)
class ServedModel:
    """What scores.

    Attributes:
        uri: what to load; an alias is pinned to the version it names when the plan is made.
        manifest: of that.
        public_key: whose signature a registry's model must have; None: none is asked for.
        follow: the alias that a stream follows from there; None: the model stays.
    """

    uri: str
    manifest: Manifest
    public_key: bytes | None = None
    follow: Follow | None = None


def served(settings: Settings, schema: Schema, bounded: bool) -> ServedModel:
    """The model that settings name, or the schema's own.

    Args:
        settings: of the run.
        schema: of its transactions.
        bounded: whether it ends: then it has one model, and gives the same results whenever it is run.

    Raises:
        UserError: there is no such model, it is broken, or not signed as it should be.
    """
    named, public_key = _model_uri(settings, schema), _public_key(settings)
    uri = pin(named)
    manifest = load_model(uri, public_key).manifest
    follow = None if bounded else _follow(settings, named, manifest, public_key)
    return ServedModel(uri, manifest, public_key, follow)


def shadows(settings: Settings, champion: ServedModel) -> tuple[Candidate, ...]:
    """The candidates that settings name, each pinned to a version, verified, and fed by the champion's features.

    Raises:
        UserError: one is no such model, or takes features that the champion does not.
    """
    found: list[Candidate] = []
    for named in settings.model.shadow:
        uri, key = pin(named), champion.public_key if is_registered(named) else None
        candidate = Candidate(uri, load_model(uri, key).manifest, key)
        check_candidate(candidate.manifest, champion.manifest.feature_set)
        if candidate.manifest.model_id in {each.manifest.model_id for each in found}:
            raise UserError(f"--shadow: model {candidate.manifest.model_id} is named twice")
        found.append(candidate)
    return tuple(found)


def patience(settings: Settings, bounded: bool) -> Patience:
    """How long a batch waits for candidates: where input ends, for as long as they may need to miss none."""
    given = settings.model.shadow_budget
    return Patience(parse_duration(given) if given else 60 * SECOND if bounded else SECOND)


def _model_uri(settings: Settings, schema: Schema) -> str:
    uri = settings.model.uri or schema.default_model
    if uri is None:
        features = schema.name if schema.name in shipped_feature_sets() else "FILE"
        raise UserError(
            f"no model is shipped for schema {schema.name}: name one with --model, or train one with "
            f"python -m pipelines.training --source '{settings.input.source}' --schema {settings.input.schema} "
            f"--features {features} --model xgboost --output DIR"
        )
    return uri


def _follow(settings: Settings, uri: str, manifest: Manifest, key: bytes | None) -> Follow | None:
    """The alias to follow: the model's, if its URI is one."""
    refresh = settings.model.refresh
    is_alias = is_registered(uri) and parse_registered(uri).alias is not None
    every = parse_duration(refresh) if refresh is not None else DEFAULT_REFRESH if is_alias else 0
    if not every:
        return None
    if not is_alias:
        raise UserError(
            f"model.refresh is {refresh}, but {uri} never changes; name an alias: --model registry:DIRECTORY#champion"
        )
    return Follow(uri, every, manifest.fingerprint, manifest.schema, key)


def _public_key(settings: Settings) -> bytes | None:
    """The key that models must be signed with, by setting or environment; a setting needs a registry."""
    file = settings.model.public_key
    registered = any(is_registered(uri) for uri in (settings.model.uri, *settings.model.shadow) if uri)
    if file and not registered:
        raise UserError(
            f"model.public_key is {file}, but only a registry's models are signed; name one: "
            "--model registry:DIRECTORY#champion"
        )
    return read_public_key(file) if registered else None
