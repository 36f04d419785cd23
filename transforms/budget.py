"""How many cards a day analysts can look at, kept as alerts come: which of them are worth a place is not known yet.

Of the alerts still to come today the days before tell: so many cards scored so high after this hour. The threshold is
where those to come, on average of the last week, would just use up what is left of the budget. It rises when a day
brings more than usual, falls when it brings less, and at its end whatever is left is given to whoever comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, cast

import apache_beam as beam
import msgspec
import numpy as np
from apache_beam.coders import BytesCoder
from apache_beam.metrics import Metrics
from apache_beam.pvalue import PCollection
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp

from transforms import tally
from transforms.alerts import Alert
from transforms.durations import DAY
from transforms.shard_state import Ordering
from transforms.struct_coder import StructCoder
from transforms.suppress import event_micros

#: Days that the threshold is estimated from.
PAST_DAYS = 7
#: Of each day so many times the budget of cards are remembered, the highest scores: lower ones set no threshold.
_KEPT = 4
_OVER_BUDGET = Metrics.counter("alerts", "over_budget")
_END = GlobalWindow().max_timestamp().micros


class Budget(msgspec.Struct, array_like=True):
    """What is remembered of the days so far. Fields may be added at the end, never moved.

    Attributes:
        day: the day that is being spent, counted from 1970-01-01 UTC.
        told: the cards that were alerted on today; each cost one of the budget.
        today: for each card that came today its highest score, and the microseconds of the day when that was.
        past: the same of the days before, without the cards, the newest day last.
        frontier: alerts before it have been taken, in microseconds.
        fire: when the flush timer is set to, likewise; 0 for not set.
    """

    version: int = 1
    day: int = 0
    told: list[str] = []
    today: dict[str, tuple[float, int]] = {}
    past: list[list[tuple[float, int]]] = []
    frontier: int = -(2**63)
    fire: int = 0


def spend(budget: Budget, time: int, card: str, score: float, cards_a_day: int, surely: bool = False) -> bool:
    """Whether one more alert is given a place; `budget` is brought up to date.

    Alerts must come in the order of their times for the answer to depend on nothing else. One of an earlier day than
    the newest counts as of the newest.

    Args:
        budget: what is remembered.
        time: the alert's event time, in microseconds since 1970.
        card: whose alert it is. A card that was alerted on today costs nothing again.
        score: the higher, the more it deserves a place.
        cards_a_day: the budget.
        surely: whether it takes a place whatever its score, as long as one is left.

    Example:
        >>> budget = Budget()
        >>> [spend(budget, hour, card, 0.9, cards_a_day=2) for hour, card in enumerate(["a", "b", "a", "c"])]
        [True, True, True, False]
    """
    if time // DAY > budget.day:
        _begin_day(budget, time // DAY, cards_a_day)
    now = time % DAY if time // DAY == budget.day else 0
    _remember(budget, card, score, now, cards_a_day)
    if card in budget.told:
        return True
    left = cards_a_day - len(budget.told)
    if left <= 0 or not (surely or score >= threshold(budget.past, now, left)):
        return False
    budget.told.append(card)
    return True


def threshold(past: list[list[tuple[float, int]]], now: int, left: int) -> float:
    """The score from which on as many cards as are left are still to come today, by the average of the days before.

    Args:
        past: of each day before, the score and the time of day of each card's highest.
        now: the time of day, in microseconds.
        left: cards that may still be alerted on.

    Returns:
        0.0 where fewer are expected than are left, and while nothing is known.

    Example:
        >>> yesterday = [(0.9, 5), (0.8, 6), (0.7, 7), (0.6, 1)]
        >>> threshold([yesterday], now=2, left=2), threshold([yesterday], now=2, left=3), threshold([], now=2, left=1)
        (0.8, 0.0, 0.0)
    """
    scores = np.array([score for day in past for score, at in day if at > now])
    place = left * len(past)
    if len(scores) <= place:
        return 0.0
    return float(-np.partition(-scores, place - 1)[place - 1])


def _begin_day(budget: Budget, day: int, cards_a_day: int) -> None:
    """Put today to the past, and days without any alert between."""
    if budget.today or budget.past:
        finished = [_highest(budget.today.values(), cards_a_day)]
        finished += [[] for _ in range(min(day - budget.day - 1, PAST_DAYS))]
        budget.past = (budget.past + finished)[-PAST_DAYS:]
    budget.day, budget.told, budget.today = day, [], {}


def _remember(budget: Budget, card: str, score: float, now: int, cards_a_day: int) -> None:
    if card not in budget.today or score > budget.today[card][0]:
        budget.today[card] = (score, now)
    if len(budget.today) > 2 * _KEPT * cards_a_day:
        least = min(_highest(budget.today.values(), cards_a_day))[0]
        budget.today = {name: seen for name, seen in budget.today.items() if seen[0] >= least}


def _highest(seen: Iterable[tuple[float, int]], cards_a_day: int) -> list[tuple[float, int]]:
    return sorted(seen, key=lambda each: (-each[0], each[1]))[: _KEPT * cards_a_day]


def limit_all(alerts: Iterable[Alert], cards_a_day: int) -> list[Alert]:
    """What is sent of these alerts when all are known: the whole of `LimitAlerts` under `event_time`, in memory."""
    budget = Budget()
    return [alert for alert in sorted(alerts, key=_order) if _passes(budget, alert, cards_a_day)]


def _passes(budget: Budget, alert: Alert, cards_a_day: int) -> bool:
    by_rule = bool(alert.reasons) and alert.reasons[0].startswith("rule ")
    card = alert.customer_id or f"transaction {alert.transaction_id}"
    return spend(budget, event_micros(alert), card, alert.score, cards_a_day, surely=by_rule)


def _order(alert: Alert) -> tuple[int, int, str]:
    """By event time; ids by length and then by text, as transactions are ordered."""
    return event_micros(alert), len(alert.transaction_id), alert.transaction_id


class LimitAlerts(beam.PTransform[PCollection[Alert], PCollection[Alert]]):
    """Let alerts on at most so many cards a day of event time through, those that deserve it most.

    All alerts pass one key, since all spend of one budget: they are few, a hundredth of the transactions. What is held
    back is counted (`alerts.over_budget`); the decision on the transaction stands. An alert that a rule raised takes a
    place whatever its score, while there is one.

    Args:
        cards_a_day: the budget; days are UTC days.
        ordering: under `arrival` alerts spend as they come. Under `event_time` they wait until the watermark has
            passed them, and what is sent depends on the alerts alone.

    Example:
        >>> import apache_beam as beam
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> from apache_beam.testing.util import assert_that, equal_to
        >>> from transforms.suppress import example_alert
        >>> alerts = [example_alert(f"a{at}", at * 1_000_000, customer=f"c{at}") for at in (3, 1, 2)]
        >>> with TestPipeline() as pipeline:
        ...     sent = pipeline | beam.Create(alerts) | LimitAlerts(2, ordering="event_time")
        ...     _ = assert_that(sent | beam.Map(lambda alert: alert.alert_id), equal_to(["a1", "a2"]))
    """

    def __init__(self, cards_a_day: int, ordering: Ordering = "arrival") -> None:
        super().__init__()
        if cards_a_day <= 0:
            raise ValueError(f"cards_a_day must be 1 or more, found {cards_a_day}")
        self.cards_a_day = cards_a_day
        self.ordering: Ordering = ordering

    def expand(self, pcoll: PCollection[Alert]) -> PCollection[Alert]:
        how = _Limit(self.cards_a_day, self.ordering, bounded=pcoll.is_bounded)
        sent: PCollection[Alert] = (
            pcoll
            | "Together" >> beam.Map(lambda alert: ("", alert)).with_output_types(tuple[str, Alert])
            | "Limit" >> beam.ParDo(_limiting(how)).with_output_types(Alert)
        )
        return sent


class _State(NamedTuple):
    """The budget's state and timer."""

    memory: Any
    waiting: Any
    flush_timer: Any

    def read(self) -> Budget:
        written = self.memory.read()
        budget = msgspec.msgpack.decode(written, type=Budget) if written else Budget()
        if budget.version != Budget().version:
            raise ValueError(
                f"state of version {budget.version} cannot be read by version {Budget().version}: "
                "restore with the release that wrote it"
            )
        return budget

    def write(self, budget: Budget) -> None:
        self.memory.write(msgspec.msgpack.encode(budget))


class _Limit(NamedTuple):
    """How alerts spend the budget; `_limiting` makes the DoFn."""

    cards_a_day: int
    ordering: Ordering
    bounded: bool

    def process(self, alert: Alert, state: _State) -> Iterator[Alert]:
        """Take an alert at once, or let it wait for the watermark."""
        budget = state.read()
        if self.ordering == "arrival" or event_micros(alert) < budget.frontier:
            yield from self._take([alert], budget)
        else:
            state.waiting.add(alert)
            self._wait_for(event_micros(alert), budget, state)
        state.write(budget)

    def flush(self, at: Timestamp, state: _State) -> Iterator[Alert]:
        """Take the waiting alerts that the watermark has passed, in their order."""
        budget = state.read()
        fired = min(budget.fire, int(at.micros))  # see TakeInOrder.flush
        alerts = sorted(state.waiting.read(), key=_order)
        state.waiting.clear()
        budget.frontier, budget.fire = max(budget.frontier, fired), 0
        due = [alert for alert in alerts if event_micros(alert) < budget.frontier]
        yield from self._take(due, budget)
        for alert in alerts[len(due) :]:
            state.waiting.add(alert)
        if len(due) < len(alerts):
            self._wait_for(event_micros(alerts[len(due)]), budget, state)
        state.write(budget)

    def _take(self, alerts: Iterable[Alert], budget: Budget) -> Iterator[Alert]:
        for alert in alerts:
            if _passes(budget, alert, self.cards_a_day):
                yield alert
            else:
                _OVER_BUDGET.inc()
                tally.add("alerts.over_budget")

    def _wait_for(self, time: int, budget: Budget, state: _State) -> None:
        """See that the flush timer fires once the watermark has passed this alert, or at the end of what ends."""
        fire = _END if self.bounded else time // 1000 * 1000 + 1000
        if not budget.fire or fire < budget.fire:
            budget.fire = fire
            state.flush_timer.set(Timestamp(micros=fire))


def _limiting(how: _Limit) -> beam.DoFn:
    memory_spec = ReadModifyWriteStateSpec("memory", BytesCoder())
    waiting_spec = BagStateSpec("waiting", StructCoder(Alert))
    # Beam's in-memory runner mixes up timers of one name in different steps, so this has a name of its own.
    flush_spec = TimerSpec("limit:flush", TimeDomain.WATERMARK)

    class Limit(beam.DoFn):
        def process(
            self,
            element: tuple[str, Alert],
            memory: Any = beam.DoFn.StateParam(memory_spec),
            waiting: Any = beam.DoFn.StateParam(waiting_spec),
            flush_timer: Any = beam.DoFn.TimerParam(flush_spec),
        ) -> Iterator[Any]:
            return how.process(element[1], _State(memory, waiting, flush_timer))

        @on_timer(flush_spec)
        def flush(
            self,
            at: Any = beam.DoFn.TimestampParam,
            memory: Any = beam.DoFn.StateParam(memory_spec),
            waiting: Any = beam.DoFn.StateParam(waiting_spec),
            flush_timer: Any = beam.DoFn.TimerParam(flush_spec),
        ) -> Iterator[Any]:
            return how.flush(at, _State(memory, waiting, flush_timer))

    return cast(beam.DoFn, Limit())  # type: ignore[no-untyped-call]  # Beam's DoFn has no typed constructor
