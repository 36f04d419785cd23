"""A report as one HTML page that needs nothing else: its style, its cards and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_STYLE = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --panel: #ffffff; --ink: #1c2430; --muted: #5c6675; --grid: #e3e7ed;
  --accent: #3b5bdb; --good: #0b7285; --fraud: #c92a2a; --unknown: #868e96; --review: #e8920c; --decline: #c92a2a; }
@media (prefers-color-scheme: dark) { :root {
  --page: #12161c; --panel: #1b2129; --ink: #e8ecf1; --muted: #9aa5b4; --grid: #2c3540;
  --accent: #8ea2ff; --good: #4cc3d9; --fraud: #ff7b72; --unknown: #8b949e; --review: #f0b35a; --decline: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 3rem; max-width: 1180px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1rem; font-weight: 600; margin: 0 0 .6rem; }
p { margin: .3rem 0; } .muted, .card span, .card small { color: var(--muted); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 235px), 1fr)); gap: .8rem;
  margin: 1.4rem 0; }
.card, figure, .panel { background: var(--panel); border: 1px solid var(--grid); border-radius: 10px; }
.card { padding: .8rem 1rem; } .card span, .card small { display: block; font-size: .8rem; }
.card b { display: block; font-size: 1.45rem; line-height: 1.35; overflow-wrap: anywhere;
  font-variant-numeric: tabular-nums; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: .9rem; }
figure, .panel { margin: 0; padding: .9rem 1rem; overflow-x: auto; }
figcaption { font-weight: 600; display: flex; justify-content: space-between; flex-wrap: wrap; gap: .2rem 1rem; }
.keys { font-weight: 400; font-size: .8rem; color: var(--muted); } .key { margin-left: .9rem; white-space: nowrap; }
.key i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .35em;
  background: currentColor; }
svg { display: block; width: 100%; height: auto; } svg text { font-size: 11.5px; fill: var(--muted); }
svg text.name, svg text.note { fill: var(--ink); }
.note { paint-order: stroke; stroke: var(--panel); stroke-width: 4px; stroke-linejoin: round; }
svg .grid { display: inline; stroke: var(--grid); } .line { fill: none; stroke: currentColor; stroke-width: 1.8;
  stroke-linejoin: round; } .tint { fill: currentColor; opacity: .14; } .bar { fill: currentColor; }
.dot { fill: currentColor; stroke: var(--panel); stroke-width: 2; }
.rule { stroke: currentColor; stroke-width: 1.4; stroke-dasharray: 5 4; }
.accent { color: var(--accent); } .good { color: var(--good); } .fraud { color: var(--fraud); }
.ink { color: var(--ink); }
.unknown { color: var(--unknown); } .review { color: var(--review); } .decline { color: var(--decline); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; border-top: 1px solid var(--grid); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; }
thead th { border-top: 0; font-weight: 500; color: var(--muted); } tr.total td { font-weight: 600; }
td small { color: var(--muted); display: block; } .sub { padding-left: 1rem; } .wide { grid-column: 1 / -1; }
@media print { body { max-width: none; } figure, .card, .panel { break-inside: avoid; } }
"""


def page(title: str, about: str, notes: Sequence[str], cards: Sequence[str], panels: Sequence[str]) -> str:
    """The page, without scripts or anything from elsewhere.

    Args:
        title: its heading.
        about: a line below it.
        notes: sentences to read first; empty ones are left out.
        cards: from `card`.
        panels: from `table` and `pipelines.plots`.
    """
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            f'<p class="muted">{escape(about)}</p>',
            *(f"<p>{escape(note)}</p>" for note in notes if note),
            f'<div class="cards">{"".join(cards)}</div>',
            f'<div class="grid">{"".join(panels)}</div>',
            "</body></html>\n",
        ]
    )


def card(name: str, figure: str, words: str) -> str:
    """A figure to see at once, with its name above it and words below."""
    return f"<div class=card><span>{escape(name)}</span><b>{escape(figure)}</b><small>{escape(words)}</small></div>"


def table(
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    total: int | None = None,
    note: str = "",
    css: str = "panel",
) -> str:
    """A panel with a table.

    Args:
        title: its heading.
        head: names of the columns, as text; none for a table without.
        rows: cells, which are HTML already.
        total: the row in bold.
        note: a sentence below it.
        css: the panel's classes; `panel wide` for all of the page's width.
    """
    headed = f"<thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr></thead>" if head else ""
    body = "".join(
        f"<tr{' class=total' if place == total else ''}>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
        for place, row in enumerate(rows)
    )
    below = f'<p class="muted">{escape(note)}</p>' if note else ""
    return (
        f'<section class="{css}"><h2>{escape(title)}</h2><table>{headed}<tbody>{body}</tbody></table>{below}</section>'
    )
