"""Rows of CSV text, one by one, so that a broken one cannot take the rows after it along."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from transforms.decode_json import MAX_RECORD_BYTES

#: Lines of one row, at most: what runs on for longer began with a quote left open by mistake.
MOST_LINES = 1000


@dataclass(frozen=True)
class BrokenRow:
    """A line that is no row: its place among the rows, its text, a reason code and a sentence."""

    place: int
    text: bytes
    reason: str
    error: str


@dataclass
class SplitRows:
    """Lines as rows.

    Attributes:
        width: fields of a row.
        values: the fields of all good rows, one row after the other.
        places: the place of each good row among all rows, good and broken, from 0.
        broken: the other rows.
        left: how many lines at the end may be the beginning of a row that goes on after them.
    """

    width: int
    values: list[bytes] = field(default_factory=list)  # flat: a list for each row would cost twice the time
    places: list[int] = field(default_factory=list)
    broken: list[BrokenRow] = field(default_factory=list)
    left: int = 0

    def __len__(self) -> int:
        return len(self.places) + len(self.broken)

    def column(self, place: int) -> list[bytes]:
        """The values of one field."""
        return self.values[place :: self.width]


def split_rows(lines: Sequence[bytes], width: int, one_line: Collection[int], final: bool) -> SplitRows:
    r"""The rows that `lines` hold. Blank lines are passed over.

    A quoted field may run over several lines. Where a quote is left open by mistake, the lines after it
    look like such a field, so a row of several lines counts only when it has just the fields it should
    have and none of `one_line` is broken by a line's end; otherwise its first line alone is broken.

    Args:
        lines: without the byte that ends them.
        width: fields of a row.
        one_line: places of fields that never hold a line's end, such as amounts and times.
        final: whether nothing follows.

    Example:
        >>> split = split_rows([b'1,"two', b'lines"', b'2,"open', b"3,c"], width=2, one_line=[0], final=True)
        >>> split.column(1), [row.text for row in split.broken]
        ([b'two\nlines', b'c'], [b'2,"open'])
    """
    split = SplitRows(width)
    at = 0
    while at < len(lines):
        line = lines[at].removesuffix(b"\r")
        if b'"' not in line:
            if line and not line.isspace():
                _add(split, line, line.split(b","))
            at += 1
            continue
        fields, is_open = split_line(line)
        used = 1
        if is_open:
            fields, used = _join(lines, at, width, one_line)
            if not fields and used == len(lines) - at and not final:
                split.left = used
                return split
        _add(split, line, fields)
        at += used if fields else 1
    return split


def split_line(line: bytes, inside: bool = False) -> tuple[list[bytes], bool]:
    """The fields of one line, and whether the last of them is a quoted one that the line does not close.

    A quote counts only where a field begins; within a quoted field two of them are one. What follows a
    closing quote is part of the field.

    Args:
        line: without its end.
        inside: whether the line begins within a quoted field.

    Example:
        >>> split_line(b'7,"Smith ""Jo"" J., Ltd",5" pipe')
        ([b'7', b'Smith "Jo" J., Ltd', b'5" pipe'], False)
        >>> split_line(b'7,"Smith')
        ([b'7', b'Smith'], True)
    """
    fields: list[bytes] = []
    at = 0
    while True:
        body = b""
        if inside or line.startswith(b'"', at):
            begin = at if inside else at + 1
            end = _closing_quote(line, begin)
            body = line[begin : end if end >= 0 else len(line)].replace(b'""', b'"')
            if end < 0:
                return [*fields, body], True
            at, inside = end + 1, False
        comma = line.find(b",", at)
        fields.append(body + line[at : comma if comma >= 0 else len(line)])
        if comma < 0:
            return fields, False
        at = comma + 1


def _closing_quote(line: bytes, at: int) -> int:
    while (quote := line.find(b'"', at)) >= 0 and line.startswith(b'"', quote + 1):
        at = quote + 2
    return quote


def _add(split: SplitRows, line: bytes, fields: list[bytes]) -> None:
    place = len(split.places) + len(split.broken)
    if len(fields) == split.width:
        split.values += fields
        split.places.append(place)
    elif fields:
        error = f"{len(fields)} fields; expected {split.width}, as in the header"
        split.broken.append(BrokenRow(place, line, "csv_columns", error))
    else:
        error = f"a quote is opened and not closed where it should be; expected {split.width} fields"
        split.broken.append(BrokenRow(place, line, "csv_quotes", error))


def _join(lines: Sequence[bytes], at: int, width: int, one_line: Collection[int]) -> tuple[list[bytes], int]:
    """The fields of the row of several lines that begins at `at`, none if it is broken, and the lines looked at."""
    fields: list[bytes] = []
    pieces: list[bytes] = []  # of the field that is open
    size = 0
    for used in range(1, min(MOST_LINES, len(lines) - at) + 1):
        line = lines[at + used - 1]
        size += len(line) + 1
        parts, is_open = split_line(line.removesuffix(b"\r"), inside=used > 1)
        pieces.append(parts[0])
        if len(parts) > 1:
            fields += [b"".join(pieces), *parts[1:-1]]
            pieces = [parts[-1]]
        if len(fields) >= width or size > MAX_RECORD_BYTES:
            return [], 0
        if not is_open:
            fields.append(b"".join(pieces))
            whole = len(fields) == width and not any(b"\n" in fields[place] for place in one_line)
            return (fields, used) if whole else ([], 0)
        pieces.append(b"\r\n" if line.endswith(b"\r") else b"\n")
    return [], used
