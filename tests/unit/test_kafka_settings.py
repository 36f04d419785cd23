"""What a Kafka URL may say, and what is refused before anybody is spoken to."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from io_connectors.kafka.check import check_source
from io_connectors.kafka.settings import (
    KAFKA_SINK,
    KAFKA_SOURCE,
    Cluster,
    ReadSettings,
    WriteSettings,
    read_settings,
    write_settings,
)
from io_connectors.moments import Moment
from io_connectors.urls import parse_url
from transforms.errors import UserError


def read(url: str) -> ReadSettings:
    return read_settings(parse_url(url, {"kafka": KAFKA_SOURCE}, "--source"), 500)


def write(url: str) -> WriteSettings:
    return write_settings(parse_url(url, {"kafka": KAFKA_SINK}, "--sink"))


def test_little_need_be_said() -> None:
    """A topic is read whole, without an end, committed records only, by the faster client."""
    assert read("kafka://b1:9092,b2:9092/tx") == ReadSettings(
        cluster=Cluster("b1:9092,b2:9092", client="confluent"),
        topic="tx",
        start=Moment("earliest"),
        isolation="read_committed",
        watermark_delay=2_000_000,
        discover=10_000_000,
        batch_rows=500,
    )


def test_much_may_be_said(tmp_path: Path) -> None:
    """Every parameter ends up where it belongs, and the settings survive the way to a worker."""
    pem = tmp_path / "a.pem"
    pem.touch()
    found = read(
        "kafka://[::1]:9094/tx?start=latest&until=timestamp:1700000000000&max_records=7&max_duration=90s&group=g"
        "&isolation=read_uncommitted&on_missing=skip&watermark_delay=0&discover=1m&client=kafka-python"
        f"&security=sasl_ssl&mechanism=SCRAM-SHA-256&ca={pem}&certificate={pem}&key={pem}&secret=AmazonMSK_x"
        "&region=eu-west-1&endpoint=http://127.0.0.1:4566"
    )
    assert found == ReadSettings(
        cluster=Cluster(
            "[::1]:9094",
            "kafka-python",
            "sasl_ssl",
            "SCRAM-SHA-256",
            ca=str(pem),
            certificate=str(pem),
            key=str(pem),
            secret="AmazonMSK_x",  # noqa: S106 - its name
            region="eu-west-1",
            endpoint="http://127.0.0.1:4566",
        ),
        topic="tx",
        start=Moment("latest"),
        until=Moment("timestamp", 1_700_000_000_000),
        max_records=7,
        max_duration=90_000_000,
        group="g",
        isolation="read_uncommitted",
        skip_missing=True,
        watermark_delay=0,
        discover=60_000_000,
        batch_rows=500,
    )
    assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301 - our own


@pytest.mark.parametrize(
    ("end", "bounded"),
    [("", False), ("until=latest", True), ("max_records=1", True), ("max_duration=1s", True), ("start=latest", False)],
)
def test_an_end_makes_reading_bounded(end: str, bounded: bool) -> None:
    """Any of three ends does."""
    assert read(f"kafka://b:1/tx?{end}" if end else "kafka://b:1/tx").bounded == bounded


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("kafka://b/tx", "'b' is no host:port"),
        ("kafka://b:9092,:9/tx", "':9' is no host:port"),
        ("kafka://b:9092", "'' is no name of a topic"),
        ("kafka://b:9092/a/b", "'a/b' is no name of a topic"),
        ("kafka://b:9092/..", "'..' is no name of a topic"),
        ("kafka://u:secret@b:9092/tx", "user:password@"),
        ("kafka://b:1/tx?strat=latest", "unknown parameter 'strat'.*did you mean start"),
        ("kafka://b:1/tx?start=latst", "start must be earliest, latest.*did you mean latest"),
        ("kafka://b:1/tx?until=earliest", "until must be latest"),
        ("kafka://b:1/tx?start=timestamp:soon", "'soon' is no time"),
        ("kafka://b:1/tx?max_records=0", "max_records must be a whole number of at least 1"),
        ("kafka://b:1/tx?max_duration=5", "'5' is not a duration"),
        ("kafka://b:1/tx?discover=1ms", "discover must be at least 1s"),
        ("kafka://b:1/tx?isolation=committed", "isolation must be read_committed.*did you mean read_committed"),
        ("kafka://b:1/tx?on_missing=ignore", "on_missing must be fail or skip"),
        ("kafka://b:1/tx?client=librdkafka", "client must be confluent or kafka-python"),
        ("kafka://b:1/tx?security=tls", "security must be plaintext"),
        ("kafka://b:1/tx?security=sasl_ssl", "security=sasl_ssl needs mechanism=SCRAM-SHA-512"),
        ("kafka://b:1/tx?mechanism=PLAIN", "mechanism= would not be used with security=plaintext"),
        ("kafka://b:1/tx?security=sasl_ssl&mechanism=SCRAM", "mechanism must be SCRAM-SHA-512"),
        ("kafka://b:1/tx?security=ssl&ca=/nowhere.pem", "ca=/nowhere.pem: there is no such file"),
        (f"kafka://b:1/tx?ca={__file__}", "ca would not be used with security=plaintext"),
        (f"kafka://b:1/tx?security=ssl&key={__file__}", "a client's certificate needs its key"),
        ("kafka://b:1/tx?security=sasl_ssl&mechanism=AWS_MSK_IAM&secret=s", "secret= holds a username and a password"),
    ],
)
def test_mistakes_are_refused_with_what_to_write(url: str, message: str) -> None:
    """Each error names the parameter, what was found and what there is."""
    with pytest.raises(UserError, match=message):
        read(url)


def test_iam_never_goes_over_an_open_line() -> None:
    """MSK's access control wants TLS; a signed URL on an open line would let in whoever listens."""
    with pytest.raises(UserError, match="AWS_MSK_IAM needs security=sasl_ssl"):
        read("kafka://b:1/tx?security=sasl_plaintext&mechanism=AWS_MSK_IAM")


def test_a_sink_takes_no_reading() -> None:
    """Parameters of the source are unknown to the sink; compression is its own."""
    assert write("kafka://b:1/decisions") == WriteSettings(Cluster("b:1"), "decisions", "lz4")
    assert write("kafka://b:1/decisions?compression=zstd").compression == "zstd"
    with pytest.raises(UserError, match="unknown parameter 'start'"):
        write("kafka://b:1/decisions?start=latest")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("start=timestamp:2030-01-01", "start lies in the future"),
        ("until=timestamp:2030-01-01", "until lies in the future; to stop after a while, give max_duration="),
        ("start=timestamp:2020-01-02&until=timestamp:2020-01-01", "until lies before start"),
        ("start=latest&until=timestamp:2020-01-01", "until lies before start"),
    ],
)
def test_moments_that_make_no_sense_are_refused(query: str, message: str) -> None:
    """Before any broker is asked: there is none here."""
    with pytest.raises(UserError, match=message):
        check_source(read(f"kafka://127.0.0.1:9/tx?{query}"), now=lambda: 1_700_000_000.0)
