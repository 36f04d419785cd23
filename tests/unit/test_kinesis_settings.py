"""What can be said wrongly of a stream, and what is found out before anything is read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError
from botocore.stub import Stubber

from io_connectors.kinesis import connect
from io_connectors.kinesis.api import KinesisApi
from io_connectors.kinesis.check import check_source, check_stream, consumer_arn
from io_connectors.kinesis.settings import KINESIS_SOURCE, ReadSettings, Stream, read_settings
from io_connectors.moments import Moment
from io_connectors.sources import open_source
from io_connectors.urls import parse_url
from transforms.durations import HOUR, SECOND
from transforms.errors import UserError
from transforms.schema import load_schema

ARN = "arn:aws:kinesis:eu-west-1:123456789012:stream/events"
CONSUMER = f"{ARN}/consumer/fraud:1700000000"
STREAM = Stream("events", None, "eu-west-1", "http://127.0.0.1:9")


def settings(text: str) -> ReadSettings:
    return read_settings(parse_url(text, {"kinesis": KINESIS_SOURCE}), 100)


def test_every_parameter_is_read() -> None:
    """Each ends where it belongs."""
    found = settings(
        "kinesis://events?start=latest&until=timestamp:1700000000000&max_records=5&max_duration=1h&consumer=fraud"
        "&on_missing=skip&watermark_delay=2s&region=eu-west-1&endpoint=http://127.0.0.1:9"
    )
    assert found == ReadSettings(
        STREAM, Moment("latest"), Moment("timestamp", 1_700_000_000_000), 5, HOUR, "fraud", True, 2 * SECOND, 100
    )
    assert found.bounded


def test_a_stream_may_be_named_by_its_arn() -> None:
    """It may be another account's, and says its region."""
    stream = settings(f"kinesis://{ARN}").stream
    assert stream == Stream("events", ARN, "eu-west-1", None)
    assert stream.target == {"StreamARN": ARN}


def test_without_an_end_it_is_endless() -> None:
    """Any of three parameters ends it."""
    assert not settings("kinesis://events").bounded
    for end in ("until=latest", "max_records=1", "max_duration=1s"):
        assert settings(f"kinesis://events?{end}").bounded


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("kinesis://ev ents", "'ev ents' is no stream's name or ARN"),
        ("kinesis://127.0.0.1:4567/events", "is no stream's name or ARN"),
        (f"kinesis://{ARN}?region=us-east-1", "is not the region of the ARN"),
        ("kinesis://events?start=ealiest", "found 'ealiest'; did you mean earliest"),
        ("kinesis://events?until=earliest", "until must be latest"),
        ("kinesis://events?start=timestamp:yesterday", "'yesterday' is no time"),
        ("kinesis://events?max_records=0", "max_records must be a whole number of at least 1"),
        ("kinesis://events?max_duration=0s", "max_duration must be at least"),
        ("kinesis://events?on_missing=ignore", "on_missing must be fail or skip"),
        ("kinesis://events?consumer=a b", "'a b' is no consumer's name or ARN"),
        ("kinesis://events?shard=1", "unknown parameter 'shard'"),
    ],
)
def test_what_is_wrong_is_said(text: str, complaint: str) -> None:
    """Before anything is opened."""
    with pytest.raises(UserError, match=complaint):
        settings(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("start=timestamp:99999999999999", "start lies in the future"),
        ("until=timestamp:99999999999999", "until lies in the future; to stop after a while, give max_duration="),
        ("start=latest&until=timestamp:5", "until lies before start"),
        ("start=timestamp:6&until=timestamp:5", "until lies before start"),
    ],
)
def test_times_that_make_no_sense_are_refused(text: str, complaint: str) -> None:
    """Nothing is asked for them."""
    with pytest.raises(UserError, match=complaint):
        check_source(settings(f"kinesis://events?region=eu-west-1&{text}"))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    """Kinesis, as it answers to what it is asked in turn."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    api = KinesisApi(STREAM, lambda: 0)
    monkeypatch.setitem(connect._APIS, STREAM, api)
    with Stubber(api.client) as stubber:
        yield stubber
    api.close()


def summary(status: str = "ACTIVE") -> dict[str, Any]:
    return {
        "StreamDescriptionSummary": {
            "StreamName": "events",
            "StreamARN": ARN,
            "StreamStatus": status,
            "RetentionPeriodHours": 24,
            "StreamCreationTimestamp": 0,
            "EnhancedMonitoring": [],
            "OpenShardCount": 1,
        }
    }


@pytest.mark.parametrize("status", ["ACTIVE", "UPDATING"])
def test_a_stream_that_is_being_resharded_can_be_read(stub: Stubber, status: str) -> None:
    """That is no reason to wait."""
    stub.add_response("describe_stream_summary", summary(status), {"StreamName": "events"})
    assert check_stream(STREAM)["StreamARN"] == ARN


@pytest.mark.parametrize("status", ["CREATING", "DELETING"])
def test_a_stream_that_is_not_ready_is_refused(stub: Stubber, status: str) -> None:
    """It may never be."""
    stub.add_response("describe_stream_summary", summary(status))
    with pytest.raises(UserError, match=f"the stream is {status}; try again once it is ACTIVE"):
        check_stream(STREAM)


def test_a_name_that_is_not_there_gets_a_hint(stub: Stubber) -> None:
    """From the names that are."""
    stub.add_client_error("describe_stream_summary", "ResourceNotFoundException")
    stub.add_response("list_streams", {"StreamNames": ["event", "other"], "HasMoreStreams": False})
    with pytest.raises(UserError, match=r"no such stream in eu-west-1; there are event, other; did you mean event\?"):
        check_stream(STREAM)


def test_who_may_not_list_streams_is_told_what_is_known(stub: Stubber) -> None:
    """The hint is not worth an error of its own."""
    stub.add_client_error("describe_stream_summary", "ResourceNotFoundException")
    stub.add_client_error("list_streams", "AccessDeniedException")
    with pytest.raises(UserError, match="no such stream in eu-west-1; no other is known"):
        check_stream(STREAM)


def test_credentials_that_are_wrong_are_said_to_be(stub: Stubber) -> None:
    """In AWS's own words."""
    stub.add_client_error("describe_stream_summary", "UnrecognizedClientException", "The security token is invalid")
    with pytest.raises(UserError, match=r"AWS refused: .*The security token is invalid.*; check the credentials"):
        check_stream(STREAM)


def test_missing_credentials_are_said_to_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """With where they may come from."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(connect, "_APIS", {})
    with pytest.raises(UserError, match="no AWS credentials: give AWS_PROFILE"):
        check_stream(STREAM)


def test_a_missing_region_is_said_to_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Kinesis has one address in each."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(UserError, match="no AWS region"):
        open_source("kinesis://events?until=latest", load_schema("transaction-events"), 100)


def test_a_server_that_is_not_there_is_found_out_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """In seconds, not after many attempts."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    started = time.monotonic()
    with pytest.raises(UserError, match=r"http://127.0.0.1:9 does not answer: .*check region= and endpoint="):
        check_stream(STREAM)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("error", [ConnectTimeoutError(endpoint_url="x"), EndpointConnectionError(endpoint_url="x")])
def test_every_way_not_to_answer_is_understood(stub: Stubber, monkeypatch: pytest.MonkeyPatch, error: Any) -> None:
    """A name that does not resolve, a network that swallows packets."""

    def fail(**query: str) -> None:
        raise error

    monkeypatch.setattr(connect._APIS[STREAM].client, "describe_stream_summary", fail)
    with pytest.raises(UserError, match="does not answer"):
        check_stream(STREAM)


def described(status: str = "ACTIVE") -> dict[str, Any]:
    return {
        "ConsumerDescription": {
            "ConsumerName": "fraud",
            "ConsumerARN": CONSUMER,
            "ConsumerStatus": status,
            "ConsumerCreationTimestamp": 0,
            "StreamARN": ARN,
        }
    }


def test_a_consumer_is_found_by_its_name(stub: Stubber) -> None:
    """The workers are given its ARN."""
    stub.add_response("describe_stream_summary", summary())
    stub.add_response("describe_stream_consumer", described(), {"StreamARN": ARN, "ConsumerName": "fraud"})
    found = check_source(settings("kinesis://events?region=eu-west-1&endpoint=http://127.0.0.1:9&consumer=fraud"))
    assert found.consumer == CONSUMER


def test_a_consumer_is_found_by_its_arn(stub: Stubber) -> None:
    """Likewise."""
    stub.add_response("describe_stream_summary", summary())
    stub.add_response("describe_stream_consumer", described(), {"ConsumerARN": CONSUMER})
    assert consumer_arn(STREAM, CONSUMER) == CONSUMER


def test_a_consumer_that_is_not_registered_is_refused_with_what_to_do(stub: Stubber) -> None:
    """It is not registered by the way: AWS takes money for it."""
    stub.add_response("describe_stream_summary", summary())
    stub.add_client_error("describe_stream_consumer", "ResourceNotFoundException")
    with pytest.raises(
        UserError, match=r"no consumer fraud is registered; .*register-stream-consumer --stream-arn arn"
    ):
        consumer_arn(STREAM, "fraud")


def test_a_consumer_that_is_not_ready_is_refused(stub: Stubber) -> None:
    """For now."""
    stub.add_response("describe_stream_summary", summary())
    stub.add_response("describe_stream_consumer", described("CREATING"))
    with pytest.raises(UserError, match="consumer fraud is CREATING"):
        consumer_arn(STREAM, "fraud")
