"""Read JSON lines: one object a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from io_connectors.text_lines import Lines, LongLine, read_lines
from transforms.decode_json import MAX_RECORD_BYTES, too_large_letter
from transforms.raw_batch import RawBatch

_BOM = b"\xef\xbb\xbf"


def read_json_lines(path: str, compression: str, batch_rows: int, clock: Callable[[], int]) -> Iterator[RawBatch]:
    """The lines of a file as raw batches of payloads; their positions are line numbers from 1.

    Blank lines are passed over. A line above `MAX_RECORD_BYTES` is rejected, without being held whole.

    Args:
        path: the file, which names the source.
        compression: `.gz`, `.zst` or empty.
        batch_rows: lines of a batch, at most.
        clock: nanoseconds since 1970.

    Raises:
        CorruptFileError: after everything before the place where decompression fails.
    """
    line = 1
    for group in read_lines(path, compression, batch_rows, MAX_RECORD_BYTES):
        now = clock() // 1000
        if isinstance(group, LongLine):
            letter = too_large_letter(group.head, group.length, MAX_RECORD_BYTES, path, line)
            yield RawBatch(path, now, np.empty(0, np.int64), payloads=[], rejected=(letter,))
            line += 1
            continue
        payloads = _payloads(group, first=line == 1)
        filled = [at for at, payload in enumerate(payloads) if payload and not payload.isspace()]
        if filled:
            positions = np.array(filled, dtype=np.int64) + line
            yield RawBatch(path, now, positions, payloads=[payloads[at] for at in filled])
        line += len(payloads)


def _payloads(group: Lines, first: bool) -> list[bytes]:
    text = group.text.removeprefix(_BOM) if first else group.text
    return text.split(b"\n")[:-1]
