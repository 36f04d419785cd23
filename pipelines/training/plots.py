"""The model card's pictures, the same bytes for the same results."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from model_artifacts.manifest import Thresholds
from pipelines.training.evaluate import Evaluation

_SIZE = (6.0, 4.0)  # inches
_MOST_FEATURES = 20


def draw_plots(evaluation: Evaluation, thresholds: Thresholds) -> dict[str, bytes]:
    """PNG files by name: curves, calibration, scores, features and decisions of the test days."""
    from matplotlib import style

    with style.context("default"):  # whatever the user's own matplotlibrc says
        return {
            "precision_recall.png": _png(lambda axes: _precision_recall(axes, evaluation)),
            "roc.png": _png(lambda axes: _roc(axes, evaluation)),
            "calibration.png": _png(lambda axes: _calibration(axes, evaluation)),
            "score_distribution.png": _png(lambda axes: _scores(axes, evaluation, thresholds)),
            "feature_importance.png": _png(lambda axes: _importance(axes, evaluation), left=0.36),
            "confusion.png": _png(lambda axes: _confusion(axes, evaluation)),
        }


def _png(draw: Callable[[Any], None], left: float = 0.12) -> bytes:
    """One picture; `left` is the share of its width kept for labels: measuring them would draw it twice."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE, dpi=100)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=left, right=0.97, bottom=0.13, top=0.92)
    draw(figure.add_subplot())
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _precision_recall(axes: Any, evaluation: Evaluation) -> None:
    points = evaluation.points
    axes.step(points.recall, points.precision, where="pre")
    area = evaluation.metrics["average_precision"]
    axes.set(title=f"Precision and recall (average precision {area:.3f})", xlabel="recall", ylabel="precision")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))


def _roc(axes: Any, evaluation: Evaluation) -> None:
    points = evaluation.points
    axes.plot(np.append(0, points.false_rate), np.append(0, points.recall))
    axes.plot([0, 1], [0, 1], linestyle=":", color="grey")
    area = evaluation.metrics["auc_roc"]
    axes.set(title=f"ROC (area {area:.3f})", xlabel="share of good transactions", ylabel="share of frauds")


def _calibration(axes: Any, evaluation: Evaluation) -> None:
    predicted = [entry.predicted for entry in evaluation.bins]
    axes.plot([0, 1], [0, 1], linestyle=":", color="grey")
    axes.plot(predicted, [entry.observed for entry in evaluation.bins], marker="o")
    for entry in evaluation.bins:
        axes.annotate(f"{entry.rows:,}", (entry.predicted, entry.observed), xytext=(4, -10), textcoords="offset points")
    axes.set(title="Calibration (with transactions a point)", xlabel="mean score", ylabel="share of frauds")


def _scores(axes: Any, evaluation: Evaluation, thresholds: Thresholds) -> None:
    edges = np.linspace(0.0, 1.0, 51)
    for label, name in ((0, "good"), (1, "fraud")):
        axes.hist(evaluation.scores[evaluation.rows.labels == label], edges, histtype="step", label=name)
    axes.axvline(thresholds.review, linestyle="--", color="tab:green", label="review")
    axes.axvline(thresholds.decline, linestyle="--", color="tab:red", label="decline")
    axes.set(title="Scores", xlabel="score", ylabel="transactions", yscale="log")
    axes.legend()


def _importance(axes: Any, evaluation: Evaluation) -> None:
    ranked = sorted(evaluation.importance.items(), key=lambda item: item[1], reverse=True)[:_MOST_FEATURES][::-1]
    axes.barh([name for name, _ in ranked], [fall for _, fall in ranked])
    axes.tick_params(axis="y", labelsize=7)
    axes.set(title="Feature importance", xlabel="fall in average precision when shuffled")


def _confusion(axes: Any, evaluation: Evaluation) -> None:
    counts = evaluation.confusion
    cells = np.array([[counts.true_negatives, counts.false_positives], [counts.false_negatives, counts.true_positives]])
    axes.imshow(np.log10(cells + 1), cmap="Blues", vmin=0, vmax=max(1.0, float(np.log10(cells.max() + 1)) * 1.5))
    for row, column in np.ndindex(2, 2):
        axes.text(column, row, f"{cells[row, column]:,}", ha="center", va="center")
    axes.set_xticks([0, 1], ["approved", "alert"])
    axes.set_yticks([0, 1], ["good", "fraud"])
    axes.set(title="Decisions")
