"""Enhanced fan-out, fed with the bytes that Kinesis sends: local servers leave out some of them."""

from __future__ import annotations

import json
import threading
import time
from base64 import b64encode
from binascii import crc32
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from struct import pack
from typing import Any

import pytest
from botocore.exceptions import ClientError

from io_connectors.kinesis.api import EARLIEST, KinesisApi
from io_connectors.kinesis.fan_out import SubscribedShard
from io_connectors.kinesis.feeds import Failures, Page, UnknownPositionError
from io_connectors.kinesis.settings import Stream
from io_connectors.kinesis.shards import Segment
from tests.kinesis_stream import NOW, aggregate

CONSUMER = "arn:aws:kinesis:us-east-1:123456789012:stream/events/consumer/fraud:1"
SEGMENT = Segment("shardId-000000000000", "0", "9")


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """One message of an event stream."""
    head = b"".join(
        pack(">B", len(name)) + name.encode() + pack(">BH", 7, len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = pack(">II", len(head) + len(payload) + 16, len(head))
    message = prelude + pack(">I", crc32(prelude)) + head + payload
    return message + pack(">I", crc32(message))


def event(kind: str, content: Any) -> bytes:
    headers = {":message-type": "event", ":event-type": kind, ":content-type": "application/json"}
    return frame(headers, json.dumps(content).encode())


def failure(code: str) -> bytes:
    return frame({":message-type": "exception", ":exception-type": code}, b'{"message":"it says"}')


BEGIN = event("initial-response", {})


def records(*data: bytes, behind: int = 0, children: tuple[str, ...] = (), first: int = 1) -> bytes:
    """An event with records, whose sequence numbers are 1, 2, and so on."""
    found = [
        {
            "SequenceNumber": str(first + at),
            "PartitionKey": f"k{first + at}",
            "Data": b64encode(each).decode(),
            "ApproximateArrivalTimestamp": NOW / 1e6 + at,
        }
        for at, each in enumerate(data)
    ]
    content: dict[str, Any] = {"Records": found, "ContinuationSequenceNumber": "9", "MillisBehindLatest": behind}
    if children:
        keys = {"StartingHashKey": "0", "EndingHashKey": "9"}
        shards = [{"ShardId": each, "ParentShards": [SEGMENT.shard], "HashKeyRange": keys} for each in children]
        content["ChildShards"] = shards
    return event("SubscribeToShardEvent", content)


class Server:
    """Answers each subscription with the next of its scripts, and then breaks off.

    Attributes:
        asked: what was asked for.
    """

    def __init__(self, *scripts: list[bytes] | tuple[int, str]) -> None:
        self.scripts = list(scripts)
        self.asked: list[dict[str, Any]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server.answer(self, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, handler: BaseHTTPRequestHandler, call: dict[str, Any]) -> None:
        self.asked.append(call)
        script = self.scripts.pop(0)
        if isinstance(script, tuple):
            status, code = script
            script = [json.dumps({"__type": code, "message": "it says"}).encode()]
        else:
            status = 200
        handler.send_response(status)
        handler.send_header("Content-Type", "application/vnd.amazon.eventstream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for chunk in script:
            if chunk == b"":
                handler.close_connection = True
                handler.connection.close()
                return
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            handler.wfile.flush()
        handler.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    opened: list[Any] = []
    servers: list[Server] = []

    def start(*scripts: list[bytes] | tuple[int, str], segment: Segment = SEGMENT) -> tuple[Server, SubscribedShard]:
        server = Server(*scripts)
        servers.append(server)
        endpoint = f"http://127.0.0.1:{server.http.server_address[1]}"
        api = KinesisApi(Stream("events", None, "us-east-1", endpoint), lambda: time.time_ns() // 1000)
        failures = Failures("events", lambda error: None, uniform=lambda low, high: 0.01)
        feed = SubscribedShard(api, CONSUMER, segment, EARLIEST, failures)
        opened.extend([feed, api])
        return server, feed

    yield start
    for each in opened:
        each.close()
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


def pages(feed: SubscribedShard, count: int) -> list[Page]:
    """So many of what comes."""
    found: list[Page] = []
    deadline = time.monotonic() + 10
    while len(found) < count and time.monotonic() < deadline:
        page = feed.poll()
        if page is not None:
            found.append(page)
        time.sleep(feed.wait())
    return found


def test_events_become_pages(serve: Any) -> None:
    """Records are given out as they come; an event without any that is at the tip says how far the shard was read."""
    _, feed = serve([BEGIN, records(b"a", b"b", behind=5), records(), records(b"c", first=3)])
    first, tip, last = pages(feed, 3)
    assert (first.records.payloads, last.records.payloads) == ([b"a", b"b"], [b"c"])
    assert first.seen == NOW + 1_000_000
    assert abs(tip.seen - time.time() * 1e6) < 5e6
    assert [page.end for page in (first, tip, last)] == [False] * 3


def test_a_subscription_that_ends_is_made_anew_from_the_last_record(serve: Any) -> None:
    """They last five minutes; what was sent before is not given out again."""
    server, feed = serve([BEGIN, records(b"a", b"b")], [BEGIN, records(b"b", b"c", first=2)])
    found = [payload for page in pages(feed, 2) for payload in page.records.payloads]
    assert found == [b"a", b"b", b"c"]
    positions = [call["StartingPosition"] for call in server.asked]
    assert positions == [{"Type": "TRIM_HORIZON"}, {"Type": "AT_SEQUENCE_NUMBER", "SequenceNumber": "2"}]


def test_reading_goes_on_within_an_aggregate(serve: Any) -> None:
    """From a checkpoint that lies within one, only what follows is given out."""
    packed = aggregate([("a", b"0"), ("b", b"1"), ("c", b"2")])
    segment = Segment(SEGMENT.shard, "0", "9", sequence="1", subsequence=1)
    server, feed = serve([BEGIN, records(packed, b"next")], segment=segment)
    (page,) = pages(feed, 1)
    assert page.records.payloads == [b"2", b"next"]
    assert server.asked[0]["StartingPosition"] == {"Type": "AT_SEQUENCE_NUMBER", "SequenceNumber": "1"}


def test_a_shard_that_was_split_ends(serve: Any) -> None:
    """Its last event names its children."""
    _, feed = serve([BEGIN, records(b"a"), records(children=("shardId-1", "shardId-2"))])
    assert [page.end for page in pages(feed, 2)] == [False, True]


@pytest.mark.parametrize(
    "fault",
    [
        [BEGIN, failure("InternalFailureException")],
        [BEGIN, failure("ResourceInUseException")],
        (400, "ResourceInUseException"),
        (400, "LimitExceededException"),
        (500, "InternalFailure"),
        [BEGIN, records(b"a"), b""],
        [b""],
    ],
    ids=["in the stream", "taken over", "in use", "too many", "server", "cut", "cut at once"],
)
def test_what_passes_is_tried_again(serve: Any, fault: Any) -> None:
    """Nothing is lost and nothing given out twice."""
    _, feed = serve(fault, [BEGIN, records(b"a", b"b")])
    found = [payload for page in pages(feed, 1) for payload in page.records.payloads]
    found += [payload for page in pages(feed, 2 - len(found)) for payload in page.records.payloads]
    assert found == [b"a", b"b"]


def test_what_will_never_work_is_raised(serve: Any) -> None:
    """A right that is missing does not come by itself."""
    _, feed = serve((400, "AccessDeniedException"))
    with pytest.raises(ClientError, match="AccessDeniedException"):
        pages(feed, 1)


def test_a_position_that_the_shard_does_not_know_is_told_apart(serve: Any) -> None:
    """The reader then says that records are lost, or goes on without them."""
    _, feed = serve((400, "ResourceNotFoundException"))
    with pytest.raises(UnknownPositionError, match="it says"):
        pages(feed, 1)


def test_nobody_reads_ahead_without_end(serve: Any) -> None:
    """What is not taken stays with Kinesis: a few events wait, no more."""
    _, feed = serve([BEGIN, *(records(b"%d" % n, first=n + 1) for n in range(30))])
    (first,) = pages(feed, 1)
    time.sleep(0.2)
    assert feed._listening is not None
    assert feed._listening._waiting.qsize() <= 4
    rest = pages(feed, 29)
    assert [payload for page in [first, *rest] for payload in page.records.payloads] == [b"%d" % n for n in range(30)]
