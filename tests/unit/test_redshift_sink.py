from __future__ import annotations

import pickle
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from io_connectors.redshift.faults import fault_of
from io_connectors.redshift.sink import RedshiftSink, redshift_sink
from io_connectors.redshift.staging import Staging, parquet_of
from io_connectors.s3.objects import Location
from io_connectors.sinks import DECISION_SINKS
from io_connectors.sql.columns import ARROW_TYPES
from io_connectors.urls import parse_url
from transforms.errors import UserError

ROLE = "arn:aws:iam::123456789012:role/team/load"
BASE = f"redshift://warehouse/dev/public/decisions?region=eu-west-1&role={ROLE}&staging=s3://fraud/staging"


def sink_of(text: str) -> RedshiftSink:
    return redshift_sink(parse_url(text, DECISION_SINKS, "--sink"))


def test_a_url_names_a_table_of_a_warehouse() -> None:
    """And where its batches lie."""
    sink = sink_of(BASE)
    assert (sink.warehouse.name, sink.warehouse.database, sink.table.name.plain) == (
        "warehouse",
        "dev",
        "public.decisions",
    )
    assert str(sink.staging) == "s3://fraud/staging"
    assert pickle.loads(pickle.dumps(sink)).warehouse == sink.warehouse  # noqa: S301 - made here


@pytest.mark.parametrize(
    ("parameters", "where"),
    [
        ("", {"ClusterIdentifier": "warehouse", "Database": "dev"}),
        ("&user=loader", {"ClusterIdentifier": "warehouse", "Database": "dev", "DbUser": "loader"}),
        ("&secret=arn", {"ClusterIdentifier": "warehouse", "Database": "dev", "SecretArn": "arn"}),
        ("&serverless=true", {"WorkgroupName": "warehouse", "Database": "dev"}),
    ],
)
def test_the_data_api_is_told_who_and_where(parameters: str, where: dict[str, str]) -> None:
    """A user, a secret, or our own identity; a cluster or a workgroup."""
    assert sink_of(BASE + parameters).warehouse.where() == where


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("redshift://warehouse/public/decisions", "write redshift://cluster/database/schema/table"),
        ("redshift://Ware_house/dev/public/decisions", "write redshift://"),
        ("redshift://warehouse/dev/public/decisions", "staging must be s3://bucket/prefix"),
        (BASE.replace("s3://fraud/staging", "/tmp/x"), "staging must be s3://bucket/prefix"),  # noqa: S108 - no file
        (BASE.replace("fraud/staging", "F"), "no name of a bucket"),
        (BASE + "%27", "the prefix in staging may have"),
        (BASE.replace(ROLE, "load"), "role must be the ARN"),
        (BASE.replace(ROLE, ROLE + "%27%20CREDENTIALS%20%27"), "role must be the ARN"),
        (BASE.replace(f"&role={ROLE}", ""), "role must be the ARN"),
        (BASE + "&via=dataapi", "did you mean data-api?"),
        (BASE + "&host=db", "host= is of a connection"),
        (BASE + "&via=connector&port=5439", "port= goes with host="),
        (BASE + "&via=connector&host=db&sslmode=disable", "over a network"),
        (BASE + "&user=a&secret=b", "not both"),
        (BASE + "&serverless=true&user=a", "leave user= out"),
        (BASE + "&aws_secret_access_key=x", "unknown parameter"),
    ],
)
def test_what_cannot_be_is_said_at_once(text: str, error: str) -> None:
    """Before anything is read."""
    with pytest.raises(UserError, match=error):
        sink_of(text)


def test_a_connection_over_a_network_is_encrypted_and_its_server_known() -> None:
    """On this machine, where tunnels end, it is as the URL says."""
    assert sink_of(BASE + "&via=connector").warehouse.sslmode == "verify-full"
    assert sink_of(BASE + "&via=connector&host=db.example.com").warehouse.sslmode == "verify-full"
    assert sink_of(BASE + "&via=connector&host=127.0.0.1").warehouse.sslmode == "disable"


BATCH = pa.RecordBatch.from_arrays(
    [
        pa.array(["a", None], ARROW_TYPES["text"]),
        pa.array([0, None], ARROW_TYPES["time"]),
        pa.array([1, None], ARROW_TYPES["small"]),
        pa.array([2**40, None], ARROW_TYPES["big"]),
        pa.array([0.5, None], ARROW_TYPES["double"]),
        pa.array([True, None], ARROW_TYPES["flag"]),
        pa.array(["[]", None], ARROW_TYPES["text"]),
    ],
    names=["transaction_id", "event_time", "is_fraud", "amount_minor", "score", "late", "reasons"],
)


def test_a_file_has_only_what_copy_takes() -> None:
    """No whole numbers of 16 bits, no times with a zone, no lists, nothing nested, and nothing but Snappy."""
    file = pq.ParquetFile(BytesIO(parquet_of(BATCH)))
    columns = [file.schema.column(at) for at in range(len(file.schema))]
    assert [(column.name, column.physical_type, str(column.logical_type)) for column in columns] == [
        ("transaction_id", "BYTE_ARRAY", "String"),
        ("event_time", "INT64", str(columns[1].logical_type)),
        ("is_fraud", "INT32", "None"),
        ("amount_minor", "INT64", "None"),
        ("score", "DOUBLE", "None"),
        ("late", "BOOLEAN", "None"),
        ("reasons", "BYTE_ARRAY", "String"),
        ("row_of_batch", "INT32", "None"),
    ]
    assert columns[1].converted_type == "TIMESTAMP_MICROS"
    group = file.metadata.row_group(0)
    assert {group.column(at).compression for at in range(group.num_columns)} == {"SNAPPY"}
    assert file.read().column("row_of_batch").to_pylist() == [0, 1]


class Puts:
    """S3 that only takes."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, bucket: str, key: str, content: bytes, content_type: str) -> None:
        assert self.objects.setdefault(f"s3://{bucket}/{key}", content) == content


def test_names_tell_contents() -> None:
    """The same rows have the same names, whatever they are a view into; others have others."""
    puts: Any = Puts()
    staging = Staging(Location("fraud", "staging"), puts)
    first = staging.put(BATCH)
    again = staging.put(pa.concat_batches([BATCH.slice(1), BATCH]).slice(1))
    assert first == again
    assert first.manifest == f"s3://fraud/staging/{first.batch_id}.manifest"
    assert set(puts.objects) == {first.manifest, f"s3://fraud/staging/{first.batch_id}.parquet"}
    assert staging.put(BATCH.slice(1)).batch_id != first.batch_id


@pytest.mark.parametrize(
    ("state", "words", "fault"),
    [
        ("XX000", "1023 DETAIL: Serializable isolation violation on table - 112", "TRANSIENT"),
        ("", "ERROR: 1018 DETAIL: Relation does not exist", "TRANSIENT"),
        ("57014", "Query (7) cancelled on user's request", "TRANSIENT"),
        ("XX000", "S3ServiceException:Please reduce your request rate.,Status 503,Error SlowDown", "TRANSIENT"),
        ("XX000", "Load into table 'staged' failed. Check 'sys_load_error_detail' system table", "DATA"),
        ("22001", "value too long for type character varying(256)", "DATA"),
        ("", "ERROR: Numeric data overflow (result precision)", "DATA"),
        ("42501", "permission denied for relation decisions", "REFUSED"),
        ("", 'ERROR: relation "public.decisions" does not exist', "REFUSED"),
        ("XX000", "S3ServiceException:Access Denied,Status 403,Error AccessDenied", "REFUSED"),
        ("", "ERROR: syntax error at or near", "FINAL"),
    ],
)
def test_redshifts_errors_are_told_apart(state: str, words: str, fault: str) -> None:
    """By their state where they have one that says something, else by their words."""
    assert fault_of(state, words).name == fault
