"""One way to name every source, sink and alert target: `scheme:path?name=value&name=value`.

A bare path is a file. Secrets have no place in a URL: it ends up in shell histories, process lists and logs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from transforms.durations import format_duration, parse_duration
from transforms.errors import UserError, did_you_mean

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+-]+):")
# A question mark begins the parameters only where a name or nothing follows: `part-?.csv` is a glob.
_PARAMETERS = re.compile(r"\?(?=$|[A-Za-z_]\w*=)")


@dataclass(frozen=True)
class Scheme:
    """What one kind of connector takes in its URL.

    Attributes:
        path: what the path names, for messages, such as `a file or directory`; empty when it takes none.
        parameters: the names it knows.
    """

    path: str = ""
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class ConnectorUrl:
    """A parsed URL.

    Attributes:
        scheme: which connector, in lower case.
        path: what lies between the scheme and the parameters, as it was written, less a leading `//`.
        parameters: name to value, percent escapes decoded, in the order they were written.

    Example:
        >>> url = parse_url("file:data/*.csv?rows_per_file=1000", {"file": Scheme("a file", ("rows_per_file",))})
        >>> url.path, url.integer("rows_per_file", default=1)
        ('data/*.csv', 1000)
    """

    scheme: str
    path: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        values = "&".join(f"{name}={quote(value, safe='/:,+')}" for name, value in self.parameters.items())
        return f"{self.scheme}:{self.path}" + (f"?{values}" if values else "")

    def integer(self, name: str, default: int, least: int = 0) -> int:
        """The parameter as a whole number of at least `least`.

        Raises:
            UserError: it is not one.
        """
        return int(self._number(name, default, least, r"[+-]?\d+", "a whole number"))

    def number(self, name: str, default: float, least: float = 0.0) -> float:
        """The parameter as a finite decimal number of at least `least`.

        Raises:
            UserError: it is not one.
        """
        return float(self._number(name, default, least, r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?", "a number"))

    def choice(self, name: str, known: Sequence[str], default: str) -> str:
        """The parameter, which is one of a few words.

        Raises:
            UserError: it is another.

        Example:
            >>> ConnectorUrl("dynamodb", "decisions").choice("existing", ("keep", "replace"), default="keep")
            'keep'
        """
        text = self.parameters.get(name, default)
        if text not in known:
            raise UserError(f"{self}: {name} must be {' or '.join(known)}; found {text!r}{did_you_mean(text, known)}")
        return text

    def duration(self, name: str, default: int | None = None, least: int = 1) -> int | None:
        """The parameter, such as `30s` or `7d`, in microseconds; at least `least`.

        Raises:
            UserError: it is no duration, or too short.

        Example:
            >>> ConnectorUrl("dynamodb", "decisions", {"ttl": "30d"}).duration("ttl")
            2592000000000
        """
        text = self.parameters.get(name)
        if text is None:
            return default
        try:
            micros = parse_duration(text)
        except UserError as error:
            raise UserError(f"{self}: {name}: {error}") from error
        if micros < least:
            raise UserError(f"{self}: {name} must be at least {format_duration(least)}; found {text!r}")
        return micros

    def names(self, name: str, known: Sequence[str] | None = None) -> tuple[str, ...] | None:
        """The parameter as names with commas between them, in their order; None without it.

        Raises:
            UserError: one is not among those that are known, or is there twice.

        Example:
            >>> ConnectorUrl("kafka", "host:9092/topic", {"columns": "score,late"}).names("columns", ["late", "score"])
            ('score', 'late')
        """
        text = self.parameters.get(name)
        if text is None:
            return None
        names = tuple(text.split(","))
        for each in names:
            if known is not None and each not in known:
                raise UserError(
                    f"{self}: {name}: there is no {each!r}{did_you_mean(each, known)}; there are {', '.join(known)}"
                )
            if names.count(each) > 1:
                raise UserError(f"{self}: {name}: {each} is there twice")
        return names

    def _number(self, name: str, default: float, least: float, form: str, kind: str) -> float | str:
        text = self.parameters.get(name)
        if text is None:
            return default
        if not re.fullmatch(form, text, re.ASCII) or float(text) < least:
            raise UserError(f"{self}: {name} must be {kind} of at least {least}; found {text!r}")
        return text


def parse_url(text: str, schemes: Mapping[str, Scheme], setting: str = "URL") -> ConnectorUrl:
    """The parts of a connector's URL, checked against what the connectors know.

    Args:
        text: the URL, or a bare path, which means `file:`.
        schemes: the connectors that may be named here.
        setting: where the text was given, such as `--sink`, for messages.

    Raises:
        UserError: an unknown scheme or parameter, a missing or unwanted path, a parameter that is
            repeated or has no value, or a password in it. No message repeats a password.

    Example:
        >>> parse_url("decisions.parquet", {"file": Scheme("a file")})
        ConnectorUrl(scheme='file', path='decisions.parquet', parameters={})
    """
    match = _SCHEME.match(text)
    scheme = match[1].lower() if match else "file"
    rest = text[match.end() :] if match else text
    path, *query = _PARAMETERS.split(rest, maxsplit=1)
    _refuse_password(scheme, path, setting)
    if scheme not in schemes:
        hint = did_you_mean(scheme, schemes)
        raise UserError(f"{setting}: unknown scheme {scheme!r}; known are {', '.join(sorted(schemes))}{hint}")
    path = path.removeprefix("//")
    _check_path(scheme, path, schemes[scheme], setting)
    parameters = _parse_parameters(query[0] if query else "", f"{setting} {scheme}:{path}", schemes[scheme])
    return ConnectorUrl(scheme, path, parameters)


def _refuse_password(scheme: str, path: str, setting: str) -> None:
    # Everything before the last @ counts, whatever it holds: a password need not be escaped to be a secret.
    if scheme != "file" and ":" in path.rpartition("@")[0]:
        raise UserError(
            f"{setting}: the {scheme} URL holds user:password@, which would end up in logs and process lists; "
            "leave it out and give the credentials through the environment or a secrets store"
        )


def _check_path(scheme: str, path: str, known: Scheme, setting: str) -> None:
    if known.path and not path:
        raise UserError(f"{setting}: {scheme}: needs {known.path} after the colon")
    if "\0" in path:
        raise UserError(f"{setting}: the path of the {scheme} URL holds a NUL character")
    if path and not known.path:
        raise UserError(
            f"{setting}: {scheme}: takes no path, found {path!r}; write parameters as {scheme}:?name=value&name=value"
        )


def _parse_parameters(query: str, place: str, known: Scheme) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name not in known.parameters:
            takes = f"known are {', '.join(known.parameters)}" if known.parameters else "it takes none"
            raise UserError(f"{place}: unknown parameter {name!r}; {takes}{did_you_mean(name, known.parameters)}")
        if name in parameters:
            raise UserError(f"{place}: parameter {name} is given more than once")
        if not value:
            raise UserError(f"{place}: parameter {name} has no value; write {name}=value")
        parameters[name] = unquote(value)
    return parameters
