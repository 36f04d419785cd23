"""What could not be processed, with enough to say why and to try again: nothing is dropped."""

from __future__ import annotations

from typing import Literal

import apache_beam as beam
import msgspec

from transforms.batch import PROVENANCE_COLUMNS, TransactionBatch
from transforms.card_numbers import mask_card_numbers
from transforms.struct_coder import StructCoder

Stage = Literal["read", "parse", "validate", "deduplicate", "enrich", "score", "decide", "write", "alert"]
PAYLOAD_LIMIT = 4096  # characters of a payload kept: a dead letter must never be the next problem


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
