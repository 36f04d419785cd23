"""A model that is tried out: in a thread of its own, with a time to answer in, put aside when it keeps failing."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_artifacts.artifact import Model, load_model
from model_artifacts.follow import check_scores, warm_up
from model_artifacts.manifest import Manifest
from transforms.batch import TransactionBatch
from transforms.durations import SECOND, format_duration
from transforms.errors import UserError
from transforms.features import FeatureSet

LOG = logging.getLogger(__name__)

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """A model that is tried out.

    Attributes:
        uri: see `load_model`; pinned, so that all workers have the same.
        manifest: of it.
        public_key: whose signature it must have; None: none is asked for.
    """

    uri: str
    manifest: Manifest
    public_key: bytes | None = None

    def load(self) -> Model:
        """The model, verified and warm."""
        model = load_model(self.uri, self.public_key)
        warm_up(model)
        return model


@dataclass(frozen=True)
class Patience:
    """How long candidates may take, and what happens to those that fail.

    Attributes:
        budget: microseconds from when a batch was handed over until its scores must be there.
        failures: so many in a row put a candidate aside.
        aside: for so many microseconds.
    """

    budget: int = SECOND
    failures: int = 3
    aside: int = 300 * SECOND


def check_candidate(candidate: Manifest, champion: FeatureSet) -> None:
    """Refuse a candidate whose features the pipeline does not compute for its champion.

    Raises:
        UserError: names the features, and how they differ.
    """
    computed = {feature.name: feature for feature in champion.features}
    own = candidate.feature_set
    missing = [feature.name for feature in own.features if feature.name not in computed]
    differing = [each.name for each in own.features if each.name in computed and computed[each.name] != each]
    if not missing and not differing and own.minor_digits == champion.minor_digits:
        return
    why = "; ".join(
        [
            *([f"{', '.join(missing)} it has not"] if missing else []),
            *([f"{', '.join(differing)} it has under another meaning"] if differing else []),
            *([f"amounts have {champion.minor_digits} decimals"] if own.minor_digits != champion.minor_digits else []),
        ]
    )
    raise UserError(
        f"--shadow: model {candidate.model_id} needs features that the champion's set {champion.name} must have alike: "
        f"{why}. Train it on that set or a part of it"
    )


class AsideError(Exception):
    """A candidate is not asked for now."""


class Lane:
    """A candidate in one process; safe to use from any thread.

    Args:
        candidate: what is tried out; it is loaded in the lane's own thread.
        patience: with it.
        clock: seconds that never go back.
    """

    def __init__(self, candidate: Candidate, patience: Patience, clock: Callable[[], float] = time.monotonic) -> None:
        self.candidate = candidate
        self._patience = patience
        self._clock = clock
        self._tasks: queue.SimpleQueue[tuple[Future[Scores], TransactionBatch]] = queue.SimpleQueue()
        self._model: Model | None = None
        self._lock = threading.Lock()  # of what follows
        self._since: float | None = None  # when the task that runs was begun
        self._failures = 0
        self._aside_until = float("-inf")
        threading.Thread(target=self._work, name=f"shadow {candidate.manifest.model_id}", daemon=True).start()

    def ask(self, batch: TransactionBatch) -> Future[Scores]:
        """Have a batch scored; `answer` tells how that went."""
        future: Future[Scores] = Future()
        with self._lock:
            now, since = self._clock(), self._since
            if now < self._aside_until:
                future.set_exception(AsideError())
            elif since is not None and now - since > self._patience.budget / SECOND:
                future.set_exception(TimeoutError("it is still busy with an earlier batch"))
            else:
                self._tasks.put((future, batch))
        return future

    def answer(self, future: Future[Scores], rows: int, asked: float) -> Scores:
        """The scores of a batch.

        Args:
            future: as `ask` gave it.
            rows: of the batch.
            asked: when, by the clock.

        Raises:
            AsideError: it was not asked.
            Exception: it failed: raised, was too slow, or gave no probabilities.
        """
        budget = self._patience.budget / SECOND
        try:
            try:
                scores = future.result(max(0.0, asked + budget - self._clock()))
            except TimeoutError as error:
                future.cancel()
                raise TimeoutError(
                    str(error) or f"no scores within {format_duration(self._patience.budget)}"
                ) from error
            check_scores(scores, rows, self.candidate.manifest.model_id)
        except AsideError:
            raise
        except Exception as error:
            self._failed(error)
            raise
        with self._lock:
            self._failures = 0
        return scores

    def _failed(self, error: Exception) -> None:
        with self._lock:
            self._failures += 1
            put_aside = self._failures >= self._patience.failures
            if put_aside:
                self._failures = 0
                self._aside_until = self._clock() + self._patience.aside / SECOND
        name = self.candidate.manifest.model_id
        LOG.warning("candidate %s failed on a batch: %s: %s", name, type(error).__name__, error)
        if put_aside:
            LOG.error("candidate %s is put aside for %s", name, format_duration(self._patience.aside))

    def _work(self) -> None:
        while True:
            future, batch = self._tasks.get()
            if not future.set_running_or_notify_cancel():
                continue
            with self._lock:
                self._since = self._clock()
            try:
                future.set_result(self._score(batch))
            except BaseException as error:  # whatever it is, it is handed to whoever asked
                future.set_exception(error)
            with self._lock:
                self._since = None

    def _score(self, batch: TransactionBatch) -> Scores:
        if self._model is None:
            self._model = self.candidate.load()
        return self._model.score(batch.feature_matrix(self.candidate.manifest.feature_names))
