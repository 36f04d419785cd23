"""Rules of a fraud team: conditions over columns and features that force a review or a decline.

    amount > 2000 and customer_count_1d >= 5
    merchant_category in ("Gaming", "Travel") and not weekend
    amount / customer_amount_mean_30d > 10 or hour(event_time) < 5 or is_null(location)

The text is parsed as a Python expression and only what is listed here is taken: names of columns,
numbers and quoted text, `+ - * /`, comparisons, `in` and `not in` with a list of constants, `and`,
`or`, `not`, parentheses, `hour(event_time)` (0 to 23, UTC) and `is_null(column)`. It becomes NumPy
and Arrow calls on whole columns; nothing of the text is ever executed.

Every condition is either true or false. A comparison with a null or NaN is false, whichever way it
is put (`x > 5`, `x <= 5`, `x != 5`, `x not in (5, 6)`), and so is one with a number divided by 0.
Numbers are compared as 64-bit floats.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.errors import did_you_mean
from transforms.rule_syntax import FUNCTIONS, Rule, check_rules, fail_at, parse_condition, shown

if TYPE_CHECKING:  # rules themselves work without Beam
    from transforms.batch import TransactionBatch
    from transforms.features import FeatureSet
    from transforms.schema import Schema

__all__ = ["CompiledRules", "Kind", "Rule", "check_rules", "compile_rules", "rule_columns"]

Kind = Literal["number", "text", "boolean"]

_SPOKEN: dict[Kind, str] = {"number": "a number", "text": "text", "boolean": "true or false"}
_HOUR = 3_600_000_000  # microseconds

#: Columns every batch has that a rule may use. `amount_minor` is in minor units; the feature `amount` in major ones.
_CANONICAL: dict[str, Kind] = {
    "transaction_id": "text",
    "customer_id": "text",
    "terminal_id": "text",
    "amount_minor": "number",
}
_REFUSED = {
    "is_fraud": "the label is not known when a transaction is decided, only weeks later",
    "late": "whether a row came late is a matter of delivery, not known of the transaction itself when it is made",
    "source": "where a row was read from says nothing of the transaction",
    "position": "where a row was read from says nothing of the transaction",
    "ingest_time": "when a row was read says nothing of the transaction",
}


def rule_columns(schema: Schema, feature_set: FeatureSet) -> dict[str, Kind]:
    """The names rules may use with a schema and a feature set, and what each holds.

    Example:
        >>> from transforms.features import load_feature_set
        >>> from transforms.schema import load_schema
        >>> columns = rule_columns(load_schema("handbook"), load_feature_set("handbook"))
        >>> columns["customer_id"], columns["amount"], columns["weekend"]
        ('text', 'number', 'boolean')
    """
    columns = {name: kind for name, kind in _CANONICAL.items() if name in schema.columns}
    for name in schema.own_columns:
        columns[name] = "number" if schema.columns[name].type == "number" else "text"
    for feature in feature_set.features:
        columns[feature.name] = "boolean" if feature.kind in ("weekend", "night", "category") else "number"
    return columns


def compile_rules(rules: Sequence[Rule], columns: Mapping[str, Kind]) -> CompiledRules:
    """The rules as functions of columns, every name and type checked.

    Args:
        rules: in the order `apply` answers in.
        columns: the names rules may use and what each holds (see `rule_columns`). A boolean column
            may be stored as 0 and 1, and may be used as a number.

    Raises:
        UserError: names the rule, the place in its condition, and what to write instead.

    Example:
        >>> from transforms.batch import from_rows
        >>> rules = compile_rules([Rule(name="large", when="amount_minor > 200000", action="review")],
        ...                       {"amount_minor": "number"})
        >>> batch = from_rows([{"transaction_id": "a", "event_time": 0, "amount_minor": 250_000},
        ...                    {"transaction_id": "b", "event_time": 0, "amount_minor": 900}])
        >>> [(rule.name, hits.tolist()) for rule, hits in rules.apply(batch)]
        [('large', [True, False])]
    """
    check_rules(rules)
    tests = tuple(_Compiler(rule, columns).condition(parse_condition(rule)) for rule in rules)
    return CompiledRules(tuple(rules), dict(columns), tests)


@dataclass(frozen=True)
class CompiledRules:
    """Rules ready to run on batches; made by `compile_rules`.

    Attributes:
        rules: the rules, in order.
        columns: the columns they were checked against.
    """

    rules: tuple[Rule, ...]
    columns: Mapping[str, Kind]
    _tests: tuple[_Condition, ...] = field(repr=False, compare=False)

    def apply(self, batch: TransactionBatch) -> list[tuple[Rule, NDArray[np.bool_]]]:
        """For each rule, in order, which rows of `batch` meet it: a boolean array as long as the batch."""
        columns = _Columns(batch.rows)
        with np.errstate(all="ignore"):  # a division by 0 or an overflow has a defined answer here
            return [(rule, test(columns)) for rule, test in zip(self.rules, self._tests, strict=True)]

    def __reduce__(self) -> tuple[Any, ...]:
        return compile_rules, (self.rules, self.columns)  # travels as its rules, is compiled where it lands


class _Columns:
    """The columns of one batch as rules need them, each converted once however many rules use it."""

    def __init__(self, rows: pa.RecordBatch) -> None:
        self._rows = rows
        self._numbers: dict[str, NDArray[np.float64]] = {}
        self._texts: dict[str, pa.Array] = {}

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column as floats, with NaN for null."""
        if name not in self._numbers:
            floats = self._rows.column(name).cast(pa.float64(), safe=False)
            self._numbers[name] = floats.to_numpy(zero_copy_only=False)
        return self._numbers[name]

    def texts(self, name: str) -> pa.Array:
        """A column as Arrow strings."""
        if name not in self._texts:
            self._texts[name] = self._rows.column(name).cast(pa.string())
        return self._texts[name]

    def hours(self) -> NDArray[np.float64]:
        """The hour of each event time, UTC."""
        micros = self._rows.column("event_time").view(pa.int64()).to_numpy()
        return np.asarray(micros // _HOUR % 24, dtype=np.float64)


_Condition = Callable[[_Columns], NDArray[np.bool_]]
_Compute = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class _Value:
    """A part of a condition.

    Attributes:
        kind: what it holds.
        get: of text, an Arrow string array; else a float64 array, NaN for null; of a constant, one value.
        condition: of a boolean, the same as a boolean array, false for null.
        constant: whether no column has a part in it.
    """

    kind: Kind
    get: Callable[[_Columns], Any]
    condition: _Condition | None = None
    constant: bool = False


def _divide(a: Any, b: Any) -> Any:
    return np.divide(a, np.where(np.equal(b, 0), np.nan, b))


def _not_equal(a: Any, b: Any) -> Any:
    return np.not_equal(a, b) & ~np.isnan(a) & ~np.isnan(b)  # NumPy's own is true of NaN


def _booleans(values: pa.Array) -> NDArray[np.bool_]:
    """An Arrow boolean array as NumPy's, null as false."""
    return np.asarray(values.fill_null(False).to_numpy(zero_copy_only=False))


_ARITHMETIC: dict[type[ast.operator], _Compute] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: _divide,
}
_COMPARISONS: dict[type[ast.cmpop], _Compute] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: _not_equal,
}
_TEXT_COMPARISONS: dict[type[ast.cmpop], _Compute] = {
    ast.Eq: lambda a, b: _booleans(pc.equal(a, b)),
    ast.NotEq: lambda a, b: _booleans(pc.not_equal(a, b)),
}


class _Compiler:
    """Turns the tree of one rule into functions of columns; refuses names and types that do not fit."""

    def __init__(self, rule: Rule, columns: Mapping[str, Kind]) -> None:
        self._rule = rule
        self._columns = columns

    def condition(self, node: ast.expr) -> _Condition:
        """The function of a node that is true or false."""
        value = self._value(node)
        if value.condition is None:
            self._fail(node, f"{shown(node)} is {_SPOKEN[value.kind]}, not a condition; compare it with something")
        return value.condition

    def _fail(self, node: ast.expr, problem: str) -> NoReturn:
        fail_at(self._rule, node, problem)

    def _value(self, node: ast.expr) -> _Value:
        match node:
            case ast.Constant():
                return _constant(node.value)
            case ast.Name():
                return self._column(node)
            case ast.BoolOp():
                return _all_or_any(node.op, [self.condition(part) for part in node.values])
            case ast.UnaryOp(op=ast.Not()):
                inner = self.condition(node.operand)
                return _boolean(lambda columns: ~inner(columns))
            case ast.UnaryOp():
                return self._signed(node)
            case ast.BinOp():
                return self._arithmetic(node)
            case ast.Compare():
                return self._compare(node)
            case ast.Call():
                return self._call(node)
        self._fail(node, f"{shown(node)} is a list; a list stands only after in and not in")

    def _column(self, node: ast.Name) -> _Value:
        name, kind = node.id, self._kind(node)
        if kind == "text":
            return _Value(kind, lambda columns: columns.texts(name))
        condition = None if kind == "number" else lambda columns: _not_equal(columns.numbers(name), 0.0)
        return _Value(kind, lambda columns: columns.numbers(name), condition)

    def _kind(self, node: ast.Name) -> Kind:
        name = node.id
        if name in _REFUSED:
            self._fail(node, f"{name} cannot be used in a rule: {_REFUSED[name]}")
        if name in self._columns:
            return self._columns[name]
        if name == "event_time" or name in FUNCTIONS:
            self._fail(node, f"{name} cannot stand alone; write {FUNCTIONS.get(name, 'hour(event_time)')}")
        hint = did_you_mean(name, self._columns) or f"; there are {', '.join(self._columns)}"
        self._fail(node, f"{name} is neither a column nor a feature{hint}")

    def _number(self, node: ast.expr) -> _Value:
        value = self._value(node)
        if value.kind == "text":
            self._fail(node, f"{shown(node)} is text; only numbers can be calculated with")
        return value

    def _signed(self, node: ast.UnaryOp) -> _Value:
        inner, sign = self._number(node.operand), -1.0 if isinstance(node.op, ast.USub) else 1.0
        return _Value("number", lambda columns: sign * inner.get(columns), constant=inner.constant)

    def _arithmetic(self, node: ast.BinOp) -> _Value:
        compute, left, right = _ARITHMETIC[type(node.op)], self._number(node.left), self._number(node.right)
        return _Value(
            "number",
            lambda columns: compute(left.get(columns), right.get(columns)),
            constant=left.constant and right.constant,
        )

    def _compare(self, node: ast.Compare) -> _Value:
        """`a < b < c` is `a < b and b < c`, with `b` worked out once."""
        if any(isinstance(op, (ast.In, ast.NotIn)) for op in node.ops):
            return self._in(node)
        sides = [node.left, *node.comparators]
        values = [self._value(side) for side in sides]
        computes = [self._pair(sides[at : at + 2], values[at : at + 2], op) for at, op in enumerate(node.ops)]
        gets = [value.get for value in values]

        def condition(columns: _Columns) -> NDArray[np.bool_]:
            got = [get(columns) for get in gets]
            pairs = zip(computes, got, got[1:], strict=False)
            return np.asarray(np.logical_and.reduce([compute(a, b) for compute, a, b in pairs]))

        return _boolean(condition)

    def _pair(self, sides: Sequence[ast.expr], values: Sequence[_Value], op: ast.cmpop) -> _Compute:
        a, b = values
        shown_a, shown_b = map(shown, sides)
        if a.constant and b.constant:
            self._fail(sides[0], f"{shown_a} and {shown_b} are both constants; compare a column")
        if (a.kind == "text") != (b.kind == "text"):
            kinds = f"{shown_a} is {_SPOKEN[a.kind]} and {shown_b} is {_SPOKEN[b.kind]}"
            self._fail(sides[0], f"{kinds}, so they cannot be compared; text is written in quotes, a number without")
        if a.kind == "text" and type(op) not in _TEXT_COMPARISONS:
            self._fail(sides[0], f"{shown_a} is text, which can be compared with ==, !=, in and not in only")
        return _TEXT_COMPARISONS[type(op)] if a.kind == "text" else _COMPARISONS[type(op)]

    def _in(self, node: ast.Compare) -> _Value:
        if len(node.ops) > 1:
            self._fail(node, f"{shown(node)} chains `in` with another comparison; join them with `and`")
        value, wanted = self._value(node.left), isinstance(node.ops[0], ast.In)
        if value.constant:
            self._fail(node.left, f"{shown(node.left)} is a constant; a column stands before in")
        items = self._items(node.comparators[0], value.kind, shown(node.left))
        if value.kind == "text":
            texts = pa.array(items, pa.string())
            return _boolean(lambda columns: _text_in(value.get(columns), texts, wanted))
        numbers = np.array(items, dtype=np.float64)
        return _boolean(lambda columns: _number_in(value.get(columns), numbers, wanted))

    def _items(self, node: ast.expr, kind: Kind, left: str) -> list[float | str]:
        """The constants of a list, which must all be of `kind`."""
        if not isinstance(node, (ast.Tuple, ast.List)) or not node.elts:
            self._fail(node, f'a list stands after in: {left} in ("a", "b"); for one value write {left} == ...')
        items: list[float | str] = []
        for item in node.elts:
            try:
                constant = ast.literal_eval(item)
            except ValueError:
                self._fail(item, f"{shown(item)} is not a constant; a list holds constants only")
            if not isinstance(constant, str if kind == "text" else (int, float)):
                self._fail(item, f"{shown(item)} is not {_SPOKEN[kind]}, but {left} is")
            items.append(constant)
        return items

    def _call(self, node: ast.Call) -> _Value:
        name = shown(node.func)
        column = node.args[0] if len(node.args) == 1 else None
        if not isinstance(column, ast.Name) or (name == "hour" and column.id != "event_time"):
            self._fail(node, f"{shown(node)}: write {FUNCTIONS[name]}")
        if name == "hour":
            return _Value("number", lambda columns: columns.hours())
        value = self._column(column)
        if value.kind == "text":
            return _boolean(lambda columns: _booleans(value.get(columns).is_null()))
        return _boolean(lambda columns: np.isnan(value.get(columns)))


def _constant(value: Any) -> _Value:
    if isinstance(value, str):
        text = pa.scalar(value, pa.string())
        return _Value("text", lambda _: text, constant=True)
    number = np.float64(value)
    return _Value("number", lambda _: number, constant=True)


def _boolean(condition: _Condition) -> _Value:
    return _Value("boolean", lambda columns: condition(columns).astype(np.float64), condition)


def _all_or_any(op: ast.boolop, parts: Sequence[_Condition]) -> _Value:
    join = np.logical_and if isinstance(op, ast.And) else np.logical_or
    return _boolean(lambda columns: join.reduce([part(columns) for part in parts]))


def _text_in(texts: pa.Array, members: pa.Array, wanted: bool) -> NDArray[np.bool_]:
    inside = pc.is_in(texts, value_set=members)
    return _booleans(inside if wanted else pc.and_(pc.invert(inside), texts.is_valid()))


def _number_in(numbers: NDArray[np.float64], members: NDArray[np.float64], wanted: bool) -> NDArray[np.bool_]:
    inside = np.isin(numbers, members)
    return inside if wanted else ~inside & ~np.isnan(numbers)
