"""What a command says to its user: results on standard output, complaints on standard error."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from pipelines.formats import printable
from transforms.card_numbers import mask_card_numbers


def complain(text: str, stream: TextIO | None = None) -> None:
    """One line on standard error, or another stream, whatever the text holds; card numbers are masked."""
    print(mask_card_numbers(printable(" ".join(text.splitlines()))), file=stream or sys.stderr)


def tell(text: str) -> None:
    """Text on standard output, whatever that can show, and whether or not anybody still reads it."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
