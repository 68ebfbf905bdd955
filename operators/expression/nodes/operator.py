"""Comparisons, arithmetic, three-valued logic and the predicates `is`, `between`, `in` and `like`."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, Final

import polars as pl
from sqlglot import exp

from operators.expression.arithmetic import Operator, arithmetic, negate
from operators.expression.error import ExpressionError
from operators.expression.matching import like
from operators.expression.nodes.handler import Handler
from operators.expression.promotion import unify
from operators.expression.syntax import sql_of
from operators.expression.value import BOOLEAN, NULL, STRING, UNORDERED, Value, literal, type_name

if TYPE_CHECKING:
    from operators.expression.translator import Translator

_COMPARISONS: Final[dict[type[exp.Expression], tuple[str, Callable[[pl.Expr, pl.Expr], pl.Expr]]]] = {
    exp.EQ: ("=", pl.Expr.eq),
    exp.NEQ: ("<>", pl.Expr.ne),
    exp.LT: ("<", pl.Expr.lt),
    exp.LTE: ("<=", pl.Expr.le),
    exp.GT: (">", pl.Expr.gt),
    exp.GTE: (">=", pl.Expr.ge),
    exp.NullSafeEQ: ("is not distinct from", pl.Expr.eq_missing),
    exp.NullSafeNEQ: ("is distinct from", pl.Expr.ne_missing),
}
_ARITHMETIC: Final[dict[type[exp.Expression], Operator]] = {
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
    exp.Mod: "%",
}


def _comparison(translator: Translator, node: exp.Expression) -> Value:
    symbol, operation = _COMPARISONS[type(node)]
    left, right = translator.visit(node.this), translator.visit(node.expression)
    return _compare(symbol, operation, left, right, sql_of(node))


def _compare(
    symbol: str,
    operation: Callable[[pl.Expr, pl.Expr], pl.Expr],
    left: Value,
    right: Value,
    sql: str,
) -> Value:
    (a, b), dtype = unify((left, right), f"cannot compare {sql}")
    if isinstance(dtype, UNORDERED) and symbol.strip("=") in ("<", ">"):
        raise ExpressionError(f"cannot compare {sql}: {type_name(dtype)} has no order")
    if dtype == NULL and "distinct" not in symbol:
        return literal(None, BOOLEAN)
    return Value(operation(a.expr, b.expr), BOOLEAN)


def _arithmetic(translator: Translator, node: exp.Expression) -> Value:
    return arithmetic(
        _ARITHMETIC[type(node)], translator.visit(node.this), translator.visit(node.expression), translator.guard
    )


def _neg(translator: Translator, node: exp.Expression) -> Value:
    return negate(translator.visit(node.this), translator.guard)


def _and(translator: Translator, node: exp.Expression) -> Value:
    left, right = translator.booleans((node.this, node.expression), "and")
    return Value(left & right, BOOLEAN)


def _or(translator: Translator, node: exp.Expression) -> Value:
    left, right = translator.booleans((node.this, node.expression), "or")
    return Value(left | right, BOOLEAN)


def _not_node(translator: Translator, node: exp.Expression) -> Value:
    return Value(~translator.boolean(node.this, "not"), BOOLEAN)


def _concat(translator: Translator, node: exp.Expression) -> Value:
    sides = [translator.visit(node.this), translator.visit(node.expression)]
    for side in sides:
        if not side.is_null and side.dtype != STRING:
            raise ExpressionError(f"|| joins text, not {type_name(side.dtype)}; write cast(… as string)")
    left, right = (side.expr.cast(STRING) if side.is_null else side.expr for side in sides)
    return Value(left + right, STRING)


def _is(translator: Translator, node: exp.Expression) -> Value:
    wanted = node.expression
    if isinstance(wanted, exp.Null):
        return Value(translator.visit(node.this).expr.is_null(), BOOLEAN)
    if isinstance(wanted, exp.Boolean):
        return Value(translator.boolean(node.this, "is").eq_missing(pl.lit(bool(wanted.this))), BOOLEAN)
    raise ExpressionError("after `is` comes [not] null, true, false or distinct from")


def _between(translator: Translator, node: exp.Expression) -> Value:
    value, sql = translator.visit(node.this), sql_of(node)
    low = _compare(">=", pl.Expr.ge, value, translator.visit(node.args["low"]), sql)
    high = _compare("<=", pl.Expr.le, value, translator.visit(node.args["high"]), sql)
    return Value(low.expr & high.expr, BOOLEAN)


def _in(translator: Translator, node: exp.Expression) -> Value:
    if (query := node.args.get("query")) is not None:
        translator.visit(query)  # which refuses it
    if not node.expressions:
        raise ExpressionError("after `in` comes a list of values in parentheses")
    values = [translator.visit(node.this), *(translator.visit(item) for item in node.expressions)]
    if all(item.constant is not None or item.is_null for item in values[1:]) and values[0].constant is None:
        return _in_literals(values, sql_of(node))
    found = [_compare("=", pl.Expr.eq, values[0], item, sql_of(node)).expr for item in values[1:]]
    return Value(reduce(lambda a, b: a | b, found), BOOLEAN)


def _in_literals(values: list[Value], sql: str) -> Value:
    (value, *items), dtype = unify(values, f"cannot compare {sql}")
    listed = [item for item, written in zip(items, values[1:], strict=True) if not written.is_null]
    if not listed or dtype == NULL:
        return literal(None, BOOLEAN)
    members = pl.select(pl.concat([item.expr for item in listed])).to_series() if len(listed) > 1 else None
    hit = value.expr == listed[0].expr if members is None else value.expr.is_in(members.implode())
    if len(listed) < len(items):  # a null in the list: what is not found may be it
        hit = pl.when(hit).then(hit)
    return Value(hit, BOOLEAN)


def _like(translator: Translator, node: exp.Expression, escape: str | None = None) -> Value:
    text, pattern = translator.visit(node.this), translator.visit(node.expression)
    if text.is_null:
        return literal(None, BOOLEAN)
    if text.dtype != STRING:
        raise ExpressionError(f"like takes text, not {type_name(text.dtype)}")
    if not isinstance(pattern.constant, str):
        raise ExpressionError("the pattern of like must be written out, not computed")
    return like(text, pattern.constant, escape, ignore_case=isinstance(node, exp.ILike))


def _escape(translator: Translator, node: exp.Expression) -> Value:
    if not isinstance(node.this, (exp.Like, exp.ILike)):
        raise ExpressionError("escape belongs to like")
    value = _like(translator, node.this, node.expression.name)
    return _not(value) if node.this.args.get("negate") else value


def _not(value: Value) -> Value:
    return Value(~value.expr, BOOLEAN)


OPERATORS: Final[dict[type[exp.Expression], Handler]] = {
    **dict.fromkeys(_COMPARISONS, _comparison),
    **dict.fromkeys(_ARITHMETIC, _arithmetic),
    exp.Neg: _neg,
    exp.And: _and,
    exp.Or: _or,
    exp.Not: _not_node,
    exp.DPipe: _concat,
    exp.Is: _is,
    exp.Between: _between,
    exp.In: _in,
    exp.Like: _like,
    exp.ILike: _like,
    exp.Escape: _escape,
}
