"""Settings that are lists of tables: `[[rules]]` and `[[policy.segments]]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from pipelines.setting_values import convert_setting, declared_settings
from transforms.errors import UserError, did_you_mean
from transforms.rule_syntax import Rule, Segment, check_rules, check_segments

_Table = TypeVar("_Table", bound=msgspec.Struct)


def rules_of(value: object, origin: str) -> tuple[Rule, ...]:
    """The rules that `[[rules]]` says.

    Raises:
        UserError: names `origin`, the place it was given, the entry and what is wrong with it.
    """
    rules = _tables("rules", Rule, "a rule", value, origin)
    try:
        check_rules(rules)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error
    return rules


def segments_of(value: object, origin: str) -> tuple[Segment, ...]:
    """The segments that `[[policy.segments]]` says.

    Raises:
        UserError: names `origin`, the place it was given, the entry and what is wrong with it.
    """
    segments = _tables("policy.segments", Segment, "a segment", value, origin)
    try:
        check_segments(segments)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error
    return segments


def _tables(name: str, kind: type[_Table], one: str, value: object, origin: str) -> tuple[_Table, ...]:
    fields = declared_settings(kind)
    if not isinstance(value, (list, tuple)) or not all(isinstance(table, dict) for table in value):
        *most, last = fields
        raise UserError(f"{origin}: {name} are tables: write [[{name}]] and below it {', '.join(most)} and {last}")
    return tuple(_table(f"{name}[{at}]", kind, one, table, origin) for at, table in enumerate(value, start=1))


def _table(name: str, kind: type[_Table], one: str, table: Mapping[str, object], origin: str) -> _Table:
    fields = declared_settings(kind)
    for key in table:
        if key not in fields:
            hint = did_you_mean(key, fields) or f"; {one} has {', '.join(fields)}"
            raise UserError(f"{origin}: {name}.{key} is not a setting{hint}")
    missing = [key for key in fields if key not in table]
    if missing:
        raise UserError(f"{origin}: {name} has no {' and no '.join(missing)}; {one} has {', '.join(fields)}")
    values: dict[str, Any] = {key: convert_setting(f"{name}.{key}", fields[key], table[key], origin) for key in fields}
    return kind(**values)
