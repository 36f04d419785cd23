"""Candidates: theirs is the trouble they make, and the rows of the champion stay as they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from model_artifacts.artifact import Model, load_model
from model_artifacts.manifest import Manifest
from tests.small_models import FEATURES, SHIPPED, make_model
from transforms.batch import TransactionBatch, from_rows
from transforms.candidates import AsideError, Candidate, Lane, Patience, check_candidate
from transforms.durations import SECOND
from transforms.errors import UserError
from transforms.features import Declaration, FeatureSet

ROWS = 4
BATCH = from_rows(
    [
        {"transaction_id": str(n), "event_time": n, "amount_minor": 1, **dict.fromkeys(FEATURES.names, 1.0)}
        for n in range(ROWS)
    ],
    dict.fromkeys(FEATURES.names, pa.float64()),
)


class Answers:
    """A model that answers as it is told."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer
        self.manifest = SHIPPED

    def score(self, matrix: Any) -> Any:
        matrix[:] = np.nan  # whatever a candidate does to its features is its own affair
        return self.answer()

    def log_odds(self, matrix: Any) -> Any:
        return self.score(matrix)


@dataclass(frozen=True)
class Told(Candidate):
    """A candidate with such a model."""

    answer: Callable[[], Any] = lambda: np.full(ROWS, 0.5)

    def load(self) -> Model:
        return Answers(self.answer)


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def lane(answer: Callable[[], Any], clock: Clock | None = None, **patience: int) -> Lane:
    settings = {"budget": 20 * SECOND, "failures": 2, "aside": 60 * SECOND} | patience
    return Lane(Told("", SHIPPED, None, answer), Patience(**settings), clock or Clock())


def ask(lane: Lane, asked: float = 0.0) -> Any:
    return lane.answer(lane.ask(BATCH), ROWS, asked)


def raises() -> Any:
    raise RuntimeError("out of memory")


def ends() -> Any:
    raise SystemExit(1)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (raises, "out of memory"),
        (ends, "1"),
        (lambda: np.full(ROWS, np.nan), "no number"),
        (lambda: np.full(ROWS + 1, 0.5), "of shape"),
        (lambda: np.full((ROWS, 2), 0.5), "of shape"),
        (lambda: np.full(ROWS, 1.5), "outside 0 to 1"),
        (lambda: np.full(ROWS, -0.1), "outside 0 to 1"),
        (lambda: [0.5] * ROWS, "of shape list"),
        (lambda: None, "of shape NoneType"),
    ],
)
def test_nonsense_is_a_failure(answer: Callable[[], Any], said: str) -> None:
    """Whatever a candidate raises or gives that is not one probability a row is told as its failure."""
    before = BATCH.rows.serialize().to_pybytes()
    with pytest.raises(BaseException, match=said):  # of any kind: that is the point
        ask(lane(answer))
    assert BATCH.rows.serialize().to_pybytes() == before


def test_failures_in_a_row_put_it_aside_for_a_while() -> None:
    """Two failures in a row, and it is not asked until the time is over; a success in between forgives the first."""
    answers: Iterator[Callable[[], Any]] = iter(
        [raises, lambda: np.full(ROWS, 0.5), raises, raises, lambda: np.full(ROWS, 0.25)]
    )
    clock = Clock()
    tried = lane(lambda: next(answers)(), clock)
    outcomes = []
    for clock.seconds in (0.0, 1.0, 2.0, 3.0, 4.0, 62.0, 64.0):
        try:
            outcomes.append(ask(tried, clock.seconds)[0])
        except (RuntimeError, AsideError) as error:
            outcomes.append(type(error).__name__)
    assert outcomes == ["RuntimeError", 0.5, "RuntimeError", "RuntimeError", "AsideError", "AsideError", 0.25]


def test_one_that_stalls_costs_its_budget_once() -> None:
    """The batch waits for the budget; the next ones do not wait at all while the call hangs; then it may go on."""
    hang, clock = threading.Event(), Clock()

    def stall() -> Any:
        hang.wait(30.0)
        return np.full(ROWS, 0.5)

    tried = lane(stall, clock, budget=SECOND // 20, failures=9)
    with pytest.raises(TimeoutError, match="no scores within 50ms"):
        ask(tried)
    clock.seconds = 1.0
    future: Future[Any] = tried.ask(BATCH)
    assert future.done()  # at once
    with pytest.raises(TimeoutError, match="busy with an earlier batch"):
        tried.answer(future, ROWS, clock.seconds)
    hang.set()
    for _ in range(200):
        try:
            assert ask(tried, clock.seconds)[0] == 0.5
            break
        except TimeoutError:
            hang.wait(0.01)
            threading.Event().wait(0.01)
    else:
        pytest.fail("it never answered again")


def test_one_that_cannot_be_loaded_is_tried_again(tmp_path: Path) -> None:
    """A registry that is away when a worker starts is a failure of the candidate, and over when it is back."""
    manifest = load_model(str(tmp_path / make(tmp_path))).manifest
    tried = Lane(Candidate(str(tmp_path / "later"), manifest), Patience(budget=20 * SECOND))
    with pytest.raises(UserError, match="neither a directory nor"):
        tried.answer(tried.ask(BATCH), ROWS, time.monotonic())
    (tmp_path / "one").rename(tmp_path / "later")
    assert len(tried.answer(tried.ask(BATCH), ROWS, time.monotonic())) == ROWS


def make(tmp_path: Path) -> str:
    make_model(tmp_path / "one", "one")
    return "one"


def candidate(declared: tuple[Declaration, ...], minor_digits: int = 2) -> Manifest:
    features = FeatureSet(name="candidate", declared=declared, minor_digits=minor_digits)
    return msgspec.structs.replace(SHIPPED, model_id="c-0", feature_set=features, feature_names=features.names)


def test_a_part_of_the_champions_features_will_do() -> None:
    """In any order: the champion's own, or some of them."""
    check_candidate(SHIPPED, FEATURES)
    check_candidate(candidate(FEATURES.declared[:1]), FEATURES)
    check_candidate(candidate(FEATURES.declared[::-1]), FEATURES)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            candidate((Declaration(kind="count", entity="customer_id", windows=("99d",)),)),
            "customer_count_99d it has not",
        ),
        (candidate((Declaration(kind="night", last_hour=3),)), "night it has under another meaning"),
        (candidate((Declaration(kind="amount"),), minor_digits=0), "amounts have 2 decimals"),
    ],
)
def test_features_that_are_not_computed_are_refused(made: Manifest, said: str) -> None:
    """By name and by meaning: what the pipeline has not, or has otherwise, is named."""
    champion = FeatureSet(
        name="champion", declared=(Declaration(kind="amount"), Declaration(kind="night", last_hour=6))
    )
    with pytest.raises(UserError, match=f"^--shadow: model c-0 .*{said}"):
        check_candidate(made, champion)


def test_batches_are_not_touched() -> None:
    """The champion's batch is immutable, and a candidate that writes into its features writes into a copy."""
    assert isinstance(BATCH, TransactionBatch)
    before = BATCH.rows.serialize().to_pybytes()
    ask(lane(lambda: np.full(ROWS, 0.5)))
    assert BATCH.rows.serialize().to_pybytes() == before
