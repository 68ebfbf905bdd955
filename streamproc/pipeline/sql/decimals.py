"""Precision and scale of decimals as Flink derives them, for the quotients whose digits depend on them.

Steps compute sums and products of decimals exactly and with as many digits as there are; only a division is cut
somewhere, and Flink cuts it after `scale of the dividend + precision of the divisor + 1` digits.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import polars as pl
from sqlglot import exp

from operators.element import Schema
from operators.expression import ExpressionError, TypeNotKnown, compile_scalar
from operators.expression.casting import target_type
from operators.expression.syntax import StreamSql

_PRECISION_MAX: Final = 38
_SCALE_OF_QUOTIENT_MIN: Final = 6
_INTEGERS: Final[dict[pl.DataType, int]] = {pl.Int8(): 3, pl.Int16(): 5, pl.Int32(): 10, pl.Int64(): 19}
_LITERAL: Final = 10  # a whole number that is written out is an INT
_KEPT: Final = "decimal_in_flink"


class Exact(NamedTuple):
    """A number that is not a float: all its digits, and those after the point. `whole`: it is an integer."""

    precision: int
    scale: int
    whole: bool = False


def keep(node: exp.Expression, dtype: Exact) -> exp.Expression:
    """Remember what a node is in Flink, whatever is written for it."""
    node.meta[_KEPT] = dtype
    return node


def quotient(dividend: Exact, divisor: Exact) -> Exact:
    scale = max(_SCALE_OF_QUOTIENT_MIN, dividend.scale + divisor.precision + 1)
    return _fitting(dividend.precision - dividend.scale + divisor.scale + scale, scale)


def exact_type(node: exp.Expression, schema: Schema) -> Exact | None:
    """What an expression over columns of `schema` is in Flink; None for what is no exact number, or not known."""
    if _KEPT in node.meta:
        kept: Exact = node.meta[_KEPT]
        return kept
    if isinstance(node, exp.Paren | exp.Neg):
        return exact_type(node.this, schema)
    if isinstance(node, exp.Literal):
        return Exact(_LITERAL, 0, whole=True) if not node.is_string and node.name.isdigit() else None
    if isinstance(node, exp.Add | exp.Sub | exp.Mul | exp.Mod):
        left, right = exact_type(node.this, schema), exact_type(node.expression, schema)
        return _combined(node, left, right) if left is not None and right is not None else None
    try:
        if isinstance(node, exp.Cast):
            return _exact(target_type(node.args["to"]))
        return _exact(compile_scalar(node.sql(dialect=StreamSql, comments=False), schema).dtype)
    except (ExpressionError, TypeNotKnown):
        return None


def _combined(node: exp.Expression, left: Exact, right: Exact) -> Exact:
    if left.whole and right.whole:
        return max(left, right)
    if isinstance(node, exp.Mul):
        return _fitting(left.precision + right.precision, left.scale + right.scale)
    scale = max(left.scale, right.scale)
    digits = left.precision - left.scale, right.precision - right.scale
    if isinstance(node, exp.Mod):
        return _fitting(min(digits) + scale, scale)
    return _fitting(max(digits) + scale + 1, scale)


def _exact(dtype: pl.DataType) -> Exact | None:
    if isinstance(dtype, pl.Decimal):
        return Exact(dtype.precision, dtype.scale)
    precision = _INTEGERS.get(dtype)
    return None if precision is None else Exact(precision, 0, whole=True)


def _fitting(precision: int, scale: int) -> Exact:
    """Digits after the point give way to those before it, down to six."""
    if precision <= _PRECISION_MAX:
        return Exact(precision, scale)
    return Exact(_PRECISION_MAX, max(_PRECISION_MAX - (precision - scale), min(scale, _SCALE_OF_QUOTIENT_MIN)))
