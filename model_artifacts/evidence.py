"""Whether a challenger is worse than the champion, on transactions that both have scored and whose labels are known.

Both were asked of the same transactions (`--shadow`), so what is resampled are customers with all of their
transactions, and each resample compares both on the same: a paired bootstrap, clustered by customer, because the
frauds on one card come together. Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 and 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq
from numpy.typing import NDArray

from model_artifacts.manifest import Costs
from transforms.durations import format_duration
from transforms.errors import UserError

#: Fewer known frauds say nothing about either model.
LEAST_FRAUDS = 50
RESAMPLES = 1000
_SHADOW = ("event_time", "amount_minor", "customer_id", "model_id", "score", "decision", "champion_model_id",
           "champion_score", "champion_decision")  # fmt: skip

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """Transactions that both models have scored, whose labels are known, in arrays of shape (rows,).

    Attributes:
        labels: 0 or 1.
        customers: a number for each customer; of a row without one, a number of its own.
        scores: of the champion and the challenger.
        costs: what their decisions cost, in minor units.
    """

    labels: NDArray[np.int8]
    customers: NDArray[np.int64]
    scores: tuple[Floats, Floats]
    costs: tuple[Floats, Floats]


@dataclass(frozen=True)
class Compared:
    """One measure of both.

    Attributes:
        name: of the measure.
        champion, challenger: its values.
        low, high: the 95 % interval of challenger less champion.
        more_is_better: which way is good.
    """

    name: str
    champion: float
    challenger: float
    low: float
    high: float
    more_is_better: bool

    @property
    def worse(self) -> bool:
        """Whether the whole interval is on the bad side."""
        return self.high < 0.0 if self.more_is_better else self.low > 0.0


def read_evidence(files: Sequence[str], champion: str, challenger: str, costs: Costs, label_delay: int) -> Judged:
    """What files say of two models.

    Args:
        files: Parquet or JSON lines, or directories of them: what `--shadow_sink` wrote, and tables with
            `transaction_id` and `is_fraud` of labels that came later.
        champion, challenger: versions.
        costs: of decisions.
        label_delay: a transaction counts once this much time, in microseconds, has passed until the newest one there
            is; if it is not called a fraud by then, it is none.

    Raises:
        UserError: a file cannot be read, or they say too little.
    """
    tables = [_read(path) for file in files for path in _paths(Path(file))]
    shadows = [
        table.select(["transaction_id", *_SHADOW]) for table in tables if set(_SHADOW) <= set(table.column_names)
    ]
    if not shadows:
        raise UserError("--evidence: no file has rows of --shadow_sink: columns " + ", ".join(_SHADOW))
    rows = pa.concat_tables(shadows, promote_options="permissive")
    newest = pc.max(_micros(rows["event_time"])).as_py() or 0  # there may be no row at all
    both = pc.and_(pc.equal(rows["model_id"], challenger), pc.equal(rows["champion_model_id"], champion))
    known = pc.less_equal(_micros(rows["event_time"]), newest - label_delay)
    rows = _first_of_each(rows.filter(pc.and_(both, known)))
    labels = _labels(rows["transaction_id"], tables)
    if int(labels.sum()) < LEAST_FRAUDS:
        raise UserError(
            f"--evidence: {rows.num_rows:,} transactions were scored by {champion} and beside it by {challenger}, and "
            f"are older than {format_duration(label_delay)}; {int(labels.sum())} of them are known frauds, and fewer "
            f"than {LEAST_FRAUDS} say nothing"
        )
    amounts = rows["amount_minor"].to_numpy().astype(np.float64)
    return Judged(
        labels=labels,
        customers=_numbered(rows["customer_id"]),
        scores=(rows["champion_score"].to_numpy(), rows["score"].to_numpy()),
        costs=(
            _cost(rows["champion_decision"], labels, amounts, costs),
            _cost(rows["decision"], labels, amounts, costs),
        ),
    )


def compare(judged: Judged, seed: int = 0, resamples: int = RESAMPLES) -> tuple[Compared, Compared]:
    """Average precision and cost of both models, and how sure their difference is.

    Args:
        judged: the transactions.
        seed: of the resampling.
        resamples: how many.
    """
    rng = np.random.default_rng(seed)
    precision, cost = (_Precision(judged.scores[at], judged.labels) for at in (0, 1)), judged.costs
    champion, challenger = precision
    count = int(judged.customers.max()) + 1
    differences = np.empty((resamples, 2))
    for at in range(resamples):
        weights = np.bincount(rng.integers(0, count, count), minlength=count)[judged.customers].astype(np.float64)
        differences[at] = challenger.of(weights) - champion.of(weights), weights @ cost[1] - weights @ cost[0]
    (low, low_cost), (high, high_cost) = np.percentile(differences, [2.5, 97.5], axis=0).tolist()
    once = np.ones(len(judged.labels))
    return (
        Compared("average precision", champion.of(once), challenger.of(once), low, high, more_is_better=True),
        Compared("cost", float(cost[0].sum()), float(cost[1].sum()), low_cost, high_cost, more_is_better=False),
    )


def against(compared: Sequence[Compared]) -> str:
    """What speaks against a challenger, in words; nothing: it is not shown to be worse."""
    return "; ".join(f"its {each.name} is worse" for each in compared if each.worse)


class _Precision:
    """Average precision under weights of rows; what does not depend on them is worked out once."""

    def __init__(self, scores: Floats, labels: NDArray[np.int8]) -> None:
        self._order = np.argsort(-scores, kind="stable")
        self._ends = np.append(np.flatnonzero(np.diff(scores[self._order])), len(scores) - 1)
        self._labels = labels[self._order].astype(np.float64)

    def of(self, weights: Floats) -> float:
        """Its value; 0 where no fraud has a weight."""
        ordered = weights[self._order]
        caught, all_ = np.cumsum(ordered * self._labels)[self._ends], np.cumsum(ordered)[self._ends]
        gained = np.diff(caught, prepend=0.0)
        return float(np.sum(gained * caught / np.maximum(all_, 1.0)) / max(caught[-1], 1.0))


def _cost(decisions: pa.ChunkedArray, labels: NDArray[np.int8], amounts: Floats, costs: Costs) -> Floats:
    """What each decision costs: a look, a good customer turned away, a fraud let through."""
    review, decline, approve = (np.asarray(pc.equal(decisions, each)) for each in ("review", "decline", "approve"))
    cost: Floats = (
        costs.review * review + costs.decline * (decline & (labels == 0)) + amounts * (approve & (labels == 1))
    )
    return cost


def _labels(ids: pa.ChunkedArray, tables: Sequence[pa.Table]) -> NDArray[np.int8]:
    """1 where any table calls a transaction a fraud."""
    frauds = [
        table["transaction_id"].filter(pc.equal(table["is_fraud"].cast(pa.int8()), 1)).combine_chunks()
        for table in tables
        if {"transaction_id", "is_fraud"} <= set(table.column_names)
    ]
    called = pa.concat_arrays([pa.array([], pa.string()), *(each.cast(pa.string()) for each in frauds)])
    return np.asarray(pc.is_in(ids, called)).astype(np.int8)


def _first_of_each(rows: pa.Table) -> pa.Table:
    """One row a transaction: a runner that recovers may write some twice."""
    _, at = np.unique(rows["transaction_id"].to_numpy(zero_copy_only=False), return_index=True)
    return rows.take(at)


def _numbered(customers: pa.ChunkedArray) -> NDArray[np.int64]:
    codes = np.asarray(pc.fill_null(customers.combine_chunks().dictionary_encode().indices, -1)).astype(np.int64)
    alone = codes < 0
    codes[alone] = codes.max(initial=-1) + 1 + np.arange(int(alone.sum()))
    return codes


def _micros(times: pa.ChunkedArray) -> pa.ChunkedArray:
    return times.cast(pa.timestamp("us", "UTC")).cast(pa.int64())


def _paths(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(each for each in path.rglob("*") if each.suffix in (".parquet", ".jsonl"))
    return [path]


def _read(path: Path) -> pa.Table:
    try:
        table: Any = pj.read_json(path) if path.suffix in (".jsonl", ".json") else pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"--evidence: {path} cannot be read as Parquet or JSON lines: {error}") from error
    return table
