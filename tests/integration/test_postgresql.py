"""The PostgreSQL sink on a real server: what every sink must stand, and what is its own."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import errors

from benchmarks import sql_sinks
from io_connectors.delivery import BatchSink, Refused
from io_connectors.postgresql.sink import PostgresqlSink, postgresql_sink
from io_connectors.retry import Backoff
from io_connectors.sql.ddl import main as ddl
from io_connectors.sql.dialects import POSTGRESQL
from io_connectors.urls import ConnectorUrl
from runners.local import Postgres
from runners.local.tools import run_program
from tests.integration.faults import TcpFaultProxy
from tests.integration.sink_conformance import EXTRA, MIDNIGHT, BatchSinkConformance, check, decided, write_all
from tests.integration.sql_servers import kill_and_start
from transforms.batch import TransactionBatch, concat_batches, from_rows
from transforms.errors import UserError

QUICK = Backoff(first=0.01, most=0.2, give_up_after=60.0)


@dataclass
class Subject:
    """A table of its own, behind a proxy."""

    server: Postgres
    proxy: TcpFaultProxy
    table: str
    knows_rows: bool = True
    sink: BatchSink = field(init=False)

    def __post_init__(self) -> None:
        self.sink = self.sink_of()

    def sink_of(self, create: str = "true", **parameters: str) -> PostgresqlSink:
        host, port = self.proxy.address
        path = f"fraud@{host}:{port}/fraud/public/{self.table}"
        return replace(
            postgresql_sink(ConnectorUrl("postgresql", path, {"create": create, **parameters})), backoff=QUICK
        )

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
        self._fail(times, "FOR EACH ROW WHEN (NEW.transaction_id = 't150')", "40001")

    def _fail(self, times: int, when: str, state: str) -> None:
        """Have so many statements fail half-way; a sequence goes on counting where all else is rolled back."""
        self.make()
        self.rows(
            "CREATE SEQUENCE {}_failed; "
            "CREATE FUNCTION {}_fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF nextval('{{}}_failed') <= {times} THEN RAISE 'not now' USING ERRCODE = '{state}'; END IF; "
            "RETURN NEW; END $$; "
            f"CREATE TRIGGER fail BEFORE INSERT ON {{}} {when} EXECUTE FUNCTION {{}}_fail()"
        )

    def make(self) -> None:
        """Have the table and its ledger there, empty."""
        write_all(self.sink, [decided(0, 1)])
        self.rows("TRUNCATE {}, {}_batches")

    def lose_answers(self, times: int) -> None:
        self.proxy.lose_answers(times, b"COMMIT")

    def restart(self) -> None:
        kill_and_start(self.server)

    def poisoned(self) -> TransactionBatch:
        batch = decided(0, 30)
        ids, reasons = (batch.rows.column(name).to_pylist() for name in ("transaction_id", "reasons"))
        ids[17], reasons[17] = "poison", ["a NUL \0 in the middle"]
        return batch.with_columns({"transaction_id": pa.array(ids), "reasons": pa.array(reasons, EXTRA["reasons"])})


@pytest.fixture
def subject(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    with TcpFaultProxy("127.0.0.1", postgres.port) as proxy:
        yield Subject(postgres, proxy, f"t_{uuid.uuid4().hex[:12]}")


class TestConformance(BatchSinkConformance):
    """Every fault there is can be made here."""


def refused_by(sink: BatchSink, batch: TransactionBatch) -> Sequence[Refused]:
    writer = sink.open(lambda error: None)
    try:
        return writer.write(batch)
    finally:
        writer.close()


def at_once(*actions: Callable[[], None]) -> None:
    """Run all at the same time; the first error of any is raised."""
    failures: list[BaseException] = []
    start = threading.Barrier(len(actions))

    def run(action: Callable[[], None]) -> None:
        try:
            start.wait()
            action()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if failures:
        raise failures[0]


def in_other_order(batch: TransactionBatch, seed: int) -> TransactionBatch:
    return batch.take(np.random.default_rng(seed).permutation(len(batch)))


@pytest.mark.parametrize("existing", ["keep", "replace"])
def test_writers_of_the_same_rows_at_once_leave_each_once(subject: Subject, existing: str) -> None:
    """Four writers, each with all rows in an order and cuts of its own, and a table none of them finds there."""
    batch = decided(0, 3_000)
    orders = [in_other_order(batch, seed) for seed in range(4)]
    sink = subject.sink_of(existing=existing)
    at_once(*(partial(write_all, sink, list(order.pieces(500))) for order in orders))
    check(subject, batch)


def test_writers_of_a_table_without_a_unique_index_wait_for_each_other(subject: Subject) -> None:
    """A table in partitions by time cannot have an index that keeps ids apart, so a lock does."""
    subject.make()
    subject.rows(
        "ALTER TABLE {} RENAME TO {}_like; "
        "CREATE TABLE {} (LIKE {}_like) PARTITION BY RANGE (event_time); "
        "CREATE TABLE {}_all PARTITION OF {} DEFAULT; CREATE INDEX ON {} (transaction_id)"
    )
    batch = decided(0, 2_000)
    orders = [in_other_order(batch, seed) for seed in range(3)]
    at_once(*(partial(write_all, subject.sink, list(order.pieces(400))) for order in orders))
    check(subject, batch)


def test_every_value_arrives_as_it_is(subject: Subject) -> None:
    """NULL, empty lists, quotes, control characters, infinities and the ends of every range."""
    rows = [
        {
            "transaction_id": "ü\t\\N\n\\.\n'\"",
            "event_time": -60_000_000,
            "amount_minor": -(2**63),
            "is_fraud": -128,
            "late": True,
            "score": float("inf"),
            "reasons": ["", "NULL", None, '{"a,b"}', "\\.\n"],
        },
        {"transaction_id": "", "event_time": MIDNIGHT, "amount_minor": 2**63 - 1, "score": float("nan"), "reasons": []},
        {"transaction_id": "n", "event_time": 253_402_300_799_999_999, "amount_minor": 0, "reasons": None},
    ]
    write_all(subject.sink, [from_rows(rows, EXTRA)])
    names = ["transaction_id", "customer_id", "amount_minor", "is_fraud", "late", "score", "reasons"]
    query = f"SELECT {', '.join(names)} FROM {{}}"  # noqa: S608 - the names are ours
    found = {row[0]: row for row in subject.rows(query)}
    assert found[rows[0]["transaction_id"]] == tuple(rows[0].get(name) for name in names)
    assert found["n"] == ("n", None, 0, None, False, None, None)
    assert repr(found[""]) == repr(("", None, 2**63 - 1, None, False, float("nan"), []))
    micros = "SELECT transaction_id, (extract(epoch from event_time) * 1000000)::bigint FROM {}"
    assert dict(subject.rows(micros)) == {row["transaction_id"]: row["event_time"] for row in rows}


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.none() | TEXT,
            st.none() | st.booleans(),
            st.none() | st.integers(-128, 127),
            st.none() | st.floats(allow_nan=False),
            st.none() | st.lists(st.none() | TEXT, max_size=4),
            st.integers(-(10**17), 10**17),
        ),
        min_size=1,
        max_size=30,
    ),
    st.integers(0, 5),
)
def test_any_batch_is_read_back_as_it_was_written(
    subject: Subject, content: list[tuple[Any, ...]], before: int
) -> None:
    """The bytes made for COPY mean what the columns hold, also of a batch that is a view into a longer one."""
    extra = {"b": pa.bool_(), "i": pa.int8(), "f": pa.float64(), "l": pa.list_(pa.string())}
    rows = [
        {"transaction_id": str(at), "event_time": row[5], "amount_minor": row[5], "customer_id": row[0]}
        | dict(zip("bifl", row[1:5], strict=True))
        for at, row in enumerate([content[0]] * before + content)
    ]
    subject.rows("DROP TABLE IF EXISTS {}, {}_batches")
    write_all(subject.sink, [from_rows(rows, extra).slice(before)])
    found = subject.rows("SELECT customer_id, b, i, f, l, amount_minor FROM {} ORDER BY transaction_id::int")
    assert found == content


def test_a_row_that_only_the_server_can_judge_is_found(subject: Subject) -> None:
    """The batch is halved until the rows that spoil it stand alone; all others are written."""
    subject.make()
    subject.rows("ALTER TABLE {} ADD CHECK (amount_minor NOT IN (150, 151, 333)); CREATE UNIQUE INDEX ON {} (score)")
    batch = decided(0, 300)
    scores = batch.rows.column("score").to_pylist()
    scores[280] = scores[10]  # not the key's index: waiting does not help
    ids = batch.rows.column("transaction_id").to_pylist()
    ids[299] = np.random.default_rng(0).bytes(4_000).hex()  # longer than an entry of an index may be
    batch = batch.with_columns({"score": pa.array(scores), "transaction_id": pa.array(ids)})
    refused = refused_by(subject.sink, batch)
    assert [(each.at, each.reason) for each in refused] == [
        (50, "sqlstate_23514"),
        (51, "sqlstate_23514"),
        (233, "sqlstate_23514"),
        (280, "sqlstate_23505"),
        (299, "sqlstate_54000"),
    ]
    assert "violates check constraint" in refused[0].error
    check(subject, batch.take(np.delete(np.arange(300), [50, 51, 233, 280, 299])))


def test_text_that_is_too_long_for_its_column_is_refused(subject: Subject) -> None:
    """Characters count, not bytes."""
    subject.make()
    subject.rows("ALTER TABLE {} ALTER customer_id TYPE varchar(3)")
    rows = [
        {"transaction_id": name, "event_time": 0, "amount_minor": 1, "customer_id": name, "score": 0.5}
        for name in ("üüü", "much")
    ]
    refused = refused_by(subject.sink, from_rows(rows, EXTRA))
    assert refused == [Refused(1, "text_too_long", "customer_id is longer than the 3 characters of its column")]
    assert [row[0] for row in subject.held()] == ["üüü"]


def test_a_batch_in_the_ledger_is_passed_over(subject: Subject) -> None:
    """Its rows are not looked at again: one that was deleted since stays so."""
    batch = decided(0, 100)
    write_all(subject.sink, [batch])
    subject.rows("DELETE FROM {} WHERE transaction_id = 't50'")
    write_all(subject.sink, [batch])
    assert len(subject.held()) == 99
    assert subject.rows("SELECT rows FROM {}_batches") == [(100,)]


def test_a_table_that_was_emptied_is_filled_again(subject: Subject) -> None:
    """The ledger is believed only while the table holds the batch: a run that is made again is no loss."""
    batch = decided(0, 100)
    write_all(subject.sink, [batch])
    subject.rows("TRUNCATE {}")
    write_all(subject.sink, [batch])
    check(subject, batch)


def test_replace_has_the_last_write_stand(subject: Subject) -> None:
    """Also when it brings back what stood before, and of two rows in one batch."""
    sink = subject.sink_of(existing="replace")
    old = decided(0, 50)
    new = old.with_columns({"score": pa.array(np.full(50, 0.25))})
    for batch in (old, new, old):
        write_all(sink, [batch])
        check(subject, batch)
    write_all(sink, [concat_batches([old, new])])
    check(subject, new)


def test_keep_has_the_first_write_stand(subject: Subject) -> None:
    """A row that is scored anew changes nothing."""
    batch = decided(0, 50)
    write_all(subject.sink, [batch, batch.with_columns({"score": pa.array(np.full(50, 0.25))})])
    check(subject, batch)


def test_a_connection_cut_at_any_moment_loses_nothing(subject: Subject) -> None:
    """It is made again, and the transaction with it."""
    batch = decided(0, 1_500)
    retries: list[Exception] = []
    done = threading.Event()

    def cut() -> None:
        while not done.wait(0.05):
            subject.proxy.cut()

    cutting = threading.Thread(target=cut)
    cutting.start()
    writer = subject.sink.open(retries.append)
    try:
        while len(retries) < 5:
            for piece in batch.pieces(100):
                assert writer.write(piece) == []
    finally:
        done.set()
        cutting.join()
        writer.close()
    check(subject, batch)


def test_the_benchmark_measures_every_size(subject: Subject) -> None:
    """Into an empty table, and into one that holds rows already."""
    speeds = sql_sinks.measure(subject.server, rows=300, sizes=(50, 200))
    assert [(speed.size, speed.held, speed.rows) for speed in speeds] == [
        (50, 0, 300),
        (200, 0, 300),
        (50, 600, 300),
        (200, 600, 300),
    ]
    assert all(speed.per_second > 0 and speed.again_seconds > 0 and speed.anew_seconds > 0 for speed in speeds)
    assert sql_sinks.results_text(speeds).count("\n") == 5


@pytest.mark.parametrize("seconds", [0.05, 0.3])
def test_a_server_killed_in_the_middle_of_a_transaction_loses_nothing(subject: Subject, seconds: float) -> None:
    """While it is being sent a large batch, or merges it."""
    subject.make()
    retries: list[Exception] = []
    batch = decided(0, 300).rows
    batch = pa.Table.from_batches([batch] * 200).combine_chunks().to_batches()[0]
    ids = pa.array(np.arange(len(batch))).cast(pa.string())
    large = TransactionBatch(batch).with_columns({"transaction_id": ids})
    killing = threading.Timer(seconds, subject.restart)
    writer = subject.sink.open(retries.append)
    killing.start()
    try:
        while not retries:
            assert writer.write(large) == []
    finally:
        killing.join()
        writer.close()
    assert subject.rows("SELECT count(*), count(DISTINCT transaction_id) FROM {}") == [(60_000, 60_000)]
    assert subject.rows("SELECT rows FROM {}_batches") == [(60_000,)]


def test_a_statement_that_waits_too_long_is_tried_again(subject: Subject) -> None:
    """Somebody else holds the table, for longer than a statement may take."""
    subject.make()
    batch, retries = decided(0, 10), 0

    def give_way(error: Exception) -> None:
        nonlocal retries
        assert isinstance(error, errors.QueryCanceled)
        holder.rollback()
        retries += 1

    writer = subject.sink_of(statement_timeout="1s").open(give_way)
    with subject.server.connect() as holder:
        holder.execute(f"LOCK TABLE {subject.table}".encode())
        try:
            assert writer.write(batch) == []
        finally:
            writer.close()
    check(subject, batch)
    assert retries == 1


def test_a_server_that_has_become_a_standby_is_connected_anew(subject: Subject) -> None:
    """After a failover the old connection can only read."""
    subject.make()
    batch, retries = decided(0, 10), 0

    def promote(error: Exception) -> None:
        nonlocal retries
        assert isinstance(error, errors.ReadOnlySqlTransaction)
        as_administrator(subject.server, "ALTER ROLE fraud RESET default_transaction_read_only")
        retries += 1

    as_administrator(subject.server, "ALTER ROLE fraud SET default_transaction_read_only = on")
    writer = subject.sink.open(promote)
    try:
        writer.write(batch)
    finally:
        writer.close()
    check(subject, batch)
    assert retries == 1


def test_a_table_that_is_not_there_is_said(subject: Subject) -> None:
    """With the command that creates it."""
    with pytest.raises(
        UserError, match=rf"no table public\.{subject.table} .* python -m io_connectors\.postgresql ddl"
    ):
        write_all(subject.sink_of(create="false"), [decided(0, 10)])


def test_missing_columns_come_with_the_statements_that_add_them(subject: Subject) -> None:
    """Those statements run as they are printed, and then the same writer goes on."""
    subject.make()
    subject.rows("ALTER TABLE {} DROP score, DROP customer_count_1d, DROP reasons")
    batch, writer = decided(0, 10), subject.sink.open(lambda error: None)
    try:
        with pytest.raises(UserError, match="no column customer_count_1d, score, reasons") as caught:
            writer.write(batch)
        subject.rows(str(caught.value).partition("\n")[2])
        assert writer.write(batch) == []
    finally:
        writer.close()
    check(subject, batch)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("ALTER TABLE {} ALTER score TYPE text", "column score is of type text, but what is written there is double"),
        ("ALTER TABLE {} ADD branch text NOT NULL", "column branch is NOT NULL without a default"),
        ("DROP TABLE {}_batches", 'no table public.*_batches(.|\n)*CREATE TABLE IF NOT EXISTS "public"'),
        ("REVOKE INSERT ON {} FROM fraud", "permission denied for table"),
    ],
)
def test_a_table_that_does_not_fit_is_said(subject: Subject, change: str, error: str) -> None:
    """A mistake of the table's is no mistake of its rows: none of them is refused."""
    subject.make()
    subject.rows(change)
    with pytest.raises(UserError, match=error):
        write_all(subject.sink_of(create="false"), [decided(0, 10)])


def test_columns_of_the_tables_own_are_left_alone(subject: Subject) -> None:
    """Such as a number that the database gives each row."""
    subject.make()
    subject.rows(
        "ALTER TABLE {} ADD n bigint GENERATED ALWAYS AS IDENTITY, ADD seen timestamptz NOT NULL DEFAULT now()"
    )
    batch = decided(0, 10)
    write_all(subject.sink, [batch])
    check(subject, batch)


def test_a_wrong_password_is_final_and_not_shown(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits five minutes for it."""
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    with pytest.raises(UserError, match=r"password authentication failed.*PGPASSFILE") as caught:
        write_all(subject.sink, [decided(0, 10)])
    assert "hunter2" not in str(caught.value)


def test_a_server_without_encryption_is_refused(subject: Subject) -> None:
    """Where encryption is asked for, nothing is sent without."""
    with pytest.raises(UserError, match="does not support SSL"):
        write_all(subject.sink_of(sslmode="require"), [decided(0, 10)])


def test_a_server_is_known_by_its_certificate(subject: Subject, tmp_path: Path) -> None:
    """With `sslrootcert` the server must have a certificate that it vouches for, made for the host's name."""
    data = subject.server.data
    own, other = tmp_path / "own.crt", tmp_path / "other.crt"
    for certificate in (own, other):
        options = ["-days", "1", "-subj", "/CN=db", "-addext", "subjectAltName=IP:127.0.0.1"]
        argv: list[str | Path] = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            certificate.with_suffix(".key"),
        ]
        run_program([*argv, "-out", certificate, *options], "making a certificate")
    for suffix in (".crt", ".key"):
        file = data / f"server{suffix}"
        file.write_bytes(own.with_suffix(suffix).read_bytes())
        file.chmod(0o600)
        run_program(["chown", "--reference", data, file], "giving it to the server")
    try:
        as_administrator(subject.server, "ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()")
        batch = decided(0, 10)
        write_all(subject.sink_of(sslrootcert=str(own)), [batch])
        check(subject, batch)
        with pytest.raises(UserError, match="certificate"):
            write_all(subject.sink_of(sslrootcert=str(other)), [batch])
    finally:
        as_administrator(subject.server, "ALTER SYSTEM RESET ssl", "SELECT pg_reload_conf()")


def as_administrator(server: Postgres, *statements: str) -> None:
    with server.connect("postgres", "postgres", autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def test_the_kaggle_layout_fills_the_wide_table(subject: Subject, capsys: pytest.CaptureFixture[str]) -> None:
    """`time` counts from the set's first second, `amount` has decimals, and an amount too large is refused."""
    assert ddl(POSTGRESQL, ["ddl", "--kaggle", "--table", f"public.{subject.table}"]) == 0
    subject.rows(capsys.readouterr().out)
    components = {f"v{n}": n / 3 for n in range(1, 29)}
    first = 1_377_993_600_000_000  # 2013-09-01
    rows: list[dict[str, Any]] = [
        {"transaction_id": "f:0", "event_time": first, "amount_minor": 14962, "is_fraud": 0, **components},
        {"transaction_id": "f:1", "event_time": first + 1_500_000, "amount_minor": 269, "is_fraud": None, **components},
        {"transaction_id": "f:2", "event_time": first, "amount_minor": 10**12, "is_fraud": 1, **components},
    ]
    batch = from_rows(rows, dict.fromkeys(components, pa.float64()))
    sink = subject.sink_of(create="false", layout="kaggle")
    refused = refused_by(sink, batch)
    assert [(each.at, each.reason) for each in refused] == [(2, "sqlstate_22003")]
    write_all(sink, [batch.slice(0, 2)])
    found = subject.rows("SELECT time, v1, v28, amount::text, class, transaction_id FROM {} ORDER BY time")
    assert found == [(0.0, 1 / 3, 28 / 3, "149.62", 0, "f:0"), (1.5, 1 / 3, 28 / 3, "2.69", None, "f:1")]


def test_the_statements_of_the_command_create_what_the_sink_would(
    subject: Subject, capsys: pytest.CaptureFixture[str]
) -> None:
    """Column for column, for the decisions of a schema and its model."""
    assert ddl(POSTGRESQL, ["ddl", "--schema", "handbook", "--table", f"public.{subject.table}"]) == 0
    subject.rows(capsys.readouterr().out)
    columns = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = '{}'"
    by_command = subject.rows(columns)
    assert ("terminal_risk_30d_delay_7d", "double precision") in by_command
    assert ("reasons", "ARRAY") in by_command
