"""The producer: what is sent, when, and with which event times."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from io_connectors.delivery import Message, Refused
from pipelines.produce import Events, Pace, Sent, main, paced, recorded, send, simulated
from transforms.errors import UserError
from transforms.parse import parse
from transforms.raw_batch import RawBatch
from transforms.schema import load_schema

SIMULATOR = "simulator:?customers=50&terminals=100&days=3"
START = 1_780_000_000_000_000
SCHEMA = load_schema("transaction-events")


class Clock:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.micros = START

    def __call__(self) -> int:
        return self.micros * 1000

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.micros += round(seconds * 1e6)


class Stream:
    """A stream that keeps what it is sent and refuses one customer."""

    def __init__(self, refuses: str = "") -> None:
        self.messages: list[Message] = []
        self.refuses = refuses

    def write(self, messages: Sequence[Message]) -> list[Refused]:
        self.messages += messages
        return [Refused(at, "no", "not this one") for at, message in enumerate(messages) if message.id == self.refuses]

    def close(self) -> None: ...


def timestamps(messages: Sequence[Message]) -> list[str]:
    return [json.loads(message.body)["timestamp"] for message in messages]


def test_a_rate_is_kept_and_never_run_ahead_of() -> None:
    """A list is sent when its last transaction is due, and no more than a tenth of a second's wait later."""
    clock = Clock()
    sent = 0
    for messages in paced(simulated(SIMULATOR), Pace(rate=50, clock=clock, sleep=clock.sleep)):
        sent += len(messages)
        passed = (clock.micros - START) / 1e6
        assert sent - 1.001 <= passed * 50 < sent + 50 * 0.2
    assert sent == sum(len(day) for day in (events.bodies(0, events.times) for events in simulated(SIMULATOR)))


def test_stamps_are_when_each_was_due() -> None:
    """Transactions sent at a rate lie its interval apart in event time."""
    clock = Clock()
    messages = [m for some in paced(simulated(SIMULATOR), Pace(rate=4, clock=clock, sleep=clock.sleep)) for m in some]
    parsed, letters = parse(
        RawBatch("t", START + 10**12, np.arange(len(messages)), payloads=[m.body for m in messages]), SCHEMA
    )
    assert letters == []
    assert parsed is not None
    assert parsed.numpy("event_time").tolist() == [START + 250_000 * n for n in range(len(messages))]


def test_recorded_times_are_sent_as_they_are() -> None:
    """At the recorded pace, a thousand times faster, the clock ends a thousandth of the recorded time later."""
    clock = Clock()
    pace = Pace(speed=1000, stamped=False, clock=clock, sleep=clock.sleep)
    found = [stamp for some in paced(simulated(SIMULATOR), pace) for stamp in timestamps(some)]
    assert found == sorted(found)
    assert (found[0][:10], found[-1][:10]) == ("2026-01-01", "2026-01-03")
    assert 2 * 86.4 < (clock.micros - START) / 1e6 < 3 * 86.4


def test_without_a_pace_nobody_waits() -> None:
    """Everything is sent at once, stamped now."""
    clock = Clock()
    messages = [m for some in paced(simulated(SIMULATOR), Pace(clock=clock, sleep=clock.sleep)) for m in some]
    assert clock.micros == START
    assert len(set(timestamps(messages))) == 1


def test_messages_are_keyed_by_customer() -> None:
    """So a customer's transactions stay in one partition, in order."""
    for some in paced(simulated(SIMULATOR), Pace()):
        assert [message.id for message in some] == [json.loads(message.body)["user_id"] for message in some]


def test_a_file_is_sent_with_its_values(tmp_path: Path) -> None:
    """Ids, customers, amounts, times and labels of a CSV come out of the JSON again."""
    path = tmp_path / "day.csv"
    path.write_text(
        "TRANSACTION_ID,TX_DATETIME,CUSTOMER_ID,TERMINAL_ID,TX_AMOUNT,TX_FRAUD\n"
        '0,2018-04-01 00:00:31,596,3156,57.16,0\n1,2018-04-01 00:02:10.5,"a ""b""",3412,81.51,1\n'
    )
    stream = Stream()
    send(paced(recorded(str(path), "handbook"), Pace(stamped=False)), stream, None, Sent(quiet=True))
    raw = RawBatch("t", START, np.arange(2), payloads=[message.body for message in stream.messages])
    parsed, letters = parse(raw, SCHEMA)
    assert letters == []
    assert parsed is not None
    rows = parsed.rows.select(["transaction_id", "customer_id", "amount_minor", "is_fraud"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [("0", "596", 5716, 0), ("1", 'a "b"', 8151, 1)]
    assert parsed.numpy("event_time").tolist() == [1_522_540_831_000_000, 1_522_540_930_500_000]


def test_a_record_that_is_no_transaction_is_not_sent(tmp_path: Path) -> None:
    """The error names the file, the record and what is wrong with it."""
    path = tmp_path / "day.csv"
    path.write_text("TRANSACTION_ID,TX_DATETIME,CUSTOMER_ID,TERMINAL_ID,TX_AMOUNT\n0,2018-04-01 00:00:31,5,3,-1\n")
    with pytest.raises(UserError, match=r"day\.csv, record 1: TX_AMOUNT is"):
        list(recorded(str(path), "handbook"))


def test_a_count_is_exact() -> None:
    """Sending stops after so many, in the middle of a list too."""
    stream, sent = Stream(), Sent(quiet=True)
    send(paced(simulated(SIMULATOR), Pace()), stream, 77, sent)
    assert len(stream.messages) == sent.count == 77


def test_what_the_stream_refuses_ends_the_sending() -> None:
    """A producer must not pretend to have sent it."""
    events = Events(["a", "b"], np.array([1, 2]), lambda first, times: [b"{}"] * len(times))
    with pytest.raises(UserError, match="customer b: not this one"):
        send(paced([events], Pace()), Stream(refuses="b"), None, Sent(quiet=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--sink"),
        (["--sink", "kafak://127.0.0.1:9/t"], "did you mean kafka?"),
        (["--sink", "kafka://127.0.0.1:9/t", "--rate", "0"], "above 0"),
        (["--sink", "kafka://127.0.0.1:9/t", "--rate", "1", "--speed", "1"], "not allowed with"),
        (["--sink", "kafka://127.0.0.1:9/t", "--count", "0"], "--count"),
        (["--sink", "kafka://127.0.0.1:9/t", "--source", "simulator:?dayz=3"], "did you mean days?"),
    ],
)
def test_mistakes_are_said_in_a_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And the exit code is 2."""
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1
