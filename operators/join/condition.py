"""`match` taken apart: equalities between the sides, by which partners are found, and what else must hold of a pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Final

import polars as pl
from sqlglot import exp

from operators.element import Schema
from operators.expression import Scalar
from operators.expression.compile import finished
from operators.expression.promotion import unify
from operators.expression.syntax import full_sql_of, parse
from operators.expression.translator import Translator
from operators.expression.value import BOOLEAN, Value

SIDES: Final = ("left", "right")
_NO_KEYS: Final = (pl.List, pl.Struct, pl.Null, pl.Duration)


@dataclass(frozen=True, slots=True)
class Equality:
    """A value of each side; both have one type."""

    left: Scalar
    right: Scalar


@dataclass(frozen=True, slots=True)
class Condition:
    """`equalities` and `residual` (None: nothing else) hold together."""

    equalities: tuple[Equality, ...]
    residual: Scalar | None


def take_apart(text: str, columns: Schema) -> Condition:
    """Split a condition over columns called `left.x` and `right.x` that is known to compile."""
    equalities: list[Equality] = []
    rest: list[exp.Expression] = []
    for conjunct in _conjuncts(parse(text)):
        equality = _equality(conjunct, columns) if isinstance(conjunct, exp.EQ) else None
        if equality is None:
            rest.append(conjunct)
        elif equality not in equalities:
            equalities.append(equality)
    return Condition(tuple(equalities), _residual(rest, columns) if rest else None)


def side_of(column: str) -> str:
    """`left` or `right`, for a column of a pair."""
    return column.partition(".")[0]


def qualified(side: str, columns: Mapping[str, pl.DataType]) -> Schema:
    """The columns of an input as a pair has them."""
    return {f"{side}.{name}": dtype for name, dtype in columns.items()}


def _conjuncts(tree: exp.Expression) -> Iterator[exp.Expression]:
    node = _bare(tree)
    if isinstance(node, exp.And):
        yield from _conjuncts(node.this)
        yield from _conjuncts(node.expression)
    else:
        yield node


def _bare(node: exp.Expression) -> exp.Expression:
    """The node without parentheses around it."""
    while isinstance(node, exp.Paren):
        node = node.this
    return node


def _equality(node: exp.EQ, columns: Schema) -> Equality | None:
    """The equality, if it is one between the sides."""
    if node.args.get("negate"):
        return None
    parts: dict[str, tuple[str, Value, frozenset[str]]] = {}
    for operand in (node.this, node.expression):
        translator = Translator(columns)
        value = translator.visit(operand)
        sides = {side_of(column) for column in translator.columns}
        if len(sides) == 1:
            parts[sides.pop()] = (full_sql_of(_bare(operand)), value, frozenset(translator.columns))
    if len(parts) < len(SIDES):
        return None
    values, dtype = unify([parts[side][1] for side in SIDES], full_sql_of(node))
    if isinstance(dtype, _NO_KEYS):
        return None
    scalars = [
        Scalar(parts[side][0], finished(value, reads_columns=True), dtype, parts[side][2])
        for side, value in zip(SIDES, values, strict=True)
    ]
    return Equality(*scalars)


def _residual(nodes: list[exp.Expression], columns: Schema) -> Scalar:
    translator = Translator(columns)
    exprs = [translator.boolean(node, "and") for node in nodes]
    text = " and ".join(full_sql_of(node) if len(nodes) == 1 else f"({full_sql_of(node)})" for node in nodes)
    expr = reduce(lambda one, other: one & other, exprs)
    return Scalar(text, expr, BOOLEAN, frozenset(translator.columns))
