"""Event-time order, lateness and the watermark hold, on the runner, with TestStream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.test_stream import TestStream
from apache_beam.testing.util import assert_that
from apache_beam.transforms.window import TimestampedValue

from transforms.batch import TransactionBatch, earliest, from_rows, to_rows
from transforms.deduplicate import Deduplicate
from transforms.enrich import EnrichTransactions
from transforms.features import Declaration, FeatureSet

SECOND = 1_000_000
COUNT = Declaration(kind="count", entity="customer_id", windows=("1m",))
SUM = Declaration(kind="sum", entity="terminal_id", column="amount", windows=("1m",))
ONE_ENTITY = FeatureSet(name="one", declared=(COUNT,))
TWO_ENTITIES = FeatureSet(name="two", declared=(COUNT, SUM))


def batch(*rows: tuple[str, int, str, str]) -> TransactionBatch:
    """A batch from (id, second, customer, terminal); every amount is 1.00."""
    return from_rows(
        {"transaction_id": i, "event_time": s * SECOND, "customer_id": c, "terminal_id": t, "amount_minor": 100}
        for i, s, c, t in rows
    )


def stream(*events: TransactionBatch | int) -> TestStream:
    """A stream in which a number moves the watermark to that second."""
    script = TestStream()
    for event in events:
        if isinstance(event, int):
            script.advance_watermark_to(event)
        else:
            script.add_elements([TimestampedValue(event, earliest(event))])
    script.advance_watermark_to_infinity()
    return script


def run(
    source: beam.PTransform[Any, Any],
    check: Callable[[list[dict[str, Any]], list[Any]], None],
    transform: beam.PTransform[Any, Any],
) -> None:
    """Put what `source` gives through `transform`; `check` gets the rows as they came, and the dead letters."""
    with TestPipeline(options=PipelineOptions([])) as pipeline:
        outputs = pipeline | source | transform
        everything = (
            outputs.batches | "Rows" >> beam.FlatMap(to_rows),
            outputs.dead_letters | "Dead" >> beam.Map(lambda letter: letter),
        ) | beam.Flatten()

        def matcher(found: Iterable[Any]) -> None:
            found = list(found)
            check([x for x in found if isinstance(x, dict)], [x for x in found if not isinstance(x, dict)])

        assert_that(everything, matcher)


def by_id(rows: Sequence[dict[str, Any]], column: str) -> dict[str, Any]:
    return {row["transaction_id"]: row[column] for row in rows}


def test_rows_wait_for_the_watermark_and_are_taken_in_event_order() -> None:
    """A row that comes second but happened first is counted first."""

    def check(rows: list[dict[str, Any]], dead: list[Any]) -> None:
        assert by_id(rows, "customer_count_1m") == {"early": 1.0, "late_comer": 2.0, "last": 3.0}
        assert not dead
        assert not any(by_id(rows, "late").values())

    events: list[TransactionBatch | int] = [
        batch(("late_comer", 20, "c", "t"), ("last", 30, "c", "t")),
        batch(("early", 10, "c", "t")),
        40,
    ]
    run(stream(*events), check, EnrichTransactions(ONE_ENTITY))


def test_a_row_behind_the_flushed_ones_is_late_and_joins_history() -> None:
    """A row behind the watermark is decided at once as of its time, says so, and counts for those after it."""

    def check(rows: list[dict[str, Any]], dead: list[Any]) -> None:
        assert by_id(rows, "late") == {"a": False, "b": True, "c": False}
        assert by_id(rows, "customer_count_1m") == {"a": 1.0, "b": 1.0, "c": 3.0}
        assert not dead

    events: list[TransactionBatch | int] = [
        batch(("a", 20, "c", "t")),
        30,
        batch(("b", 10, "c", "t")),
        batch(("c", 40, "c", "t")),
        50,
    ]
    run(stream(*events), check, EnrichTransactions(ONE_ENTITY))


def test_a_row_beyond_the_allowed_lateness_is_a_dead_letter() -> None:
    """A row further behind than the allowed lateness gets no decision, and its dead letter says why."""

    def check(rows: list[dict[str, Any]], dead: list[Any]) -> None:
        assert [row["transaction_id"] for row in rows] == ["a"]
        assert [(letter.reason, letter.transaction_id) for letter in dead] == [("too_late", "b")]
        assert "allowed_lateness" in dead[0].error

    events: list[TransactionBatch | int] = [batch(("a", 20, "c", "t")), 30, batch(("b", 10, "c", "t"))]
    run(stream(*events), check, EnrichTransactions(ONE_ENTITY, allowed_lateness=5 * SECOND))


def test_of_a_repeated_id_the_first_in_event_time_stands() -> None:
    """A repeated id is a dead letter, even across customers; which one stands depends on event time alone."""

    def check(rows: list[dict[str, Any]], dead: list[Any]) -> None:
        assert [(row["transaction_id"], row["customer_id"]) for row in rows] == [("a", "c1")]
        assert [letter.reason for letter in dead] == ["duplicate"]

    run(stream(batch(("a", 20, "c2", "t")), batch(("a", 10, "c1", "t")), 30), check, Deduplicate())


def test_arrival_order_waits_for_nothing() -> None:
    """Under arrival ordering a row is scored as it comes; one older than its customer's newest says late."""

    def check(rows: list[dict[str, Any]], dead: list[Any]) -> None:
        assert by_id(rows, "customer_count_1m") == {"b": 1.0, "a": 1.0, "c": 3.0}
        assert by_id(rows, "late") == {"b": False, "a": True, "c": False}

    events: list[TransactionBatch | int] = [
        batch(("b", 20, "c", "t")),
        batch(("a", 10, "c", "t")),
        batch(("c", 30, "c", "t")),
    ]
    run(stream(*events), check, EnrichTransactions(ONE_ENTITY, ordering="arrival"))


def test_input_that_ends_is_taken_in_order_across_stages_and_shards() -> None:
    """On the runner the DirectRunner uses for input that ends, no row is late in any stage, whatever the times."""
    seconds = [40, 10, 4_000_000_000, 30, 20]

    def check(rows: list[dict[str, Any]], dead: list[Any]) -> None:
        counts = by_id(rows, "terminal_amount_sum_1m")
        assert counts == {"10": 1.0, "20": 2.0, "30": 3.0, "40": 4.0, "4000000000": 1.0}
        assert not any(by_id(rows, "late").values())

    source = beam.Create([batch((str(s), s, f"c{s}", "t")) for s in seconds])
    run(source, check, EnrichTransactions(TWO_ENTITIES, shards=16))
