"""Suppression of alerts, alert by alert, against a slow and obvious way of doing the same."""

from __future__ import annotations

import random

import msgspec
import pytest
from apache_beam.utils.timestamp import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from transforms.alerts import Alert
from transforms.durations import DAY
from transforms.struct_coder import StructCoder
from transforms.suppress import (
    LastSent,
    SuppressAlerts,
    _Memory,
    _State,
    _Suppress,
    event_micros,
    example_alert,
    suppress,
    suppress_all,
)

WINDOW = 10


def oracle(alerts: list[tuple[str, int]], window: int) -> list[tuple[str, int]]:
    """(id, suppressed) of what is sent of one card's (id, time)."""
    sent: list[tuple[str, int]] = []
    until, count = -1, 0
    for name, time in sorted(alerts, key=lambda each: (each[1], len(each[0]), each[0])):
        if time < until:
            count += 1
        else:
            sent.append((name, count))
            until, count = time + window, 0
    return sent


CARDS = st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 60)), max_size=60)


@given(CARDS, st.randoms(use_true_random=False))
def test_one_alert_a_card_and_window_whatever_the_order(drawn: list[tuple[str, int]], shuffle: random.Random) -> None:
    """What is sent, and the count it carries, is what a loop over each card's alerts in order says."""
    alerts = [example_alert(f"a{at}", time, card) for at, (card, time) in enumerate(drawn)]
    expected = {
        pair
        for card in "xyz"
        for pair in oracle([(f"a{at}", time) for at, (c, time) in enumerate(drawn) if c == card], WINDOW)
    }
    shuffle.shuffle(alerts)
    sent = suppress_all(alerts, WINDOW)
    assert {(alert.alert_id, alert.suppressed) for alert in sent} == expected
    assert len(sent) == len(expected)


@given(CARDS)
def test_nothing_is_uncounted(drawn: list[tuple[str, int]]) -> None:
    """Sent alerts, those they say were suppressed, and those of each card's last window make up all there were."""
    alerts = [example_alert(f"a{at}", time, card) for at, (card, time) in enumerate(drawn)]
    ends = [example_alert(f"end-{card}", 1_000, card) for card in "xyz"]
    sent = suppress_all([*alerts, *ends], WINDOW)
    assert len(sent) + sum(alert.suppressed for alert in sent) == len(alerts) + 3


def test_alerts_without_a_card_are_all_sent() -> None:
    """They have nothing in common."""
    alerts = [example_alert(f"a{n}", n, None) for n in range(5)]
    assert suppress_all(alerts, WINDOW) == alerts
    assert suppress_all(alerts, WINDOW, by="terminal_id") == alerts


def test_the_alert_sent_last_is_sent_again_and_says_the_same() -> None:
    """A replay of it is not suppressed by itself: its first sending may have been lost."""
    last = LastSent(100, "a", 7)
    sent, after = suppress(last, ["b"], example_alert("a", 100), WINDOW)
    assert sent is not None
    assert (sent.suppressed, after) == (7, last)


def test_an_alert_counted_twice_is_one() -> None:
    """A replay of a suppressed alert is not another one."""
    sent, _ = suppress(LastSent(0, "a", 0), ["b", "b", "c"], example_alert("d", WINDOW), WINDOW)
    assert sent is not None
    assert sent.suppressed == 2


@pytest.mark.parametrize(("time", "is_sent"), [(80, True), (90, True), (91, False), (109, False), (110, True)])
def test_windows_reach_to_both_sides_and_exclude_their_ends(time: int, is_sent: bool) -> None:
    """An alert that comes late, from before the window, is sent and opens no window of its own."""
    last = LastSent(100, "a", 0)
    sent, after = suppress(last, [], example_alert("b", time), WINDOW)
    assert (sent is not None) == is_sent
    assert (after == last) == (time < 110)


def test_a_count_waits_so_long_and_no_longer() -> None:
    """Whether the runner has dropped the state by then or not, the count is the same: none."""
    end = WINDOW + DAY
    for time, count in ((end - 1, 1), (end, 0)):
        sent, _ = suppress(LastSent(0, "a", 0), ["b"], example_alert("c", time), WINDOW, remember=DAY)
        assert sent is not None
        assert sent.suppressed == count


def test_a_window_must_be_positive() -> None:
    """Zero would suppress nothing and keep state for it."""
    with pytest.raises(ValueError, match="positive number of microseconds, found 0"):
        SuppressAlerts(0)


def test_json_says_suppressed_only_where_there_were_some() -> None:
    """What reads alerts today sees what it saw; an alert encoded by an earlier release can be read."""
    alert = example_alert("a", 0)
    assert b"suppressed" not in alert.to_json()
    assert b"customer_id" in example_alert("a", 0, None).to_json()
    assert msgspec.json.decode(msgspec.structs.replace(alert, suppressed=3).to_json())["suppressed"] == 3
    coder = StructCoder(Alert)
    before = msgspec.msgpack.encode({**msgspec.to_builtins(alert)})
    assert b"suppressed" not in before
    assert coder.decode(before) == alert
    assert coder.decode(coder.encode(msgspec.structs.replace(alert, suppressed=3))).suppressed == 3


def test_event_times_are_exact() -> None:
    """Microseconds survive, also before 1970."""
    for micros in (0, -1, 1_522_540_831_123_457, 253_402_300_799_999_999):
        assert event_micros(example_alert("a", micros)) == micros


class Kept:
    """A state or a timer, as far as it is asked."""

    def __init__(self, content: object = None) -> None:
        self.content, self.at = content, None

    def read(self) -> object:
        return self.content

    def clear(self) -> None:
        self.content = None

    def set(self, at: object) -> None:
        self.at = at  # type: ignore[assignment]


def test_a_card_is_not_forgotten_while_alerts_wait() -> None:
    """Where the watermark leaps, what would drop a card's state comes before the alerts: it is put off."""
    how = _Suppress(WINDOW, 100, "event_time", bounded=False)
    for fire, forgotten in ((500, False), (0, True)):
        memory = Kept(msgspec.msgpack.encode(_Memory(last=LastSent(0, "a", 0), fire=fire)))
        state = _State(memory, Kept([]), None, None, Kept())
        how.forget(Timestamp(micros=110), state)
        assert (memory.content is None) == forgotten
        assert (state.forget_timer.at is None) == forgotten


def test_state_of_the_form_before_is_read_and_of_another_refused() -> None:
    """What a release wrote stays readable; what a later one wrote stops the stage with a message that says so."""
    written = bytes.fromhex("94019307a26131020304")
    memory = _State(Kept(written), None, None, None, None).read()
    assert memory == _Memory(1, LastSent(7, "a1", 2), 3, 4)
    with pytest.raises(ValueError, match="state of version 9 cannot be read by version 1"):
        _State(Kept(b"\x94\x09" + written[2:]), None, None, None, None).read()
