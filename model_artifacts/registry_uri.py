"""A model of a registry by its URI: `registry:models#champion`, `registry:s3://bucket/prefix#<version>`."""

from __future__ import annotations

from dataclasses import dataclass

from model_artifacts.aliases import ALIASES, Alias, alias_named, current
from model_artifacts.artifact import REGISTRY_SCHEME, OnnxModel, is_endpoint, is_registered
from model_artifacts.reference import Reference
from model_artifacts.registry import Registry, open_registry
from transforms.errors import UserError


@dataclass(frozen=True)
class RegisteredUri:
    """The parts of such a URI.

    Attributes:
        url: the registry's.
        name: an alias or a version.

    Example:
        >>> uri = parse_registered("registry:s3://bucket/models?region=eu-west-1#challenger")
        >>> uri.url, uri.name, uri.alias
        ('s3://bucket/models?region=eu-west-1', 'challenger', 'challenger')
    """

    url: str
    name: str

    def __str__(self) -> str:
        return f"{REGISTRY_SCHEME}{self.url}#{self.name}"

    @property
    def alias(self) -> Alias | None:
        """The alias, if it names one."""
        return alias_named(self.name) if self.name in ALIASES or "-" not in self.name else None

    def registry(self) -> Registry:
        """The registry, opened."""
        return open_registry(self.url, "--model")


def parse_registered(uri: str) -> RegisteredUri:
    """The parts of a URI for which `is_registered` holds; without a name it means the champion.

    Raises:
        UserError: it names no registry, or what it names in it can be neither a version nor an alias.
    """
    url, _, name = uri.removeprefix(REGISTRY_SCHEME).partition("#")
    if not url:
        raise UserError(f"model {uri!r}: write registry:DIRECTORY#champion or registry:s3://bucket/prefix#champion")
    parsed = RegisteredUri(url, name or "champion")
    _ = parsed.alias  # refuses what it cannot be
    return parsed


def pin(uri: str) -> str:
    """The URI of the version that an alias names now, or of the model that an endpoint serves; any other as it is.

    What is pinned means the same model for ever.

    Raises:
        UserError: there is no such registry or endpoint, or the alias names nothing yet.
    """
    if is_endpoint(uri):
        from model_artifacts.sagemaker_endpoint import pin_endpoint

        return pin_endpoint(uri)
    if not is_registered(uri):
        return uri
    parsed = parse_registered(uri)
    return str(RegisteredUri(parsed.url, current(parsed.registry(), parsed.alias))) if parsed.alias else str(parsed)


def load_registered(uri: str, public_key: bytes | None = None) -> OnnxModel:
    """The model that a registry's URI names now, verified; see `Registry.model`."""
    parsed = parse_registered(pin(uri))
    return parsed.registry().model(parsed.name, public_key)


def registered_reference(uri: str) -> Reference | None:
    """The reference of the model that a registry's URI names now; see `Registry.reference`."""
    parsed = parse_registered(pin(uri))
    return parsed.registry().reference(parsed.name)
