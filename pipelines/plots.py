"""Plots as inline SVG: no script, no fonts, no library; colours come from the page, light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 30, 40

Ints = np.ndarray[Any, np.dtype[np.int64]]
Points = Sequence[tuple[float, float]]
Tick = tuple[float, str]


@dataclass(frozen=True)
class Axis:
    """One direction of a plot.

    Attributes:
        low, high: the values at its two ends.
        start, end: where those are drawn.
        ticks: values to mark, with their words.
        log: whether equal steps are equal factors; then values below `low` are drawn at `low`.
        title: what is measured.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[Tick]
    log: bool = False
    title: str = ""

    def at(self, value: float) -> float:
        """Where a value is drawn."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(max(value, low)), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def x_axis(low: float, high: float, ticks: Sequence[Tick], title: str = "") -> Axis:
    """An axis along the plot's foot."""
    return Axis(low, high if high > low else low + 1, LEFT, WIDTH - RIGHT, ticks, title=title)


def y_axis(high: float, title: str = "", low: float = 0.0, scale: float = 1.0) -> Axis:
    """An axis up the plot's side, with round ticks; `scale` is what a tick's number is divided by."""
    ticks = [(value, short(value / scale)) for value in round_values(low, high)]
    top = max(high, ticks[-1][0])
    return Axis(min(low, ticks[0][0]), top, HEIGHT - BOTTOM, TOP, ticks, title=title)


def log_y_axis(high: float, title: str = "") -> Axis:
    """An axis of powers of ten from below 1 to above `high`."""
    top = max(math.ceil(math.log10(max(high, 1))), 1)
    ticks = [(10.0**power, short(10**power)) for power in range(top + 1)]
    return Axis(0.7, 10.0**top, HEIGHT - BOTTOM, TOP, ticks, log=True, title=title)


def round_values(low: float, high: float, most: int = 6) -> list[float]:
    """Evenly spaced round values that span low to high.

    Example:
        >>> round_values(0, 870)
        [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]
    """
    reach = max(high - low, 1e-9)
    raw = reach / (most - 1)
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def short(value: float) -> str:
    """A number in few characters.

    Example:
        >>> short(0), short(1500), short(2_000_000), short(0.25), short(-30_000)
        ('0', '1.5k', '2M', '0.25', '-30k')
    """
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def chart(title: str, x: Axis, y: Axis, marks: Sequence[str], legend: Sequence[tuple[str, str]] = ()) -> str:
    """A plot with its axes.

    Args:
        title: its heading, also read out by screen readers.
        x, y: the axes.
        marks: what is drawn, from `line`, `area`, `bars`, `dot` and `rule`.
        legend: pairs of a colour's name and the words for it.
    """
    grid = [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y.at(v):.1f}" y2="{y.at(v):.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y.at(v) + 4:.1f}" text-anchor="end">{escape(words)}</text>'
        for v, words in y.ticks
    ]
    grid += [
        f'<text class="tick" x="{x.at(v):.1f}" y="{HEIGHT - BOTTOM + 16}" '
        f'text-anchor="{"end" if x.at(v) + 3.5 * len(words) > WIDTH else "middle"}">{escape(words)}</text>'
        for v, words in x.ticks
    ]
    titles = [
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x.title)}</text>",
        f'<text class="axis" x="6" y="16">{escape(y.title)}</text>',
    ]
    return figure(title, [*grid, *marks, *titles], HEIGHT, legend)


def figure(title: str, content: Sequence[str], height: float, legend: Sequence[tuple[str, str]] = ()) -> str:
    """A heading, the words for the colours, and a drawing `WIDTH` wide."""
    keys = "".join(f'<span class="key"><i class="{colour}"></i>{escape(words)}</span>' for colour, words in legend)
    return (
        f'<figure><figcaption>{escape(title)}<span class="keys">{keys}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">{"".join(content)}</svg>'
        "</figure>"
    )


def line(points: Points, x: Axis, y: Axis, colour: str) -> str:
    """A line through points."""
    return f'<polyline class="line {colour}" points="{_path(points, x, y)}"/>'


def area(points: Points, x: Axis, y: Axis, colour: str) -> str:
    """A line through points and a tint down to the axis."""
    if not points:
        return ""
    feet = [(points[-1][0], y.low), *points, (points[0][0], y.low)]
    corners = _path([feet[-1], *points, feet[0]], x, y)
    return f'<polygon class="tint {colour}" points="{corners}"/>' + line(points, x, y, colour)


def steps(edges: Sequence[float], heights: Sequence[float]) -> list[tuple[float, float]]:
    """The outline of a histogram: one more edge than heights."""
    return [
        point for (a, b), height in zip(pairwise(edges), heights, strict=True) for point in ((a, height), (b, height))
    ]


def bars(
    places: Sequence[tuple[float, float]],
    foots: Sequence[float],
    heights: Sequence[float],
    words: Sequence[str],
    x: Axis,
    y: Axis,
    colour: str,
) -> str:
    """Upright bars from left to right of `places`, standing on `foots`; `words` show under the pointer."""
    drawn = []
    for (left, right), foot, height, word in zip(places, foots, heights, words, strict=True):
        if not height:
            continue
        top, low = y.at(foot + height), y.at(foot)
        gap = min((x.at(right) - x.at(left)) * 0.12, 2)
        drawn.append(
            f'<rect class="bar {colour}" x="{x.at(left) + gap / 2:.1f}" y="{top:.1f}" '
            f'width="{x.at(right) - x.at(left) - gap:.1f}" height="{low - top:.1f}">'
            f"<title>{escape(word)}</title></rect>"
        )
    return "".join(drawn)


def dot(point: tuple[float, float], words: str, x: Axis, y: Axis, colour: str, below: bool = False) -> str:
    """A marked point with words above or below it, to the side that has room."""
    at_x, at_y = x.at(point[0]), y.at(point[1])
    right = at_x < (LEFT + WIDTH) / 2
    return (
        f'<circle class="dot {colour}" cx="{at_x:.1f}" cy="{at_y:.1f}" r="5"/>'
        f'<text class="note" x="{at_x + (9 if right else -9):.1f}" y="{at_y + (17 if below else -8):.1f}" '
        f'text-anchor="{"start" if right else "end"}">{escape(words)}</text>'
    )


def rule(value: float, words: str, x: Axis, colour: str, row: int = 0) -> str:
    """An upright dashed line with words at its head, `row` lines down."""
    at = x.at(value)
    right = at < (LEFT + WIDTH) / 2
    return (
        f'<line class="rule {colour}" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="note" x="{at + (5 if right else -5):.1f}" y="{TOP + 10 + 14 * row}" '
        f'text-anchor="{"start" if right else "end"}">{escape(words)}</text>'
    )


def ranking(title: str, rows: Sequence[tuple[str, float, str]], colour: str) -> str:
    """Lying bars, each with its name to its left and words beyond its end."""
    values = [value for _, value, _ in rows]
    low, high = min(0.0, *values, 0.0), max(0.0, *values, 0.0)
    names, words_room = 215, 92
    start, end = names + (words_room if low < 0 else 0), WIDTH - words_room
    scale = (end - start) / ((high - low) or 1.0)
    zero = start - low * scale
    drawn = []
    for place, (name, value, words) in enumerate(rows):
        at, size = TOP / 2 + place * 24, abs(value) * scale
        left = zero if value >= 0 else zero - size
        beyond, anchor = (zero + size + 6, "start") if value >= 0 else (left - 6, "end")
        drawn.append(
            f'<text class="name" x="{names - 8}" y="{at + 12:.0f}" text-anchor="end">{escape(_cut(name))}'
            f"<title>{escape(name)}</title></text>"
            f'<rect class="bar {colour}" x="{left:.1f}" y="{at:.0f}" width="{max(size, 1):.1f}" height="16"/>'
            f'<text class="tick" x="{beyond:.1f}" y="{at + 12:.0f}" text-anchor="{anchor}">{escape(words)}</text>'
        )
    return figure(title, drawn, TOP + len(rows) * 24)


def thinned(places: Ints, most: int = 400) -> Ints:
    """At most `most` of the places, evenly spread, the first and the last among them."""
    if len(places) <= most:
        return places
    kept: Ints = places[np.linspace(0, len(places) - 1, most).astype(np.int64)]
    return kept


def _path(points: Points, x: Axis, y: Axis) -> str:
    return " ".join(f"{x.at(a):.1f},{y.at(b):.1f}" for a, b in points)


def _cut(name: str, most: int = 32) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
