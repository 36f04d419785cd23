"""What a registry holds, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from model_artifacts.aliases import ALIASES, Move, history, standing
from model_artifacts.registry import Registry
from transforms.errors import UserError

if TYPE_CHECKING:
    from model_artifacts.evidence import Compared


def listing(registry: Registry) -> str:
    """All versions, the newest first, with how good they were on their test days and which aliases name them."""
    versions = registry.versions()
    if not versions:
        return f"{registry.url} holds no versions yet"
    named = {alias: standing(history(registry, alias))[:1] for alias in ALIASES}
    rows = sorted((_row(registry, version) for version in versions), key=lambda row: row[4], reverse=True)
    aliases = (", ".join(alias for alias, top in named.items() if top == [row[0]]) for row in rows)
    head = ("VERSION", "KIND", "FEATURES", "AP", "ADDED", "BY", "SIGNED", "ALIAS")
    return table(head, [(*row, names) for row, names in zip(rows, aliases, strict=True)])


def _row(registry: Registry, version: str) -> tuple[str, ...]:
    try:
        index, manifest = registry.version(version), registry.manifest(version)
        signed = "yes" if registry.is_signed(version, None) else "no"
    except UserError:  # `verify` says what is wrong with it
        return (version, "DAMAGED", "", "", "", "", "")
    ap = manifest.metrics.get("average_precision")
    quality = "" if ap is None else f"{ap:.3f}"
    added = index.added[:16].replace("T", " ")
    return (version, manifest.kind, manifest.fingerprint, quality, added, index.by, signed)


def version_text(registry: Registry, version: str) -> str:
    """One version: what it was trained on, how good it is, and its files."""
    index, manifest = registry.version(version), registry.manifest(version)
    training = manifest.training
    facts = [
        ("version", version),
        ("added", f"{index.added} by {index.by}"),
        ("signed", "yes" if registry.is_signed(version, None) else "no"),
        ("kind", manifest.kind),
        ("schema", manifest.schema),
        ("features", f"{manifest.feature_set.name}, {len(manifest.feature_names)}, fingerprint {manifest.fingerprint}"),
        ("trained on", f"{training.source}, {training.train_from} to {training.train_to}"),
        ("tested on", f"{training.test_from} to {training.test_to}"),
        ("thresholds", f"review {manifest.thresholds.review:g}, decline {manifest.thresholds.decline:g}"),
        *((name, f"{value:.6g}") for name, value in sorted(manifest.metrics.items())),
    ]
    files = [(name, f"{facts.size:,}", facts.sha256) for name, facts in sorted(index.files.items())]
    return f"{table((), facts)}\n\n{table(('FILE', 'BYTES', 'SHA256'), files)}"


def moves_text(moves: Sequence[Move]) -> str:
    """An alias' history, the last move first."""
    rows = [(move.at, move.action, move.version, move.by, _why(move)) for move in reversed(moves)]
    return table(("AT", "MOVE", "VERSION", "BY", "WHY"), rows)


def compared_text(compared: Sequence[Compared], facts: Mapping[str, object], minor_digits: int) -> str:
    """How a challenger does beside the champion."""
    rows = []
    for each in compared:
        values = (each.champion, each.challenger, each.low, each.high)
        scale, digits = (1, 4) if each.more_is_better else (10**minor_digits, minor_digits)
        said = [f"{value / scale:,.{digits}f}" for value in values]
        rows.append((each.name, said[0], said[1], f"{said[2]} to {said[3]}", "WORSE" if each.worse else ""))
    head = ("", "CHAMPION", "CHALLENGER", "DIFFERENCE (95 %)", "")
    return f"{facts['transactions']:,} transactions, {facts['frauds']:,} frauds\n{table(head, rows)}"


def _why(move: Move) -> str:
    parts = [move.reason, f"OVERRIDDEN: {move.overridden}" if move.overridden else ""]
    return "; ".join(part for part in parts if part)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lines of columns, as wide as they need be.

    Example:
        >>> print(table(("NAME", "SIZE"), [("model.onnx", "7"), ("x", "12")]))
        NAME        SIZE
        model.onnx  7
        x           12
    """
    lines = [*([head] if head else []), *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(line.rstrip() for line in padded)
