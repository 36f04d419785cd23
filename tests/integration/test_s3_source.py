from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from io_connectors.files import ReadFiles
from io_connectors.s3 import listing
from io_connectors.s3 import look as look_before
from io_connectors.s3.listing import list_objects
from io_connectors.s3.look import look
from io_connectors.s3.read import ReadObjects
from io_connectors.s3.settings import ObjectSettings, object_settings
from io_connectors.sources import SOURCES, open_source
from io_connectors.urls import parse_url
from runners.local import S3
from tests.integration.faults import Answer, Change, HttpFaultProxy
from transforms.dead_letters import DeadLetter
from transforms.errors import UserError
from transforms.parse import ParseTransactions
from transforms.raw_batch import RawBatch
from transforms.schema import load_schema

SCHEMA = load_schema("transaction-events")
BUCKETS = (f"source-{n}" for n in count())
SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)

#: Where the copies of objects lie that workers read.
COPY = tempfile.gettempdir()

_BATCHES: dict[str, list[Any]] = {}


def lines(first: int, rows: int) -> bytes:
    """Transactions as JSON lines."""
    return b"".join(
        b'{"transaction_id":"t%d","user_id":"u%d","amount":%d.50,"timestamp":"2026-01-01T00:%02d:%02dZ"}\n'
        % (n, n % 97, n % 500, n // 60 % 60, n % 60)
        for n in range(first, first + rows)
    )


def table(first: int, rows: int) -> pa.Table:
    """The same as columns."""
    return pa.Table.from_pylist([json.loads(line) for line in lines(first, rows).splitlines()])


def csv(first: int, rows: int) -> bytes:
    """The same as CSV."""
    records = table(first, rows).to_pylist()
    return "".join([",".join(records[0]) + "\n", *(",".join(map(str, r.values())) + "\n" for r in records)]).encode()


def parquet(first: int, rows: int, group: int = 100) -> bytes:
    """The same as Parquet."""
    sink = pa.BufferOutputStream()
    pq.write_table(table(first, rows), sink, row_group_size=group)
    return bytes(sink.getvalue())


def read(source: Any) -> list[RawBatch]:
    """What a source gives on the in-memory runner."""
    run = uuid4().hex
    _BATCHES[run] = []
    with beam.Pipeline(FnApiRunner()) as pipeline:
        _ = pipeline | source | beam.Map(_collect, run)
    return _BATCHES.pop(run)


# A function of the module, which Beam pickles by its name: a closure would take a copy of what it collects into.
def _collect(item: Any, run: str) -> None:
    _BATCHES[run].append(item)


def read_url(url: str) -> list[RawBatch]:
    return read(open_source(url, SCHEMA, 70).read)


def ids_of(batches: list[RawBatch]) -> Counter[str]:
    """The transactions in raw batches."""
    found: Counter[str] = Counter()
    for batch in batches:
        if batch.payloads:
            found.update(json.loads(payload)["transaction_id"] for payload in batch.payloads)
        elif batch.columns is not None:
            texts = batch.columns.column("transaction_id").to_pylist()
            found.update(text.decode() if isinstance(text, bytes) else text for text in texts)
    return found


def ids(first: int, rows: int) -> Counter[str]:
    return Counter(f"t{n}" for n in range(first, first + rows))


def letters_of(batches: list[RawBatch]) -> list[DeadLetter]:
    return [letter for batch in batches for letter in batch.rejected]


class Bucket:
    """A bucket of a test's own."""

    def __init__(self, server: S3) -> None:
        self.server = server
        self.name = next(BUCKETS)
        self.client = server.client()
        server.create_bucket(self.name)

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def remove(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)

    def url(self, pattern: str, endpoint: str | None = None, **parameters: str) -> str:
        values = "".join(f"&{name}={value}" for name, value in parameters.items())
        return f"s3://{self.name}/{pattern}?endpoint={endpoint or self.server.endpoint}{values}"

    def settings(self, pattern: str, endpoint: str | None = None, **parameters: str) -> ObjectSettings:
        return object_settings(parse_url(self.url(pattern, endpoint, **parameters), SOURCES), SCHEMA, 70)


@pytest.fixture(autouse=True)
def _credentials(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3.environment.items():
        if not name.startswith("AWS_ENDPOINT"):
            monkeypatch.setenv(name, value)


@pytest.fixture
def bucket(s3: S3) -> Iterator[Bucket]:
    made = Bucket(s3)
    yield made
    made.client.close()


@pytest.fixture
def proxy(s3: S3) -> Iterator[HttpFaultProxy]:
    host, port = s3.address.split(":")
    with HttpFaultProxy(host, int(port)) as running:
        yield running


FILES = {
    "a.csv": csv(0, 250),
    "b.jsonl": lines(250, 250),
    "c.json.gz": gzip.compress(lines(500, 250)),
    "d.csv.zst": zstandard.compress(csv(750, 250)),
    "e.parquet": parquet(1000, 250),
    "f.ndjson": b"",
}


def test_objects_are_read_as_files_are(bucket: Bucket, tmp_path: Path) -> None:
    """Every format, with the same records at the same positions in the same batches as from a disk."""
    local: list[RawBatch] = []
    for name, content in FILES.items():
        bucket.put(f"in/{name}", content)
        (tmp_path / name).write_bytes(content)
        if content:
            local += read(ReadFiles(str(tmp_path / name), SCHEMA, 70))
    found = read_url(bucket.url("in"))
    assert ids_of(found) == ids(0, 1250)

    def told(batches: list[RawBatch]) -> list[Any]:
        return sorted(
            (Path(batch.source).name, batch.positions.tolist(), str(batch.payloads), str(batch.columns))
            for batch in batches
        )

    assert told(found) == told(local)
    assert {batch.source for batch in found} == {f"s3://{bucket.name}/in/{name}" for name in FILES if FILES[name]}


def test_a_pattern_chooses_among_more_objects_than_a_page_of_a_list_has(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists come a page at a time, and all pages count."""
    monkeypatch.setattr(listing, "PAGE", 7)
    for n in range(45):
        bucket.put(f"many/{n % 7}/{n}.jsonl", lines(n, 1))
    found = read_url(bucket.url("many/*/1*.jsonl"))
    assert ids_of(found) == Counter(f"t{n}" for n in range(45) if str(n)[0] == "1")


def test_faults_on_the_way_delay_and_lose_nothing(bucket: Bucket, proxy: HttpFaultProxy) -> None:
    """Throttled, out of order, cut: lists and objects are asked for again."""
    for n in range(5):
        bucket.put(f"in/{n}.jsonl", lines(n * 100, 100))
    source = open_source(bucket.url("in", proxy.url), SCHEMA, 70)
    proxy.answer(2, 503, SLOW_DOWN, {"Content-Type": "application/xml"})
    proxy.lose_answers(2)
    proxy.answer(1, 500, b"")
    assert ids_of(read(source.read)) == ids(0, 500)
    proxy.answer(2, 503, SLOW_DOWN, {"Content-Type": "application/xml"}, to="list-type")
    proxy.lose_answers(2, to="list-type")
    assert ids_of(read_url(bucket.url("in", proxy.url))) == ids(0, 500)
    assert proxy.faults_left == 0


def test_an_object_that_is_gone_when_its_turn_comes_is_one_dead_letter(bucket: Bucket) -> None:
    """It had been listed: that it was not read is told, and the others are read."""
    for n in range(3):
        bucket.put(f"in/{n}.jsonl", lines(n * 100, 100))
    source = open_source(bucket.url("in"), SCHEMA, 70)
    bucket.remove("in/1.jsonl")
    found = read(source.read)
    assert ids_of(found) == ids(0, 100) + ids(200, 100)
    (letter,) = letters_of(found)
    assert (letter.stage, letter.reason, letter.source) == ("read", "object_gone", f"s3://{bucket.name}/in/1.jsonl")


def test_an_object_that_was_replaced_is_a_loud_error(bucket: Bucket) -> None:
    """Half of one version and half of another would be neither."""
    bucket.put("in/a.jsonl", lines(0, 100))
    source = open_source(bucket.url("in"), SCHEMA, 70)
    bucket.put("in/a.jsonl", lines(500, 100))
    with pytest.raises(RuntimeError, match=r"in/a.jsonl: its content is another one than when it was listed"):
        read(source.read)


def test_a_corrupt_object_gives_what_it_has_and_one_dead_letter(bucket: Bucket) -> None:
    """As a corrupt file does; its neighbours are read."""
    whole = gzip.compress(lines(0, 5_000))
    bucket.put("in/a.jsonl.gz", whole[: len(whole) // 2])
    bucket.put("in/b.jsonl", lines(10_000, 100))
    found = read_url(bucket.url("in"))
    assert ids(10_000, 100) <= ids_of(found) <= ids(0, 5_000) + ids(10_000, 100)
    (letter,) = letters_of(found)
    assert (letter.reason, letter.source) == ("file_corrupt", f"s3://{bucket.name}/in/a.jsonl.gz")
    assert letter.position == len(ids_of(found)) - 100 + 1
    assert COPY not in letter.error


def test_objects_that_are_found_wrong_only_when_read_are_dead_letters(bucket: Bucket) -> None:
    """Too many to look at each before: those that are not of the schema, or no Parquet, harm nobody else."""
    bucket.put("in/a.csv", csv(0, 10))
    bucket.put("in/b.csv", b"Time,V1,Amount\n1,2,3\n")
    bucket.put("in/c.parquet", b"PAR1" + b"x" * 100)
    bucket.put("in/d.txt", b"hello")
    settings = bucket.settings("in")
    objects = list_objects(bucket.client, settings.pattern, settings.backoff, lambda error: None).found
    found = read(ReadObjects(settings, objects))
    assert ids_of(found) == ids(0, 10)
    letters = sorted(letters_of(found), key=lambda letter: letter.source)
    assert {letter.reason for letter in letters} == {"object_unreadable"}
    assert [letter.error.split(": ")[0] for letter in letters] == [
        f"s3://{bucket.name}/in/{name}" for name in ("b.csv", "c.parquet", "d.txt")
    ]
    assert all(COPY not in letter.error for letter in letters)


@pytest.mark.parametrize(
    ("content", "pattern", "why"),
    [
        ({}, "in", r"no object of that name \(there is nothing in"),
        ({"input/a.csv": csv(0, 1)}, "inptu/*.csv", "no object of that name"),
        ({"in/daily.csv": csv(0, 1)}, "in/dayly.csv", r"did you mean daily.csv\? \(there are daily.csv in s3://"),
        ({"in/a.csv": b"Time,V1,Amount\n1,2,3\n"}, "in", r"s3://source-\d+/in/a.csv"),
        ({"in/a.parquet": b"PAR1" + b"x" * 100}, "in", r"s3://source-\d+/in/a.parquet: is no readable Parquet file"),
        ({"in/a.txt": b"hello"}, "in", r"in/a.txt: unknown format 'txt'"),
        ({"in/a.json": b'[{"transaction_id": 1}]'}, "in", "holds a JSON array"),
    ],
)
def test_what_can_be_known_before_reading_is_an_error_before_reading(
    bucket: Bucket, content: dict[str, bytes], pattern: str, why: str
) -> None:
    """Nothing matches, or what does is not what it should be: as for files."""
    for key, each in content.items():
        bucket.put(key, each)
    with pytest.raises(UserError, match=why) as caught:
        open_source(bucket.url(pattern), SCHEMA, 70)
    assert COPY not in str(caught.value)


def test_a_bucket_that_cannot_be_read_is_an_error_before_reading(
    bucket: Bucket, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With S3's code for what is wrong, or after some attempts to get an answer."""
    with pytest.raises(UserError, match="s3://nowhere-at-all/in: NoSuchBucket"):
        open_source(f"s3://nowhere-at-all/in?endpoint={s3.endpoint}", SCHEMA, 70)
    monkeypatch.setattr(look_before, "_PATIENCE", 0.1)
    with pytest.raises(UserError, match="s3://fraud/in: no answer for 0 seconds: Could not connect"):
        open_source("s3://fraud/in?endpoint=http://127.0.0.1:1", SCHEMA, 70)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(UserError, match="SignatureDoesNotMatch"):
        open_source(bucket.url("in"), SCHEMA, 70)


def test_the_list_of_columns_of_a_large_parquet_object_is_found_at_its_end(bucket: Bucket) -> None:
    """An object above the size that is looked at whole is checked without being fetched."""
    wide = pa.table({"noise": pa.array([uuid4().bytes * 8192 for _ in range(40)])})
    sink = pa.BufferOutputStream()
    pq.write_table(wide, sink, compression="none", use_dictionary=False)
    bucket.put("in/a.parquet", bytes(sink.getvalue()))
    with pytest.raises(UserError, match=r"in/a.parquet.*noise"):
        open_source(bucket.url("in"), SCHEMA, 70)


def test_a_start_leaves_out_what_was_put_before(bucket: Bucket) -> None:
    """By the time at which the bucket says an object was put."""
    bucket.put("in/a.jsonl", lines(0, 10))
    time.sleep(2.1)
    bucket.put("in/b.jsonl", lines(10, 10))
    found = look(bucket.settings("in"))
    between = max(each.modified for each in found) // 1_000_000
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(between))
    assert ids_of(read_url(bucket.url("in", start=f"timestamp:{moment}"))) == ids(10, 10)
    with pytest.raises(UserError, match="no object of that name that was put since timestamp:2100"):
        open_source(bucket.url("in", start="timestamp:2100-01-01"), SCHEMA, 70)


# Watching.


def watch(bucket: Bucket, proxy: HttpFaultProxy, *after: Callable[[], object], **parameters: str) -> list[RawBatch]:
    """What watching a bucket gives while things happen to it: one after the first look, one after the second ..."""
    source = open_source(bucket.url("in", proxy.url, watch="1s", **{"max_duration": "4s", **parameters}), SCHEMA, 70)

    def acting(action: Callable[[], object]) -> Change:
        def change(path: str, headers: Mapping[str, str], body: bytes, answer: Answer) -> Answer:
            action()
            return answer

        return change

    for action in after:
        proxy.change_answers(1, acting(action), to="list-type")
    return read(source.read)


def test_objects_that_come_while_it_is_watched_are_read_once(bucket: Bucket, proxy: HttpFaultProxy) -> None:
    """Also under names that sort before those there were."""
    bucket.put("in/m.jsonl", lines(0, 10))

    def put_more() -> None:
        bucket.put("in/a.jsonl", lines(10, 10))
        bucket.put("elsewhere/b.jsonl", lines(1_000, 10))

    found = watch(bucket, proxy, put_more, lambda: bucket.put("in/z.parquet", parquet(20, 10)))
    assert ids_of(found) == ids(0, 30)
    assert letters_of(found) == []
    assert proxy.requests < 20  # a runner that waits for nothing does not make it look all the time


def test_from_the_latest_on_only_what_comes_is_read(bucket: Bucket, proxy: HttpFaultProxy) -> None:
    """What is there when watching begins is passed over."""
    bucket.put("in/m.jsonl", lines(0, 10))
    found = watch(bucket, proxy, lambda: bucket.put("in/a.jsonl", lines(10, 10)), start="latest", max_duration="5s")
    assert ids_of(found) == ids(10, 10)


def test_wrong_objects_do_not_end_a_watch(bucket: Bucket, proxy: HttpFaultProxy) -> None:
    """Neither when it begins nor later: each is a dead letter, as long as there are others."""
    bucket.put("in/a.jsonl", lines(0, 10))
    bucket.put("in/b.txt", b"hello")

    def put_more() -> None:
        bucket.put("in/c.csv", b"Time,V1,Amount\n1,2,3\n")
        bucket.put("in/d.csv", csv(10, 10))

    found = watch(bucket, proxy, put_more, max_duration="5s")
    assert ids_of(found) == ids(0, 20)
    assert sorted(letter.source.rpartition("/")[2] for letter in letters_of(found)) == ["b.txt", "c.csv"]


def test_a_watch_of_nothing_but_wrong_objects_is_refused(bucket: Bucket) -> None:
    """Then it is the URL or the schema that is wrong; an empty bucket is not."""
    open_source(bucket.url("in", watch="1s"), SCHEMA, 70)
    bucket.put("in/a.csv", b"Time,V1,Amount\n1,2,3\n")
    with pytest.raises(UserError, match=r"in/a\.csv"):
        open_source(bucket.url("in", watch="1s"), SCHEMA, 70)


def test_a_replaced_object_does_not_end_a_watch(bucket: Bucket, proxy: HttpFaultProxy) -> None:
    """Its listed version is one dead letter; what replaced it is read at the next look."""
    bucket.put("in/a.jsonl", lines(0, 10))
    found = watch(bucket, proxy, lambda: bucket.put("in/a.jsonl", lines(50, 10)), max_duration="5s")
    assert ids_of(found) == ids(50, 10)
    assert [letter.reason for letter in letters_of(found)] == ["object_replaced"]


def test_a_server_that_is_away_for_a_while_ends_no_watch(bucket: Bucket, proxy: HttpFaultProxy, s3: S3) -> None:
    """Looks that fail are made again, and objects that cannot be had are waited for."""
    bucket.put("in/a.jsonl", lines(0, 10))

    def back() -> None:
        time.sleep(1.5)
        s3.start()
        bucket.put("in/b.jsonl", lines(10, 10))

    returning = threading.Thread(target=back)

    def leave() -> None:
        s3.kill()
        returning.start()

    found = watch(bucket, proxy, leave)
    returning.join()
    assert ids_of(found) == ids(0, 20)


def test_records_of_objects_become_transactions_or_dead_letters(bucket: Bucket) -> None:
    """Read equals good plus dead, as for every source."""
    bucket.put("in/a.jsonl", lines(0, 50) + b"not json\n" + lines(50, 50))
    runs = [uuid4().hex for _ in range(3)]
    _BATCHES.update((run, []) for run in runs)
    with beam.Pipeline(FnApiRunner()) as pipeline:
        raw = pipeline | open_source(bucket.url("in"), SCHEMA, 70).read
        parsed = raw | ParseTransactions(SCHEMA)
        for collected, run in zip((raw, parsed.batches, parsed.dead_letters), runs, strict=True):
            _ = collected | run >> beam.Map(_collect, run)
    batches, good, dead = (_BATCHES.pop(run) for run in runs)
    assert (sum(map(len, batches)), sum(map(len, good))) == (101, 100)
    assert [(letter.source, letter.position) for letter in dead] == [(f"s3://{bucket.name}/in/a.jsonl", 51)]


def test_prism_streams_what_comes(bucket: Bucket, s3: S3, prism: Path, tmp_path: Path) -> None:
    """A watch without an end gives what comes when it comes, each version of an object once."""
    bucket.put("in/a.jsonl", lines(0, 10))
    out = tmp_path / "out.jsonl"
    program = f"""
import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from io_connectors.json_lines import WriteJsonLines
from io_connectors.sources import open_source
from transforms.schema import load_schema
options = PipelineOptions(["--runner=PrismRunner", "--prism_location={prism}", "--environment_type=LOOPBACK"])
pipeline = beam.Pipeline(options=options)
read = open_source({bucket.url("in", watch="1s")!r}, load_schema("transaction-events"), 70).read
_ = (pipeline | read | beam.FlatMap(lambda raw: raw.payloads)
     | WriteJsonLines({str(out)!r}, lambda line: line))
pipeline.run().wait_until_finish()
"""
    running = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for first in (0, 10, 20):
            if first:
                bucket.put("in/a.jsonl" if first == 10 else "in/0.jsonl", lines(first, 10))
            deadline = time.monotonic() + 60
            while not out.exists() or len(out.read_bytes().splitlines()) < first + 10:
                assert time.monotonic() < deadline
                assert running.poll() is None
                time.sleep(0.1)
        time.sleep(2.5)
        read_ids = Counter(json.loads(line)["transaction_id"] for line in out.read_bytes().splitlines())
        assert read_ids == ids(0, 30)
    finally:
        running.terminate()
        running.wait()
