"""Columns, fields, elements and literals."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from functools import reduce
from typing import TYPE_CHECKING, Final

import polars as pl
from sqlglot import exp

from operators.expression.error import ExpressionError, near_name
from operators.expression.nodes.handler import Handler
from operators.expression.syntax import sql_of
from operators.expression.value import BOOLEAN, FLOAT64, INT64, NULL, STRING, Value, literal, type_name

if TYPE_CHECKING:
    from operators.expression.translator import Translator


def _column(translator: Translator, node: exp.Expression) -> Value:
    assert isinstance(node, exp.Column)
    if isinstance(node.this, exp.Star):
        raise ExpressionError("* is not a value")
    return translator.column([part for part in node.parts if isinstance(part, exp.Identifier)])


def _literal(translator: Translator, node: exp.Expression) -> Value:
    text = node.name
    if node.args.get("is_string"):
        return literal(text, STRING)
    if text.isdigit():
        number = int(text)
        if number >= 2**63:
            raise ExpressionError(f"{text} does not fit an int64; write cast('{text}' as decimal(38,0))")
        return literal(number, INT64)
    try:
        fraction = Decimal(text)
    except InvalidOperation:
        raise ExpressionError(f"{text!r} is not a number") from None
    return Value(pl.lit(float(fraction), dtype=FLOAT64), FLOAT64, fraction)


def _null(translator: Translator, node: exp.Expression) -> Value:
    return literal(None, NULL)


def _boolean_literal(translator: Translator, node: exp.Expression) -> Value:
    return literal(bool(node.this), BOOLEAN)


def _paren(translator: Translator, node: exp.Expression) -> Value:
    return translator.visit(node.this)


def _dot(translator: Translator, node: exp.Expression) -> Value:
    parts: list[exp.Expression] = []
    root: exp.Expression = node
    while isinstance(root, exp.Dot):
        parts.insert(0, root.expression)
        root = root.this
    if not all(isinstance(part, exp.Identifier) for part in parts):
        raise ExpressionError(f"{sql_of(node)} is not supported in an expression")
    if isinstance(root, exp.Column):
        identifiers = [part for part in (*root.parts, *parts) if isinstance(part, exp.Identifier)]
        return translator.column(identifiers)
    return reduce(struct_field, [part.name for part in parts], translator.visit(root))


def _bracket(translator: Translator, node: exp.Expression) -> Value:
    """`list[n]`, from 1; null where there is no such element."""
    of = translator.visit(node.this)
    if not isinstance(of.dtype, pl.List) or len(node.expressions) != 1:
        raise ExpressionError(f"{sql_of(node.this)} is {type_name(of.dtype)}; only a list has elements")
    index = translator.visit(node.expressions[0])
    if not index.is_integer:
        raise ExpressionError(f"the index of a list is an integer, not {type_name(index.dtype)}")
    if isinstance(index.constant, int) and index.constant < 1:
        raise ExpressionError("the elements of a list count from 1")
    assert isinstance(of.dtype.inner, pl.DataType)
    position = index.expr.cast(INT64) - 1
    if index.constant is None:
        position = pl.when(position >= 0).then(position)
    return Value(of.expr.list.get(position, null_on_oob=True), of.dtype.inner)


def struct_field(value: Value, name: str) -> Value:
    if not isinstance(value.dtype, pl.Struct):
        raise ExpressionError(f"{type_name(value.dtype)} has no field {name!r}")
    fields = {field.name: field.dtype for field in value.dtype.fields}
    if name not in fields:
        raise ExpressionError(f"unknown field {name!r}", suggestion=near_name(name, fields))
    dtype = fields[name]
    assert isinstance(dtype, pl.DataType)
    return Value(value.expr.struct.field(name), dtype)


LEAVES: Final[dict[type[exp.Expression], Handler]] = {
    exp.Column: _column,
    exp.Literal: _literal,
    exp.Null: _null,
    exp.Boolean: _boolean_literal,
    exp.Paren: _paren,
    exp.Dot: _dot,
    exp.Bracket: _bracket,
}
