"""The table that remembers alerts, on DynamoDB Local: one invocation at a time has an alert, and done is done."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import pytest

from alert_ledger import AlertLedger, Claim
from runners.local import DynamoDb
from tests.integration.alert_servers import alert_items, create_alert_table
from tests.integration.faults import HttpFaultProxy

NOW = 1_000_000


@pytest.fixture
def ledger(dynamodb: DynamoDb) -> AlertLedger:
    """An empty table, as invocation `one` sees it, which has until 60 seconds from now."""
    table = f"alerts-{uuid4().hex}"
    create_alert_table(dynamodb, table)
    return AlertLedger(dynamodb.client(), table, "one", NOW + 60, NOW + 9_000, lambda: NOW)


@pytest.fixture
def other(ledger: AlertLedger) -> AlertLedger:
    """Another invocation, at the same time."""
    return replace(ledger, owner="two")


def test_of_many_that_ask_at_once_one_gets_an_alert(ledger: AlertLedger) -> None:
    """Whoever is first; all others are told to come again."""
    askers = [replace(ledger, owner=str(n)) for n in range(16)]
    with ThreadPoolExecutor(16) as pool:
        for alert in ("a", "b", "c"):
            claims = list(pool.map(lambda each: each.claim(alert), askers))  # noqa: B023 - used up in its round
            assert [claim.mine for claim in claims].count(True) == 1
            assert all(claim.problem and claim.problem.retryable for claim in claims if not claim.mine)


def test_done_is_final(ledger: AlertLedger, other: AlertLedger, dynamodb: DynamoDb) -> None:
    """Long after every lease, and for its owner too. The item says when it may be forgotten."""
    assert ledger.claim("a") == Claim(mine=True)
    assert ledger.record("a", "sns", last=True) is None
    for later in (other, ledger, replace(other, now=lambda: NOW + 5_000)):
        assert later.claim("a") == Claim(done=True)
    item = alert_items(dynamodb, ledger.table)["a"]
    assert (item["status"]["S"], item["expires_at"]["N"]) == ("done", str(NOW + 9_000))


def test_who_died_is_followed_when_the_lease_is_over_and_not_before(ledger: AlertLedger, other: AlertLedger) -> None:
    """The follower learns which channels have had the alert."""
    ledger.claim("a")
    ledger.record("a", "sns", last=False)
    assert not replace(other, now=lambda: NOW + 60).claim("a").mine
    assert replace(other, now=lambda: NOW + 61).claim("a") == Claim(mine=True, channels=frozenset(["sns"]))


def test_who_was_followed_can_write_no_more(ledger: AlertLedger, other: AlertLedger) -> None:
    """An invocation that comes back after its lease does not mark as done what another is doing."""
    ledger.claim("a")
    assert replace(other, now=lambda: NOW + 61).claim("a").mine
    late = ledger.record("a", "sns", last=True)
    assert late is not None
    assert late.retryable
    assert not ledger.claim("a").done


def test_what_is_released_is_free_at_once(ledger: AlertLedger, other: AlertLedger) -> None:
    """The next invocation need not wait for the lease."""
    ledger.claim("a")
    assert ledger.release("a") is None
    assert other.claim("a").mine


@pytest.fixture
def proxy(dynamodb: DynamoDb) -> Iterator[HttpFaultProxy]:
    with HttpFaultProxy("127.0.0.1", dynamodb.port) as found:
        yield found


def test_an_answer_that_was_lost_changes_nothing(
    ledger: AlertLedger, dynamodb: DynamoDb, proxy: HttpFaultProxy
) -> None:
    """A claim or a record that was made, and whose answer was lost, is found to be our own when it is repeated."""
    client = replace(dynamodb, port=int(proxy.url.rpartition(":")[2])).client(
        retries={"mode": "standard", "total_max_attempts": 3}
    )
    lossy = replace(ledger, dynamodb=client)
    proxy.lose_answers(1)
    assert lossy.claim("a").mine
    proxy.lose_answers(1)
    assert lossy.record("a", "sns", last=False) is None
    proxy.lose_answers(1)
    assert lossy.record("a", "slack", last=True) is None
    assert lossy.claim("a").done
    assert proxy.faults_left == 0


def test_a_table_that_throttles_or_is_not_there_fails_alert_by_alert(
    ledger: AlertLedger, proxy: HttpFaultProxy, dynamodb: DynamoDb
) -> None:
    """The problem names AWS's code, and may be tried again."""
    claim = replace(ledger, table="no-such-table").claim("a")
    assert claim.problem is not None
    assert claim.problem.error == "the table of alerts: ResourceNotFoundException"
    throttled = replace(dynamodb, port=int(proxy.url.rpartition(":")[2])).client()
    proxy.answer(1, 400, {"__type": "com.amazonaws.dynamodb.v20120810#ThrottlingException", "message": "slow down"})
    claim = replace(ledger, dynamodb=throttled).claim("a")
    assert claim.problem is not None
    assert claim.problem.error == "the table of alerts: ThrottlingException"
    assert claim.problem.retryable
