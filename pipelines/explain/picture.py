"""An explanation as a picture: a waterfall from the typical score to the transaction's."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from pipelines.explain.explanation import Explanation
from transforms.errors import UserError

MOST_BARS = 12


def steps(told: Explanation, most: int = MOST_BARS) -> list[tuple[str, float]]:
    """The bars from left to right of the log-odds: the largest parts, and the others as one."""
    moved = [part for part in told.parts if part.contribution]
    shown = [(f"{part.feature} = {part.value:.4g}", part.contribution) for part in moved[:most]]
    rest = moved[most:]
    return [*shown, (f"{len(rest)} others", sum(part.contribution for part in rest))] if rest else shown


def waterfall(told: Explanation) -> bytes:
    """A PNG file, the same bytes for the same explanation."""
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = steps(told)
    height = 1.5 + 0.34 * (len(drawn) + 2)  # inches
    with style.context("default"):  # whatever the user's own matplotlibrc says
        figure = Figure(figsize=(8.0, height), dpi=100)
        FigureCanvasAgg(figure)
        figure.subplots_adjust(left=0.36, right=0.96, bottom=0.6 / height, top=1 - 0.55 / height)
        _draw(figure.add_subplot(), told, drawn)
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _draw(axes: Any, told: Explanation, drawn: list[tuple[str, float]]) -> None:
    names = ["a typical transaction", *(name for name, _ in drawn), f"this transaction: {told.decision}"]
    axes.use_sticky_edges = False  # bars need room for the numbers beside them
    at = told.typical_log_odds
    _mark(axes, at, 0, f"score {told.typical_score:.3g}")
    for row, (_, part) in enumerate(drawn, start=1):
        axes.barh(row, part, left=at, height=0.7, color="#c92a2a" if part > 0 else "#0b7285")
        _note(axes, max(at, at + part), row, f"{part:+.2f}")
        at += part
    _mark(axes, told.log_odds, len(drawn) + 1, f"score {told.score:.3g}")
    for threshold, colour in ((told.thresholds.review, "#e8920c"), (told.thresholds.decline, "#c92a2a")):
        if threshold < 1:
            axes.axvline(math.log(threshold / (1 - threshold)), color=colour, linestyle=":", linewidth=1, zorder=0)
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("log-odds of fraud; dotted: from where on to review, and to decline", fontsize=9)
    axes.set_title(f"What moved the score of transaction {told.transaction_id}", fontsize=11)


def _mark(axes: Any, at: float, row: int, words: str) -> None:
    axes.plot([at, at], [row - 0.4, row + 0.4], color="#1c2430", linewidth=3)
    _note(axes, at, row, words)


def _note(axes: Any, at: float, row: int, words: str) -> None:
    axes.annotate(words, (at, row), xytext=(5, -3), textcoords="offset points", fontsize=8)


def write_picture(told: Explanation, path: Path) -> None:
    """Write the waterfall into a file.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.write_bytes(waterfall(told))
    except OSError as error:
        raise UserError(f"--picture {path} cannot be written: {error.strerror}") from error
