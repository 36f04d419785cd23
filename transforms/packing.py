"""Whole numbers in columns as bytes: what a stream remembers, and what passes between its stages."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

#: Matrices of fewer columns are written as they are: looking at them costs more than their bytes do.
FEW_COLUMNS = 256
_WIDE, _NARROW, _ROW = struct.Struct("<I"), struct.Struct("<II"), struct.Struct("<qHB")
_IS_NARROW = 1 << 31
#: How many bytes a number of so many bits takes.
_WIDTHS = (0, *[1] * 8, *[2] * 8, *[4] * 16, *[8] * 31)

Matrix = np.ndarray[Any, Any]


def pack(matrix: Matrix) -> bytes:
    """An int64 matrix as bytes: its number of rows, then its values, little-endian; of many columns, in narrow rows.

    Most of what is kept is 0, or the same all along, or a time or an amount of not many digits. So each row of a
    narrow matrix says where its values begin, whether they are thousands, and how many bytes each of them has.
    """
    rows, columns = matrix.shape
    if columns < FEW_COLUMNS:
        return _WIDE.pack(rows) + np.ascontiguousarray(matrix, dtype="<i8").tobytes()
    heads, contents = [_NARROW.pack(rows | _IS_NARROW, columns)], []
    for row, least, most in zip(matrix, matrix.min(axis=1).tolist(), matrix.max(axis=1).tolist(), strict=True):
        if most - least > 0xFFFF_FFFF * 1000:
            heads.append(_ROW.pack(0, 1, 8))
            contents.append(np.ascontiguousarray(row, dtype="<i8").tobytes())
            continue
        steps, unit = row - least, 1
        if most - least > 0xFF and not (steps % 1000).any():
            steps, unit = steps // 1000, 1000
        width = _WIDTHS[((most - least) // unit).bit_length()]
        heads.append(_ROW.pack(least, unit, width))
        contents.append(steps.astype(f"<u{width}").tobytes() if width else b"")
    return b"".join([*heads, *contents])


def unpack(packed: bytes) -> Matrix:
    """The matrix that `pack` has packed."""
    (rows,) = _WIDE.unpack_from(packed)
    if not rows & _IS_NARROW:
        return np.frombuffer(packed, dtype="<i8", offset=_WIDE.size).reshape(rows, -1)
    rows, columns = rows ^ _IS_NARROW, _NARROW.unpack_from(packed)[1]
    matrix = np.empty((rows, columns), dtype=np.int64)
    at = _NARROW.size + rows * _ROW.size
    for row, (least, unit, width) in zip(matrix, _ROW.iter_unpack(packed[_NARROW.size : at]), strict=True):
        if width:
            row[:] = np.frombuffer(packed, dtype=f"<u{width}", count=columns, offset=at)
            row *= unit
            row += least
        else:
            row[:] = least
        at += columns * width
    return matrix
