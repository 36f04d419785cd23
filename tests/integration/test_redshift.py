"""The Redshift sink through Redshift's own driver, on a PostgreSQL server; only COPY from S3 is a loader of the tests.

What COPY itself takes, and the Data API, are the affair of tests/unit/test_redshift_*.py.
"""

from __future__ import annotations

import gc
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from io_connectors.delivery import BatchSink, Refused
from io_connectors.redshift.sink import RedshiftSink, redshift_sink
from io_connectors.retry import Backoff
from io_connectors.urls import ConnectorUrl
from runners.local import S3, Postgres
from tests.integration.faults import TcpFaultProxy
from tests.integration.redshift_shim import Loader, RedshiftShim
from tests.integration.sink_conformance import EXTRA, BatchSinkConformance, check, decided, write_all
from tests.integration.sql_servers import kill_and_start
from transforms.batch import TransactionBatch, concat_batches, from_rows
from transforms.errors import UserError

# The driver leaves the socket of an attempt to connect that failed to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

QUICK = Backoff(first=0.01, most=0.2, give_up_after=60.0)
ROLE = "arn:aws:iam::123456789012:role/load"


@pytest.fixture(scope="session")
def warehouse(postgres: Postgres) -> Postgres:
    """The server with a user whom Redshift's driver can be, and the function that tells Redshift's time."""
    rules = postgres.data / "pg_hba.conf"
    rules.write_text("host all redshift 127.0.0.1/32 md5\n" + rules.read_text())
    with postgres.connect("postgres", "fraud", autocommit=True) as connection:
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("SET password_encryption = md5")
        connection.execute("CREATE ROLE redshift LOGIN PASSWORD 'for-tests'")
        connection.execute("GRANT fraud TO redshift; ALTER ROLE redshift SET role fraud")
        connection.execute(
            "CREATE FUNCTION public.getdate() RETURNS timestamp LANGUAGE sql AS $$ SELECT now() AT TIME ZONE 'UTC' $$"
        )
    return postgres


@dataclass
class Subject:
    """A table of its own, behind the shim, behind a proxy."""

    server: Postgres
    shim: RedshiftShim
    proxy: TcpFaultProxy
    loader: Loader
    table: str
    endpoint: str
    knows_rows: bool = True
    sink: BatchSink = field(init=False)

    def __post_init__(self) -> None:
        self.sink = self.sink_of()

    def sink_of(self, create: str = "true", **parameters: str) -> RedshiftSink:
        known = {
            "staging": f"s3://fraud/staging/{self.table}",
            "role": ROLE,
            "via": "connector",
            "host": "127.0.0.1",
            "port": str(self.proxy.address[1]),
            "user": "redshift",
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "create": create,
        }
        url = ConnectorUrl("redshift", f"warehouse/fraud/public/{self.table}", {**known, **parameters})
        return replace(redshift_sink(url), backoff=QUICK)

    def rows(self, query: str) -> list[Any]:
        """What a query gives; `{}` is the table."""
        with self.server.connect(autocommit=True) as connection:
            cursor = connection.execute(query.replace("{}", self.table).encode())
            return cursor.fetchall() if cursor.description else []

    def held(self) -> list[tuple[str, int, float, str]]:
        return self.rows("SELECT transaction_id, amount_minor, score, decision FROM {}")

    def throttle(self, times: int) -> None:
        self._fail(times, "FOR EACH STATEMENT", "53200")

    def fail_partly(self, times: int) -> None:
        self._fail(times, "FOR EACH ROW WHEN (NEW.transaction_id = 't150')", "XX000")

    def _fail(self, times: int, when: str, state: str) -> None:
        """Have so many statements fail half-way, as Redshift words it."""
        self.make()
        words = "1023 DETAIL: Serializable isolation violation on table - 112"
        self.rows(
            "CREATE SEQUENCE {}_failed; "
            "CREATE FUNCTION {}_fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF nextval('{{}}_failed') <= {times} THEN RAISE '{words}' USING ERRCODE = '{state}'; END IF; "
            "RETURN NEW; END $$; "
            f"CREATE TRIGGER fail BEFORE INSERT ON {{}} {when} EXECUTE FUNCTION {{}}_fail()"
        )

    def make(self) -> None:
        """Have the table and its ledger there, empty."""
        write_all(self.sink, [decided(0, 1)])
        self.rows("TRUNCATE {}, {}_batches")

    def lose_answers(self, times: int) -> None:
        self.proxy.lose_answers(times, b"commit")

    def restart(self) -> None:
        kill_and_start(self.server)

    def poisoned(self) -> TransactionBatch:
        batch = decided(0, 30)
        ids, customers = (batch.rows.column(name).to_pylist() for name in ("transaction_id", "customer_id"))
        ids[17], customers[17] = "poison", "ü" * 129  # 258 bytes
        return batch.with_columns({"transaction_id": pa.array(ids), "customer_id": pa.array(customers)})


@pytest.fixture
def subject(warehouse: Postgres, s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    monkeypatch.setenv("PGPASSWORD", "for-tests")
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    loader = Loader(s3.client())
    with (
        RedshiftShim("127.0.0.1", warehouse.port, loader.rewrite) as shim,
        TcpFaultProxy("127.0.0.1", shim.port) as proxy,
    ):
        yield Subject(warehouse, shim, proxy, loader, f"r_{uuid.uuid4().hex[:12]}", s3.endpoint)
    loader.client.close()
    gc.collect()  # now, and not in the middle of another module's test


class TestConformance(BatchSinkConformance):
    """Every fault there is can be made here."""


def refused_by(sink: BatchSink, batch: TransactionBatch) -> Sequence[Refused]:
    writer = sink.open(lambda error: None)
    try:
        return writer.write(batch)
    finally:
        writer.close()


def test_every_value_arrives_as_it_is(subject: Subject) -> None:
    """Times are UTC whatever a session's zone, reasons are JSON, NULL is NULL, and numbers keep all their digits."""
    rows: list[dict[str, Any]] = [
        {
            "transaction_id": "ü\n'\"\\",
            "event_time": 1_767_225_600_123_456,
            "amount_minor": 2**63 - 1,
            "is_fraud": -128,
            "late": True,
            "customer_count_1d": 0.1 + 0.2,
            "score": float("inf"),
            "reasons": ['{"a,b"}', "\0"],
        },
        {"transaction_id": "n", "event_time": -1, "amount_minor": -(2**63), "score": float("nan"), "reasons": []},
    ]
    write_all(subject.sink, [from_rows(rows, EXTRA)])
    names = "transaction_id, amount_minor, is_fraud, late, customer_count_1d, score::text, reasons, customer_id"
    found = subject.rows(f"SELECT {names} FROM {{}} ORDER BY amount_minor DESC")  # noqa: S608 - the names are ours
    assert found == [
        ("ü\n'\"\\", 2**63 - 1, -128, True, 0.1 + 0.2, "Infinity", '["{\\"a,b\\"}","\\u0000"]', None),
        ("n", -(2**63), None, False, None, "NaN", "[]", None),
    ]
    times = "SELECT (extract(epoch from event_time) * 1000000)::bigint FROM {} ORDER BY amount_minor DESC"
    assert subject.rows(times) == [(1_767_225_600_123_456,), (-1,)]


def test_writers_of_the_same_rows_wait_for_each_other(subject: Subject) -> None:
    """Redshift keeps no two rows apart, and neither does this table: the lock does."""
    subject.make()
    subject.rows("ALTER TABLE {} DROP CONSTRAINT {}_pkey")
    batch = decided(0, 600)
    failures: list[BaseException] = []

    def write(order: TransactionBatch) -> None:
        try:
            write_all(subject.sink, list(order.pieces(150)))
        except BaseException as error:
            failures.append(error)

    orders = [batch.take(np.random.default_rng(seed).permutation(len(batch))) for seed in range(3)]
    threads = [threading.Thread(target=write, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    check(subject, batch)


def test_a_batch_written_again_is_put_once_and_passed_over(subject: Subject) -> None:
    """Objects are named after what they hold, the ledger knows the batch, and a row deleted since stays so."""
    batch = decided(0, 50)
    write_all(subject.sink, [batch])
    subject.rows("DELETE FROM {} WHERE transaction_id = 't5'")
    write_all(subject.sink, [batch])
    assert len(subject.held()) == 49
    assert subject.rows("SELECT rows FROM {}_batches") == [(50,)]
    first, second = subject.loader.copied
    assert first == second
    listed = subject.loader.client.list_objects_v2(Bucket="fraud", Prefix=f"staging/{subject.table}/")
    assert listed["KeyCount"] == 2
    subject.rows("TRUNCATE {}")
    write_all(subject.sink, [batch])
    check(subject, batch)


@pytest.mark.parametrize("existing", ["keep", "replace"])
def test_which_write_stands(subject: Subject, existing: str) -> None:
    """The first, or the last; of two rows in one batch likewise."""
    sink, old = subject.sink_of(existing=existing), decided(0, 40)
    new = old.with_columns({"score": pa.array(np.full(40, 0.25))})
    stands = old if existing == "keep" else new
    write_all(sink, [concat_batches([old, new])])
    check(subject, stands)
    write_all(sink, [old, new])
    check(subject, stands)


def test_a_row_that_only_the_server_can_judge_is_found(subject: Subject) -> None:
    """As with every database of ours, by halves."""
    subject.make()
    subject.rows("ALTER TABLE {} ADD CHECK (amount_minor <> 117)")
    batch = decided(0, 40)
    assert [(each.at, each.reason) for each in refused_by(subject.sink, batch)] == [(17, "sqlstate_23514")]
    check(subject, batch.take(np.delete(np.arange(40), 17)))


def test_what_the_driver_is_told_holds_no_secret(subject: Subject, s3: S3) -> None:
    """Of all that was sent: the lock comes first in its transaction, and neither passwords nor keys are in it."""
    write_all(subject.sink, [decided(0, 10)])
    said = subject.shim.statements
    lock = next(at for at, statement in enumerate(said) if statement.startswith("LOCK TABLE"))
    assert said[lock - 1] == "begin transaction"
    assert [statement.split()[0] for statement in said[lock + 1 :]] == [
        *("CREATE", "COPY", "DELETE", "DELETE", "DELETE", "MERGE", "INSERT", "DROP", "commit")
    ]
    everything = "\n".join(said)
    for secret in ("for-tests", *s3.environment.values()):
        if "://" not in secret and secret not in ("us-east-1",):
            assert secret not in everything


def test_the_kaggle_layout_fills_the_wide_table(subject: Subject) -> None:
    """Created as the command prints it, but for what PostgreSQL does not know."""
    components = {f"v{n}": n / 3 for n in range(1, 29)}
    first = 1_377_993_600_000_000  # 2013-09-01
    rows: list[dict[str, Any]] = [
        {"transaction_id": "f:0", "event_time": first + 1_500_000, "amount_minor": 14962, "is_fraud": 1, **components},
        {"transaction_id": "f:1", "event_time": first, "amount_minor": 10**12, "is_fraud": 0, **components},
    ]
    batch = from_rows(rows, dict.fromkeys(components, pa.float64()))
    refused = refused_by(subject.sink_of(layout="kaggle"), batch)
    assert [(each.at, each.reason) for each in refused] == [(1, "sqlstate_22003")]
    found = subject.rows("SELECT time, v1, v28, amount::text, class, transaction_id FROM {}")
    assert found == [(1.5, 1 / 3, 28 / 3, "149.62", 1, "f:0")]


def test_a_table_that_is_not_there_is_said(subject: Subject) -> None:
    """With the command that creates it."""
    with pytest.raises(UserError, match=rf"no table public\.{subject.table} .* python -m io_connectors\.redshift ddl"):
        write_all(subject.sink_of(create="false"), [decided(0, 10)])


@pytest.mark.parametrize(
    ("environment", "parameters", "error"),
    [
        ({"PGPASSWORD": "hunter2"}, {}, "password authentication failed"),
        ({}, {"staging": "s3://no-such-bucket/x"}, "there is no bucket no-such-bucket"),
    ],
)
def test_what_nobody_can_mend_by_waiting_is_said_at_once(
    subject: Subject,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    parameters: dict[str, str],
    error: str,
) -> None:
    """And no secret is in it."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=error) as caught:
        write_all(subject.sink_of(**parameters), [decided(0, 10)])
    assert "hunter2" not in str(caught.value)
