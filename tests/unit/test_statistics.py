"""Run statistics: what is counted, that counts add up, and what is read off them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from model_artifacts.manifest import Costs
from transforms import outcomes
from transforms.batch import TransactionBatch, from_rows
from transforms.durations import DAY
from transforms.histograms import (
    DURATION_BINS,
    SCORE_BINS,
    duration_at,
    duration_bins,
    quantile_bin,
    score_at,
    score_bins,
)
from transforms.statistics import (
    DECISIONS,
    LABELS,
    RunStatistics,
    RunStatisticsCoder,
    empty_statistics,
    merge,
    observe,
)

DECIDED = {"score": pa.float64(), "decision": pa.string(), "reasons": pa.list_(pa.string())}


def decided(rows: Sequence[dict[str, Any]], features: Sequence[str] = ()) -> TransactionBatch:
    """A decided batch; each row may leave out what does not matter to it."""
    blank = {"event_time": 0, "amount_minor": 100, "score": 0.01, "decision": "approve", "reasons": []}
    filled = [{"transaction_id": f"t{at}", **blank, **row} for at, row in enumerate(rows)]
    return from_rows(filled, {**{name: pa.float64() for name in features}, **DECIDED})


def same(a: RunStatistics, b: RunStatistics) -> bool:
    return RunStatisticsCoder().encode(a) == RunStatisticsCoder().encode(b)


def scored(scores: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> RunStatistics:
    """Statistics of labelled scores, one cent each."""
    rows = from_rows([{"transaction_id": "t", "event_time": 0, "amount_minor": 1}]).take(np.zeros(len(scores), int))
    none = pa.array([[]] * len(scores), pa.list_(pa.string()))
    batch = rows.with_columns(
        {
            "is_fraud": pa.array(labels.astype(np.int8)),
            "score": pa.array(scores),
            "decision": pa.array(["approve"] * len(scores)),
            "reasons": none,
        }
    )
    return observe(batch, [], 0)


def test_counts_and_amounts_are_told_apart_by_decision_and_label() -> None:
    """Every transaction counts once, under its decision and its label, with its amount."""
    rows = [
        {"decision": decision, "is_fraud": label, "amount_minor": 10 ** (3 * d + n)}
        for d, decision in enumerate(DECISIONS)
        for n, label in enumerate((1, 0, None))
    ]
    run = observe(decided(rows), [], 0)
    assert run.counts.tolist() == [[1] * len(LABELS)] * len(DECISIONS)
    assert run.amounts.tolist() == [[10 ** (3 * d + n) for n in range(3)] for d in range(3)]
    assert run.score_counts.sum(axis=1).tolist() == [3, 3, 3]
    assert run.score_amounts.sum() == run.amounts.sum()


def test_days_are_counted_in_utc_with_frauds_and_caught_frauds() -> None:
    """A day's row has its decisions, its frauds and how many of them raised an alert; days are UTC days."""
    rows = [
        {"event_time": 3 * DAY + 1, "decision": "review", "is_fraud": 1},
        {"event_time": 3 * DAY - 1, "decision": "approve", "is_fraud": 1},
        {"event_time": 3 * DAY, "decision": "decline", "is_fraud": 0},
    ]
    run = observe(decided(rows), [], 0)
    assert run.days.tolist() == [2, 3]
    assert run.daily.tolist() == [[1, 0, 0, 1, 0], [0, 1, 1, 1, 1]]
    assert (run.first_event_time, run.last_event_time) == (3 * DAY - 1, 3 * DAY + 1)


def test_reasons_are_counted_by_their_code_among_flagged_rows() -> None:
    """The words after the code differ from row to row and are not counted apart; a rule counts by its name."""
    rows = [
        {"decision": "review", "reasons": ["amount: 12.00: high", "rule large: amount > 2000"]},
        {"decision": "decline", "reasons": ["amount: 13.00: high"]},
        {"decision": "approve", "reasons": ["night: left over"]},
    ]
    assert observe(decided(rows), [], 0).reasons == {"amount": 2, "rule large": 1}


def test_feature_sums_leave_out_what_is_not_finite() -> None:
    """Sums are kept apart for approved and flagged rows, and a missing or infinite value spoils neither."""
    values = [1.0, math.nan, 3.0, math.inf, 5.0]
    rows = [{"f": value, "decision": "review" if at > 1 else "approve"} for at, value in enumerate(values)]
    run = observe(decided(rows, ["f"]), ["f"], 0)
    assert run.feature_counts.tolist() == [[1], [2]]
    assert run.feature_sums.tolist() == [[1.0], [8.0]]
    assert run.feature_squares.tolist() == [[1.0], [34.0]]


def test_late_rows_and_latency_are_counted() -> None:
    """`late` counts flags; the latency histogram holds one entry a row, at now less the time it was read."""
    rows = [{"late": True, "ingest_time": 1_000_000}, {"ingest_time": 1_900_000}]
    run = observe(decided(rows), [], 2_000_000)
    assert run.late == 1
    seen = sorted(float(duration_at(place + 0.5)) for place in np.flatnonzero(run.latencies))
    assert seen == pytest.approx([100_000, 1_000_000], rel=0.05)


def test_a_strange_decision_is_refused() -> None:
    """A decision that is none of the three is named in the error, not counted somewhere."""
    with pytest.raises(ValueError, match="one of approve, review, decline; found refuse"):
        observe(decided([{"decision": "refuse"}]), [], 0)


def test_a_score_that_is_not_a_number_is_refused() -> None:
    """No score may vanish into a bin it does not belong to."""
    with pytest.raises(ValueError, match="1 of 2 scores are not numbers"):
        observe(decided([{"score": math.nan}, {}]), [], 0)


def test_statistics_of_different_features_do_not_add() -> None:
    """Sums of one feature set are never added to those of another."""
    with pytest.raises(ValueError, match="cannot be added"):
        merge(empty_statistics(["a"]), empty_statistics(["b"]))


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "event_time": st.integers(0, 20 * DAY),
            "amount_minor": st.integers(0, 10**12),
            "is_fraud": st.sampled_from([0, 1, None]),
            "late": st.booleans(),
            "score": st.floats(0, 1),
            "decision": st.sampled_from(DECISIONS),
            "reasons": st.lists(st.sampled_from(["a: x", "b: y"]), max_size=2),
            "f": st.integers(-1000, 1000).map(float),
        }
    ),
    max_size=12,
)


@given(ROWS, st.integers(0, 12))
def test_merging_parts_gives_the_statistics_of_the_whole(rows: list[dict[str, Any]], cut: int) -> None:
    """However an input is cut into batches, and whichever part is added first, the sums are the same."""
    whole = observe(decided(rows, ["f"]), ["f"], 5)
    a, b = (observe(decided(part, ["f"]), ["f"], 5) for part in (rows[:cut], rows[cut:]))
    assert same(merge(a, b), whole)
    assert same(merge(b, a), whole)


@given(ROWS)
def test_statistics_survive_their_coder(rows: list[dict[str, Any]]) -> None:
    """What is decoded encodes to the same bytes, and can be added to."""
    run = observe(decided(rows, ["f"]), ["f"], 5)
    coder = RunStatisticsCoder()
    back = coder.decode(coder.encode(run))
    assert same(back, run)
    assert same(merge(back, back), merge(run, run))


def test_statistics_of_another_coder_version_are_refused() -> None:
    """Bytes of another release are not read as if they were this one's."""
    with pytest.raises(ValueError, match="version 9 cannot be read"):
        RunStatisticsCoder().decode(b"\x09")


def test_size_does_not_grow_with_the_input() -> None:
    """A hundred times the rows take as many bytes, give or take the digits of the counts."""
    few, many = (observe(decided([{}] * rows), [], 0) for rows in (10, 1000))
    sizes = [len(RunStatisticsCoder().encode(run)) for run in (few, many)]
    assert abs(sizes[0] - sizes[1]) < 16


@given(st.floats(0, 1))
def test_a_score_lies_in_its_bin(score: float) -> None:
    """A bin holds the scores between its two ends; the outer bins hold what lies beyond."""
    place = int(score_bins(np.array([score]))[0])
    assert place == 0 or score_at(place) <= score * (1 + 1e-9)
    assert place == SCORE_BINS - 1 or score <= score_at(place + 1) * (1 + 1e-9)


@given(st.integers(1, 2**44))
def test_a_duration_lies_in_its_bin(micros: int) -> None:
    """A bin's ends lie a ninth apart at most, with the duration between them."""
    place = int(duration_bins(np.array([micros]))[0])
    assert 0 <= place < DURATION_BINS
    assert duration_at(place) <= micros * 1.000001
    assert micros <= duration_at(place + 1) * 1.000001


@given(st.lists(st.integers(0, 30), min_size=1, max_size=50), st.sampled_from([0.5, 0.9, 0.99]))
def test_quantile_bin_agrees_with_numpy(values: list[int], share: float) -> None:
    """The quantile of a histogram is NumPy's `inverted_cdf` of the values in it."""
    expected = int(np.quantile(values, share, method="inverted_cdf"))
    assert quantile_bin(np.bincount(values, minlength=31), share) == expected


@pytest.mark.parametrize("separation", [0.5, 2.0, 5.0])
@pytest.mark.parametrize("prevalence", [0.005, 0.2])
def test_binned_average_precision_is_close_to_the_exact_one(separation: float, prevalence: float) -> None:
    """For weak and strong models, rare and common frauds, the histogram's figure is within 0.002 of sklearn's."""
    random = np.random.default_rng(7)
    labels = random.random(40_000) < prevalence
    log_odds = random.normal(size=len(labels)) * 1.5 + separation * labels + math.log(prevalence)
    scores = 1 / (1 + np.exp(-log_odds))
    found = outcomes.average_precision(scored(scores, labels))
    assert found == pytest.approx(average_precision_score(labels, scores), abs=2e-3)


def test_average_precision_of_a_forest_like_score_is_exact_among_ties() -> None:
    """Scores that take few values, zero and one among them, tie in the histogram as they tie in sklearn."""
    random = np.random.default_rng(3)
    labels = random.random(5_000) < 0.1
    scores = np.round(np.clip(random.normal(0.2 + 0.4 * labels, 0.2), 0, 1), 1)
    found = outcomes.average_precision(scored(scores, labels))
    assert found == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


def test_money_adds_up() -> None:
    """Saved is what was stopped less the costs of reviews and of good customers turned away."""
    rows: list[dict[str, Any]] = [
        {"decision": "review", "is_fraud": 1, "amount_minor": 10_000},
        {"decision": "decline", "is_fraud": 1, "amount_minor": 30_000},
        {"decision": "approve", "is_fraud": 1, "amount_minor": 7_000},
        {"decision": "review", "is_fraud": 0},
        {"decision": "decline", "is_fraud": 0},
        {"decision": "review", "is_fraud": None},
    ]
    run = observe(decided(rows), [], 0)
    worth = outcomes.money(run, Costs(review=500, decline=2000))
    assert worth == outcomes.Money(stopped=40_000, missed=7_000, review_cost=1_000, decline_cost=2_000)
    assert worth.saved == 37_000
    assert outcomes.frauds(run) == (2, 1)
    assert outcomes.precision(run) == pytest.approx(2 / 4)
    assert outcomes.recall(run) == pytest.approx(2 / 3)
    assert outcomes.labelled(run) == 5


def test_without_labels_there_is_no_precision() -> None:
    """What cannot be known is None, never 0."""
    run = observe(decided([{"decision": "review"}, {}]), [], 0)
    assert outcomes.labelled(run) == 0
    assert outcomes.precision(run) is None
    assert outcomes.recall(run) is None
    assert outcomes.average_precision(run) is None


def test_saved_by_review_threshold_agrees_with_a_sum_over_rows() -> None:
    """Each entry is the frauds' amounts from that score on, less the looks at everything from there on."""
    rows = [
        {"score": 0.9, "is_fraud": 1, "amount_minor": 9_000},
        {"score": 0.5, "is_fraud": 0, "amount_minor": 800},
        {"score": 0.2, "is_fraud": 1, "amount_minor": 400},
    ]
    saved = outcomes.saved_by_review_threshold(observe(decided(rows), [], 0), Costs(review=500, decline=0))
    places = score_bins(np.array([0.9, 0.5, 0.2]))
    assert saved[places].tolist() == [8_500, 8_000, 7_900]
    assert saved[int(places[0]) + 1] == saved[-1] == 0
