"""What could not be processed, with enough to say why and to try again: nothing is dropped."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

import apache_beam as beam
import msgspec

from transforms.batch import PROVENANCE_COLUMNS, TransactionBatch
from transforms.struct_coder import StructCoder

Stage = Literal["read", "parse", "validate", "deduplicate", "enrich", "score", "decide", "write", "alert"]
PAYLOAD_LIMIT = 4096  # characters of a payload kept: a dead letter must never be the next problem

_RUN = re.compile(r"(?<!\d)(?<!\d\.)\d(?:[ -]?\d){12,}")  # digits with at most one space or hyphen between two
_GROUP = re.compile(r"\d+")
_MOST_GROUPS = 5  # of one card number as people write it


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One record that left the pipeline without a decision.

    Attributes:
        stage: the stage that refused it.
        reason: a short code to group by, such as `amount_negative`.
        error: a sentence that says what was found and what was expected.
        payload: the record as text, card numbers masked, at most `PAYLOAD_LIMIT` characters.
        source: where it was read: a file, or a topic and partition.
        position: its place there: a row number or an offset.
        transaction_id: when it was known.
        event_time: microseconds since 1970, when it was known.
    """

    stage: Stage
    reason: str
    error: str
    payload: str
    source: str
    position: int
    transaction_id: str | None = None
    event_time: int | None = None

    def to_json(self) -> bytes:
        """One line of JSON, without the line's end."""
        return msgspec.json.encode(self)


def mask_card_numbers(text: str) -> str:
    """`text` with all but the last four digits of card numbers replaced.

    A run of 13 to 19 digits that passes the Luhn check counts as a card number, also where it is written in
    groups and stands among others, as before an expiry date. Digits after a decimal point do not count.

    Example:
        >>> mask_card_numbers("02 4111-1111-1111-1111 12/27, 4111111111111111.0, 0.4111111111111111")
        '02 ************1111 12/27, ************1111.0, 0.4111111111111111'
    """
    return _RUN.sub(_mask_run, text)


def safe_payload(payload: bytes | str) -> str:
    """`payload` as text that may be kept: valid UTF-8, of bounded length, card numbers masked.

    PCI DSS treats dead letters as storage, hence the masks.

    Example:
        >>> safe_payload(b'{"card": "4111 1111 1111 1111", "id": 7}')
        '{"card": "************1111", "id": 7}'
    """
    # Cut first: masking a record of many megabytes would cost more than keeping it is worth.
    head = payload[: PAYLOAD_LIMIT * 4] if isinstance(payload, bytes) else payload[: PAYLOAD_LIMIT * 2]
    text = head.decode("utf-8", "backslashreplace") if isinstance(head, bytes) else head
    masked = mask_card_numbers(text)
    if len(masked) <= PAYLOAD_LIMIT and len(head) == len(payload):
        return masked
    return masked[:PAYLOAD_LIMIT] + f"... ({len(payload)} long)"


def _mask_run(match: re.Match[str]) -> str:
    """A run of digits in groups, the card numbers among them masked."""
    run = match.group()
    parts, done = [], 0
    for start, end in _card_spans(run):
        digits = [c for c in run[start:end] if c.isdigit()]
        parts += [run[done:start], "*" * (len(digits) - 4), *digits[-4:]]
        done = end
    return "".join([*parts, run[done:]])


def _card_spans(run: str) -> list[tuple[int, int]]:
    """Where a run holds card numbers. Those that overlap are one: whichever is real, it must not show."""
    groups = [group.span() for group in _GROUP.finditer(run)]
    spans: list[tuple[int, int]] = []
    for first, (start, _) in enumerate(groups):
        for _, end in groups[first : first + _MOST_GROUPS]:
            digits = [int(c) for c in run[start:end] if c.isdigit()]
            if not (13 <= len(digits) <= 19 and _passes_luhn(digits)):
                continue
            if spans and start < spans[-1][1]:
                spans[-1] = (spans[-1][0], max(spans[-1][1], end))
            else:
                spans.append((start, end))
    return spans


def _passes_luhn(digits: Iterable[int]) -> bool:
    total = 0
    for at, digit in enumerate(reversed(list(digits))):
        doubled = digit * 2 if at % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def dead_letters_of_rows(batch: TransactionBatch, stage: Stage, reason: str, error: str) -> list[DeadLetter]:
    """A dead letter for every row of a parsed batch; the payload is the row as JSON."""
    content = batch.without_columns(PROVENANCE_COLUMNS).rows.to_pylist()
    times = batch.numpy("event_time").tolist()
    places = batch.rows.select(["source", "position"]).to_pylist()
    return [
        DeadLetter(
            stage=stage,
            reason=reason,
            error=error,
            payload=safe_payload(msgspec.json.encode(row)),
            source=place["source"],
            position=place["position"],
            transaction_id=safe_payload(row["transaction_id"]),
            event_time=time,
        )
        for row, place, time in zip(content, places, times, strict=True)
    ]


beam.coders.registry.register_coder(DeadLetter, StructCoder)
