"""One alert a card and window of event time: the first is sent, and the next one after it says how many were not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, cast

import apache_beam as beam
import msgspec
from apache_beam.coders import BytesCoder, StrUtf8Coder
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

By = Literal["customer_id", "terminal_id"]
REMEMBER = 30 * DAY
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_SUPPRESSED = Metrics.counter("alerts", "suppressed")
_END = GlobalWindow().max_timestamp().micros


class LastSent(NamedTuple):
    """The newest alert of a card that was sent; it opened the window that is suppressed.

    Attributes:
        time: its event time, in microseconds.
        alert_id: its id.
        suppressed: what it said of the window before.
    """

    time: int
    alert_id: str
    suppressed: int


def suppress(
    last: LastSent | None, held_back: Iterable[str], alert: Alert, window: int, remember: int = REMEMBER
) -> tuple[Alert | None, LastSent | None]:
    """What becomes of one more alert of a card.

    It depends on event times and ids alone: the alert that was sent last is sent again when it comes again, and
    says the same.

    Args:
        last: the newest alert sent, if any.
        held_back: ids of alerts suppressed since then; read only when they are told.
        alert: the next one.
        window: how long after an alert no other is sent, in microseconds.
        remember: how long after that the number of those suppressed waits for an alert to carry it, likewise.

    Returns:
        The alert to send, or None; and the newest sent from now on.

    Example:
        >>> alert = example_alert("a2", 90_000_000)
        >>> suppress(LastSent(0, "a1", 0), [], alert, window=60_000_000)[0].suppressed
        0
        >>> suppress(LastSent(0, "a1", 0), ["b", "c", "b"], alert, window=60_000_000)[0].suppressed
        2
        >>> suppress(LastSent(80_000_000, "a1", 0), [], alert, window=60_000_000)[0] is None
        True
    """
    time = event_micros(alert)
    if last is None:
        return alert, LastSent(time, alert.alert_id, 0)
    if alert.alert_id == last.alert_id:
        return msgspec.structs.replace(alert, suppressed=last.suppressed), last
    if time <= last.time - window:
        return alert, last  # late, and of a window of its own
    if time < last.time + window:
        return None, last
    count = len(set(held_back)) if time < last.time + window + remember else 0
    return msgspec.structs.replace(alert, suppressed=count), LastSent(time, alert.alert_id, count)


def suppress_all(alerts: Iterable[Alert], window: int, by: By = "customer_id") -> list[Alert]:
    """What is sent of these alerts when all are known: the whole of `SuppressAlerts` under `event_time`, in memory.

    Example:
        >>> alerts = [example_alert(f"a{second}", second * 1_000_000) for second in (0, 10, 50, 70)]
        >>> [(alert.alert_id, alert.suppressed) for alert in suppress_all(alerts, window=60_000_000)]
        [('a0', 0), ('a70', 2)]
    """
    last: dict[str, LastSent | None] = {}
    held_back: dict[str, list[str]] = {}
    sent = []
    for alert in sorted(alerts, key=_order):
        key = _key(alert, by)
        mine = held_back.setdefault(key, [])
        before = last.get(key) if key else None
        passed, last[key] = suppress(before, mine, alert, window)
        if passed is None:
            mine.append(alert.alert_id)
        else:
            sent.append(passed)
            if last[key] != before:
                mine.clear()
    return sent


class SuppressAlerts(beam.PTransform[PCollection[Alert], PCollection[Alert]]):
    """Let one alert a card through in a window of event time: PCollection of `Alert` to PCollection of `Alert`.

    The first alert of a card is sent and opens a window; others in it are counted (`alerts.suppressed`) and not
    sent; the first one after it is sent, says in `suppressed` how many that were, and opens the next. Alerts without
    a card are all sent. State of a card is dropped once the watermark has passed all that could matter to it.

    Args:
        window: how long after an alert no other is sent, in microseconds.
        by: whose alerts are counted together.
        ordering: under `arrival` an alert is sent or not as soon as it comes, after the alerts that came before it.
            Under `event_time` it waits until the watermark has passed it, and what is sent depends on the alerts
            alone, whatever their order was.
        remember: how long after a window its count waits for an alert to carry it, in microseconds.

    Raises:
        ValueError: the window is not positive.

    Example:
        >>> import apache_beam as beam
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> from apache_beam.testing.util import assert_that, equal_to
        >>> alerts = [example_alert(f"a{second}", second * 1_000_000) for second in (70, 0, 10, 50)]
        >>> with TestPipeline() as pipeline:
        ...     sent = pipeline | beam.Create(alerts) | SuppressAlerts(60_000_000, ordering="event_time")
        ...     told = sent | beam.Map(lambda alert: (alert.alert_id, alert.suppressed))
        ...     _ = assert_that(told, equal_to([("a0", 0), ("a70", 2)]))
    """

    def __init__(
        self, window: int, by: By = "customer_id", ordering: Ordering = "arrival", remember: int = REMEMBER
    ) -> None:
        super().__init__()
        if window <= 0:
            raise ValueError(f"window must be a positive number of microseconds, found {window}")
        self.window = window
        self.by: By = by
        self.ordering: Ordering = ordering
        self.remember = remember

    def expand(self, pcoll: PCollection[Alert]) -> PCollection[Alert]:
        by = self.by
        how = _Suppress(self.window, self.remember, self.ordering, bounded=pcoll.is_bounded)
        sent: PCollection[Alert] = (
            pcoll
            | "ByCard" >> beam.Map(lambda alert: (_key(alert, by), alert)).with_output_types(tuple[str, Alert])
            | "Suppress" >> beam.ParDo(_suppressing(how)).with_output_types(Alert)
        )
        return sent


class _Memory(msgspec.Struct, array_like=True):
    """What is kept of a card beside its alerts. Fields may be added at the end, never moved."""

    version: int = 1
    last: LastSent | None = None
    frontier: int = -(2**63)  # alerts before it have been taken, microseconds
    fire: int = 0  # when the flush timer is set to, microseconds; 0 for not set


class _Suppress(NamedTuple):
    """How the alerts of a card are taken; `_suppressing` makes the DoFn."""

    window: int
    remember: int
    ordering: Ordering
    bounded: bool

    def process(self, key: str, alert: Alert, state: _State) -> Iterator[Alert]:
        """Take an alert at once, or let it wait for the watermark."""
        if not key:
            yield alert
            return
        memory = state.read()
        if self.ordering == "arrival" or event_micros(alert) < memory.frontier:
            yield from self._take([alert], memory, state)
        else:
            state.waiting.add(alert)
            self._wait_for(event_micros(alert), memory, state)
        state.write(memory)

    def flush(self, at: Timestamp, state: _State) -> Iterator[Alert]:
        """Take the waiting alerts that the watermark has passed, in their order."""
        memory = state.read()
        fired = min(memory.fire, int(at.micros))  # see TakeInOrder.flush
        alerts = sorted(state.waiting.read(), key=_order)
        state.waiting.clear()
        memory.frontier, memory.fire = max(memory.frontier, fired), 0
        due = [alert for alert in alerts if event_micros(alert) < memory.frontier]
        yield from self._take(due, memory, state)
        for alert in alerts[len(due) :]:
            state.waiting.add(alert)
        if len(due) < len(alerts):
            self._wait_for(event_micros(alerts[len(due)]), memory, state)
        state.write(memory)

    def forget(self, at: Timestamp, state: _State) -> None:
        """Drop what nothing can need any more.

        Where the watermark leaps over more than a window at once this timer may fire before alerts that still wait.
        """
        memory = state.read()
        if memory.fire:
            state.forget_timer.set(at)
        elif memory.last is not None and int(at.micros) >= memory.last.time + self.window + self.remember:
            state.memory.clear()
            state.held_back.clear()

    def _take(self, alerts: Iterable[Alert], memory: _Memory, state: _State) -> Iterator[Alert]:
        for alert in alerts:
            before = memory.last
            passed, memory.last = suppress(before, state.held_back.read(), alert, self.window, self.remember)
            if passed is None:
                state.held_back.add(alert.alert_id)
                _SUPPRESSED.inc()
                tally.add("alerts.suppressed")
                continue
            if memory.last != before:
                state.held_back.clear()
                self._forget_later(memory, state)
            yield passed

    def _wait_for(self, time: int, memory: _Memory, state: _State) -> None:
        """See that the flush timer fires once the watermark has passed this alert.

        Input that ends is taken at its end, the one moment on which every runner agrees.
        """
        fire = _END if self.bounded else time // 1000 * 1000 + 1000
        if not memory.fire or fire < memory.fire:
            memory.fire = fire
            state.flush_timer.set(Timestamp(micros=fire))

    def _forget_later(self, memory: _Memory, state: _State) -> None:
        if memory.last is not None and not self.bounded:  # what ends forgets by itself
            until = memory.last.time + self.window + self.remember
            state.forget_timer.set(Timestamp(micros=min(until // 1000 * 1000 + 1000, _END)))


class _State(NamedTuple):
    """A card's state and timers."""

    memory: Any
    held_back: Any
    waiting: Any
    flush_timer: Any
    forget_timer: Any

    def read(self) -> _Memory:
        written = self.memory.read()
        memory = msgspec.msgpack.decode(written, type=_Memory) if written else _Memory()
        if memory.version != _Memory().version:
            raise ValueError(
                f"state of version {memory.version} cannot be read by version {_Memory().version}: "
                "restore with the release that wrote it"
            )
        return memory

    def write(self, memory: _Memory) -> None:
        self.memory.write(msgspec.msgpack.encode(memory))


def _suppressing(how: _Suppress) -> beam.DoFn:
    memory_spec = ReadModifyWriteStateSpec("memory", BytesCoder())
    held_back_spec = BagStateSpec("held_back", StrUtf8Coder())
    waiting_spec = BagStateSpec("waiting", StructCoder(Alert))
    # Beam's in-memory runner mixes up timers of one name in different steps, so these have names of their own.
    flush_spec = TimerSpec("suppress:flush", TimeDomain.WATERMARK)
    forget_spec = TimerSpec("suppress:forget", TimeDomain.WATERMARK)

    class Suppress(beam.DoFn):
        def process(
            self,
            element: tuple[str, Alert],
            memory: Any = beam.DoFn.StateParam(memory_spec),
            held_back: Any = beam.DoFn.StateParam(held_back_spec),
            waiting: Any = beam.DoFn.StateParam(waiting_spec),
            flush_timer: Any = beam.DoFn.TimerParam(flush_spec),
            forget_timer: Any = beam.DoFn.TimerParam(forget_spec),
        ) -> Iterator[Any]:
            return how.process(*element, _State(memory, held_back, waiting, flush_timer, forget_timer))

        @on_timer(flush_spec)
        def flush(
            self,
            at: Any = beam.DoFn.TimestampParam,
            memory: Any = beam.DoFn.StateParam(memory_spec),
            held_back: Any = beam.DoFn.StateParam(held_back_spec),
            waiting: Any = beam.DoFn.StateParam(waiting_spec),
            flush_timer: Any = beam.DoFn.TimerParam(flush_spec),
            forget_timer: Any = beam.DoFn.TimerParam(forget_spec),
        ) -> Iterator[Any]:
            return how.flush(at, _State(memory, held_back, waiting, flush_timer, forget_timer))

        @on_timer(forget_spec)
        def forget(
            self,
            at: Any = beam.DoFn.TimestampParam,
            memory: Any = beam.DoFn.StateParam(memory_spec),
            held_back: Any = beam.DoFn.StateParam(held_back_spec),
            forget_timer: Any = beam.DoFn.TimerParam(forget_spec),
        ) -> None:
            how.forget(at, _State(memory, held_back, None, None, forget_timer))

    return cast(beam.DoFn, Suppress())  # type: ignore[no-untyped-call]  # Beam's DoFn has no typed constructor


def event_micros(alert: Alert) -> int:
    """The alert's event time in microseconds since 1970.

    Example:
        >>> event_micros(example_alert("a1", 1_522_540_831_000_250))
        1522540831000250
    """
    return (datetime.fromisoformat(alert.event_time) - _EPOCH) // timedelta(microseconds=1)


def example_alert(name: str, micros: int, customer: str | None = "596") -> Alert:
    """An alert with an id, an event time and a customer, for examples and tests."""
    return Alert(
        alert_id=name,
        transaction_id=name,
        event_time=(_EPOCH + timedelta(microseconds=micros)).isoformat(),
        customer_id=customer,
        terminal_id=None,
        amount_minor=100,
        score=0.9,
        decision="review",
        reasons=[],
        model_id="model",
        feature_set="features",
        late=False,
    )


def _order(alert: Alert) -> tuple[int, int, str]:
    """By event time; ids by length and then by text, as transactions are ordered."""
    return event_micros(alert), len(alert.transaction_id), alert.transaction_id


def _key(alert: Alert, by: By) -> str:
    return getattr(alert, by) or ""
