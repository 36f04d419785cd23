"""Reads the conditions of rules: which text is in the rule language (see `transforms.rules`) at all.

It needs no columns and no Beam, so that settings can be refused the moment they are read.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NoReturn

import msgspec

from transforms.errors import UserError, did_you_mean

MOST_CHARACTERS = 4000
MOST_NESTING = 40
LARGEST_NUMBER = 1e300

#: The functions there are, and how each is written.
FUNCTIONS = {"hour": "hour(event_time)", "is_null": "is_null(column)"}

_ALLOWED: tuple[type[ast.AST], ...] = (
    *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.UAdd),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div),
    *(ast.Compare, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq, ast.In, ast.NotIn, ast.Tuple, ast.List),
    *(ast.Name, ast.Load, ast.Constant, ast.Call),
)
_INSTEAD: dict[type[ast.AST], str] = {
    ast.BitAnd: "write `and`, not &",
    ast.BitOr: "write `or`, not |",
    ast.Invert: "write `not`, not ~",
    ast.Is: "write == or is_null(column), not `is`",
    ast.IsNot: "write != or `not is_null(column)`, not `is not`",
}
_LANGUAGE = (
    "the rule language has names of columns, numbers, quoted text, + - * /, < <= > >= == !=, in (...), not in (...), "
    "and, or, not, hour(event_time) and is_null(column)"
)
_ONE_QUOTED_TEXT = re.compile(r"""[rR]?("([^"\\\n]|\\.)*"|'([^'\\\n]|\\.)*')""")


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[rules]]` entry.

    Attributes:
        name: what the reasons of a decision call it.
        when: the condition, in the language of `transforms.rules`.
        action: what a transaction that meets it gets at least.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    when: str
    action: Literal["review", "decline"]


class Segment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One `[[policy.segments]]` entry: thresholds of its own for some transactions.

    Attributes:
        name: what errors and tables call it.
        when: the condition, in the language of `transforms.rules`.
        review, decline: scores from which on such a transaction is reviewed, and declined.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    when: str
    review: Annotated[float, msgspec.Meta(gt=0, le=1)]
    decline: Annotated[float, msgspec.Meta(gt=0, le=1)]

    def as_rule(self) -> Rule:
        """The condition as a rule, which is how it is compiled and complained of."""
        return Rule(name=self.name, when=self.when, action="review")


def check_segments(segments: Sequence[Segment]) -> None:
    """Refuse what is wrong with segments whatever the columns are.

    Raises:
        UserError: names the segment.
    """
    check_rules([segment.as_rule() for segment in segments])
    for segment in segments:
        if segment.review > segment.decline:
            raise UserError(
                f"segment {segment.name!r}: review ({segment.review:g}) must be at most decline ({segment.decline:g}): "
                "what is declined need not be reviewed"
            )


def check_rules(rules: Sequence[Rule]) -> None:
    """Refuse what is wrong with rules whatever the columns are, so that it shows before anything is loaded.

    Raises:
        UserError: two rules of one name, or a condition that is not in the language.
    """
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"rule {name!r} is there more than once; a decision names its rule, so names must differ")
    for rule in rules:
        parse_condition(rule)


def parse_condition(rule: Rule) -> ast.expr:
    """The condition of a rule as a tree of nothing but what the language has.

    Raises:
        UserError: names the rule, the place and the problem.
    """
    if len(rule.when) > MOST_CHARACTERS:
        _fail(rule, 1, 1, f"a condition may have {MOST_CHARACTERS} characters; this one has {len(rule.when)}")
    if not rule.when.strip():
        _fail(rule, 1, 1, "the condition is empty")
    tree = _python_tree(rule)
    if (tree.lineno, tree.col_offset) == (1, 0):  # our own parenthesis became a part of it
        _fail(rule, 1, 1, "this is not one condition: a parenthesis closes too early, or there is a comma too many")
    nodes = list(_nodes(tree))
    for depth, node in nodes:
        if depth > MOST_NESTING:
            fail_at(rule, node, f"the condition is nested more than {MOST_NESTING} deep; make it several rules")
    for _, node in nodes:
        _check_node(rule, node)
    return tree


def _python_tree(rule: Rule) -> ast.expr:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's advice on a text that is not going to be run
            return ast.parse(_source(rule), mode="eval").body
    except SyntaxError as error:
        lines = _source(rule)[1:-2].split("\n")
        if not error.lineno or error.lineno > len(lines):  # it wanted more
            _fail(rule, len(lines), len(lines[-1]) + 1, "the condition ends too early")
        column = (error.offset or 1) - (1 if error.lineno == 1 else 0)
        message = error.msg.replace(" or ':='", "")  # which Python suggests for a single =
        _fail(rule, error.lineno, max(1, column), f"this is not a condition ({message})")
    except (ValueError, RecursionError, MemoryError):
        _fail(rule, 1, 1, "this is not a condition")


def _nodes(tree: ast.expr) -> Iterator[tuple[int, ast.expr]]:
    """Every expression in a tree and how deep it lies, the left ones first, without recursion."""
    pending = [(1, tree)]
    while pending:
        depth, node = pending.pop()
        yield depth, node
        inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
        pending += [(depth + 1, child) for child in reversed(inner)]


def _check_node(rule: Rule, node: ast.expr) -> None:
    """Refuse an expression that the language does not have; operators are looked at with the node they are of."""
    operators = [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.expr)]
    for part in (node, *operators):
        if not isinstance(part, _ALLOWED):
            instead = _INSTEAD.get(type(part)) or f"{shown(node)} cannot be used: {_LANGUAGE}"
            fail_at(rule, node, instead)
    if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS):
        name = shown(node.func)
        hint = did_you_mean(name, FUNCTIONS) or f"; there are {' and '.join(FUNCTIONS.values())}"
        fail_at(rule, node, f"{name} is not a function of the rule language{hint}")
    if isinstance(node, ast.Constant):
        _check_constant(rule, node)


def _check_constant(rule: Rule, node: ast.Constant) -> None:
    if node.value is None:
        fail_at(rule, node, "nothing equals None; write is_null(column)")
    if isinstance(node.value, str):
        written = ast.get_source_segment(_source(rule), node) or ""
        if not _ONE_QUOTED_TEXT.fullmatch(written):
            fail_at(rule, node, f"{_short(written)} is not one quoted text; is a comma missing?")
    elif not isinstance(node.value, (int, float)) or abs(node.value) > LARGEST_NUMBER:
        fail_at(rule, node, f"{shown(node)} is neither a quoted text nor a number of at most {LARGEST_NUMBER:g}")


def shown(node: ast.AST) -> str:
    """A part of a condition as an error may quote it."""
    return _short(ast.unparse(node))


def fail_at(rule: Rule, node: ast.expr, problem: str) -> NoReturn:
    """Refuse `rule` for `problem` with the part of its condition at `node`.

    Raises:
        UserError: names the rule, the line if there are several, the column, counted from 1, and the problem.
    """
    line = _source(rule).split("\n")[node.lineno - 1]
    before = len(line.encode()[: node.col_offset].decode())  # Python counts bytes
    _fail(rule, node.lineno, before + (0 if node.lineno == 1 else 1), problem)


def _fail(rule: Rule, line: int, column: int, problem: str) -> NoReturn:
    place = f"line {line}, column {column}" if re.search(r"[\r\n]", rule.when.strip()) else f"column {column}"
    raise UserError(f"rule {rule.name!r}, {place}: {problem}")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _source(rule: Rule) -> str:
    """The condition in parentheses, so that it may go over several lines and end in a comment."""
    return "(" + re.sub(r"\r\n?", "\n", rule.when) + "\n)"
