"""An explanation as text for a terminal: tables, and bars that show what moved the score."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.explain.explanation import Explanation, Part, ServedFacts
from pipelines.formats import money, printable

_HALF = 14  # characters of a bar to either side


def explanation_text(told: Explanation, colour: bool = False, bar: str = "█") -> str:
    """The explanation, without a line's end after the last line.

    Args:
        told: what to tell.
        colour: whether the terminal shows bold headings.
        bar: what bars are made of.
    """
    sections = [
        (f"DECISION: {told.decision}", _decision(told)),
        ("SCORE", _score(told, bar)),
        ("RULES", _rules(told)),
        ("POLICY", _policy(told)),
        (f"MODEL: {told.model_id}", told.model),
        ("AS SERVED", _served(told.served)),
    ]
    lines = list(_head(told))
    for title, section in sections:
        body = [f"  {printable(line)}".rstrip() for line in section]
        if body:
            lines += ["", f"\x1b[1m{printable(title)}\x1b[0m" if colour else printable(title), *body]
    return "\n".join(lines)


def _head(told: Explanation) -> Iterator[str]:
    amount = money(told.amount_minor, told.minor_digits)
    yield printable(f"Transaction {told.transaction_id} of {told.event_time}, {amount}")
    known = [f"{name} {value}" for name, value in told.columns.items() if value is not None]
    if known:
        yield printable(", ".join(known))
    yield f"features computed from {told.past:,} rows of the same entities"


def _decision(told: Explanation) -> Iterator[str]:
    yield told.decided_by
    yield from (f"- {reason}" for reason in told.reasons)


def _score(told: Explanation, bar: str) -> Iterator[str]:
    """A row a feature that moved the score, from the typical score to this one."""
    moved = [part for part in told.parts if part.contribution]
    width = max((len(part.feature) for part in moved), default=0)
    width = max(width, len("a typical transaction"))
    yield f"{'':<{width}}  {'value':>12}  {'typical':>12}  {'log-odds':>9}"
    yield f"{'a typical transaction':<{width + 28}}  {told.typical_log_odds:>9.3f}  score {told.typical_score:.4g}"
    most = max((abs(part.contribution) for part in moved), default=1.0)
    for part in moved:
        numbers = f"{part.value:>12.6g}  {part.typical:>12.6g}  {part.contribution:>+9.3f}"
        yield f"{part.feature:<{width}}  {numbers}  {_bar(part, most, bar)}"
    yield f"{'this transaction':<{width + 28}}  {told.log_odds:>9.3f}  score {told.score:.4g}"
    still = len(told.parts) - len(moved)
    if still:
        yield f"{still} features have no part in it"
    yield f"Shapley values, {told.method}"
    worst = max((part.error for part in told.parts), default=0.0)
    if worst:
        yield f"each to a standard error of at most {worst:.2g}; their sum is exact"


def _bar(part: Part, most: float, bar: str) -> str:
    """A bar to the right for what raised the score, to the left for what lowered it."""
    length = max(1, round(abs(part.contribution) / most * _HALF))
    left, right = ("", bar * length) if part.contribution > 0 else (bar * length, "")
    return f"{left:>{_HALF}}|{right}"


def _rules(told: Explanation) -> Iterator[str]:
    for rule in told.rules:
        yield f"{'applies' if rule.applies else 'does not apply':<14}  {rule.action:<7}  {rule.name}: {rule.when}"


def _policy(told: Explanation) -> Iterator[str]:
    yield f"review from a score of {told.thresholds.review:.4g}, decline from {told.thresholds.decline:.4g}"
    review, decline = (money(cost, told.minor_digits) for cost in (told.costs.review, told.costs.decline))
    yield f"a review costs {review}, a good customer declined {decline}, a fraud approved its amount"


def _served(served: ServedFacts | None) -> Iterator[str]:
    if served is None:
        return
    yield f"{served.decision}, score {served.score:.9g}, by {served.model_id}{', late' if served.late else ''}"
    yield "the same score" if served.same_score else "another score"
    yield "the same decision" if served.same_decision else "another decision"
    if not served.differing:
        yield f"the same {served.features} features, to the bit"
    for each in served.differing:
        was = "nothing" if each.served is None else f"{each.served:.9g}"
        yield f"{each.name} was served as {was}, and is {each.rebuilt:.9g}"
    if served.late:
        yield "it came late, so it was decided against the past as it was known then"
