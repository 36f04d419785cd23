"""The rule language: what it means, what it refuses, and where it says the mistake is."""

from __future__ import annotations

import contextlib
import math
import operator
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from apache_beam.internal import pickler
from hypothesis import given
from hypothesis import strategies as st

from transforms import rules as rules_module
from transforms.batch import TransactionBatch, from_rows
from transforms.errors import UserError
from transforms.features import load_feature_set
from transforms.rules import Kind, Rule, check_rules, compile_rules, rule_columns
from transforms.schema import load_schema, shipped_schemas

COLUMNS: dict[str, Kind] = {
    "amount_minor": "number",
    "customer_id": "text",
    "amount": "number",
    "mean": "number",
    "category": "text",
    "weekend": "boolean",
    "online": "boolean",
}
EXTRA = {
    "amount": pa.float64(),
    "mean": pa.float64(),
    "category": pa.dictionary(pa.int32(), pa.string()),
    "weekend": pa.float64(),  # features are floats
    "online": pa.bool_(),
}


def batch_of(rows: list[dict[str, Any]]) -> TransactionBatch:
    filled = [{"transaction_id": str(at), "event_time": 0, "amount_minor": 0, **row} for at, row in enumerate(rows)]
    return from_rows(filled, EXTRA)


def rule(when: str, name: str = "r") -> Rule:
    return Rule(name=name, when=when, action="review")


def hits(when: str, rows: list[dict[str, Any]]) -> list[bool]:
    [(_, mask)] = compile_rules([rule(when)], COLUMNS).apply(batch_of(rows))
    assert mask.dtype == np.bool_
    assert mask.shape == (len(rows),)
    return [bool(hit) for hit in mask]


def error_of(when: str) -> str:
    with pytest.raises(UserError) as caught:
        compile_rules([rule(when)], COLUMNS)
    return str(caught.value)


# What the language means: Python's own evaluation of the same text, a row at a time, is the oracle.


class Cell:
    """A value of one row under the language's rules of null: comparisons with it are false."""

    def __init__(self, value: Any) -> None:
        self.value = None if isinstance(value, float) and math.isnan(value) else value

    def __bool__(self) -> bool:
        return self.value is not None and self.value != 0

    def _compared(self, other: Cell, compare: Callable[[Any, Any], bool]) -> bool:
        return self.value is not None and other.value is not None and compare(self.value, other.value)

    def _calculated(self, other: Cell, compute: Callable[[Any, Any], Any]) -> Cell:
        if self.value is None or other.value is None or (compute is operator.truediv and other.value == 0):
            return Cell(None)
        return Cell(compute(float(self.value), float(other.value)))

    def __lt__(self, other: Cell) -> bool:
        return self._compared(other, operator.lt)

    def __le__(self, other: Cell) -> bool:
        return self._compared(other, operator.le)

    def __gt__(self, other: Cell) -> bool:
        return self._compared(other, operator.gt)

    def __ge__(self, other: Cell) -> bool:
        return self._compared(other, operator.ge)

    def __eq__(self, other: Any) -> bool:
        return self._compared(other, operator.eq)

    def __ne__(self, other: Any) -> bool:
        return self._compared(other, operator.ne)

    __hash__ = None  # type: ignore[assignment]  # equality that depends on nulls is none to hash by

    def __add__(self, other: Cell) -> Cell:
        return self._calculated(other, operator.add)

    def __sub__(self, other: Cell) -> Cell:
        return self._calculated(other, operator.sub)

    def __mul__(self, other: Cell) -> Cell:
        return self._calculated(other, operator.mul)

    def __truediv__(self, other: Cell) -> Cell:
        return self._calculated(other, operator.truediv)

    def __neg__(self) -> Cell:
        return Cell(None) if self.value is None else Cell(-self.value)


def one_by_one(oracle: str, rows: list[dict[str, Any]]) -> list[bool]:
    functions = {
        "Cell": Cell,
        "hour": lambda cell: Cell(cell.value // 3_600_000_000 % 24),
        "is_null": lambda cell: cell.value is None,
        "not_in": lambda cell, items: cell.value is not None and all(cell != item for item in items),
    }
    found = []
    for row in rows:
        names = {name: Cell(row.get(name)) for name in (*COLUMNS, "event_time")}
        value = eval(oracle, {"__builtins__": {}}, {**functions, **names})  # noqa: S307  # text this test made up
        found.append(bool(value))
    return found


Pair = tuple[str, str]  # the same expression for the language and for the oracle


def same(text: str) -> Pair:
    return text, text


def joined(*parts: Pair | str) -> Pair:
    """The parts put together; a plain string stands in both texts."""
    pairs = [same(part) if isinstance(part, str) else part for part in parts]
    return "".join(text for text, _ in pairs), "".join(oracle for _, oracle in pairs)


def constant(value: object) -> Pair:
    return repr(value), f"Cell({value!r})"


def join_all(*strategies: st.SearchStrategy[Pair] | str) -> st.SearchStrategy[Pair]:
    return st.tuples(*(st.just(s) if isinstance(s, str) else s for s in strategies)).map(lambda parts: joined(*parts))


def one_of_texts(*texts: str) -> st.SearchStrategy[Pair]:
    return st.sampled_from(texts).map(same)


NUMBERS = st.one_of(st.integers(0, 6), st.sampled_from([0.5, 1e-300, 1e300, 57.16])).map(constant)
WORDS = st.sampled_from(["Gaming", "Travel", "", "it's", 'say "hi"', "back\\slash", "é漢"])
NUMBER_COLUMNS = one_of_texts("amount_minor", "amount", "mean", "weekend", "online", "hour(event_time)")
TEXT_COLUMNS = one_of_texts("category", "customer_id")
CALCULATE = one_of_texts(" + ", " - ", " * ", " / ")
COMPARE = one_of_texts(" < ", " <= ", " > ", " >= ", " == ", " != ")
EQUAL = one_of_texts(" == ", " != ")

number = st.recursive(
    NUMBER_COLUMNS | NUMBERS,
    lambda inner: (
        join_all(inner, CALCULATE, inner) | join_all("(", inner, CALCULATE, inner, ")") | join_all("-", inner)
    ),
    max_leaves=5,
)
of_column = join_all(NUMBER_COLUMNS, CALCULATE, number) | NUMBER_COLUMNS


def membership(column: str, items: list[Any], wanted: bool) -> Pair:
    text = f"{column} {'in' if wanted else 'not in'} ({', '.join(map(repr, items))},)"
    cells = f"({', '.join(f'Cell({item!r})' for item in items)},)"
    return text, f"({column} in {cells})" if wanted else f"not_in({column}, {cells})"


comparison = st.one_of(
    join_all(of_column, COMPARE, number),
    join_all(number, COMPARE, of_column),
    join_all(number, COMPARE, of_column, COMPARE, number),
    join_all(TEXT_COLUMNS, EQUAL, TEXT_COLUMNS | WORDS.map(constant)),
    one_of_texts("weekend", "online"),
    one_of_texts(*(f"is_null({name})" for name in COLUMNS)),
    st.builds(
        membership, st.sampled_from(["amount", "online"]), st.lists(st.integers(-3, 3), min_size=1), st.booleans()
    ),
    st.builds(membership, st.sampled_from(["category", "customer_id"]), st.lists(WORDS, min_size=1), st.booleans()),
)


def at_least(count: Pair, *conditions: Pair) -> Pair:
    """So many of the conditions hold: each is 0 or 1 where a number is wanted, but a bare column may be null there."""
    columns = ("weekend", "online")
    cells = [oracle if text in columns else f"Cell(1 if {oracle} else 0)" for text, oracle in conditions]
    return (
        f"({' + '.join(f'({text})' for text, _ in conditions)} >= {count[0]})",
        f"({' + '.join(cells)} >= {count[1]})",
    )


condition = st.recursive(
    comparison,
    lambda inner: st.one_of(
        join_all(inner, one_of_texts(" and ", " or "), inner),
        join_all("not ", inner),
        join_all("(", inner, one_of_texts(" and ", " or "), inner, ")"),
        st.builds(at_least, NUMBERS, inner, inner),
    ),
    max_leaves=5,
)
row = st.fixed_dictionaries(
    {
        "event_time": st.integers(-(10**15), 2 * 10**15),
        "amount_minor": st.integers(0, 10**12),
        "amount": st.none() | st.sampled_from([0.0, 1.0, 2.0, 57.16, 1e300, math.inf, math.nan, -1.0]),
        "mean": st.none() | st.sampled_from([0.0, 0.5, 1.0, -0.0, math.nan]),
        "weekend": st.none() | st.sampled_from([0.0, 1.0, math.nan]),
        "online": st.none() | st.booleans(),
        "customer_id": st.none() | WORDS,
        "category": st.none() | WORDS,
    }
)


@given(condition, st.lists(row, max_size=8))
def test_columns_give_what_python_gives_row_by_row(pair: Pair, rows: list[dict[str, Any]]) -> None:
    """A rule run on columns hits the very rows that Python's own evaluation of its text hits one by one."""
    text, oracle = pair
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of NumPy about a division or an overflow
        assert hits(text, rows) == one_by_one(oracle, rows)


@pytest.mark.parametrize(
    "when",
    [
        "amount > 5",
        "amount <= 5",
        "amount == 5",
        "amount != 5",
        "amount in (5, 6)",
        "amount not in (5, 6)",
        "amount / 0 < 5",
        "amount / 0 >= 5",
        "amount * 2 != 5",
        "-amount < 5",
        "category == 'a'",
        "category != 'a'",
        "category in ('a',)",
        "category not in ('a',)",
        "category == customer_id",
        "weekend",
        "weekend == 0",
    ],
)
def test_a_comparison_with_nothing_is_false(when: str) -> None:
    """Whichever way a comparison is put, a null and a NaN make it false."""
    assert hits(when, [{}, {"amount": math.nan, "weekend": math.nan}]) == [False, False]


def test_a_number_divided_by_zero_compares_as_false() -> None:
    """A ratio with an empty history hits no rule, in either direction."""
    rows = [{"amount": 5.0, "mean": 0.0}, {"amount": 5.0, "mean": 1.0}]
    assert hits("amount / mean > 3", rows) == [False, True]
    assert hits("amount / mean < 3", rows) == [False, False]


def test_hours_are_utc_and_start_at_midnight() -> None:
    """hour(event_time) is 0 at midnight UTC and 23 in the last microsecond of the day, before 1970 too."""
    day = 86_400_000_000
    times = [0, day - 1, day, -1]
    assert hits("hour(event_time) == 23", [{"event_time": time} for time in times]) == [False, True, False, True]


def test_a_condition_may_have_lines_and_comments() -> None:
    """Line ends and comments in a condition change nothing of what it says."""
    when = "amount > 5  # large\r\n  and (category ==\n 'a')  # and odd\n"
    assert hits(when, [{"amount": 6.0, "category": "a"}, {"amount": 6.0}]) == [True, False]


def test_every_rule_answers_in_order() -> None:
    """Each rule has its own mask, and they come in the order of the rules."""
    rules = [rule("amount > 1", "one"), rule("amount > 2", "two"), rule("amount > 1", "again")]
    answers = compile_rules(rules, COLUMNS).apply(batch_of([{"amount": 2.0}]))
    assert [(answer.name, mask.tolist()) for answer, mask in answers] == [
        ("one", [True]),
        ("two", [False]),
        ("again", [True]),
    ]


def test_compiled_rules_travel_to_workers() -> None:
    """Compiled rules survive Beam's own way of sending a DoFn and hit the same rows afterwards."""
    compiled = compile_rules([rule("amount / mean > 3 and category in ('a', 'b')")], COLUMNS)
    batch = batch_of([{"amount": 4.0, "mean": 1.0, "category": "b"}, {"amount": 4.0, "mean": 2.0, "category": "b"}])
    arrived = pickler.loads(pickler.dumps(compiled))
    assert arrived.rules == compiled.rules
    assert [mask.tolist() for _, mask in arrived.apply(batch)] == [[True, False]]


def test_a_slice_of_a_batch_is_judged_by_its_own_rows() -> None:
    """A view into a batch gives the masks of its rows, not those of the batch's first rows."""
    batch = batch_of([{"amount": float(at), "category": str(at), "event_time": at * 3_600_000_000} for at in range(6)])
    compiled = compile_rules([rule("amount >= 4 and category != '5' and hour(event_time) == 4")], COLUMNS)
    assert compiled.apply(batch.slice(3))[0][1].tolist() == [False, True, False]


# What the language refuses.


@pytest.mark.parametrize("name", ["is_fraud", "late", "source", "position", "ingest_time"])
def test_what_is_not_known_at_decision_time_is_refused(name: str) -> None:
    """Labels and the circumstances of delivery are refused with an explanation, even if offered as columns."""
    with pytest.raises(UserError, match=f"{name} cannot be used in a rule: .*(known|says nothing)"):
        compile_rules([rule(f"{name} == 1")], {**COLUMNS, name: "number"})


@pytest.mark.parametrize(
    ("when", "place", "says"),
    [
        ("amount > 5 and amonut < 7", "column 16", "did you mean amount?"),
        ("category == 'é漢' and amonut < 7", "column 22", "did you mean amount?"),
        ("amount > 5\n  and amonut < 7", "line 2, column 7", "did you mean amount?"),
        ("\n\n amonut > 5\n and weekend", "line 3, column 2", "did you mean amount?"),
        ("(weekend\rand zzzz)", "line 2, column 5", "neither a column nor a feature; there are amount_minor"),
        ("category > 5", "column 1", "category is text and 5 is a number"),
        ("weekend and category == 5", "column 13", "category is text and 5 is a number"),
        ("category < 'a'", "column 1", "compared with ==, !=, in and not in only"),
        ("category + 1 > 2", "column 1", "only numbers can be calculated with"),
        ("amount", "column 1", "amount is a number, not a condition"),
        ("amount > 1 and category", "column 16", "category is text, not a condition"),
        ("not 5", "column 5", "not a condition"),
        ("1 < 2", "column 1", "both constants"),
        ("category in (1, 2)", "column 14", "1 is not text, but category is"),
        ("amount in (1, 'a')", "column 15", "'a' is not a number, but amount is"),
        ("amount in (1, mean)", "column 15", "a list holds constants only"),
        ("amount in (1, (2,))", "column 15", "(2,) is not a number"),
        ("amount in ()", "column 11", "a list stands after in"),
        ("category in 'abc'", "column 13", "for one value write category =="),
        ("category in ('a' 'b')", "column 14", "is a comma missing?"),
        ("5 in (5, 6)", "column 1", "a column stands before in"),
        ("amount in (1, 2) == online", "column 1", "chains `in`"),
        ("amount == (1, 2)", "column 11", "a list stands only after in"),
        ("amount = 5", "column 1", "not a condition"),
        ("amount > 5 & weekend", "column 10", "write `and`"),
        ("weekend | online", "column 1", "write `or`"),
        ("~weekend", "column 1", "write `not`"),
        ("amount is 5", "column 1", "is_null"),
        ("amount == None", "column 11", "is_null"),
        ("event_time > 5", "column 1", "write hour(event_time)"),
        ("is_null(event_time)", "column 9", "write hour(event_time)"),
        ("hour > 5", "column 1", "write hour(event_time)"),
        ("hour(amount) > 5", "column 1", "write hour(event_time)"),
        ("hour(event_time, 2) > 5", "column 1", "write hour(event_time)"),
        ("is_null(amount + 1)", "column 1", "write is_null(column)"),
        ("is_nul(amount)", "column 1", "did you mean is_null?"),
        ("amount >", "column 9", "ends too early"),
        ("(amount > 5", "column 1", "never closed"),
        ("amount > 5) or (amount < 3", "column 1", "not one condition"),
        ("amount > 1, amount > 2", "column 1", "not one condition"),
        ("", "column 1", "empty"),
        (" \n ", "column 1", "empty"),
        ("# nothing", "column 1", "not one condition"),
    ],
)
def test_a_mistake_is_refused_where_it_stands(when: str, place: str, says: str) -> None:
    """The message names the rule and the place, and says what is wrong or what to write instead."""
    message = error_of(when)
    assert message.startswith("rule 'r', ")
    assert place in message
    assert says in message


@pytest.mark.parametrize(
    "when",
    [
        "__import__('os').system('true')",
        "amount.__class__",
        "amount[0] > 1",
        "(lambda: 1)() > amount",
        "f'{amount}' == 'a'",
        "[amount for amount in (1, 2)]",
        "(a := amount) > 1",
        "amount if weekend else mean",
        "amount ** 9 > 1",
        "amount % 2 == 1",
        "amount // 2 == 1",
        "amount @ mean > 1",
        "b'a' == category",
        "amount > 5j",
        "amount > ...",
        "amount > 1e999",
        "amount in {1, 2}",
        "{**amount}",
        "is_null(*amount)",
        "is_null(name=amount)",
        "hour(event_time) > (yield)",
        "await amount",
        "amount << 2 > 1",
        "abs(amount) > 1",
        "hour(event_time)(1) > 1",
        "amount > " + "9" * 400,
        "(not_in)(amount)",
        "print",
    ],
)
def test_nothing_but_the_language_is_taken(when: str) -> None:
    """Python beyond the language is refused, whatever it would do."""
    assert error_of(when).startswith("rule 'r', ")


@pytest.mark.parametrize(
    "when",
    [
        "not " * 900 + "weekend",
        "-" * 3000 + "amount > 1",
        "(" * 500 + "weekend" + ")" * 500,
        "weekend and " * 1000 + "weekend",
        "+".join(["amount"] * 300) + " > 1",
        "weekend\0",
        "0<(" * 45 + "amount" + "<9)" * 45,
        "~" + "-" * 2000 + "amount > 1",
        "amount" + "(" * 150 + ")" * 150,
        "\ud800 == category",
    ],
)
def test_monstrous_conditions_are_refused(when: str) -> None:
    """Length and nesting have bounds, so that no condition can exhaust the stack or the time."""
    assert error_of(when).startswith("rule 'r', ")


def test_a_chain_within_chains_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The middle of a chain is worked out once, so that nesting chains does not double the work each time."""
    asked: list[str] = []
    numbers = rules_module._Columns.numbers

    def counted(columns: rules_module._Columns, name: str) -> np.typing.NDArray[np.float64]:
        asked.append(name)
        return numbers(columns, name)

    monkeypatch.setattr(rules_module._Columns, "numbers", counted)
    when = "amount"
    for _ in range(18):
        when = f"-1 < ({when}) + 0 < 9"
    assert hits(when, [{"amount": 5.0}]) == [True]
    assert asked == ["amount"]


TOKENS = (
    *("amount", "category", "weekend", "hour", "is_null", "event_time", "(", ")", ",", "and", "or", "not", "in"),
    *("<", "==", "+", "-", "/", "*", "1", "'a'", "[", "]", ":", "=", ".", "\n", "#", "\\", "é"),
)


@given(st.lists(st.sampled_from(TOKENS) | st.text(max_size=3), max_size=12).map(" ".join))
def test_any_text_compiles_or_is_refused(when: str) -> None:
    """No text a user may write ends in anything but a rule or a UserError."""
    with contextlib.suppress(UserError):
        compile_rules([rule(when)], COLUMNS)


def test_two_rules_of_one_name_are_refused() -> None:
    """A decision names its rule, so a name that two share is refused."""
    with pytest.raises(UserError, match="rule 'r' is there more than once"):
        check_rules([rule("amount > 1"), rule("amount > 2")])


def test_check_rules_needs_no_columns() -> None:
    """What is not in the language is refused before anybody knows the columns; unknown names are not."""
    check_rules([rule("anything > 5")])
    with pytest.raises(UserError, match="column 12"):
        check_rules([rule("anything > other.thing")])


@pytest.mark.parametrize("name", shipped_schemas())
def test_every_shipped_schema_has_its_columns_and_features(name: str) -> None:
    """Rules may use each shipped schema's own columns and each feature of its set, and no label."""
    columns = rule_columns(load_schema(name), load_feature_set(name))
    assert {*load_schema(name).own_columns, *load_feature_set(name).names} <= set(columns)
    assert not {"is_fraud", "late", "event_time", "source"} & set(columns)
    assert ("terminal_id" in columns) == (name == "handbook")
