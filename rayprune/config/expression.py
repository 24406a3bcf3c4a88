"""Expressions over fields, such as "15 - retrain.epochs": read with Python's grammar, never run.

What they may hold is listed here, so a text from somebody else can neither do anything nor take
long.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

MAX_LETTERS = 500
MAX_DEPTH = 50  # of brackets and operators inside each other
LARGEST = 1e15  # of the numbers; whole ones up to here are exact as floats, too
CONSTANTS = {"true": True, "false": False, "null": None, "none": None}  # as YAML writes them

ARITHMETIC: dict[type[ast.operator], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.FloorDiv: ("//", operator.floordiv),
    ast.Mod: ("%", operator.mod),
    ast.Pow: ("**", operator.pow),
}
COMPARISONS: dict[type[ast.cmpop], tuple[str, Callable[[Any, Any], bool]]] = {
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
    ast.In: ("in", lambda value, several: value in several),
    ast.NotIn: ("not in", lambda value, several: value not in several),
}
FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "round": (round, 1, 2),  # and the fewest and most values it takes
    "abs": (abs, 1, 1),
    "ceil": (math.ceil, 1, 1),
    "floor": (math.floor, 1, 1),
    "min": (min, 2, MAX_LETTERS),
    "max": (max, 2, MAX_LETTERS),
}


def names(text: str) -> tuple[str, ...]:
    """The dotted names that an expression uses, each once, as they come.

    Raises a ``ValueError`` where it is no expression.
    """
    return tuple(dict.fromkeys(_names(_parsed(text))))


def evaluate(text: str, value_of: Callable[[str], Any]) -> Any:
    """The value of an expression; `value_of` returns that of a dotted name.

    Raises a ``ValueError`` that says which expression, and what about it has no value.
    """
    tree = _parsed(text)
    try:
        return _value(tree, value_of)
    except (ValueError, KeyError) as error:
        reason = f"there is no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{text!r} has no value: {reason}") from None


@lru_cache(maxsize=1024)  # the same few for every point of a search
def _parsed(text: str) -> ast.expr:
    if len(text) > MAX_LETTERS:
        raise ValueError(
            f"{text[:40]!r}… has {len(text)} letters, and an expression at most {MAX_LETTERS}"
        )
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "it cannot be read"
        raise ValueError(
            f"{text!r} is not an expression: {reason}. Write such as '15 - retrain.epochs'"
        ) from None
    try:
        _check(tree, 0)
    except ValueError as error:
        raise ValueError(f"{text!r} is not an expression: {error}") from None
    return tree


def _check(node: ast.expr, depth: int) -> None:
    """Raises a ``ValueError`` for what an expression may not hold."""
    if depth > MAX_DEPTH:
        raise ValueError(f"it is more than {MAX_DEPTH} levels deep")
    if isinstance(node, ast.Constant):
        if not isinstance(node.value, int | float | str | None):
            raise ValueError(f"{ast.unparse(node)} is no number, text, true, false or null")
        if _is_number(node.value):
            _bounded(node.value)
    elif isinstance(node, ast.Name | ast.Attribute):
        _dotted(node)
    elif isinstance(node, ast.Call):
        _check_call(node)
    elif isinstance(node, ast.Compare):
        for kind in node.ops:
            if type(kind) not in COMPARISONS:
                raise ValueError("`is` is not known. Write ==")
    elif isinstance(node, ast.BinOp):
        if type(node.op) not in ARITHMETIC:
            raise ValueError(f"of operators it takes {_listed(s for s, _ in ARITHMETIC.values())}")
    elif isinstance(node, ast.UnaryOp):
        if not isinstance(node.op, ast.USub | ast.UAdd | ast.Not):
            raise ValueError("~ is not known. Write not, or -")
    elif not isinstance(node, ast.BoolOp | ast.List | ast.Tuple):
        raise ValueError(f"{_short(node)} is more than an expression may hold")
    for inner in _inner(node):
        _check(inner, depth + 1)


def _check_call(node: ast.Call) -> None:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name not in FUNCTIONS:
        raise ValueError(f"{_short(node)}: of functions it takes {_listed(FUNCTIONS)}")
    _, fewest, most = FUNCTIONS[name]
    if node.keywords or not fewest <= len(node.args) <= most:
        several = f"{fewest}" if fewest == most else f"{fewest} and more"
        raise ValueError(f"{_short(node)}: {name} takes {several} values")


def _inner(node: ast.expr) -> Iterator[ast.expr]:
    """The expressions inside one, without the names of functions and of what a dot is behind."""
    if isinstance(node, ast.Call):
        yield from node.args
    elif not isinstance(node, ast.Attribute):
        yield from (inner for inner in ast.iter_child_nodes(node) if isinstance(inner, ast.expr))


def _names(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Name | ast.Attribute):
        name = _dotted(node)
        if name not in CONSTANTS:
            yield name
    for inner in _inner(node):
        yield from _names(inner)


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    raise ValueError(f"{_short(node)} has no fields")


def _value(node: ast.expr, value_of: Callable[[str], Any]) -> Any:
    def of(inner: ast.expr) -> Any:
        return _value(inner, value_of)

    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name | ast.Attribute):
        name = _dotted(node)
        return CONSTANTS[name] if name in CONSTANTS else value_of(name)
    if isinstance(node, ast.List | ast.Tuple):
        return tuple(map(of, node.elts))
    if isinstance(node, ast.BoolOp):
        wanted = isinstance(node.op, ast.Or)
        return next((wanted for value in node.values if bool(of(value)) == wanted), not wanted)
    if isinstance(node, ast.Compare):
        return _compared(node, of)
    if isinstance(node, ast.BinOp):
        return _calculated(node, of(node.left), of(node.right))
    if isinstance(node, ast.UnaryOp):
        value = of(node.operand)
        if isinstance(node.op, ast.Not):
            return not value
        number = _number(node.operand, value)
        return number if isinstance(node.op, ast.UAdd) else -number
    assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    numbers = [_number(argument, of(argument)) for argument in node.args]
    return _called(node, FUNCTIONS[node.func.id][0], numbers)


def _compared(node: ast.Compare, of: Callable[[ast.expr], Any]) -> bool:
    left, before = node.left, of(node.left)
    for kind, right in zip(node.ops, node.comparators, strict=True):
        sign, holds = COMPARISONS[type(kind)]
        after = of(right)
        if sign in ("in", "not in") and not isinstance(after, list | tuple):
            raise ValueError(f"{_short(right)} is {after!r}, and `{sign}` wants a list")
        try:
            if not holds(before, after):
                return False
        except TypeError:
            raise ValueError(
                f"{_said(left, before)} {sign} {_said(right, after)} cannot be compared"
            ) from None
        left, before = right, after
    return True


def _calculated(node: ast.BinOp, left: Any, right: Any) -> Any:
    sign, calculate = ARITHMETIC[type(node.op)]
    _number(node.left, left)
    _number(node.right, right)
    if sign == "**" and abs(right) > 64:
        raise ValueError(f"{_short(node)}: the exponent must be in [-64, 64], got {right}")
    return _called(node, calculate, [left, right])


def _called(node: ast.expr, calculate: Callable[..., Any], numbers: list[Any]) -> Any:
    try:
        result = calculate(*numbers)
    except ZeroDivisionError:
        raise ValueError(f"{_short(node)} divides by zero") from None
    except (TypeError, OverflowError):
        raise ValueError(
            f"{_short(node)} is no number, got {_listed(map(repr, numbers))}"
        ) from None
    if isinstance(result, complex):
        raise ValueError(f"{_short(node)} is no real number")
    return _bounded(result)


def _number(node: ast.expr, value: Any) -> Any:
    if not _is_number(value):
        raise ValueError(f"{_said(node, value)} is not a number")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bounded(number: Any) -> Any:
    if not abs(number) <= LARGEST:  # so that no step makes long numbers; nor is NaN one
        raise ValueError(f"a number is larger than {LARGEST:g}")
    return number


def _said(node: ast.expr, value: Any) -> str:
    """What stands there, with its value where that is not the same."""
    return repr(value) if isinstance(node, ast.Constant) else f"{_short(node)} ({value!r})"


def _short(node: ast.AST) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _listed(words: Any) -> str:
    return ", ".join(words)
