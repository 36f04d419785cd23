from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import botocore.exceptions
import psycopg
import pytest

from io_connectors.postgresql.server import PostgresqlDatabase
from io_connectors.postgresql.sink import PostgresqlSink, postgresql_sink
from io_connectors.sinks import DECISION_SINKS, decision_sink
from io_connectors.sql import credentials
from io_connectors.sql.faults import Fault
from io_connectors.urls import parse_url
from transforms.errors import UserError

BASE = "postgresql://fraud@db.example.com/fraud/public/decisions"


def sink_of(text: str) -> PostgresqlSink:
    return postgresql_sink(parse_url(text, DECISION_SINKS, "--sink"))


@pytest.mark.parametrize(
    ("text", "host", "port", "user"),
    [
        (BASE, "db.example.com", 5432, "fraud"),
        ("postgresql://db:15432/fraud/public/decisions", "db", 15432, None),
        ("postgresql://a%40b@[::1]:1/fraud/public/decisions", "::1", 1, "a@b"),
    ],
)
def test_a_url_names_a_table_of_a_server(text: str, host: str, port: int, user: str | None) -> None:
    """User and port may be left out."""
    sink = sink_of(text)
    assert (sink.server.host, sink.server.port, sink.server.user, sink.server.database) == (host, port, user, "fraud")
    assert sink.table.name.plain == "public.decisions"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("postgresql://fraud@db/fraud/decisions", "write postgresql://user@host:port/database/schema/table"),
        ("postgresql://fraud:secret@db/fraud/public/decisions", "user:password@"),
        ("postgresql://db/fraud/public/Decisions", "table 'Decisions': a name in the database"),
        ("postgresql://db/fraud/public/x;y", "a name in the database"),
        ("postgresql://db:0/fraud/public/x", "there is no port 0"),
        ("postgresql://db:99999/fraud/public/x", "there is no port 99999"),
        (BASE + "?existing=kep", "did you mean keep?"),
        (BASE + "?layout=kagle", "did you mean kaggle?"),
        (BASE + "?create=yes", "create must be true or false"),
        (BASE + "?sslmode=allow", "sslmode must be"),
        (BASE + "?statement_timeout=0s", "statement_timeout must be at least 1s"),
        (BASE + "?password=x", "unknown parameter 'password'"),
        (BASE + "?iam=true&secret=arn", "two ways to get a password"),
        (BASE + "?iam=true&sslmode=prefer&region=eu-west-1", "must be encrypted"),
        ("postgresql://db/fraud/public/x?iam=true", "needs the database's user"),
    ],
)
def test_what_cannot_be_is_said_at_once(text: str, error: str) -> None:
    """Before anything is read."""
    with pytest.raises(UserError, match=error) as caught:
        sink_of(text)
    assert "secret@" not in str(caught.value)


def test_tokens_need_a_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is looked for where AWS's own tools look."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(UserError, match="no AWS region"):
        sink_of(BASE + "?iam=true")


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        (BASE, "require"),
        (BASE + "?sslrootcert=/etc/rds.pem", "verify-full"),
        (BASE + "?sslrootcert=/etc/rds.pem&sslmode=verify-ca", "verify-ca"),
        ("postgresql://127.0.0.1/fraud/public/decisions", "prefer"),
        ("postgresql://localhost/fraud/public/decisions?sslmode=require", "require"),
    ],
)
def test_what_crosses_a_network_is_encrypted(text: str, mode: str) -> None:
    """And the server is known where there is something to know it by."""
    assert sink_of(text).server.sslmode == mode


def test_a_sink_can_be_sent_to_a_worker_and_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The password is looked up by whoever connects."""
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    sent = pickle.dumps(sink_of(BASE + "?secret=arn:aws:secretsmanager:eu-west-1:123456789012:secret:db"))
    assert b"hunter2" not in sent
    assert pickle.loads(sent).server.secret.endswith(":db")  # noqa: S301 - made a line above


def test_a_token_is_made_for_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is signed here, for host, port and user, and holds for a quarter of an hour."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    server = sink_of(BASE + "?iam=true&region=eu-west-1").server
    token = server.token()
    assert token.startswith("db.example.com:5432/?Action=connect&DBUser=fraud&")
    assert "X-Amz-Expires=900" in token
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(botocore.exceptions.NoCredentialsError):
        server.token()


class Secrets:
    """Secrets Manager with one secret."""

    def __init__(self, content: str) -> None:
        self.content = content

    def get_secret_value(self, SecretId: str) -> dict[str, Any]:  # noqa: N803 - AWS's name
        return {"SecretString": self.content}

    def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(("user", "found"), [(None, "in-secret"), ("given", "given")])
def test_a_secret_has_user_and_password(monkeypatch: pytest.MonkeyPatch, user: str | None, found: str) -> None:
    """In the form in which RDS keeps it; a user in the URL stands above the secret's."""
    content = '{"username": "in-secret", "password": "hunter2", "engine": "postgres", "port": 5432}'
    monkeypatch.setattr("io_connectors.aws.client", lambda *_: Secrets(content))
    assert credentials.secret_credentials("arn", user, None, None) == (found, "hunter2")


@pytest.mark.parametrize("content", ["hunter2", '{"password": "hunter2"}', "[]", ""])
def test_a_secret_of_another_form_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    """None of it is in the message."""
    monkeypatch.setattr("io_connectors.aws.client", lambda *_: Secrets(content))
    with pytest.raises(UserError, match="secret arn is not a JSON object") as caught:
        credentials.secret_credentials("arn", None, None, None)
    assert "hunter2" not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_errors_are_told_apart() -> None:
    """What goes away, what is some row's fault, what somebody must mend, and what nobody can."""
    database = PostgresqlDatabase(lambda: None)  # type: ignore[arg-type, return-value]
    faults = {
        psycopg.OperationalError("server closed the connection unexpectedly"): Fault.TRANSIENT,
        psycopg.InterfaceError("the connection is closed"): Fault.TRANSIENT,
        psycopg.ProgrammingError("the query has 1 placeholder but 2 parameters were passed"): Fault.FINAL,
        psycopg.errors.DeadlockDetected(): Fault.TRANSIENT,
        psycopg.errors.SerializationFailure(): Fault.TRANSIENT,
        psycopg.errors.AdminShutdown(): Fault.TRANSIENT,
        psycopg.errors.QueryCanceled(): Fault.TRANSIENT,
        psycopg.errors.TooManyConnections(): Fault.TRANSIENT,
        psycopg.errors.DiskFull(): Fault.TRANSIENT,
        psycopg.errors.ReadOnlySqlTransaction(): Fault.TRANSIENT,
        psycopg.errors.NumericValueOutOfRange(): Fault.DATA,
        psycopg.errors.CheckViolation(): Fault.DATA,
        psycopg.errors.UniqueViolation(): Fault.DATA,
        psycopg.errors.ProgramLimitExceeded(): Fault.DATA,  # an id too long for an index
        psycopg.errors.InsufficientPrivilege(): Fault.REFUSED,
        psycopg.errors.UndefinedTable(): Fault.REFUSED,
        psycopg.errors.SyntaxError(): Fault.FINAL,
        ValueError("ours"): Fault.FINAL,
    }
    assert {error: database.fault(error) for error in faults} == faults


def test_psycopg_is_imported_when_its_sink_is_opened() -> None:
    """A run that does without starts sooner."""
    check = f"""
import sys
import io_connectors.sinks
assert "psycopg" not in sys.modules
io_connectors.sinks.decision_sink("{BASE}")
assert "psycopg" in sys.modules
"""
    subprocess.run([sys.executable, "-c", check], check=True)
    assert decision_sink(BASE)
