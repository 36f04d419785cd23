"""Aliases of a registry: which version is the champion, which the challenger, and which were before."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, get_args

import msgspec

from model_artifacts.registry import Registry
from transforms.errors import UserError, did_you_mean

Alias = Literal["champion", "challenger"]
ALIASES: tuple[Alias, ...] = get_args(Alias)
_MOVE_FILE = re.compile(r"\d{8}\.json")


class Move(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One move of an alias.

    Attributes:
        action: `promote` puts a version on top of those before it, `rollback` takes the top one away.
        version: what the alias names from then on.
        at: when, ISO 8601 in UTC.
        by: who moved it, as their machine calls them.
        reason: in their words.
        evidence: what the versions were compared on and how they did, where they were.
        overridden: what spoke against it, where it was done all the same.
    """

    format_version: int = 1
    action: Literal["promote", "rollback"]
    version: str
    at: str
    by: str
    reason: str = ""
    evidence: dict[str, str | int | float] = {}
    overridden: str = ""


def history(registry: Registry, alias: Alias, known: Sequence[Move] = ()) -> list[Move]:
    """Every move of an alias, the first one first.

    Args:
        registry: that has it.
        alias: which.
        known: the moves up to an earlier time, which need not be read again.

    Raises:
        UserError: a move cannot be read.
    """
    files = [name for name in registry.store.names(f"aliases/{alias}") if _MOVE_FILE.fullmatch(name)]
    return [*known, *(_read(registry, alias, file) for file in files[len(known) :])]


def standing(moves: Sequence[Move]) -> list[str]:
    """The versions an alias stands upon: what it names, what a rollback would have it name, and so on.

    Example:
        >>> of = lambda action, version: Move(action=action, version=version, at="", by="")
        >>> standing([of("promote", "a"), of("promote", "b"), of("promote", "c"), of("rollback", "b")])
        ['b', 'a']
    """
    stack: list[str] = []
    for move in moves:
        if move.action == "promote":
            stack.append(move.version)
        elif stack:
            stack.pop()
    return stack[::-1]


def current(registry: Registry, alias: Alias) -> str:
    """The version that an alias names.

    Raises:
        UserError: it names none yet.
    """
    stack = standing(history(registry, alias))
    if not stack:
        raise UserError(
            f"registry {registry.url} has no {alias} yet: python -m model_artifacts promote --registry "
            f"'{registry.url}' --alias {alias} VERSION"
        )
    return stack[0]


def promote(registry: Registry, alias: Alias, move: Move, after: Sequence[Move]) -> None:
    """Have an alias name a version.

    Args:
        registry: that holds the version.
        alias: to move.
        move: of action `promote`.
        after: the history that whoever promotes has seen.

    Raises:
        UserError: it names that version already, or was moved by somebody else since.
    """
    stack = standing(after)
    if stack and stack[0] == move.version:
        raise UserError(f"registry {registry.url}: {move.version} is the {alias} already")
    _append(registry, alias, move, after)


def rollback(registry: Registry, alias: Alias, by: str, at: datetime, reason: str = "") -> Move:
    """Have an alias name what it named before its last promotion.

    Raises:
        UserError: there was nothing before, or it was moved by somebody else at the same time.
    """
    before = history(registry, alias)
    stack = standing(before)
    if len(stack) < 2:
        raise UserError(f"registry {registry.url}: there was no {alias} before {stack[0] if stack else 'any other'}")
    move = Move(action="rollback", version=stack[1], at=timestamp(at), by=by, reason=reason)
    _append(registry, alias, move, before)
    return move


def timestamp(at: datetime) -> str:
    """A moment as moves have it."""
    return at.astimezone(UTC).isoformat(timespec="seconds")


def alias_named(word: str) -> Alias:
    """The alias of that name.

    Raises:
        UserError: there is no such alias.
    """
    for alias in ALIASES:
        if word == alias:
            return alias
    raise UserError(f"{word!r} is neither a version nor an alias ({', '.join(ALIASES)}){did_you_mean(word, ALIASES)}")


def _append(registry: Registry, alias: Alias, move: Move, after: Sequence[Move]) -> None:
    """Write the next move; its number is free only if nobody has moved the alias since `after` was read."""
    content = msgspec.json.format(msgspec.json.encode(move), indent=2)
    if not registry.store.create(f"aliases/{alias}/{len(after) + 1:08}.json", content):
        raise UserError(
            f"registry {registry.url}: somebody else moved {alias} at the same time; look at it "
            "(python -m model_artifacts list) and decide again"
        )


def _read(registry: Registry, alias: Alias, file: str) -> Move:
    try:
        return msgspec.json.decode(registry.store.read(f"aliases/{alias}/{file}"), type=Move)
    except (FileNotFoundError, msgspec.DecodeError) as error:
        raise UserError(f"registry {registry.url}: aliases/{alias}/{file} is damaged: {error}") from error
