"""Serve what an alias of a registry names, also after it was moved: load the new model beside the old, then swap.

Whoever scores asks for the model of each batch and never waits: the alias is looked at in a background thread. What it
names is fetched, verified and tried out there before it serves. A model that does not pass is refused, and the one
before it goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from model_artifacts.aliases import Move, history, standing
from model_artifacts.artifact import Model
from model_artifacts.registry_store import UnreachableStoreError
from model_artifacts.registry_uri import parse_registered
from transforms.durations import SECOND
from transforms.errors import UserError

LOG = logging.getLogger(__name__)

#: Rows of the batch that a new model is tried out on.
_WARM_UP_ROWS = 256
#: Models kept beside the one that serves: batches that they scored may not be decided on yet.
_KEPT = 2


@dataclass(frozen=True)
class Follow:
    """Which alias to follow, and what a model must be to serve a job that is under way.

    Attributes:
        uri: of the alias, such as `registry:models#champion`.
        every: how often to look at it, in microseconds.
        fingerprint: of the features that the job computes.
        schema: of the transactions that the job reads, as manifests name it.
        public_key: whose signature is asked for; None: none is.
    """

    uri: str
    every: int
    fingerprint: str
    schema: str
    public_key: bytes | None = None


def _in_background(task: Callable[[], None]) -> None:
    threading.Thread(target=task, name="model-registry", daemon=True).start()


class FollowedModel:
    """The models of one process, whose alias is followed; safe to use from any thread.

    It begins with the newest version on the alias that can serve: a job that is restarted has what the others have.

    Args:
        follow: what to follow.
        clock: seconds that never go back.
        start: runs a look apart from whoever asked for the model.

    Raises:
        UserError: no version that the alias stands upon can serve, or the registry is out of reach.
    """

    def __init__(
        self,
        follow: Follow,
        clock: Callable[[], float] = time.monotonic,
        start: Callable[[Callable[[], None]], None] = _in_background,
    ) -> None:
        self._follow = follow
        self._clock, self._start = clock, start
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()  # of the counts and of the models kept
        self._looking = threading.Lock()  # held by the one look there is at a time
        self._moves: list[Move] = []
        self._refused: tuple[str, str] | None = None
        uri = parse_registered(follow.uri)
        self._registry, self._alias = uri.registry(), uri.alias or "champion"
        self._serving = self._first()
        self._kept: dict[str, Model] = {self._serving.manifest.model_id: self._serving}
        self._due = clock() + follow.every / SECOND

    def now(self) -> Model:
        """The model to score the next batch with."""
        if self._clock() >= self._due and self._looking.acquire(blocking=False):
            self._due = self._clock() + self._follow.every / SECOND
            try:
                self._start(self._look)
            except RuntimeError as error:  # no more threads are to be had for now
                self._failed(error)
                self._looking.release()
        return self._serving

    def named(self, model_id: str) -> Model:
        """The model that scored a batch: usually the one that serves, else one from before or of another process.

        Raises:
            UserError: the registry does not have it, or not as it was.
        """
        serving = self._serving
        if serving.manifest.model_id == model_id:
            return serving
        with self._lock:
            kept = self._kept.get(model_id)
        if kept is None:
            kept = self._load(model_id)
            self._keep(kept)
        return kept

    def take_counts(self) -> Mapping[str, int]:
        """What has happened since this was asked last: models `swapped`, looks that found one `refused` or `failed`."""
        if not self._counts:
            return {}
        with self._lock:
            counts, self._counts = self._counts, Counter()
        return counts

    def _first(self) -> Model:
        stack = self._standing()
        for version in stack:
            try:
                return self._load(version)
            except UnreachableStoreError:
                raise
            except UserError as error:
                self._refuse(version, str(error))
        raise UserError(
            f"model {self._follow.uri}: none of the {len(stack)} versions it stands upon can serve; the log says why"
        )

    def _look(self) -> None:
        try:
            stack = self._standing()
            if not stack or stack[0] == self._serving.manifest.model_id:
                self._refused = None
                return
            try:
                self._swap(self._load(stack[0]))
            except UnreachableStoreError:
                raise
            except UserError as error:
                self._refuse(stack[0], str(error))
        except Exception as error:  # whatever it is, the model that serves goes on, and the next look may do better
            self._failed(error)
        finally:
            self._looking.release()

    def _standing(self) -> list[str]:
        """See `standing`; what was read of the alias before is not read again, since no move is ever changed."""
        self._moves = history(self._registry, self._alias, self._moves)
        return standing(self._moves)

    def _load(self, version: str) -> Model:
        """A version's model, verified, suitable for this job, and warm."""
        model = self._registry.model(version, self._follow.public_key)
        check_suits(model, self._follow.fingerprint, self._follow.schema)
        warm_up(model)
        return model

    def _swap(self, model: Model) -> None:
        before = self._serving.manifest.model_id
        self._keep(model)
        self._serving = model  # one assignment: a batch has the one or the other
        self._refused = None
        self._count("swapped")
        LOG.info("model %s serves instead of %s (%s)", model.manifest.model_id, before, self._follow.uri)

    def _refuse(self, version: str, why: str) -> None:
        self._count("refused")
        if self._refused != (version, why):  # told once, counted at each look for as long as it lasts
            self._refused = (version, why)
            LOG.error("model %s is refused, and what served before goes on: %s", version, why)

    def _failed(self, error: Exception) -> None:
        self._count("failed")
        LOG.warning("looking at %s: %s; will look again", self._follow.uri, error)

    def _keep(self, model: Model) -> None:
        with self._lock:
            self._kept.pop(model.manifest.model_id, None)
            self._kept[model.manifest.model_id] = model
            for old in list(self._kept)[: -1 - _KEPT]:
                del self._kept[old]

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1


def check_suits(model: Model, fingerprint: str, schema: str) -> None:
    """Refuse a model for a job that computes other features than it was trained on.

    Raises:
        UserError: says which differ.
    """
    manifest = model.manifest
    if manifest.fingerprint != fingerprint:
        raise UserError(
            f"model {manifest.model_id} takes features of fingerprint {manifest.fingerprint}, and this job computes "
            f"those of {fingerprint}: start a job with it beside this one (docs/upgrades.md)"
        )
    if manifest.schema != schema:
        raise UserError(
            f"model {manifest.model_id} was trained on schema {manifest.schema}; this job's model on {schema}"
        )


def warm_up(model: Model) -> None:
    """Score one batch, as large as a stream's: what a session does at first is done, and what it cannot do is known.

    Raises:
        UserError: the scores of typical transactions are no probabilities.
    """
    typical = np.tile(np.asarray(model.manifest.baseline, dtype=np.float64), (_WARM_UP_ROWS, 1))
    check_scores(model.score(typical), len(typical), model.manifest.model_id)


def check_scores(scores: object, rows: int, model_id: str) -> None:
    """Refuse what is not one probability a row.

    Raises:
        UserError: says what it is.

    Example:
        >>> check_scores(np.array([0.2, 1.2]), 2, "m-0")
        Traceback (most recent call last):
        transforms.errors.UserError: model m-0 gave a score outside 0 to 1
    """
    if not isinstance(scores, np.ndarray) or scores.shape != (rows,) or scores.dtype != np.float64:
        shape = getattr(scores, "shape", type(scores).__name__)
        raise UserError(f"model {model_id} gave scores of shape {shape} for {rows} rows")
    if np.isnan(scores).any():
        raise UserError(f"model {model_id} gave a score that is no number")
    if not ((scores >= 0.0) & (scores <= 1.0)).all():
        raise UserError(f"model {model_id} gave a score outside 0 to 1")


class FixedModel:
    """A model that stays, where another is followed; see `FollowedModel`.

    Args:
        model: which.
        take_counts: what has happened to it since this was asked last; None: nothing does.
    """

    def __init__(self, model: Model, take_counts: Callable[[], Mapping[str, int]] | None = None) -> None:
        self._model = model
        self._take_counts = take_counts

    def now(self) -> Model:
        """The model."""
        return self._model

    def named(self, model_id: str) -> Model:
        """The model: there is one."""
        return self._model

    def take_counts(self) -> Mapping[str, int]:
        """Calls of an endpoint that were `retried`; nothing happens to other models."""
        return self._take_counts() if self._take_counts else {}
