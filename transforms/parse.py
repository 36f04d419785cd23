"""Raw records become transactions, or dead letters that say why not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import apache_beam as beam
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.batch import CANONICAL_FIELDS, EVENT_TIME, TransactionBatch, earliest
from transforms.convert import ARROW_TYPES, Mask, convert, widen
from transforms.dead_letters import DeadLetter, safe_payload
from transforms.decode_json import MAX_RECORD_BYTES, decode_json
from transforms.raw_batch import RawBatch
from transforms.schema import Schema
from transforms.validate import RecordError, Rules, check_fields, used_fields, validate_record


class Parsed(NamedTuple):
    """What `ParseTransactions` gives.

    Attributes:
        batches: PCollection of `TransactionBatch`, each at the time of its earliest transaction.
        dead_letters: PCollection of `DeadLetter`: stages `read`, `parse` and `validate`.
    """

    batches: beam.PCollection[TransactionBatch]
    dead_letters: beam.PCollection[DeadLetter]


class ParseTransactions(beam.PTransform[beam.PCollection[RawBatch], Parsed]):
    """Parse and validate raw batches: PCollection of `RawBatch` to `Parsed`.

    Args:
        schema: the source's fields.
        max_record_bytes: longer JSON records become dead letters without being decoded.
        apart: whether batches stand apart from their reader; see `ReadKafka`.

    Example:
        >>> import apache_beam as beam
        >>> import numpy as np
        >>> from apache_beam.testing.test_pipeline import TestPipeline
        >>> from apache_beam.testing.util import assert_that, equal_to
        >>> from transforms.parse import ParseTransactions
        >>> from transforms.raw_batch import RawBatch
        >>> from transforms.schema import load_schema
        >>> payloads = [
        ...     b'{"transaction_id": "t1", "user_id": "u1", "amount": 57.16, "timestamp": "2026-01-02T03:04:05Z"}',
        ...     b'{"transaction_id": "t2", "user_id": "u1", "amount": -1, "timestamp": "2026-01-02T03:04:06Z"}',
        ... ]
        >>> raw = RawBatch("topic-0", 1_780_000_000_000_000, np.arange(2), payloads=payloads)
        >>> with TestPipeline() as pipeline:
        ...     parsed = pipeline | beam.Create([raw]) | ParseTransactions(load_schema("transaction-events"))
        ...     amounts = parsed.batches | beam.Map(lambda batch: batch.numpy("amount_minor")[0])
        ...     _ = assert_that(amounts, equal_to([5716]))
        ...     _ = parsed.dead_letters | beam.Map(lambda letter: print(letter.reason, "-", letter.error))
        amount_negative - amount is -1; expected an amount of 0 or more
    """

    def __init__(self, schema: Schema, max_record_bytes: int = MAX_RECORD_BYTES, apart: bool = False) -> None:
        super().__init__()
        self.schema = schema
        self.max_record_bytes = max_record_bytes
        self.apart = apart

    def expand(self, raw: beam.PCollection[RawBatch]) -> Parsed:
        """Wire `parse`."""
        outputs = raw | beam.ParDo(_Parse(self.schema, self.max_record_bytes)).with_outputs(
            "dead_letters", main="batches"
        )
        # Tagged outputs have no types of their own, and without them no coder but pickle.
        outputs.batches.element_type = TransactionBatch
        outputs.dead_letters.element_type = DeadLetter
        batches = outputs.batches | "Apart" >> beam.Reshuffle() if self.apart else outputs.batches
        return Parsed(batches, outputs.dead_letters)


class _Parse(beam.DoFn):
    def __init__(self, schema: Schema, max_record_bytes: int) -> None:
        self.schema = schema
        self.max_record_bytes = max_record_bytes

    def process(self, raw: RawBatch) -> Iterator[Any]:
        batch, dead = parse(raw, self.schema, self.max_record_bytes)
        for letter in dead:
            yield beam.pvalue.TaggedOutput("dead_letters", letter)
        if batch is not None:
            yield beam.transforms.window.TimestampedValue(batch, earliest(batch))


def parse(
    raw: RawBatch, schema: Schema, max_record_bytes: int = MAX_RECORD_BYTES
) -> tuple[TransactionBatch | None, list[DeadLetter]]:
    """The transactions of a raw batch, in its order, and what could not be one.

    No record changes what becomes of another, and together they are as many as `len(raw)`: what the
    reader had rejected is among the dead letters.

    Args:
        raw: records as read.
        schema: the source's fields.
        max_record_bytes: longer JSON records become dead letters without being decoded.

    Returns:
        A batch with the columns of `parsed_fields(schema)`, or None when no record is good; dead letters.

    Raises:
        UserError: the batch has columns, and not one that the schema needs.
    """
    dead = list(raw.rejected)
    if len(raw.positions) == 0:
        return None, dead
    records = _records(raw, schema, max_record_bytes)
    rules = Rules.of(schema, raw.ingest_time, typed=raw.columns is not None)
    columns, sure = _convert_all(records, rules, len(raw.positions))
    places = np.flatnonzero(sure)
    if len(places) < len(sure):
        found, letters = _one_by_one(np.flatnonzero(~sure), records, rules, raw)
        dead += letters
        columns, places = _merge(columns, sure, found)
    if len(places) == 0:
        return None, dead
    return _batch(columns, places, raw, schema), dead


def parsed_fields(schema: Schema) -> tuple[pa.Field, ...]:
    """The columns of a parsed batch: the canonical ones, then the schema's own."""
    own = (pa.field(name, ARROW_TYPES[schema.columns[name].type]) for name in schema.own_columns)
    return (*CANONICAL_FIELDS, *own)


class _Records(Protocol):
    """Records as columns, and one by one for those that columns cannot tell."""

    @property
    def columns(self) -> Mapping[str, pa.Array]: ...

    @property
    def sure(self) -> Mask: ...

    def record(self, at: int) -> Mapping[str, Any]: ...

    def payload(self, at: int) -> bytes: ...


@dataclass(frozen=True)
class _ColumnRecords:
    """Records that were read as columns."""

    columns: Mapping[str, pa.Array]
    sure: Mask

    def record(self, at: int) -> dict[str, Any]:
        return {field: _scalar(values.slice(at, 1)) for field, values in self.columns.items()}

    def payload(self, at: int) -> bytes:
        """The row as JSON."""
        return msgspec.json.encode({field: _shown(value) for field, value in self.record(at).items()}, enc_hook=str)


def _records(raw: RawBatch, schema: Schema, max_record_bytes: int) -> _Records:
    if raw.payloads is not None:
        return decode_json(raw.payloads, schema, max_record_bytes)
    if raw.columns is None:
        raise ValueError(f"raw batch of {raw.source} has neither payloads nor columns")
    names = raw.columns.schema.names
    check_fields(names, schema, raw.source)
    used = {field: raw.columns.column(field) for field in used_fields(schema) if field in names}
    for column in schema.columns.values():
        if column.type == "amount" and column.field in used:
            used[column.field] = widen(used[column.field])
    return _ColumnRecords(used, np.ones(len(raw.positions), dtype=np.bool_))


class _Unreadable:
    """A value that Python cannot hold."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __str__(self) -> str:
        return f"a value of type {self.kind}"


def _scalar(value: pa.Array) -> Any:
    """The one value of an array."""
    if pa.types.is_dictionary(value.type):
        value = value.dictionary_decode()
    if pa.types.is_timestamp(value.type) or pa.types.is_date(value.type):
        value = value.cast(pa.string())  # Python's own times end with the year 9999
    try:
        return value.to_pylist()[0]
    except UnicodeDecodeError:  # text that is not UTF-8
        return value.cast(pa.binary()).to_pylist()[0]
    except (ArithmeticError, ValueError):
        return _Unreadable(str(value.type))


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def _convert_all(records: _Records, rules: Rules, length: int) -> tuple[dict[str, pa.Array], Mask]:
    """Every column of the schema, and for each record whether all of them are certain."""
    sure = records.sure.copy()
    columns = {}
    for name, column in rules.schema.columns.items():
        if column.field is None:
            continue
        if column.field not in records.columns:
            columns[name] = pa.nulls(length, ARROW_TYPES[column.type])
            continue
        columns[name], certain = convert(records.columns[column.field], name, column, rules)
        sure &= certain
    return columns, sure


def _one_by_one(
    places: Iterable[int], records: _Records, rules: Rules, raw: RawBatch
) -> tuple[dict[int, dict[str, Any]], list[DeadLetter]]:
    """The values of the good records among `places`, and dead letters for the others."""
    found: dict[int, dict[str, Any]] = {}
    dead = []
    for at in places:
        values: dict[str, Any] = {}
        try:
            values, refused = validate_record(records.record(at), rules)
        except RecordError as error:
            refused = error
        if refused is None:
            found[at] = values
        else:
            dead.append(_letter(refused, values, records.payload(at), raw.source, int(raw.positions[at])))
    return found, dead


def _letter(refused: RecordError, values: Mapping[str, Any], payload: bytes, source: str, position: int) -> DeadLetter:
    known = values.get("transaction_id")
    return DeadLetter(
        stage=refused.stage,
        reason=refused.reason,
        error=refused.error,
        payload=safe_payload(payload),
        source=source,
        position=position,
        transaction_id=None if known is None else safe_payload(known),
        event_time=values.get("event_time"),
    )


def _merge(
    columns: Mapping[str, pa.Array], sure: Mask, found: Mapping[int, Mapping[str, Any]]
) -> tuple[dict[str, pa.Array], np.ndarray[Any, np.dtype[np.int64]]]:
    """The certain rows of `columns` and the rows found one by one, in the order they were read."""
    places = np.concatenate([np.flatnonzero(sure), np.fromiter(found, dtype=np.int64, count=len(found))])
    order = np.argsort(places)
    keep, moved = pa.array(sure), pa.array(order)
    merged = {}
    for name, values in columns.items():
        kept = values.filter(keep)
        if found:
            more = pa.array([row[name] for row in found.values()], values.type)
            kept = pa.concat_arrays([kept, more]).take(moved)
        merged[name] = kept
    return merged, places[order]


def _batch(
    columns: Mapping[str, pa.Array], places: np.ndarray[Any, np.dtype[np.int64]], raw: RawBatch, schema: Schema
) -> TransactionBatch:
    """The canonical columns with those of the schema, for the records at `places` of the raw batch."""
    rows = len(places)
    positions = pa.array(raw.positions[places])
    fixed = {
        "late": pa.repeat(False, rows),
        "source": pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), [raw.source]),
        "position": positions,
        "ingest_time": pa.repeat(pa.scalar(raw.ingest_time, pa.int64()), rows).view(EVENT_TIME),
    }
    if "transaction_id" not in columns:  # the schema has no field for it: source and position make one
        fixed["transaction_id"] = pc.binary_join_element_wise(raw.source, positions.cast(pa.string()), ":")
    known = {**fixed, **columns}
    fields = parsed_fields(schema)
    arrays = [known[field.name] if field.name in known else pa.nulls(rows, field.type) for field in fields]
    return TransactionBatch(pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields)))
