"""The report of a run: one page that stands alone, says what is so, and draws what it says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_artifacts.manifest import Costs, Thresholds
from pipelines import plots
from pipelines.progress import ThroughputSample
from pipelines.report import report_html
from pipelines.report_plots import feature_differences
from pipelines.summary import RunFacts
from transforms import outcomes
from transforms.batch import from_rows
from transforms.durations import DAY
from transforms.statistics import DECISIONS, RunStatistics, empty_statistics, observe

FEATURES = ["amount", "night"]
EXTRA = {
    **{name: pa.float64() for name in FEATURES},
    "score": pa.float64(),
    "decision": pa.string(),
    "reasons": pa.list_(pa.string()),
}
THRESHOLDS = Thresholds(review=0.5, decline=0.75)
COURSE = [ThroughputSample(0.0, 0, 0), ThroughputSample(1.0, 900, 0), ThroughputSample(2.0, 1000, 500)]


def decide(score: float) -> str:
    return DECISIONS[(score >= THRESHOLDS.review) + (score >= THRESHOLDS.decline)]


def run(rows: Sequence[dict[str, Any]]) -> RunStatistics:
    """Statistics of rows with a score each, decided by it."""
    filled = [
        {
            "transaction_id": f"t{at}",
            "event_time": at * DAY // 3,
            "amount_minor": 10_000,
            "amount": 100.0 * row["score"],
            "night": 0.0,
            "decision": decide(row["score"]),
            "reasons": ["amount: high"] if row["score"] >= THRESHOLDS.review else [],
            **row,
        }
        for at, row in enumerate(rows)
    ]
    return observe(from_rows(filled, EXTRA), FEATURES, 0) if filled else empty_statistics(FEATURES)


def facts(statistics: RunStatistics, **changes: Any) -> RunFacts:
    given: dict[str, Any] = {
        "statistics": statistics,
        "source": "file:cards.csv",
        "schema": "handbook",
        "model_id": "handbook-0123456789ab",
        "thresholds": THRESHOLDS,
        "costs": Costs(),
        "ordering": "event_time",
        "read": statistics.transactions,
        "wall_seconds": 2.0,
        "throughput": COURSE,
        "files": {"decisions": "output/decisions"},
        **changes,
    }
    return RunFacts(**given)


LABELLED = run([{"score": at / 40, "is_fraud": int(at % 7 > 4 or at > 30)} for at in range(40)])


class Page(HTMLParser):
    """Reads a page: every element must be closed in turn, and its text is kept."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def test_the_page_stands_alone() -> None:
    """It has no script, loads nothing, and every element is closed."""
    html = report_html(facts(LABELLED))
    page = Page(html)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "use", "image"}
    assert not any(
        name in ("src", "href", "xlink:href") or name.startswith("on") for _, a in page.elements for name in a
    )
    assert not re.search(r"https?:|@import|url\(", html)


def test_light_and_dark_readers_are_served() -> None:
    """All colours come from one set of names, which has a second set for dark pages."""
    html = report_html(facts(LABELLED))
    body = html.split("</style>")[1]
    assert "prefers-color-scheme: dark" in html
    assert "#" not in re.sub(r"&#\w+;", "", body)


def test_every_plot_is_there_when_there_is_something_to_plot() -> None:
    """A labelled run shows scores, precision and recall, alerts, money, reasons, features and throughput."""
    page = Page(report_html(facts(LABELLED)))
    titles = [attributes["aria-label"] or "" for tag, attributes in page.elements if tag == "svg"]
    starts = ("Scores", "Precision", "Alerts", "Money saved", "Reasons", "Features", "Throughput")
    assert len(titles) == len(starts)
    assert all(title.startswith(start) for title, start in zip(titles, starts, strict=True))


def test_the_cards_and_tables_have_the_run_s_figures() -> None:
    """What is written out is what was counted."""
    text = Page(report_html(facts(LABELLED, read=43, dead_letters={"duplicate": 3}))).text
    caught, missed = outcomes.frauds(LABELLED)
    precision = outcomes.precision(LABELLED)
    assert precision is not None
    assert f"frauds caught {caught} of {caught + missed}" in text
    assert f"precision {100 * precision:.1f} %" in text
    for place, decision in enumerate(DECISIONS):
        cells = LABELLED.counts[place, :2].tolist()
        assert re.search(rf"{decision} {cells[0]} [\d.,]+ {cells[1]} ", text)
    assert "records read 43 decided on 40 dead letters 3 duplicate 3" in text


def test_the_policy_is_marked_where_its_decisions_lie() -> None:
    """The dots on the precision-recall curve lie at the exact precision and recall of the decisions."""
    html = report_html(facts(LABELLED))
    figure = html.split("<figcaption>Precision and recall")[1]
    dots = re.findall(r'<circle class="dot (\w+)" cx="([\d.]+)" cy="([\d.]+)"', figure)[:2]
    drawn = {
        colour: (
            (float(x) - plots.LEFT) / (plots.WIDTH - plots.RIGHT - plots.LEFT),
            (plots.HEIGHT - plots.BOTTOM - float(y)) / (plots.HEIGHT - plots.BOTTOM - plots.TOP),
        )
        for colour, x, y in dots
    }
    frauds = LABELLED.counts[:, 0].sum()
    for colour, first in (("review", 1), ("decline", 2)):
        flagged = LABELLED.counts[first:, :2].sum(axis=0)
        assert drawn[colour] == pytest.approx((flagged[0] / frauds, flagged[0] / flagged.sum()), abs=1e-3)


def test_without_labels_the_page_says_so() -> None:
    """No card, curve or table pretends to know what was fraud."""
    text = Page(report_html(facts(run([{"score": at / 10} for at in range(10)])))).text
    assert "No labels are known" in text
    assert not re.search("precision|recall|Money|frauds caught|frauds stopped|missed", text)


def test_some_missing_labels_are_mentioned() -> None:
    """A page about a part of the run says which part."""
    text = Page(report_html(facts(run([{"score": 0.9, "is_fraud": 1}, {"score": 0.1}])))).text
    assert "1 of 2 transactions have no label yet" in text


def test_what_comes_from_outside_is_escaped() -> None:
    """Markup in names, reasons, features, paths and dead letters is shown, never obeyed."""
    evil = "<script>alert(1)</script>\"'&"
    statistics = run([{"score": 0.9, "is_fraud": 1, "reasons": [f"{evil}: x"]}, {"score": 0.1, "is_fraud": 0}])
    page = report_html(
        facts(statistics, source=evil, schema=evil, model_id=evil, dead_letters={evil: 1}, files={evil: evil})
    )
    assert "script" not in {tag for tag, _ in Page(page).elements}
    assert page.count("&lt;script&gt;alert(1)") >= 7


@pytest.mark.parametrize(
    "rows",
    [[], [{"score": 0.5}], [{"score": 1.0, "is_fraud": 1}], [{"score": 0.0, "is_fraud": 0}]],
    ids=["nothing", "one", "one-fraud", "one-good"],
)
def test_a_run_of_almost_nothing_has_a_report(rows: list[dict[str, Any]]) -> None:
    """No transactions, or a single one, make a page and not an error."""
    Page(report_html(facts(run(rows), throughput=[], wall_seconds=0.0)))


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "score": st.floats(0, 1),
            "is_fraud": st.sampled_from([0, 1, None]),
            "amount_minor": st.integers(0, 10**12),
            "amount": st.floats(-1e12, 1e12) | st.just(float("nan")),
            "event_time": st.integers(0, 40_000 * DAY),
            "night": st.sampled_from([0.0, 1.0, 1e-300]),
        }
    ),
    min_size=1,
    max_size=8,
)
COURSES = st.lists(st.tuples(st.floats(0, 1e5), st.integers(0, 10**9)), max_size=9).map(
    lambda pairs: (
        [ThroughputSample(a, b, b // 2) for a, b in zip(*map(sorted, zip(*pairs, strict=True)), strict=True)]
        if pairs
        else []
    )
)


@settings(max_examples=40)
@given(ROWS, COURSES, st.floats(0, 1), st.floats(0, 1))
def test_everything_is_drawn_inside_its_plot(
    rows: list[dict[str, Any]], course: list[ThroughputSample], review: float, decline: float
) -> None:
    """Whatever the run, all coordinates are numbers and lie within the drawing."""
    policy = Thresholds(review=min(review, decline), decline=max(review, decline))
    html = report_html(facts(run(rows), throughput=course, thresholds=policy))
    drawings = re.findall(r'<svg viewBox="0 0 (\d+) (\d+)"(.*?)</svg>', html, re.DOTALL)
    assert drawings
    for width, height, body in drawings:
        across = [float(v) for v in re.findall(r'\b(?:x|x1|x2|cx)="([^"]*)"', body)]
        down = [float(v) for v in re.findall(r'\b(?:y|y1|y2|cy)="([^"]*)"', body)]
        for pair in " ".join(re.findall(r'points="([^"]*)"', body)).split():
            across.append(float(pair.split(",")[0]))
            down.append(float(pair.split(",")[1]))
        assert all(-1 <= value <= float(width) + 1 for value in across)
        assert all(-1 <= value <= float(height) + 1 for value in down)
        assert all(float(size) >= 0 for size in re.findall(r'(?:width|height)="([^"]*)"', body))


def test_features_are_ranked_by_their_distance_in_standard_deviations() -> None:
    """A feature that tells alerts apart comes first, and one that never varies is left out."""
    rows = [{"score": 0.9, "amount": value, "night": 0.3} for value in (9.0, 11.0)]
    rows += [{"score": 0.1, "amount": value, "night": 0.3} for value in (1.0, 3.0)]
    ((name, difference, flagged, approved),) = feature_differences(run(rows))
    assert (name, flagged, approved) == ("amount", 10.0, 2.0)
    assert difference == pytest.approx(8 / 17**0.5)
    # Here the second feature does vary, and tells alerts apart with certainty: it comes first.
    certain = [{**row, "night": float(row["score"] > 0.5)} for row in rows]
    assert [name for name, *_ in feature_differences(run(certain))] == ["night", "amount"]


def test_the_course_is_drawn_in_rates() -> None:
    """Throughput is transactions a second between two looks, not totals."""
    html = report_html(facts(LABELLED))
    figure = html.split("<figcaption>Throughput")[1]
    points = re.findall(r'<polyline class="line good" points="([^"]*)"', figure)[0]
    heights = [float(pair.split(",")[1]) for pair in points.split()]
    y = plots.y_axis(900.0)
    assert heights == pytest.approx([y.at(900), y.at(900), y.at(100), y.at(100)], abs=0.06)
