"""The model card: what a model is, what it was trained on, how good it is and where that ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from model_artifacts.manifest import Manifest
from pipelines.training.dataset import LabelledRows
from pipelines.training.evaluate import CARDS_A_DAY, Evaluation
from pipelines.training.fit import MOST_DIFFERENCE, FittedModel
from pipelines.training.split import Periods, day, within

_KINDS = {
    "logistic": "logistic regression",
    "forest": "random forest",
    "xgboost": "gradient-boosted trees",
    "average": "the average of several gradient-boosted trees",
    "neural": "a neural network (multilayer perceptron)",
}


@dataclass(frozen=True, eq=False)
class CardFacts:
    """All a card is made of."""

    manifest: Manifest
    fitted: FittedModel
    rows: LabelledRows
    periods: Periods
    evaluation: Evaluation
    class_weight: str
    seed: int


def write_card(facts: CardFacts) -> str:
    """The card in Markdown; pictures are expected in plots/."""
    manifest = facts.manifest
    sections = [
        f"# {manifest.model_id}",
        f"Gives each card transaction its probability of being a fraud: {_KINDS[manifest.kind]} on "
        f"{len(manifest.feature_names)} features of the transaction and its history. Made by "
        "`python -m pipelines.training`, which also measured what follows.",
        "## Data",
        _data(facts),
        "## Results on the test days",
        _results(facts),
        "## Decisions",
        _decisions(facts),
        "## Calibration",
        _calibration(facts.evaluation),
        "## Features",
        _features(facts),
        "## Limits",
        _limits(facts),
        "## How it was made",
        _making(facts),
    ]
    return "\n\n".join(sections) + "\n"


def metrics_lines(manifest: Manifest) -> list[str]:
    """The most telling metrics as aligned lines for a terminal."""
    return [f"{name:<{34}} {value:>14}" for name, value in _headline(manifest)]


def _headline(manifest: Manifest) -> list[tuple[str, str]]:
    metrics, digits = manifest.metrics, manifest.feature_set.minor_digits
    precision_at_k = metrics.get(f"card_precision_at_{CARDS_A_DAY}")
    lines = [
        ("AUC ROC", f"{metrics['auc_roc']:.3f}"),
        ("average precision", f"{metrics['average_precision']:.3f}"),
        (f"card precision@{CARDS_A_DAY} a day", "no customers" if precision_at_k is None else f"{precision_at_k:.3f}"),
        ("precision of alerts", f"{metrics['precision']:.3f}"),
        ("recall of alerts", f"{metrics['recall']:.3f}"),
        ("alerts a day", f"{metrics['alerts_per_day']:,.1f}"),
        ("Brier score", f"{metrics['brier']:.5f}"),
        ("cost a day", money(metrics["cost_per_day"], digits)),
        ("cost a day, doing nothing", money(metrics["cost_per_day_doing_nothing"], digits)),
    ]
    return lines


def money(minor: float, digits: int) -> str:
    """An amount of minor units in major ones.

    Example:
        >>> money(123456.7, 2)
        '1,234.57'
    """
    return f"{minor / 10**digits:,.{digits}f}"


def _data(facts: CardFacts) -> str:
    periods, training = facts.periods, facts.manifest.training
    spans = [
        ("fit", periods.train_from, periods.fit_to),
        ("calibration and thresholds", periods.calibrate_from, periods.train_to),
        ("test", periods.test_from, periods.test_to),
    ]
    lines = []
    for name, start, end in spans:
        inside = facts.rows.labels[within(facts.rows.event_time, start, end)]
        lines.append((name, day(start), day(end), f"{len(inside):,}", f"{int(inside.sum()):,}", f"{inside.mean():.3%}"))
    head = ("period", "from", "up to, not including", "transactions", "frauds", "share")
    return (
        f"`{training.source}`, schema `{facts.manifest.schema}`. Labels are taken to be known "
        f"{training.label_delay} after the transaction: the test starts that long after training ends, as it would "
        f"in production.\n\n{_table(head, lines)}"
    )


def _results(facts: CardFacts) -> str:
    evaluation = facts.evaluation
    left_out = int((~evaluation.ranked).sum())
    counts = evaluation.confusion
    truth = _table(
        ("", "approved", "alert"),
        [
            ("good", f"{counts.true_negatives:,}", f"{counts.false_positives:,}"),
            ("fraud", f"{counts.false_negatives:,}", f"{counts.true_positives:,}"),
        ],
    )
    return (
        f"{_table(('metric', 'value'), _headline(facts.manifest))}\n\n"
        f"AUC, average precision and card precision leave out {left_out:,} of {len(evaluation.rows):,} transactions, "
        "those of cards already known to be compromised when their day began, as the Fraud Detection Handbook does. "
        "All else counts every transaction. An alert is a transaction reviewed or declined.\n\n"
        f"{truth}\n\n"
        "![Precision and recall](plots/precision_recall.png)\n![ROC](plots/roc.png)\n"
        "![Scores](plots/score_distribution.png)\n![Decisions](plots/confusion.png)"
    )


def _decisions(facts: CardFacts) -> str:
    manifest = facts.manifest
    digits, costs, metrics = manifest.feature_set.minor_digits, manifest.costs, manifest.metrics
    saved = metrics["cost_per_day_doing_nothing"] - metrics["cost_per_day"]
    return (
        f"Review from a probability of {manifest.thresholds.review:g}, decline from "
        f"{manifest.thresholds.decline:g}: the cheapest pair on the calibration days, at {money(costs.review, digits)} "
        f"a review, {money(costs.decline, digits)} a good transaction declined, and a missed fraud at its amount. On "
        f"the test days that saves {money(saved, digits)} a day against approving everything."
    )


def _calibration(evaluation: Evaluation) -> str:
    lines = [
        (
            f"{entry.low:.1f} to {entry.low + 0.1:.1f}",
            f"{entry.rows:,}",
            f"{entry.predicted:.4f}",
            f"{entry.observed:.4f}",
        )
        for entry in evaluation.bins
    ]
    table = _table(("score", "transactions", "mean score", "share of frauds"), lines)
    return f"{table}\n\n![Calibration](plots/calibration.png)"


def _features(facts: CardFacts) -> str:
    manifest = facts.manifest
    lines = [
        (f"`{name}`", f"{typical:.6g}", f"{facts.evaluation.importance[name]:+.4f}")
        for name, typical in zip(manifest.feature_names, manifest.baseline, strict=True)
    ]
    table = _table(("feature", "training median", "importance"), lines)
    return (
        f"Feature set `{manifest.feature_set.name}`, fingerprint `{manifest.fingerprint}`.\n\n{table}\n\n"
        "Importance is the fall in average precision when a feature's values are shuffled among the test days' "
        "transactions. Features that say much the same share theirs.\n\n"
        "![Feature importance](plots/feature_importance.png)"
    )


def _limits(facts: CardFacts) -> str:
    notes = [
        *facts.periods.notes,
        *facts.evaluation.notes,
        "Fraud changes: results hold for days like the test days. Train anew when precision or recall falls.",
        "Thresholds hold for the costs above and for the share of frauds seen in training.",
        "It knows nothing of a person but the history of an account; it was not examined for fairness between groups.",
    ]
    return "\n".join(f"- {note}" for note in notes)


def _making(facts: CardFacts) -> str:
    manifest, fitted = facts.manifest, facts.fitted
    settings = ", ".join(f"{name}={value}" for name, value in fitted.settings.items())
    lines = [
        ("library", fitted.made_by),
        ("settings", settings),
        ("class weight", facts.class_weight),
        ("seed", str(facts.seed)),
        ("calibration", f"Platt: slope {manifest.calibration.slope:g}, intercept {manifest.calibration.intercept:g}"),
        ("fit again on the calibration days", "no: calibration and thresholds belong to the model as it was fitted"),
        (
            "exported to ONNX",
            f"probabilities within {MOST_DIFFERENCE:g} of the library's on every row it was fitted on",
        ),
        ("sha256 of model.onnx", f"`{manifest.model_sha256}`"),
    ]
    return _table(("", ""), lines)


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    ruler = ["---", *["---:"] * (len(head) - 1)] if len(head) != 2 or head[0] else ["---", "---"]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ruler, *lines))
