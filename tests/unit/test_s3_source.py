from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ResponseStreamingError
from hypothesis import given
from hypothesis import strategies as st

from io_connectors.moments import Moment
from io_connectors.retry import Backoff
from io_connectors.s3.fetch import CHUNK, Fetcher, UnreadableObjectError
from io_connectors.s3.listing import Found, Listing, Pattern, parse_pattern
from io_connectors.s3.seen import ENDLESS, MEMORY, Seen, SeenCoder
from io_connectors.s3.settings import object_settings
from io_connectors.s3.watch import SeenTracker
from io_connectors.sources import SOURCES
from io_connectors.urls import parse_url
from pipelines.outputs import check_watched
from pipelines.settings import Output
from transforms.errors import UserError
from transforms.schema import load_schema

SCHEMA = load_schema("handbook")


@pytest.mark.parametrize(
    ("path", "key", "expected"),
    [
        ("day.csv", "day.csv", True),
        ("day.csv", "day.csv.gz", False),
        ("in", "in/a.csv", True),
        ("in/", "in/2026/01/a.csv", True),
        ("in", "input/a.csv", False),
        ("in", "in/", False),
        ("in", "in/_SUCCESS", False),
        ("in", "in/_temporary/0/a.csv", False),
        ("in", "in/.hidden.csv", False),
        ("_in/x", "_in/x/a.csv", True),
        ("", "a.csv", True),
        ("", "x/a.csv", True),
        ("in/*.csv", "in/a.csv", True),
        ("in/*.csv", "in/x/a.csv", False),
        ("in/*.csv", "in/a.csv.gz", False),
        ("in/part-?.csv", "in/part-1.csv", True),
        ("in/part-?.csv", "in/part-10.csv", False),
        ("in/**/*.csv", "in/a.csv", True),
        ("in/**/*.csv", "in/x/y/a.csv", True),
        ("in/**", "in/x/y/a.csv", True),
        ("*/a.csv", "in/a.csv", True),
        ("in/a+(1).csv", "in/a+(1).csv", True),
        ("in/[ab]*.csv", "in/[ab]1.csv", True),
        ("in/[ab]*.csv", "in/a1.csv", False),
    ],
)
def test_a_pattern_matches_keys_as_the_shell_matches_names(path: str, key: str, expected: bool) -> None:
    """Stars stop at slashes, two of them do not; a prefix means all below it, but what writers leave beside data."""
    pattern = Pattern("fraud", path)
    assert pattern.matches(key) is expected
    if expected:
        assert key.startswith(pattern.beginning)


@given(st.text("ab/*?.", max_size=8), st.text("ab/.", max_size=8))
def test_what_matches_begins_as_the_bucket_is_asked(path: str, key: str) -> None:
    """No key that matches is left out of what the bucket is asked for."""
    pattern = Pattern("fraud", path)
    if pattern.matches(key):
        assert key.startswith(pattern.beginning)


def test_a_slash_at_the_beginning_belongs_to_the_bucket() -> None:
    """What follows the bucket is the pattern, as it was written."""
    assert parse_pattern("fraud/in/*.csv") == Pattern("fraud", "in/*.csv")
    assert parse_pattern("fraud") == Pattern("fraud", "")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("s3://Fraud/in", "is no name of a bucket"),
        ("s3://fraud/in?watch=0", "watch must be at least 1s"),
        ("s3://fraud/in?watch=often", "watch.*is not a duration"),
        ("s3://fraud/in?max_duration=1m", "max_duration.*needs watch=30s"),
        ("s3://fraud/in?watermark_delay=1m", "watermark_delay.*needs watch=30s"),
        ("s3://fraud/in?start=latest", "start must be earliest"),
        ("s3://fraud/in?watch=5s&start=now", "start must be earliest, latest"),
        ("s3://fraud/in?format=cvs", "did you mean csv"),
    ],
)
def test_a_url_that_cannot_be_is_refused(url: str, why: str) -> None:
    """Before the bucket is asked."""
    with pytest.raises(UserError, match=why):
        object_settings(parse_url(url, SOURCES), SCHEMA, 100)


def test_a_url_says_what_to_read() -> None:
    """Each parameter has its place."""
    url = "s3://fraud/in/*.csv?watch=30s&start=timestamp:1000&max_duration=2m&watermark_delay=1h&format=csv"
    settings = object_settings(parse_url(url, SOURCES), SCHEMA, 100)
    assert settings.pattern == Pattern("fraud", "in/*.csv")
    assert (settings.watch, settings.max_duration) == (30_000_000, 120_000_000)
    assert (settings.watermark_delay, settings.format) == (3_600_000_000, "csv")
    assert settings.start == Moment("timestamp", 1000)
    assert settings.bounded


class Bucket:
    """Answers `get_object` with an object's content, and breaks off where it is told to."""

    def __init__(self, content: bytes, breaks: list[int]) -> None:
        self.content = content
        self.breaks = breaks
        self.asked: list[str] = []

    def get_object(self, **request: Any) -> dict[str, Any]:
        span = request.get("Range", f"bytes=0-{len(self.content) - 1}")
        self.asked.append(span)
        start, stop = map(int, re.findall(r"\d+", span))
        broken_at = self.breaks.pop(0) if self.breaks else None
        return {"Body": Body(self.content[start : stop + 1], broken_at)}


class Body(BytesIO):
    def __init__(self, content: bytes, broken_at: int | None) -> None:
        super().__init__(content)
        self.broken_at = broken_at

    def iter_chunks(self, size: int) -> Iterator[bytes]:
        if self.broken_at is None:
            yield self.read()
        else:
            yield self.read(self.broken_at)
            raise ResponseStreamingError(error="connection broken")


def fetcher(client: Any, retries: list[Exception] | None = None) -> Fetcher:
    on_retry = (lambda error: None) if retries is None else retries.append
    return Fetcher(client, "fraud", Backoff(sleep=lambda _: None), on_retry)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_a_broken_connection_costs_no_byte_twice(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, breaks: list[int]
) -> None:
    """Fetching goes on where it stood; the file is the object, whatever broke."""
    path = tmp_path_factory.mktemp("fetch") / "object"
    client = Bucket(content, breaks)
    fetcher(client).fetch(Found("a", "e", len(content), 0), path)
    assert path.read_bytes() == content
    starts = [int(re.findall(r"\d+", span)[0]) for span in client.asked]
    assert starts == sorted(starts)


def test_of_a_large_object_no_more_is_fetched_than_tells_what_it_is(tmp_path: Path) -> None:
    """Text is told by its first bytes, Parquet by its last, where they belong, and by all of its list of columns."""
    text = b"x" * (5 << 20)
    footer = 3 << 20
    parquet = bytes(4 << 20) + bytes(footer - 8) + (footer - 8).to_bytes(4, "little") + b"PAR1"
    client, path = Bucket(text, []), tmp_path / "object"
    fetcher(client).fetch_beginning(Found("a", "e", len(text), 0), False, path)
    assert client.asked == [f"bytes=0-{(2 << 20) - 1}"]
    client = Bucket(parquet, [])
    fetcher(client).fetch_beginning(Found("a", "e", len(parquet), 0), True, path)
    assert path.stat().st_size == len(parquet)
    assert path.read_bytes()[-footer:] == parquet[-footer:]
    assert client.asked == [f"bytes={5 << 20}-{(7 << 20) - 1}", f"bytes={4 << 20}-{(7 << 20) - 1}"]
    assert CHUNK < 2 << 20


@pytest.mark.parametrize(
    ("code", "reason"),
    [("NoSuchKey", "object_gone"), ("412", "object_replaced"), ("InvalidObjectState", "object_archived")],
)
def test_what_is_wrong_with_one_object_is_told_from_what_is_wrong_with_the_bucket(
    tmp_path: Path, code: str, reason: str
) -> None:
    """The first concerns nobody else; the second fails the read."""

    class Refusing:
        def get_object(self, **request: Any) -> Any:
            raise ClientError({"Error": {"Code": code}}, "GetObject")

    with pytest.raises(UnreadableObjectError) as caught:
        fetcher(Refusing()).fetch(Found("a", "e", 5, 0), tmp_path / "object")
    assert caught.value.reason == reason
    code = "AccessDenied"
    with pytest.raises(ClientError):
        fetcher(Refusing()).fetch(Found("a", "e", 5, 0), tmp_path / "object")


HOUR = 3_600_000_000

#: Objects by when they are seen to be there, in hours, and how many hours older than that their time is.
PUTS = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 23), st.text("abc", min_size=1, max_size=2)), max_size=30)


@given(puts=PUTS, looks=st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_each_version_of_an_object_is_given_once(puts: list[tuple[int, int, str]], looks: list[int]) -> None:
    """However names are ordered, and also when uploads end long after they began; what was seen fits a checkpoint."""
    given: list[tuple[str, str]] = []
    seen, now = Seen(since=0), 0
    for hours in [*looks, 200]:
        now += hours
        there = {key: Found(key, f"e{at}", 1, (100 + at - age) * HOUR) for at, age, key in sorted(puts) if at <= now}
        seen, new = SeenCoder().decode(SeenCoder().encode(seen)).look(Listing([*there.values()], 0), 0, over=False)
        given += [(found.key, found.etag) for found in new]
    assert len(set(given)) == len(given)
    ever = {found[:2] for found in there.values()}
    assert ever <= set(given)


def test_only_what_may_still_be_confused_is_remembered() -> None:
    """A bucket of ten thousand old objects takes no room in a checkpoint, and none of them is given again."""
    old = [Found(f"old-{n}", "e", 1, n) for n in range(10_000)]
    new = [Found(f"new-{n}", "e", 1, MEMORY + 20_000 + n) for n in range(10)]
    seen, given = Seen(since=0).look(Listing([*old, *new], 0), 0, over=False)
    assert len(given) == 10_010
    assert len(seen.versions) == 80
    assert seen.look(Listing([*old, *new], 0), 0, over=False)[1] == []


def test_a_start_passes_over_what_was_there_before() -> None:
    """`latest` what is there at the first look, a time what was put before it."""
    there = [Found("a", "e", 1, 10), Found("b", "e", 1, 20)]
    later = [*there, Found("0", "e", 1, 20)]
    seen, given = Seen(since=0, skips=True).look(Listing(there, 0), 0, over=False)
    assert given == []
    assert [found.key for found in seen.look(Listing(later, 0), 0, over=False)[1]] == ["0"]
    assert [found.key for found in Seen(since=20).look(Listing(later, 0), 0, over=False)[1]] == ["0", "b"]


@given(st.binary(max_size=4).map(lambda words: words * 8), st.integers(-(2**63), 2**63 - 1), st.booleans())
def test_what_was_seen_survives_a_checkpoint(versions: bytes, number: int, flag: bool) -> None:
    """Bytes with a version in front; another version is refused, not guessed at."""
    seen = Seen(number, versions, number, number, flag, not flag)
    encoded = SeenCoder().encode(seen)
    assert SeenCoder().decode(encoded) == seen
    with pytest.raises(ValueError, match="coder version 9"):
        SeenCoder().decode(bytes([9]) + encoded[1:])


def test_a_checkpoint_leaves_the_rest_to_whoever_goes_on() -> None:
    """What was claimed stays claimed, the remainder knows of it, and nothing more can be claimed here."""
    tracker = SeenTracker(Seen(since=0))
    assert tracker.try_split(0.5) is None
    after = Seen(since=5, versions=bytes(8), due=9)
    assert tracker.try_claim(after)
    with pytest.raises(ValueError, match="without a checkpoint"):
        tracker.check_done()
    split = tracker.try_split(0)
    assert split is not None
    assert split[1] == after
    assert split[0].over
    assert not tracker.try_claim(Seen(since=7))
    assert tracker.try_split(0) is None
    tracker.check_done()


def test_the_last_look_ends_a_watch() -> None:
    """Then nothing is left to split off, and a restriction with an end says that it has one."""
    tracker = SeenTracker(Seen(since=0, deadline=100))
    assert tracker.is_bounded()
    assert not SeenTracker(Seen(since=0, deadline=ENDLESS)).is_bounded()
    assert tracker.try_claim(Seen(since=5, deadline=100, over=True))
    assert tracker.try_split(0) is None
    tracker.check_done()


@pytest.mark.parametrize(
    ("pattern", "sink", "is_apart"),
    [
        ("in", "s3://fraud/in", False),
        ("in", "s3://fraud/in/results", False),
        ("in", "s3://fraud/in/_results", True),
        ("in", "s3://fraud/input", True),
        ("in", "s3://other/in", True),
        ("", "s3://fraud/results", False),
        ("in/*.jsonl", "s3://fraud/in", False),
        ("**/*.parquet", "s3://fraud/results", False),
        ("in/*.csv", "s3://fraud/in", True),
        ("in", "s3://fraud/out?flagged=in/flagged", False),
        ("in", "s3://fraud/out?flagged=s3://other/in", True),
        ("in", "file:in", True),
    ],
)
def test_results_that_a_watch_would_read_are_refused(pattern: str, sink: str, is_apart: bool) -> None:
    """Decisions as well as messages: what is written there would be read, for ever."""
    output = Output(directory="output", sinks=(sink,))
    if is_apart:
        check_watched(output, [f"s3://fraud/{pattern}"])
    else:
        with pytest.raises(UserError, match=r"--sink: what goes to .* would be read by the source"):
            check_watched(output, [f"s3://fraud/{pattern}"])
    check_watched(output, ["in/a.csv"])


def test_dead_letters_that_a_watch_would_read_are_refused() -> None:
    """They are the ones that would make the most of themselves."""
    with pytest.raises(UserError, match="--dead_letters: what goes to s3://fraud/in/dead"):
        check_watched(Output(directory="output", dead_letters="s3://fraud/in/dead"), ["s3://fraud/in"])
