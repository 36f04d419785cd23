"""Files as a source: finding and checking them, reading each format, and what happens where one is broken."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from io_connectors import csv_files, text_lines
from io_connectors.csv_rows import split_rows
from io_connectors.files import check_files, read_piece
from io_connectors.text_lines import CorruptFileError, Lines, LongLine, read_lines
from transforms.batch import to_rows
from transforms.dead_letters import DeadLetter
from transforms.errors import UserError
from transforms.parse import parse
from transforms.raw_batch import RawBatch
from transforms.schema import Schema, load_schema

NOW = 1_770_000_000_000_000_000  # nanoseconds: 2026-02-02T02:40:00Z
SCHEMA = load_schema("handbook")
EVENTS = load_schema("transaction-events")
FIELDS = ("TRANSACTION_ID", "TX_DATETIME", "CUSTOMER_ID", "TERMINAL_ID", "TX_AMOUNT", "TX_FRAUD")
HEADER = ",".join(FIELDS)
ROWS = [
    ("0", "2018-04-01 00:00:31", "596", "3156", "57.16", "0"),
    ("1", "2018-04-01 00:02:10", "4961", "3412", "81.51", "0"),
    ("2", "2018-04-01 00:07:56", "2", "1365", "146.0", "1"),
    ("3", "2018-04-01 00:09:29", "4128", "8737", "64.49", ""),
]
CSV = "\n".join([HEADER, *map(",".join, ROWS)]) + "\n"


def read(pattern: str | Path, schema: Schema = SCHEMA, batch_rows: int = 1000) -> list[RawBatch]:
    """All raw batches of a pattern."""
    return [
        batch
        for piece in check_files(str(pattern), schema)
        for batch in read_piece(piece, schema, batch_rows, lambda: NOW)
    ]


def parse_files(
    pattern: str | Path, schema: Schema = SCHEMA, batch_rows: int = 1000
) -> tuple[list[dict[str, Any]], list[DeadLetter]]:
    """All rows and dead letters of a pattern, after checking that none is lost."""
    rows: list[dict[str, Any]] = []
    letters: list[DeadLetter] = []
    for raw in read(pattern, schema, batch_rows):
        batch, dead = parse(raw, schema)
        assert len(batch or ()) + len(dead) == len(raw)
        rows += to_rows(batch) if batch else []
        letters += dead
    return rows, letters


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["transaction_id"] for row in rows]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def as_json_lines(rows: Sequence[tuple[str, ...]]) -> bytes:
    """The rows as JSON lines, ids as numbers, amounts as numbers."""
    return b"".join(
        msgspec.json.encode(
            {
                "TRANSACTION_ID": int(row[0]),
                "TX_DATETIME": row[1],
                "CUSTOMER_ID": row[2],
                "TERMINAL_ID": int(row[3]),
                "TX_AMOUNT": float(row[4]),
                "TX_FRAUD": int(row[5]) if row[5] else None,
            }
        )
        + b"\n"
        for row in rows
    )


def as_table(rows: Sequence[tuple[str, ...]]) -> pa.Table:
    """The rows in Parquet's own types."""
    columns = dict(zip(FIELDS, zip(*rows, strict=True), strict=True))
    return pa.table(
        {
            "TRANSACTION_ID": pa.array(map(int, columns["TRANSACTION_ID"]), pa.int64()),
            "TX_DATETIME": pa.array(columns["TX_DATETIME"]).cast(pa.timestamp("ns")),
            "CUSTOMER_ID": pa.array(map(int, columns["CUSTOMER_ID"]), pa.int32()),
            "TERMINAL_ID": pa.array(map(int, columns["TERMINAL_ID"]), pa.int32()),
            "TX_AMOUNT": pa.array(map(float, columns["TX_AMOUNT"]), pa.float64()),
            "TX_FRAUD": pa.array([int(label) if label else None for label in columns["TX_FRAUD"]], pa.int8()),
        }
    )


# Finding files


def test_globs_match_in_sorted_order_and_keep_the_patterns_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files come sorted, and a relative pattern gives relative names."""
    (tmp_path / "data" / "deep").mkdir(parents=True)
    for name in ("b.csv", "a.csv", "deep/c.csv"):
        write(tmp_path / "data" / name, CSV)
    monkeypatch.chdir(tmp_path)
    assert [piece.path for piece in check_files("file:data/*.csv", SCHEMA)] == ["data/a.csv", "data/b.csv"]
    deep = [piece.path for piece in check_files("data/**/*.csv", SCHEMA)]
    assert deep == ["data/a.csv", "data/b.csv", "data/deep/c.csv"]
    assert {batch.source for batch in read("data/a.csv")} == {"data/a.csv"}


def test_absolute_urls_are_paths(tmp_path: Path) -> None:
    """`file:///abs`, `file:/abs` and a bare path name the same file."""
    path = write(tmp_path / "a.csv", CSV)
    for url in (f"file://{path}", f"file:{path}", str(path)):
        assert [piece.path for piece in check_files(url, SCHEMA)] == [str(path)]


def test_the_format_may_be_named(tmp_path: Path) -> None:
    """`?format=` tells the format of a file whose name does not, and beats the name."""
    write(tmp_path / "export", CSV)
    write(tmp_path / "lines.csv", as_json_lines(ROWS))
    assert len(parse_files(f"file:{tmp_path}/export?format=csv")[0]) == 4
    assert len(parse_files(f"file:{tmp_path}/lines.csv?format=jsonl")[0]) == 4


def test_a_name_with_a_pattern_character_is_that_file(tmp_path: Path) -> None:
    """A file that exists is read, whatever characters its name has."""
    write(tmp_path / "day[1].csv", CSV)
    assert len(parse_files(tmp_path / "day[1].csv")[0]) == 4


MISTAKES: list[tuple[str, str, str | bytes, str]] = [
    ("missing.csv", "missin.csv", CSV, r"no file of that name; did you mean missin.csv\?"),
    ("missing/*.csv", "a.csv", CSV, "no file of that name .*missing does not exist"),
    ("", "a.csv", CSV, r"is a directory; say which files, such as .*\*\.parquet"),
    ("a.tsv", "a.tsv", CSV, r"unknown format 'tsv'; known are csv, .*; did you mean csv\?"),
    ("a", "a", CSV, "unknown format ''"),
    ("a.csv?format=excel", "a.csv", CSV, "unknown format 'excel'"),
    ("a.csv?fromat=csv", "a.csv", CSV, r"unknown parameter 'fromat'.*did you mean format\?"),
    ("a.parquet.gz", "a.parquet.gz", gzip.compress(b"PAR1"), "Parquet is compressed within"),
    ("a.csv", "a.csv", CSV.replace("TX_AMOUNT", "TX_AMONT"), r"field TX_AMOUNT is missing.*mean TX_AMONT\?"),
    ("a.csv", "a.csv", CSV.replace(",", ";"), "field TRANSACTION_ID is missing"),
    ("a.csv", "a.csv", "1,2,3\n", "field TRANSACTION_ID is missing.*found 1, 2, 3"),
    ("a.csv", "a.csv", HEADER + ",note,note\n", "'note' more than once"),
    ("a.csv", "a.csv", b"TRANSACTION_ID,\xff\n", "not UTF-8"),
    ("a.csv", "a.csv", '"TRANSACTION_ID,TX\n', "leaves a quote open"),
    ("a.csv", "a.csv", "x" * 2_000_000, "the header is 2000000 bytes long"),
    ("a.csv.gz", "a.csv.gz", CSV, "cannot be decompressed.*incorrect header"),
    ("a.csv.zst", "a.csv.zst", CSV, "cannot be decompressed"),
    ("a.jsonl.gz", "a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 99)[:12], "cannot be decompressed.*ends in the middle"),
    ("a.json", "a.json", b'[\n{"a": 1}\n]\n', "holds a JSON array; expected one object a line"),
    ("a.json", "a.json", b'[{"a": "' + b"x" * 2_000_000 + b'"}]', "holds a JSON array; expected one object a line"),
    ("a.parquet", "a.parquet", b"PAR1 no footer PAR1", "no readable Parquet file"),
    ("a.parquet", "a.parquet", CSV, "no readable Parquet file"),
]


@pytest.mark.parametrize(("pattern", "name", "content", "message"), MISTAKES)
def test_mistakes_are_one_error_before_anything_is_read(
    pattern: str, name: str, content: str | bytes, message: str, tmp_path: Path
) -> None:
    """A source that cannot work is refused with a message that names the file and what is wrong."""
    write(tmp_path / name, content)
    with pytest.raises(UserError, match=f"(?s){message}"):
        check_files(f"{tmp_path}/{pattern}", SCHEMA)


def test_a_parquet_file_without_a_required_column_is_refused(tmp_path: Path) -> None:
    """The columns of a Parquet file are checked from its footer."""
    pq.write_table(as_table(ROWS).drop_columns(["CUSTOMER_ID"]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: field CUSTOMER_ID is missing"):
        check_files(f"{tmp_path}/a.parquet", SCHEMA)


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    """A file that is listed but cannot be opened is an error that says why."""
    (tmp_path / "a.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(UserError, match=r"a\.csv: cannot be read: No such file"):
        check_files(f"{tmp_path}/*.csv", SCHEMA)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet", "a.csv.gz", "a.jsonl.zst"])
def test_empty_files_hold_no_records(name: str, tmp_path: Path) -> None:
    """A file of no bytes is no mistake: it gives nothing."""
    write(tmp_path / name, b"")
    assert read(tmp_path / name) == []


def test_files_with_nothing_in_them_hold_no_records(tmp_path: Path) -> None:
    """A header alone, blank lines alone, empty archives and tables without rows give nothing."""
    write(tmp_path / "a.csv", HEADER + "\n")
    write(tmp_path / "b.csv", "\n\n")
    write(tmp_path / "c.jsonl", "\n \r\n\n")
    write(tmp_path / "d.csv.gz", gzip.compress(b""))
    write(tmp_path / "e.jsonl.zst", zstandard.compress(b""))
    pq.write_table(as_table(ROWS).slice(0, 0), tmp_path / "f.parquet")
    assert [len(batch) for batch in read(tmp_path / "*")] == []


# The formats


def test_csv_json_lines_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    """The same transactions in three formats, and in each compression, become the same rows."""
    jsonl = as_json_lines(ROWS)
    write(tmp_path / "a.csv", CSV)
    write(tmp_path / "a.csv.gz", gzip.compress(CSV.encode()))
    write(tmp_path / "a.csv.zst", zstandard.compress(CSV.encode()))
    write(tmp_path / "a.jsonl", jsonl)
    write(tmp_path / "a.json.gz", gzip.compress(jsonl))
    write(tmp_path / "a.ndjson.zst", zstandard.compress(jsonl))
    pq.write_table(as_table(ROWS), tmp_path / "a.parquet")
    seen = []
    for path in sorted(tmp_path.iterdir()):
        rows, dead = parse_files(path)
        assert not dead
        assert {row.pop("source") for row in rows} == {str(path)}
        seen.append(rows)
    assert len(seen) == 7
    assert all(rows == seen[0] for rows in seen)
    assert [row["amount_minor"] for row in seen[0]] == [5716, 8151, 14600, 6449]
    assert [row["is_fraud"] for row in seen[0]] == [0, 0, 1, None]
    assert [row["position"] for row in seen[0]] == [1, 2, 3, 4]


@settings(max_examples=20)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**62).map(str),
            st.datetimes(datetime(2001, 1, 1), datetime(2026, 1, 1)).map(str),
            st.integers(0, 2**30).map(str),
            st.integers(0, 2**30).map(str),
            st.integers(0, 10**12).map(lambda minor: f"{minor // 100}.{minor % 100:02d}"),
            st.sampled_from(["0", "1", ""]),
        ),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 40),
)
def test_any_transactions_are_the_same_in_every_format(
    tmp_path_factory: pytest.TempPathFactory, rows: Sequence[tuple[str, ...]], batch_rows: int
) -> None:
    """Whatever the transactions and the size of a batch, CSV, JSON lines and Parquet agree to the last unit."""
    folder = tmp_path_factory.mktemp("formats")
    write(folder / "a.csv", "\n".join([HEADER, *map(",".join, rows)]))
    write(folder / "a.jsonl", as_json_lines(rows))
    pq.write_table(as_table(rows), folder / "a.parquet", row_group_size=7)
    parsed = [parse_files(folder / f"a.{kind}", batch_rows=batch_rows) for kind in ("csv", "jsonl", "parquet")]
    assert [len(dead) for _, dead in parsed] == [0, 0, 0]
    for row in [row for rows, _ in parsed for row in rows]:
        row.pop("source")
    assert parsed[0] == parsed[1] == parsed[2]
    assert [row["amount_minor"] for row in parsed[0][0]] == [int(row[4].replace(".", "")) for row in rows]


def test_parquet_is_read_by_row_groups(tmp_path: Path) -> None:
    """Each row group is a piece of its own, and positions go on through them."""
    pq.write_table(as_table(ROWS), tmp_path / "a.parquet", row_group_size=3)
    pieces = check_files(f"{tmp_path}/a.parquet", SCHEMA)
    assert [(piece.row_group, piece.first_row) for piece in pieces] == [(0, 1), (1, 4)]
    batches = read(tmp_path / "a.parquet", batch_rows=2)
    assert [batch.positions.tolist() for batch in batches] == [[1, 2], [3], [4]]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_batches_have_at_most_the_rows_asked_for(name: str, tmp_path: Path) -> None:
    """A file is read in batches, and each takes its time of ingest from the clock."""
    rows = ROWS * 25
    write(tmp_path / "a.csv", "\n".join([HEADER, *map(",".join, rows)]))
    write(tmp_path / "a.jsonl", as_json_lines(rows))
    pq.write_table(as_table(rows), tmp_path / "a.parquet")
    (piece,) = check_files(f"{tmp_path}/{name}", SCHEMA)
    ticks = count(1_000_000, 1_000)
    batches = list(read_piece(piece, SCHEMA, 30, lambda: next(ticks)))
    assert max(len(batch) for batch in batches) <= 30
    assert np.concatenate([batch.positions for batch in batches]).tolist() == list(range(1, 101))
    assert [batch.ingest_time for batch in batches] == sorted({batch.ingest_time for batch in batches})


# CSV


@pytest.mark.parametrize(
    "content",
    [
        CSV.replace("\n", "\r\n"),
        "\ufeff" + CSV,
        CSV.rstrip("\n"),
        "\n\n" + CSV.replace("\n2,", "\n\n \n2,"),
        CSV.replace("596", '"596"').replace("TX_AMOUNT", '"TX_AMOUNT"'),
        "\n".join(f"{line},more" for line in CSV.splitlines()),
        "\n".join(",".join(reversed(line.split(","))) for line in CSV.splitlines()),
    ],
    ids=["CRLF", "BOM", "no last line end", "blank lines", "quotes", "another column", "another order"],
)
def test_csv_in_its_common_forms(content: str, tmp_path: Path) -> None:
    """Line ends, a byte order mark, blank lines, quotes and the order of columns change nothing."""
    expected, _ = parse_files(write(tmp_path / "a.csv", CSV))
    rows, dead = parse_files(write(tmp_path / "a.csv", content))
    assert not dead
    assert rows == expected


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("9,2018-04-01,5,6", "csv_columns"),
        ("9,2018-04-01,5,6,7,0,8", "csv_columns"),
        ('"9,2018-04-01,5,6,7.00,0', "csv_quotes"),
        ('9,2018-04-01,5,6,7.00,"0', "csv_quotes"),
        ("9,2018-04-01,\xff,6,7.00,0", "utf8_invalid"),
        ("9,2018-04-01,\xff", "csv_columns"),
        ("9,2018-04-01,5\r,6,seven,0", "amount_not_a_number"),
        ("9,2018-04-01,5\0,6,seven,0", "amount_not_a_number"),
        ("x" * 1_500_000, "record_too_large"),
        ("9,2018-04-01," + "5" * 1_500_000 + ",6,7.00,0", "record_too_large"),
    ],
)
@pytest.mark.parametrize("quoted", [False, True])
def test_a_broken_csv_row_costs_itself_alone(line: str, reason: str, quoted: bool, tmp_path: Path) -> None:
    """A row with too few or many fields, an open quote, broken UTF-8 or too many bytes takes no neighbour along."""
    lines = CSV.splitlines()
    if quoted:  # then the next quote would close the open one
        lines = [lines[0], *(",".join(f'"{value}"' for value in row.split(",")) for row in lines[1:])]
    lines.insert(3, line)
    rows, dead = parse_files(write(tmp_path / "a.csv", "\n".join(lines).encode("latin-1")))
    assert ids(rows) == ["0", "1", "2", "3"]
    assert [row["position"] for row in rows] == [1, 2, 4, 5]
    assert [(letter.reason, letter.position) for letter in dead] == [(reason, 3)]
    assert len(dead[0].payload) < 5000


def test_an_open_quote_in_the_last_row_costs_that_row(tmp_path: Path) -> None:
    """Where the file ends within a quote, the row that opened it is rejected and no other."""
    rows, dead = parse_files(write(tmp_path / "a.csv", CSV + '9,2018-04-01,5,6,7.00,"0'))
    assert ids(rows) == ["0", "1", "2", "3"]
    assert [(letter.reason, letter.position) for letter in dead] == [("csv_quotes", 5)]


CATEGORY = msgspec.convert(
    {
        "name": "notes",
        "columns": {
            "transaction_id": {"field": "id", "type": "id"},
            "event_time": {"field": "time", "type": "time"},
            "amount_minor": {"field": "amount", "type": "amount"},
            "note": {"field": "note", "type": "category"},
        },
    },
    Schema,
)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("batch_rows", [1, 2, 1000])
def test_a_quoted_category_may_hold_commas_quotes_and_line_ends(end: str, batch_rows: int, tmp_path: Path) -> None:
    """Quoted text is kept to the letter, also where it runs over several lines and batches."""
    notes = ["plain", "a,b", 'say "hi"', f"two{end}lines", f'{end}"{end}', f"three{end}{end}lines"]
    quoted = [note if note == "plain" else '"' + note.replace('"', '""') + '"' for note in notes]
    lines = ["id,time,amount,note", *(f"{at},2018-04-01,5.00,{note}" for at, note in enumerate(quoted))]
    write(tmp_path / "a.csv", end.join(lines) + end)
    rows, dead = parse_files(tmp_path / "a.csv", CATEGORY, batch_rows)
    assert not dead
    assert [row["note"] for row in rows] == notes
    assert [row["position"] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_a_quote_left_open_before_quoted_text_of_several_lines_costs_one_row(tmp_path: Path) -> None:
    """An open quote does not run into the next quoted text: its row is rejected, the text is kept."""
    lines = ["id,time,amount,note", '0,2018-04-01,"5.00,x', '1,2018-04-01,5.00,"two', 'lines"', "2,2018-04-01,5.00,y"]
    rows, dead = parse_files(write(tmp_path / "a.csv", "\n".join(lines)), CATEGORY)
    assert [row["note"] for row in rows] == ["two\nlines", "y"]
    assert [(letter.reason, letter.position, letter.payload) for letter in dead] == [("csv_quotes", 1, lines[1])]


def test_a_lone_carriage_return_is_no_line_end(tmp_path: Path) -> None:
    """Two rows run together by a carriage return are one broken line, also where another row has two lines."""
    row = "{},2018-04-01,5.00,{}"
    lines = ["id,time,amount,note", row.format(0, "x\r") + row.format(9, "y"), row.format(1, '"two'), 'lines"']
    rows, dead = parse_files(write(tmp_path / "a.csv", "\n".join(lines)), CATEGORY)
    assert [(row["transaction_id"], row["note"]) for row in rows] == [("1", "two\nlines")]
    assert [(letter.reason, letter.position) for letter in dead] == [("csv_columns", 1)]


def test_a_byte_order_mark_within_a_file_belongs_to_its_row(tmp_path: Path) -> None:
    """Only the mark at the beginning of a file is taken away, wherever batches begin."""
    write(tmp_path / "a.csv", CSV.replace("\n2,", "\n\ufeff2,"))
    for batch_rows in (1, 2, 1000):
        assert ids(parse_files(tmp_path / "a.csv", batch_rows=batch_rows)[0]) == ["0", "1", "\ufeff2", "3"]


def test_an_open_quote_does_not_wait_for_ever() -> None:
    """A row may go on in the next block, but not over more than a thousand lines."""
    opened = [b'"1,2', b"3,4"]
    waiting = split_rows([*opened, *[b"3,4"] * 500], 2, [0, 1], final=False)
    assert (len(waiting), waiting.left) == (0, 502)
    settled = split_rows([*opened, *[b"3,4"] * 2000], 2, [0, 1], final=False)
    assert (len(settled.places), [row.text for row in settled.broken], settled.left) == (2001, [opened[0]], 0)


CSV_TEXT = st.lists(st.sampled_from(["a", "1", ",", ",", ",", '"', '""', "\n", "\n", "\r\n", "\r", "é", " "])).map(
    "".join
)

CSV_LINE = st.lists(
    st.sampled_from(
        ["", "a", "é", '""', '"a,b"', '"say ""a"""', 'a"b', 'a"', '"a"b', '"a"b"', '"a""', '"a\nb"', ' "a"']
    ),
    min_size=3,
    max_size=3,
).map(",".join)


@settings(max_examples=100)
@given(st.lists(CSV_LINE, min_size=1, max_size=6) | CSV_TEXT.map(lambda text: [text]), st.sampled_from(["\n", "\r\n"]))
def test_arrow_and_the_row_splitter_read_the_same(lines: list[str], end: str) -> None:
    """Where Arrow's way of reading a block is used, the slow way gives the same values."""
    block = "".join(line + end for line in lines).encode()
    fast = csv_files._read_block(block, ["a", "b", "c"], ["a", "c"])
    slow = split_rows(block.split(b"\n")[:-1], 3, one_line=[0], final=True)
    if fast is not None:
        assert not slow.broken
        assert fast.column("a").to_pylist() == slow.column(0)
        assert fast.column("c").to_pylist() == slow.column(2)


@settings(max_examples=100)
@given(CSV_TEXT, st.integers(1, 4))
def test_no_csv_text_loses_a_good_row_after_it(text: str, batch_rows: int) -> None:
    """Whatever comes before, a plain row at the end of the file is read, and every line is accounted for."""
    good = b"1,2,3"
    lines = [*text.encode().split(b"\n"), good]
    split = split_rows(lines, 3, one_line=[0, 1, 2], final=True)
    assert split.values[-3:] == [b"1", b"2", b"3"]
    assert len(split) == sum(1 for line in lines if line.strip())


def test_many_open_quotes_are_rejected_in_reasonable_time(tmp_path: Path) -> None:
    """A file of nothing but rows with open quotes is read in a time that grows with its length, not its square."""
    content = HEADER + "\n" + '"x\n' * 20_000 + '""\n' * 20_000 + ",".join(ROWS[3])
    rows, dead = parse_files(write(tmp_path / "a.csv", content))
    assert ids(rows) == ["3"]
    assert len(dead) == 40_000


# JSON lines


def test_json_lines_are_numbered_with_the_blank_ones(tmp_path: Path) -> None:
    """Blank lines hold no record but count as lines; a byte order mark is no part of the first."""
    first, second, *_ = as_json_lines(ROWS).split(b"\n")
    content = b"\xef\xbb\xbf" + first + b"\r\n\r\n \n" + second
    rows, dead = parse_files(write(tmp_path / "a.jsonl", content))
    assert not dead
    assert [(row["transaction_id"], row["position"]) for row in rows] == [("0", 1), ("1", 4)]


def test_bad_json_lines_are_dead_letters(tmp_path: Path) -> None:
    """A line that is no record is one dead letter at its line."""
    first, second, *_ = as_json_lines(ROWS).split(b"\n")
    rows, dead = parse_files(write(tmp_path / "a.jsonl", b"\n".join([first, b"{", b"\xff", second])))
    assert ids(rows) == ["0", "1"]
    assert [(letter.reason, letter.position) for letter in dead] == [("json_invalid", 2), ("utf8_invalid", 3)]


def test_a_line_above_the_limit_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of 60 MB is one dead letter, and no more than its beginning reaches the batch."""
    first, second, *_ = as_json_lines(ROWS).split(b"\n")
    write(tmp_path / "a.jsonl", first + b'\n{"x": "' + b"y" * 60_000_000 + b'"}\n' + second)
    longest = 0
    feed = text_lines._LineCutter.feed

    def watch(cutter: Any, chunk: bytes) -> Any:
        nonlocal longest
        yield from feed(cutter, chunk)
        longest = max(longest, len(cutter.rest))

    monkeypatch.setattr(text_lines._LineCutter, "feed", watch)
    rows, dead = parse_files(tmp_path / "a.jsonl")
    assert ids(rows) == ["0", "1"]
    assert [(letter.reason, letter.position) for letter in dead] == [("record_too_large", 2)]
    assert "60000009 bytes" in dead[0].error
    assert longest <= 1 << 20


# Lines


@settings(max_examples=100)
@given(
    st.lists(st.integers(0, 12).map(lambda length: b"x" * length), max_size=30),
    st.integers(1, 5),
    st.integers(1, 10),
    st.lists(st.integers(0, 200)),
    st.booleans(),
)
def test_lines_are_the_same_however_the_file_arrives(
    lines: list[bytes], most_lines: int, longest: int, cuts: list[int], ended: bool
) -> None:
    """Chunks and groups of any size give every line once, in order, and long ones as such."""
    text = b"\n".join(lines) + (b"\n" if ended and lines else b"")
    expected = lines if ended or not lines or lines[-1] else lines[:-1]
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    cutter = text_lines._LineCutter(most_lines, longest)
    groups = [group for start, end in pairwise(edges) for group in cutter.feed(text[start:end])]
    groups += cutter.finish(whole=True)
    got: list[bytes] = []
    for group in groups:
        if isinstance(group, LongLine):
            line = expected[len(got)]
            assert group.length == len(line) > longest
            assert line.startswith(group.head)
            assert len(group.head) > longest
            got.append(line)
        else:
            whole = group.text.split(b"\n")[:-1]
            assert whole
            got += whole
    assert got == expected


def test_members_of_an_archive_follow_each_other(tmp_path: Path) -> None:
    """Archives that were appended to, and padded with zeros, are read to their end."""
    compressors: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
        (".gz", gzip.compress),
        (".zst", zstandard.compress),
    )
    for ending, compress in compressors:
        path = write(tmp_path / f"a{ending}", compress(b"1\n2") + compress(b"3\n") + compress(b"") + b"\0" * 5000)
        groups = list(read_lines(str(path), ending, 10, 10))
        assert groups == [Lines(b"1\n23\n")]


# Broken files


def spoil(content: bytes, ending: str) -> bytes:
    """The compressed content cut in the middle."""
    whole = gzip.compress(content) if ending == ".gz" else zstandard.compress(content)
    return whole[: len(whole) // 2]


@pytest.mark.parametrize("ending", [".gz", ".zst"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_truncated_archive_gives_what_it_has_and_one_dead_letter(kind: str, ending: str, tmp_path: Path) -> None:
    """Every whole line before the cut is read; the cut is one dead letter of stage read that names the place."""
    random = np.random.default_rng(5)
    many = [(str(at), ROWS[0][1], str(random.integers(10**9)), "7", "1.25", "0") for at in range(12_000)]
    content = "\n".join([HEADER, *map(",".join, many)]).encode() if kind == "csv" else as_json_lines(many)
    path = write(tmp_path / f"a.{kind}{ending}", spoil(content, ending))
    rows, dead = parse_files(path)
    assert 1000 < len(rows) < 10_000
    assert ids(rows) == [str(at) for at in range(len(rows))]
    assert [(letter.stage, letter.reason) for letter in dead] == [("read", "file_corrupt")]
    assert (dead[0].source, dead[0].position) == (str(path), len(rows) + 1)
    assert "ends in the middle" in dead[0].error


def test_a_flipped_byte_in_an_archive_is_noticed(tmp_path: Path) -> None:
    """Gzip's own check tells that the data is not what was written: one dead letter says from where on."""
    random = np.random.default_rng(5)
    many = [(str(at), ROWS[0][1], str(random.integers(10**9)), "7", "1.25", "0") for at in range(2_000)]
    whole = bytearray(gzip.compress("\n".join([HEADER, *map(",".join, many)]).encode()))
    whole[-6] ^= 1  # in the checksum
    rows, dead = parse_files(write(tmp_path / "a.csv.gz", bytes(whole)))
    assert ids(rows) == [str(at) for at in range(len(rows))]
    assert len(rows) > 1_000
    assert [(letter.reason, letter.position) for letter in dead] == [("file_corrupt", len(rows) + 1)]


def test_a_broken_parquet_page_costs_its_row_group(tmp_path: Path) -> None:
    """Row groups before and after a broken page are read; the broken one is a dead letter at its first row."""
    path = tmp_path / "a.parquet"
    pq.write_table(as_table(ROWS * 3), path, row_group_size=4, write_page_checksum=True)
    column = pq.ParquetFile(path).metadata.row_group(1).column(4)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 2 + 20] ^= 0xFF
    write(path, bytes(content))
    rows, dead = parse_files(path)
    assert [row["position"] for row in rows] == [1, 2, 3, 4, 9, 10, 11, 12]
    assert [(letter.stage, letter.reason, letter.position) for letter in dead] == [("read", "file_corrupt", 5)]
    assert "row group 1" in dead[0].error


def test_a_file_that_is_gone_is_an_error_and_no_dead_letter(tmp_path: Path) -> None:
    """What another attempt may mend is raised, so that the runner tries again."""
    for name in ("a.csv", "a.parquet"):
        write(tmp_path / "a.csv", CSV)
        pq.write_table(as_table(ROWS), tmp_path / "a.parquet")
        (piece,) = check_files(f"{tmp_path}/{name}", SCHEMA)
        os.remove(piece.path)
        with pytest.raises(FileNotFoundError):
            list(read_piece(piece, SCHEMA, 100, lambda: NOW))


def test_a_corrupt_file_tells_what_was_left(tmp_path: Path) -> None:
    """The error of a broken archive carries the beginning of the line it broke off in."""
    path = write(tmp_path / "a.gz", gzip.compress(b"1\n2" + os.urandom(5000))[:-500])
    lines = read_lines(str(path), ".gz", 10, 10**6)
    assert isinstance(next(lines), Lines)
    with pytest.raises(CorruptFileError) as raised:
        list(lines)
    assert raised.value.tail
