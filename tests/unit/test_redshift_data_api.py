"""The Data API has no stand-in: its calls are held against AWS's own description of them, and its answers made up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pyarrow as pa
import pytest
from botocore.stub import ANY, Stubber

from io_connectors.redshift.connector import cluster_endpoint, host_endpoint, workgroup_endpoint
from io_connectors.redshift.data_api import DataApi, StatementFailedError, StatementTimeoutError
from io_connectors.redshift.database import RedshiftDatabase
from io_connectors.redshift.staging import Staged, Staging
from io_connectors.retry import Backoff
from io_connectors.sql.columns import Column
from io_connectors.sql.credentials import Credentials
from io_connectors.sql.dialects import REDSHIFT
from io_connectors.sql.faults import Fault
from io_connectors.sql.names import TableName
from io_connectors.sql.statements import Target
from transforms.errors import UserError

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ID = "0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f"
WHERE = {"ClusterIdentifier": "warehouse", "Database": "dev"}
VALUES: dict[str, str | int] = {"batch_id": "0f", "rows": 7}
NOBODY = {"region_name": "eu-west-1", "aws_access_key_id": "x", "aws_secret_access_key": "x"}
SQL = ["SELECT :batch_id", "SELECT :rows"]


class Clock:
    """Time passes while one waits."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def backoff(self) -> Backoff:
        return Backoff(sleep=self.sleep, clock=lambda: self.seconds, uniform=lambda low, high: high)


class Api:
    """The Data API with answers of the test's."""

    def __init__(self) -> None:
        client = boto3.client("redshift-data", **NOBODY)
        self.stub = Stubber(client)
        self.stub.activate()
        self.clock = Clock()
        self.api = DataApi(client, WHERE, 60.0, self.clock.backoff(), lambda: NOW)

    def expect_batch(self, tokens: list[str], **answer: Any) -> None:
        """The next call runs a batch; its token is noted."""
        expected = {
            **WHERE,
            "Sqls": SQL,
            "StatementName": "fraud-detection",
            "ClientToken": _Noted(tokens),
            "Parameters": [{"name": "batch_id", "value": "0f"}, {"name": "rows", "value": "7"}],
        }
        self.stub.add_response("batch_execute_statement", {"Id": ID, **answer}, expected)

    def expect_describe(self, status: str, created: datetime = NOW, **more: Any) -> None:
        answer = {"Id": ID, "Status": status, "CreatedAt": created, **more}
        self.stub.add_response("describe_statement", answer, {"Id": ID, "WaitTimeSeconds": 10})


class _Noted:
    """Equals anything, and notes it."""

    def __init__(self, noted: list[str]) -> None:
        self.noted = noted

    def __eq__(self, other: object) -> bool:
        self.noted.append(str(other))
        return True

    __hash__ = None  # type: ignore[assignment]


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    yield api
    api.stub.assert_no_pending_responses()
    api.api.close()


def test_a_transaction_is_one_call_and_is_waited_for(api: Api) -> None:
    """With values bound, and a token of 1 to 64 characters that depends on what is run."""
    tokens: list[str] = []
    api.expect_batch(tokens)
    for status in ("SUBMITTED", "PICKED", "STARTED", "FINISHED"):
        api.expect_describe(status)
    api.api.run(SQL, VALUES)
    assert api.clock.seconds == pytest.approx(0.1 + 0.2 + 0.4)
    api.expect_batch(tokens)
    api.expect_describe("FINISHED")
    api.api.run(SQL, VALUES)
    assert len(set(tokens)) == 1
    assert 1 <= len(tokens[0]) <= 64


def test_a_call_whose_answer_was_lost_is_made_again_with_the_same_token(api: Api) -> None:
    """AWS takes both for one call."""
    tokens: list[str] = []
    api.stub.add_client_error(
        "batch_execute_statement", "InternalServerException", http_status_code=500, expected_params=ANY_CALL
    )
    with pytest.raises(api.api.client.exceptions.InternalServerException) as caught:
        api.api.run(SQL, VALUES)
    assert api.api.fault(caught.value) is Fault.TRANSIENT
    for _ in range(2):
        api.expect_batch(tokens)
        api.expect_describe("FINISHED")
        api.api.run(SQL, VALUES)
    assert len(set(tokens)) == 1


def test_what_failed_is_run_again_with_another_token(api: Api) -> None:
    """With the same one AWS would go on telling of the failure."""
    tokens: list[str] = []
    api.expect_batch(tokens)
    sub = [
        {"Id": f"{ID}:1", "Status": "FINISHED"},
        {"Id": f"{ID}:2", "Status": "FAILED", "Error": "ERROR: 1023 DETAIL: Serializable isolation violation on table"},
        {"Id": f"{ID}:3", "Status": "ABORTED", "Error": ""},
    ]
    api.expect_describe("FAILED", Error="some statement failed", SubStatements=sub)
    with pytest.raises(StatementFailedError, match="Serializable isolation violation") as caught:
        api.api.run(SQL, VALUES)
    assert api.api.fault(caught.value) is Fault.TRANSIENT
    api.expect_batch(tokens)
    api.expect_describe("FINISHED")
    api.api.run(SQL, VALUES)
    assert len(set(tokens)) == 2


def test_a_failure_of_long_ago_is_not_taken_for_todays(api: Api) -> None:
    """A worker that starts anew begins with the first token, and AWS remembers what became of it."""
    tokens: list[str] = []
    api.expect_batch(tokens)
    api.expect_describe("FAILED", NOW - timedelta(hours=1), Error="ERROR: permission denied")
    api.expect_batch(tokens)
    api.expect_describe("FINISHED")
    api.api.run(SQL, VALUES)
    assert len(set(tokens)) == 2


def test_throttling_while_one_waits_is_waited_out(api: Api) -> None:
    """The statement goes on meanwhile."""
    api.expect_batch([])
    api.stub.add_client_error("describe_statement", "ThrottlingException", http_status_code=400)
    api.stub.add_client_error("describe_statement", "ActiveWaitingRequestsExceededException", http_status_code=400)
    api.expect_describe("FINISHED")
    api.api.run(SQL, VALUES)
    assert api.clock.seconds > 0


def test_a_statement_that_takes_too_long_is_cancelled(api: Api) -> None:
    """And may be run again: its transaction is rolled back, or the ledger knows of it."""
    api.expect_batch([])
    for _ in range(11):  # with waits of 0.1 to 20 seconds between them
        api.expect_describe("STARTED")
    api.stub.add_client_error("cancel_statement", "ValidationException", "it has finished meanwhile")
    with pytest.raises(StatementTimeoutError) as caught:
        api.api.run(SQL, VALUES)
    assert api.api.fault(caught.value) is Fault.TRANSIENT


@pytest.mark.parametrize(
    ("code", "status", "fault"),
    [
        ("ActiveStatementsExceededException", 400, Fault.TRANSIENT),
        ("ThrottlingException", 400, Fault.TRANSIENT),
        ("ServiceUnavailable", 503, Fault.TRANSIENT),
        ("AccessDeniedException", 400, Fault.REFUSED),
        ("ResourceNotFoundException", 400, Fault.REFUSED),
        ("UnrecognizedClientException", 400, Fault.REFUSED),
    ],
)
def test_calls_that_aws_refuses_are_told_apart(api: Api, code: str, status: int, fault: Fault) -> None:
    """Those that go away, and those that somebody must mend."""
    api.stub.add_client_error("batch_execute_statement", code, http_status_code=status)
    with pytest.raises(api.api.client.exceptions.ClientError) as caught:
        api.api.run(SQL, VALUES)
    assert api.api.fault(caught.value) is fault
    assert api.api.reason(caught.value)[0] == code


def test_the_columns_of_a_table_are_asked_for_and_read(api: Api) -> None:
    """Over pages, with NULL, numbers and truth as AWS tells them, and names bound."""
    expected = {
        **WHERE,
        "Sql": REDSHIFT.catalogue,
        "Parameters": [{"name": "schema", "value": "public"}, {"name": "table", "value": "decisions"}],
    }
    api.stub.add_response("execute_statement", {"Id": ID}, expected)
    api.expect_describe("FINISHED", HasResultSet=True)
    pages = [
        [[{"stringValue": "score"}, {"stringValue": "double precision"}, {"isNull": True}, {"booleanValue": False}]],
        [[{"stringValue": "id"}, {"stringValue": "character varying"}, {"longValue": 256}, {"booleanValue": True}]],
    ]
    api.stub.add_response("get_statement_result", {"Records": pages[0], "NextToken": "more"}, {"Id": ID})
    api.stub.add_response("get_statement_result", {"Records": pages[1]}, {"Id": ID, "NextToken": "more"})
    database = RedshiftDatabase(api.api, Staging(None, None), "default")  # type: ignore[arg-type]
    assert database.columns(TableName("public", "decisions")) == [
        ("score", "double precision", None, False),
        ("id", "character varying", 256, True),
    ]


def test_a_batch_is_loaded_with_values_that_are_all_used(api: Api) -> None:
    """AWS refuses a call with a value that no statement names; and there is no literal of the batch's own."""

    class Here(Staging):
        def put(self, values: Any) -> Staged:
            return Staged("0f" * 16, "s3://fraud/staging/0f.manifest")

    said: list[Any] = []

    class Told(DataApi):
        def run(self, statements: Any, values: Any) -> None:
            said.append((statements, values))

    told = Told(api.api.client, WHERE, 60.0, Backoff())
    columns = (Column("transaction_id", "text"), Column("event_time", "time"))
    target = Target(REDSHIFT, TableName("public", "decisions"), columns, "keep", locked=True)
    batch = pa.record_batch({"transaction_id": ["a"], "event_time": pa.array([0], pa.timestamp("us"))})
    RedshiftDatabase(told, Here(None, None), "default").load(batch, target)  # type: ignore[arg-type]
    ((statements, values),) = said
    assert values == {"batch_id": "0f" * 16, "rows": 1}
    assert all(any(f":{name}" in statement for statement in statements) for name in values)
    assert not any("0f0f" in statement for statement in statements)


ANY_CALL = {
    **WHERE,
    "Sqls": ANY,
    "StatementName": ANY,
    "ClientToken": ANY,
    "Parameters": ANY,
}


def stubbed(service: str, *calls: tuple[str, dict[str, Any], dict[str, Any]]) -> Any:
    client = boto3.client(service, **NOBODY)
    stub = Stubber(client)
    for operation, expected, answer in calls:
        stub.add_response(operation, answer, expected)
    stub.activate()
    return client


CLUSTER = (
    "describe_clusters",
    {"ClusterIdentifier": "c"},
    {"Clusters": [{"Endpoint": {"Address": "h", "Port": 5439}}]},
)
GIVEN = {"DbUser": "IAM:me", "DbPassword": "temporary"}


def test_a_cluster_is_asked_where_it_is_and_for_credentials() -> None:
    """Of our own identity, of a named user, or none when a secret has them."""
    which = {"ClusterIdentifier": "c", "DbName": "dev", "DurationSeconds": 900}
    own = stubbed("redshift", CLUSTER, ("get_cluster_credentials_with_iam", which, GIVEN))
    assert cluster_endpoint(own, "c", "dev", None, None) == ("h", 5439, ("IAM:me", "temporary"))
    named = {**which, "DbUser": "loader", "AutoCreate": False}
    user = stubbed("redshift", CLUSTER, ("get_cluster_credentials", named, GIVEN))
    assert cluster_endpoint(user, "c", "dev", "loader", None).credentials == ("IAM:me", "temporary")
    secret = Credentials("s", "p")
    assert cluster_endpoint(stubbed("redshift", CLUSTER), "c", "dev", None, secret).credentials == secret


def test_a_cluster_that_is_paused_is_said() -> None:
    """It has no endpoint."""
    paused = stubbed("redshift", ("describe_clusters", {"ClusterIdentifier": "c"}, {"Clusters": [{}]}))
    with pytest.raises(UserError, match="cluster c has no endpoint"):
        cluster_endpoint(paused, "c", "dev", None, None)


def test_a_workgroup_is_asked_likewise() -> None:
    """It knows users by their identity alone."""
    where = {"workgroup": {"endpoint": {"address": "h", "port": 5439}}}
    given = {"dbUser": "IAM:me", "dbPassword": "temporary"}
    client = stubbed(
        "redshift-serverless",
        ("get_workgroup", {"workgroupName": "work"}, where),
        ("get_credentials", {"workgroupName": "work", "dbName": "dev", "durationSeconds": 900}, given),
    )
    assert workgroup_endpoint(client, "work", "dev", None) == ("h", 5439, ("IAM:me", "temporary"))


def test_a_named_host_is_asked_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """User and password are those of the environment, unless a secret or the URL says otherwise."""
    monkeypatch.setenv("PGUSER", "u")
    monkeypatch.setenv("PGPASSWORD", "p")
    assert host_endpoint("h", 1, None, None) == ("h", 1, ("u", "p"))
    assert host_endpoint("h", 1, "v", None).credentials == ("v", "p")
    assert host_endpoint("h", 1, None, Credentials("s", "t")).credentials == ("s", "t")
    monkeypatch.delenv("PGUSER")
    with pytest.raises(UserError, match="needs the database's user"):
        host_endpoint("h", 1, None, None)
