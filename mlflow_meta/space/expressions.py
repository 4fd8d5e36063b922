"""Expressions over params, such as `batch_size * accumulate <= 4096`: read, never run as code.

Python's own parser makes the tree; each of its nodes is either one of `WORDS` or an error, and what
is left is a tree of our own, which knows numbers, texts and truth values and nothing else.

values: one array `(n,)` for each param, one value for each of n configurations; numbers as floats,
        texts and truth values as objects
"""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlflow_meta.space.params import is_number, same
from mlflow_meta.trials import ConfigValue

Values = NDArray[Any]
Mask = NDArray[np.bool_]

MAX_CHARS = 1000  # of an expression
MAX_DEPTH = 30  # of its tree
WORDS = (
    "params, numbers, texts, True, False, + - * / // % **, < <= > >= == !=, in, not in, and, or, "
    "not, min, max, abs, sqrt, exp, log, log2, log10, and param('name') for a name with other signs"
)
"""All that an expression may say, as errors list it."""

_ARITHMETIC: Mapping[str, Callable[..., Values]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "//": np.floor_divide,
    "%": np.mod,
    "**": np.power,
    "negative": np.negative,
    "positive": np.positive,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "min": lambda *parts: reduce(np.minimum, parts),
    "max": lambda *parts: reduce(np.maximum, parts),
}
_ORDER: Mapping[str, Callable[..., Mask]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}
_LOGIC: Mapping[str, Callable[..., Mask]] = {
    "and": lambda *parts: reduce(np.logical_and, parts),
    "or": lambda *parts: reduce(np.logical_or, parts),
    "not": np.logical_not,
}
_BINARY: Mapping[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%",
    ast.Pow: "**",
}  # fmt: skip
_UNARY: Mapping[type[ast.unaryop], str] = {
    ast.Not: "not", ast.USub: "negative", ast.UAdd: "positive",
}  # fmt: skip
_RELATIONS: Mapping[type[ast.cmpop], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip
_SEVERAL = ("min", "max")  # functions of two arguments and more; the others take one
_FUNCTIONS = (*_SEVERAL, "abs", "sqrt", "exp", "log", "log2", "log10")


@dataclass(frozen=True, slots=True)
class Term:
    """A node of an expression.

    Attributes:
        word: What it does: one of the operators and functions, "param" or "constant".
        parts: What it does it to.
        value: The constant, or the name of the param.
        column: Where it stands in the text, from 1.
    """

    word: str
    parts: tuple[Term, ...] = ()
    value: ConfigValue = ""
    column: int = 1

    @property
    def kind(self) -> str:
        """What it gives: "number" or "truth", of a constant "text" too; of a param "param"."""
        if self.word == "param":
            return "param"
        if self.word == "constant":
            if is_number(self.value):
                return "number"
            return "truth" if isinstance(self.value, bool) else "text"
        return "number" if self.word in _ARITHMETIC else "truth"

    def walk(self) -> Iterator[Term]:
        """This node and all below it."""
        yield self
        for part in self.parts:
            yield from part.walk()

    def of(self, values: Mapping[str, Values]) -> Values:
        """What it gives for n configurations, `(n,)`; each of `values` must be `(n,)`.

        Numbers follow IEEE 754: 1/0 is infinite, and what has no value (0/0, the logarithm of -1)
        compares as false.
        """
        with np.errstate(all="ignore"):
            return self._of(values)

    def _of(self, values: Mapping[str, Values]) -> Values:
        if self.word == "param":
            return values[str(self.value)]
        if self.word == "constant":
            n = len(next(iter(values.values())))
            return np.full(n, self.value, dtype=float if is_number(self.value) else object)
        parts = [part._of(values) for part in self.parts]
        if self.word in ("==", "!="):
            return np.asarray(_equal(*parts) == (self.word == "=="))
        if self.word in _LOGIC:
            return np.asarray(_LOGIC[self.word](*(part.astype(bool) for part in parts)))
        if self.word in _ORDER:
            return np.asarray(_ORDER[self.word](*parts))
        return _ARITHMETIC[self.word](*parts)


def _equal(one: Values, other: Values) -> Mask:
    if one.dtype == float and other.dtype == float:
        return np.asarray(one == other)
    return np.array([same(a, b) for a, b in zip(one, other, strict=True)], dtype=bool)


def read(text: str) -> Term:
    """The tree of an expression that is true or false.

    Raises:
        ValueError: If it is none, or says what is none of `WORDS`; with the column.
    """
    if len(text) > MAX_CHARS:
        raise ValueError(f"it has {len(text)} characters, and may have {MAX_CHARS}.")
    try:
        with warnings.catch_warnings():  # the parser warns of what Python code should not say
            warnings.simplefilter("ignore")
            tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"it is no expression: {error.msg}{_at(error.offset or 1)}.") from None
    except (ValueError, RecursionError, MemoryError):  # a null byte; brackets in brackets
        raise ValueError("it is no expression: it can't be read.") from None
    term = _term(tree, 1)
    if term.kind not in ("truth", "param"):
        raise ValueError(f"it is a {term.kind}, and must be true or false, such as `a <= b`.")
    return term


def _at(column: int) -> str:
    return f" (column {column})"


def _wrong(node: ast.expr, said: str) -> ValueError:
    return ValueError(f"{said}{_at(node.col_offset + 1)}.")


def _unsaid(node: ast.expr, what: str) -> ValueError:
    return _wrong(node, f"{what} may not be said; what may: {WORDS}")


def _term(node: ast.expr, depth: int) -> Term:
    """The term of a node of Python's tree."""
    if depth > MAX_DEPTH:
        raise _wrong(node, f"it is nested more than {MAX_DEPTH} deep")
    below = depth + 1
    if isinstance(node, ast.Constant):
        return _constant(node)
    if isinstance(node, ast.Name | ast.Attribute):
        return _named(node)
    if isinstance(node, ast.Compare):
        return _comparison(node, below)
    if isinstance(node, ast.BoolOp):
        word = "and" if isinstance(node.op, ast.And) else "or"
        return _made(node, word, [_term(value, below) for value in node.values])
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _made(node, _UNARY[type(node.op)], [_term(node.operand, below)])
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        parts = [_term(node.left, below), _term(node.right, below)]
        return _made(node, _BINARY[type(node.op)], parts)
    if isinstance(node, ast.Call):
        return _call(node, below)
    raise _unsaid(node, _kind_of(node))


def _kind_of(node: ast.expr) -> str:
    what = node.op if isinstance(node, ast.BinOp | ast.UnaryOp) else node
    return f"`{type(what).__name__}`"


def _constant(node: ast.Constant) -> Term:
    value = node.value
    if not isinstance(value, bool | int | float | str):
        raise _wrong(node, f"`{value!r}` is no number, text, True or False")
    if is_number(value):
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise _wrong(node, "a number is too large")
    return Term("constant", (), value, node.col_offset + 1)


def _named(node: ast.expr) -> Term:
    name = _name(node)
    if name in ("true", "false"):  # as YAML spells them
        return Term("constant", (), name == "true", node.col_offset + 1)
    return Term("param", (), name, node.col_offset + 1)


def _name(node: ast.expr) -> str:
    """`model.lr` is the param of that name; nothing is looked up in anything."""
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    if not isinstance(node, ast.Name):
        raise _unsaid(node, _kind_of(node))
    return node.id


def _call(node: ast.Call, depth: int) -> Term:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name not in (*_FUNCTIONS, "param") or node.keywords:
        raise _unsaid(node, "such a call")
    if name == "param":
        text = node.args[0] if len(node.args) == 1 else None
        if not (isinstance(text, ast.Constant) and isinstance(text.value, str)):
            raise _wrong(node, "param('name') takes one name in quotes")
        return Term("param", (), text.value, node.col_offset + 1)
    if name not in _SEVERAL and len(node.args) != 1:
        raise _wrong(node, f"{name} takes one number, but got {len(node.args)}")
    if name in _SEVERAL and len(node.args) < 2:
        raise _wrong(node, f"{name} takes two numbers or more, but got {len(node.args)}")
    return _made(node, name, [_term(arg, depth) for arg in node.args])


def _comparison(node: ast.Compare, depth: int) -> Term:
    """`a < b < c` is `a < b and b < c`; `a in (b, c)` is `a == b or a == c`."""
    pairs, left = [], node.left
    for op, right in zip(node.ops, node.comparators, strict=True):
        if isinstance(op, ast.In | ast.NotIn):
            pairs.append(_membership(left, op, right, depth))
        elif type(op) in _RELATIONS:
            pairs.append(
                _made(node, _RELATIONS[type(op)], [_term(left, depth), _term(right, depth)])
            )
        else:
            raise _unsaid(node, f"`{type(op).__name__}`")
        left = right
    return pairs[0] if len(pairs) == 1 else _made(node, "and", pairs)


def _membership(left: ast.expr, op: ast.cmpop, right: ast.expr, depth: int) -> Term:
    if not isinstance(right, ast.Tuple | ast.List | ast.Set) or not right.elts:
        raise _wrong(right, "behind `in` there must be a list in brackets, such as ('a', 'b')")
    item = _term(left, depth)
    equal = [_made(left, "==", [item, _term(element, depth)]) for element in right.elts]
    found = equal[0] if len(equal) == 1 else _made(left, "or", equal)
    return _made(left, "not", [found]) if isinstance(op, ast.NotIn) else found


def _made(node: ast.expr, word: str, parts: Sequence[Term]) -> Term:
    """A term, of parts of the kinds that it takes."""
    wanted = "truth" if word in _LOGIC else "number"
    for part in parts if word not in ("==", "!=") else ():
        if part.kind not in (wanted, "param"):
            raise ValueError(
                f"`{word}` takes {'numbers' if wanted == 'number' else 'what is true or false'}, "
                f"but got a {part.kind}{_at(part.column)}."
            )
    return Term(word, tuple(parts), "", node.col_offset + 1)
