"""One setting's value: the types there are, how a value is checked against its type, and how that is said."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple, get_type_hints

import msgspec
from msgspec import Meta

from transforms.durations import DAY, parse_duration
from transforms.errors import UserError, did_you_mean

MOST_DURATION = 36_500 * DAY

Text = Annotated[str, Meta(min_length=1)]
Duration = Annotated[str, Meta(extra={"duration": "0 or more"})]
LongDuration = Annotated[str, Meta(extra={"duration": "more than 0"})]
Probability = Annotated[float, Meta(gt=0, le=1)]
Budget = Annotated[int, Meta(ge=1, le=10**6)]
Cost = Annotated[int, Meta(ge=0, le=10**12)]


class Setting(NamedTuple):
    """A setting as the field of a Struct declares it.

    Attributes:
        type: the annotation, which msgspec converts to.
        info: the bare type, without None, bounds and description.
        duration: for a duration: what it must be, `0 or more` or `more than 0`.
        description: what it means.
    """

    type: Any
    info: msgspec.inspect.Type
    duration: str | None
    description: str


def declared_settings(section: type[msgspec.Struct]) -> dict[str, Setting]:
    """The settings that a Struct declares, by field name."""
    hints = get_type_hints(section, include_extras=True)
    return {name: _setting(hint) for name, hint in hints.items()}


def _setting(hint: Any) -> Setting:
    info, duration, description = msgspec.inspect.type_info(hint), None, ""
    while isinstance(info, (msgspec.inspect.Metadata, msgspec.inspect.UnionType)):
        if isinstance(info, msgspec.inspect.UnionType):  # of a type and None
            info = info.types[0]
        else:
            duration = (info.extra or {}).get("duration", duration)
            description = (info.extra_json_schema or {}).get("description", description)
            info = info.type
    return Setting(hint, info, duration, description)


# user:password@ after // or after a scheme, but neither host:port nor what is in the name of a file. All up to the
# last @ counts: a password need not be escaped to be a secret.
_PASSWORD = re.compile(r"((?://|\b(?!file:)[A-Za-z][\w+-]+:)[^/?#@\s]*?:)(?!//|\d+(?:[,/?#]|$)).*@")
_SECRET = re.compile(
    r"([?&;][\w.-]*(?:password|passwd|pwd|secret|token|(?:api|private|secret|secret_access)_?key)=)[^&#]+",
    re.IGNORECASE,
)


def mask_secrets(text: str) -> str:
    """`text` with the passwords of URLs in it replaced, so that it may be shown.

    Example:
        >>> mask_secrets("postgresql://fraud:hunter2@db:5432/cards")
        'postgresql://fraud:***@db:5432/cards'
    """
    return _SECRET.sub(r"\1***", _PASSWORD.sub(r"\1***@", text))


def convert_setting(name: str, setting: Setting, value: object, origin: str) -> object:
    """`value` as the type of `setting`.

    Raises:
        UserError: it holds a secret, or is not of that type; names `origin`, the place it was given, and `name`.
    """
    texts = [text for text in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(text, str)]
    if any(mask_secrets(text) != text for text in texts):
        raise UserError(
            f"{origin}: {name} holds a password or another secret, which would be seen in logs and lists of processes. "
            "Take it out, and give it by the environment or where the service's own client looks for credentials"
        )
    try:
        converted: object = msgspec.convert(value, setting.type)
        if setting.duration and isinstance(converted, str):
            _check_duration(converted, setting.duration)
    except (msgspec.ValidationError, UserError) as error:
        hint = did_you_mean(value, _choices(setting)) if isinstance(value, str) else ""
        raise UserError(f"{origin}: {name} must be {_expected(setting)}; found {_found(value)}{hint}") from error
    return converted


def _check_duration(text: str, expected: str) -> None:
    micros = parse_duration(text)
    if micros > MOST_DURATION or (micros == 0 and expected == "more than 0"):
        raise UserError(f"{text} is out of range")


def _choices(setting: Setting) -> Iterable[str]:
    return map(str, setting.info.values) if isinstance(setting.info, msgspec.inspect.LiteralType) else ()


def _expected(setting: Setting) -> str:
    if setting.duration:
        return f"a duration such as 90s, 1h or 30d, {setting.duration} and at most 100 years"
    match setting.info:
        case msgspec.inspect.LiteralType():
            return f"one of {', '.join(_choices(setting))}"
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.FloatType(gt=above, le=most):
            return f"a number above {above} and at most {most}"
        case msgspec.inspect.IntType(ge=least, le=most):
            return f"a whole number, {least} or more" if most is None else f"a whole number from {least} to {most}"
        case msgspec.inspect.VarTupleType():
            return 'a list of text, such as ["a", "b"]'
        case msgspec.inspect.StrType(max_length=most) if most:
            return f"text of 1 to {most} characters"
    return "text, and not empty"


def _found(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except TypeError:  # a date of TOML
        text = str(value)
    masked = mask_secrets(text)
    return masked if len(masked) <= 80 else masked[:77] + "..."
