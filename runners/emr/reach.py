"""What a node of a cluster can reach: neither the files nor the servers of the machine that makes the package."""

from __future__ import annotations

import re
from collections.abc import Iterator

from io_connectors.sinks import DECISION_SINKS, RECORD_SINKS
from io_connectors.sources import SOURCES
from io_connectors.urls import ConnectorUrl, parse_url
from model_artifacts.artifact import is_endpoint, is_registered, shipped_models
from model_artifacts.registry_store import PLACES
from model_artifacts.registry_uri import parse_registered
from pipelines.settings import Settings
from transforms.errors import UserError

_LOOPBACK = re.compile(r"(?:localhost|127(?:\.\d+){3}|\[::1\])(?::\d+)?")
#: Where what is only for trying a package out is let through.
_ANYWAY = "to try a package on this machine's own cluster, add --allow_local"


def check_reach(settings: Settings) -> None:
    """Refuse settings that a node could not follow, or whose results would be lost with it.

    Raises:
        UserError: names the flag, and what to give instead.

    Example:
        >>> from pipelines.settings import load_settings
        >>> check_reach(load_settings())
        Traceback (most recent call last):
        transforms.errors.UserError: --sink is not given: decisions would be files on a node and lost with it; name a \
database, a topic or s3://bucket/prefix (to try a package on this machine's own cluster, add --allow_local)
    """
    for flag, what, text in _results(settings):
        if text is None:
            raise UserError(
                f"{flag} is not given: {what} would be files on a node and lost with it; name a database, a topic or "
                f"s3://bucket/prefix ({_ANYWAY})"
            )
        url = parse_url(text, DECISION_SINKS if flag in ("--sink", "--shadow_sink") else RECORD_SINKS, flag)
        if url.scheme == "file":
            raise UserError(
                f"{flag}: {url} is a file on whichever node a worker runs and lost with it; name a database, a topic "
                f"or s3://bucket/prefix ({_ANYWAY})"
            )
        _refuse_loopback(flag, url)
    for flag, text in (("--source", settings.input.source), ("--labels", settings.input.labels)):
        if text is not None:
            _check_source(flag, text)
    _check_model("--model", settings.model.uri)
    for uri in settings.model.shadow:
        _check_model("--shadow", uri)


def _results(settings: Settings) -> Iterator[tuple[str, str, str | None]]:
    """For each result the flag that says where it goes, what it is, and the URL, if there is one."""
    output = settings.output
    for text in output.sinks or (None,):
        yield "--sink", "decisions", text
    if settings.alerts.enabled:
        for text in output.alerts or (None,):
            yield "--alert", "alerts", text
    yield "--dead_letters", "what could not be processed", output.dead_letters
    if settings.model.shadow:
        yield "--shadow_sink", "candidates' scores", output.shadow
    if settings.summary.enabled:
        yield "--set output.summaries=URL (or summary.enabled=false)", "the summaries of windows", output.summaries
    if settings.monitor.drift:
        yield "--set output.drift=URL (or monitor.drift=false)", "the drift of windows", output.drift


def _check_source(flag: str, text: str) -> None:
    url = parse_url(text, SOURCES, flag)
    if url.scheme in ("file", "simulator"):
        raise UserError(
            f"{flag}: {url.scheme}: is of this machine, or made up; a cluster reads kafka://, kinesis:// or s3:// "
            f"({_ANYWAY})"
        )
    _refuse_loopback(flag, url)


def _refuse_loopback(flag: str, url: ConnectorUrl) -> None:
    hosts = url.path.partition("/")[0].rpartition("@")[2].split(",")
    endpoint = url.parameters.get("endpoint", "").partition("://")[2].partition("/")[0]
    for host in (*hosts, endpoint):
        if _LOOPBACK.fullmatch(host):
            raise UserError(f"{flag}: {host} is each node itself, where no such server runs ({_ANYWAY})")


def _check_model(flag: str, uri: str | None) -> None:
    """A model reaches the nodes in the wheel, or lies in a bucket: what is in neither is not there."""
    if uri is None or uri in shipped_models():
        return
    if is_registered(uri):
        url = parse_url(parse_registered(uri).url, PLACES, flag)
        if url.scheme == "file":
            raise UserError(
                f"{flag}: the registry {url.path} is a directory of this machine; nodes reach one in a bucket: "
                f"registry:s3://bucket/prefix ({_ANYWAY})"
            )
        _refuse_loopback(flag, url)
        return
    if is_endpoint(uri):
        from model_artifacts.sagemaker_endpoint import parse_endpoint  # with it come AWS's clients, which take a second

        _refuse_loopback(flag, parse_endpoint(uri)[0])
        return
    raise UserError(
        f"{flag}: {uri} is a directory of this machine; copy it into model_artifacts/, which the nodes get with "
        f"the wheel, and give its name, or add it to a registry in a bucket ({_ANYWAY})"
    )
