"""The report's plots: what each shows, out of a run's statistics."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from pipelines import plots
from pipelines.formats import day, share
from pipelines.progress import ThroughputSample
from pipelines.summary import RunFacts
from transforms import outcomes
from transforms.histograms import SCORE_BINS, Ints, score_at, score_bins
from transforms.statistics import DAILY, LABELS, RunStatistics

MOST_BARS = 120
_SCORE_TICKS = (
    (1e-6, "1e-6"), (1e-5, "1e-5"), (1e-4, "1e-4"), (1e-3, "0.001"), (0.01, "0.01"), (0.1, "0.1"), (0.5, "0.5"),
    (0.9, "0.9"), (0.99, "0.99"), (0.999, "0.999"), (1 - 1e-4, "0.9999"), (1 - 1e-5, "1-1e-5"), (1 - 1e-6, "1-1e-6"),
)  # fmt: skip
_LABEL_COLOURS = (("legitimate", "good"), ("fraud", "fraud"), ("unknown", "unknown"))


def score_distribution(facts: RunFacts) -> str:
    """How many transactions have which score, by label; even steps along the foot are steps of log-odds."""
    counts = facts.statistics.score_counts
    wide = 16
    coarse = counts.reshape(len(LABELS), SCORE_BINS // wide, wide).sum(axis=2)
    used = np.flatnonzero(coarse.sum(axis=0))
    first, last = int(used[0]), int(used[-1]) + 1
    x = _score_axis(first * wide, last * wide)
    y = plots.log_y_axis(float(coarse.max()), "transactions")
    edges = [float(place * wide) for place in range(first, last + 1)]
    marks, legend = [], []
    for label, colour in _LABEL_COLOURS:
        heights = coarse[LABELS.index(label), first:last].astype(float).tolist()
        if any(heights):
            marks.append(plots.area(plots.steps(edges, heights), x, y, colour))
            legend.append((colour, label))
    return plots.chart("Scores", x, y, [*marks, *_threshold_rules(facts, x)], legend)


def precision_recall(facts: RunFacts) -> str:
    """Precision against recall over all thresholds, the policy's own marked; nothing without frauds."""
    curve = outcomes.precision_recall(facts.statistics)
    if curve is None:
        return ""
    ticks = [(number / 5, f"{number * 20} %") for number in range(6)]
    x = plots.x_axis(0, 1, ticks, "recall: share of frauds that raise an alert")
    y = plots.Axis(
        0, 1, plots.HEIGHT - plots.BOTTOM, plots.TOP, ticks, title="precision: share of alerts that are frauds"
    )
    places = plots.thinned(np.arange(len(curve.bins)))
    points = list(zip(curve.recall[places].tolist(), curve.precision[places].tolist(), strict=True))
    points = [(0.0, points[0][1]), *points]
    marks = [plots.area(points, x, y, "accent")]
    for name, threshold, colour in _thresholds(facts):
        at = int(np.searchsorted(-curve.bins, -_bin(threshold), side="right")) - 1
        if at >= 0:
            point = float(curve.recall[at]), float(curve.precision[at])
            marks.append(plots.dot(point, f"{name} from {threshold:.4g}", x, y, colour, below=name == "review"))
    return plots.chart("Precision and recall", x, y, marks)


def saved_by_threshold(facts: RunFacts) -> str:
    """What reviewing from another score on would have saved; nothing without frauds."""
    run = facts.statistics
    if not sum(outcomes.frauds(run)):
        return ""
    used = np.flatnonzero(run.score_counts.sum(axis=0))
    first, last = int(used[0]), int(used[-1]) + 1
    saved = outcomes.saved_by_review_threshold(run, facts.costs)
    best = first + int(saved[first : last + 1].argmax())
    most, least = float(saved[best]), float(saved[first : last + 1].min())
    # Far below the best threshold everything is reviewed, at a loss that would hide the rest of the curve.
    low = max(least, -most / 2) if most > 0 else least
    x = _score_axis(first, last, "score from which everything is reviewed")
    y = plots.y_axis(most, "saved", min(low, 0.0), scale=10.0**facts.minor_digits)
    places = plots.thinned(np.arange(first, last + 1)).tolist()
    points = [(float(place), float(saved[place])) for place in places if saved[place] >= y.low]
    marks = [
        plots.line(points, x, y, "accent"),
        plots.dot((best, most), f"most from {score_at(best):.2g}", x, y, "accent"),
        plots.rule(_place(facts.thresholds.review, x), "policy's review", x, "review", row=14),
    ]
    return plots.chart("Money saved if reviewing from another score", x, y, marks)


def alerts_over_time(facts: RunFacts) -> str:
    """Reviews and declines by day, or by as many days as it takes to fit, and the frauds among all transactions."""
    run = facts.statistics
    starts, table, width = _periods(run)
    review, decline, fraud = (table[:, DAILY.index(name)].astype(float) for name in ("review", "decline", "fraud"))
    high = float(max((review + decline).max(), fraud.max()))
    middle, end = int(starts[len(starts) // 2]), int(starts[-1]) + width
    x = plots.x_axis(
        float(starts[0]),
        float(end),
        [(number + width / 2, day(number)) for number in sorted({int(starts[0]), middle, int(starts[-1])})],
    )
    y = plots.y_axis(max(high, 1.0), "a day" if width == 1 else f"in {width} days")
    places = [(float(start), float(start) + width) for start in starts.tolist()]
    words = [
        f"{day(start)}: {int(r):,} reviews, {int(d):,} declines, {int(f):,} frauds"
        for start, r, d, f in zip(starts.tolist(), review, decline, fraud, strict=True)
    ]
    marks = [
        plots.bars(places, [0.0] * len(places), decline.tolist(), words, x, y, "decline"),
        plots.bars(places, decline.tolist(), review.tolist(), words, x, y, "review"),
    ]
    legend = [("review", "reviews"), ("decline", "declines")]
    if outcomes.labelled(run):
        middles = [(start + width / 2, count) for start, count in zip(starts.tolist(), fraud.tolist(), strict=True)]
        marks.append(plots.line(middles, x, y, "ink"))
        legend.append(("ink", "frauds"))
    return plots.chart("Alerts over time", x, y, marks, legend)


def top_reasons(facts: RunFacts, most: int = 10) -> str:
    """The reasons given most often, as shares of all alerts; nothing without alerts."""
    run = facts.statistics
    alerts = int(run.counts[1:].sum())
    ranked = sorted(run.reasons.items(), key=lambda entry: (-entry[1], entry[0]))[:most]
    if not ranked:
        return ""
    rows = [(code, float(count), f"{share(count, alerts)}") for code, count in ranked]
    return plots.ranking("Reasons given most, as shares of alerts", rows, "accent")


def top_features(facts: RunFacts, most: int = 10) -> str:
    """The features whose means differ most between alerts and the rest, in standard deviations."""
    differences = feature_differences(facts.statistics)[:most]
    if not differences:
        return ""
    rows = [(name, difference, f"{high:.3g} : {low:.3g}") for name, difference, high, low in differences]
    return plots.ranking("Features that set alerts apart: mean of alerts : of the rest", rows, "accent")


def feature_differences(run: RunStatistics) -> list[tuple[str, float, float, float]]:
    """(feature, difference in standard deviations, mean of flagged, mean of approved), the largest first.

    The standard deviation is that of all transactions; features that do not vary are left out.
    """
    found = []
    for at, name in enumerate(run.feature_names):
        counts, sums, squares = run.feature_counts[:, at], run.feature_sums[:, at], run.feature_squares[:, at]
        if not counts.all():
            continue
        approved, flagged = (sums / counts).tolist()
        variance = float(squares.sum() / counts.sum() - (sums.sum() / counts.sum()) ** 2)
        # What is left of the squares of a feature that never varies is rounding.
        if variance > 1e-12 * float(squares.sum() / counts.sum()):
            found.append((name, (flagged - approved) / variance**0.5, flagged, approved))
    return sorted(found, key=lambda entry: (-abs(entry[1]), entry[0]))


def throughput(facts: RunFacts) -> str:
    """Transactions read and scored in a second, over the run; nothing when it was over at once."""
    samples = _spaced(facts.throughput, MOST_BARS)
    if len(samples) < 3:
        return ""
    read = [_rate(a, b, a.read, b.read) for a, b in pairwise(samples)]
    scored = [_rate(a, b, a.scored, b.scored) for a, b in pairwise(samples)]
    edges = [sample.seconds for sample in samples]
    unit, name = next(
        (size, name) for size, name in ((1, "s"), (60, "min"), (3600, "h")) if edges[-1] < 120 * size or size == 3600
    )
    ticks = [(value * unit, f"{value:g} {name}") for value in plots.round_values(0, edges[-1] / unit)]
    x = plots.x_axis(0, edges[-1], [tick for tick in ticks if tick[0] <= edges[-1]], "since the start of the run")
    y = plots.y_axis(max(*read, *scored, 1.0), "transactions a second")
    marks = [
        plots.area(plots.steps(edges, read), x, y, "good"),
        plots.area(plots.steps(edges, scored), x, y, "accent"),
    ]
    return plots.chart("Throughput", x, y, marks, [("good", "read"), ("accent", "scored")])


def _rate(a: ThroughputSample, b: ThroughputSample, before: int, after: int) -> float:
    return (after - before) / (b.seconds - a.seconds)


def _spaced(samples: Sequence[ThroughputSample], most: int) -> list[ThroughputSample]:
    """Samples at least a `most`-th of the run apart: two at nearly one moment give no rate."""
    if not samples:
        return []
    apart = max((samples[-1].seconds - samples[0].seconds) / most, 1e-3)
    kept = [samples[0]]
    for sample in samples[1:]:
        if sample.seconds - kept[-1].seconds >= apart:
            kept.append(sample)
    return kept


def _periods(
    run: RunStatistics,
) -> tuple[Ints, Ints, int]:
    """The days of a run in at most `MOST_BARS` * 2 periods: their first days, their counts, days in each."""
    first, last = int(run.days[0]), int(run.days[-1])
    width = -(-(last - first + 1) // (MOST_BARS * 2))
    places = (run.days - first) // width
    table = np.zeros((int(places[-1]) + 1, len(DAILY)), dtype=np.int64)
    np.add.at(table, places, run.daily)
    return first + np.arange(len(table), dtype=np.int64) * width, table, width


def _score_axis(first: float, last: float, title: str = "score: probability of fraud") -> plots.Axis:
    ticks = [(_exact_place(p), words) for p, words in _SCORE_TICKS if first <= _exact_place(p) <= last]
    return plots.x_axis(first, last, ticks, title)


def _exact_place(probability: float) -> float:
    """Where a probability lies on the bins' axis, between bins too."""
    limit = SCORE_BINS / 2
    return limit + float(np.log(probability / (1 - probability))) * limit / 16


def _bin(threshold: float) -> int:
    return int(score_bins(np.array([min(max(threshold, 0.0), 1.0)]))[0])


def _place(threshold: float, x: plots.Axis) -> float:
    return min(max(float(_bin(threshold)), x.low), x.high)


def _thresholds(facts: RunFacts) -> list[tuple[str, float, str]]:
    return [("review", facts.thresholds.review, "review"), ("decline", facts.thresholds.decline, "decline")]


def _threshold_rules(facts: RunFacts, x: plots.Axis) -> list[str]:
    return [
        plots.rule(_place(threshold, x), f"{name} from {threshold:.4g}", x, colour, row)
        for row, (name, threshold, colour) in enumerate(_thresholds(facts))
    ]
