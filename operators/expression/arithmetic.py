"""`+ - * / %` with SQL's types: a result that does not fit its type raises at run time, it is never another number.

polars wraps integers silently, so they are computed one size wider and narrowed with a check. Integer
division cuts toward zero and `%` has the sign of the dividend. A division by zero is null for integers
and decimals (a record must not stop a pipeline that way), and infinite or NaN for floats, as IEEE says.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final, Literal

import polars as pl

from operators.expression.bounds import YEARS_MAX, bounded
from operators.expression.error import ExpressionError
from operators.expression.promotion import convert, decimal_type, scale_of, unify
from operators.expression.value import (
    DATE,
    FLOAT64,
    INT64,
    INTERVAL,
    STRING,
    TIMESTAMP,
    TIMESTAMP_MS,
    IntervalLiteral,
    Value,
    type_name,
)

Guard = Callable[[pl.Expr], pl.Expr]
Operator = Literal["+", "-", "*", "/", "%"]

_DAY_US: Final = 86_400_000_000
_DIVISION_SCALE_MIN: Final = 6


def arithmetic(operator: Operator, left: Value, right: Value, guard: Guard) -> Value:
    """`left operator right`. `guard` blanks rows for which the result is not wanted, so they cannot raise."""
    if _is_temporal(left) or _is_temporal(right):
        return _temporal(operator, left, right, guard)
    if not all(value.is_number or value.is_null for value in (left, right)):
        names = f"{type_name(left.dtype)} {operator} {type_name(right.dtype)}"
        raise ExpressionError(f"{names} is not defined{_hint(left, right)}")
    if left.is_null and right.is_null:
        left = Value(left.expr.cast(INT64), INT64)
    if operator == "*" and _is_decimal_product(left, right):
        return _decimal_product(left, right, guard)
    (left, right), dtype = unify((left, right), f"{type_name(left.dtype)} {operator} {type_name(right.dtype)}")
    if Value(left.expr, dtype).is_integer:
        return Value(_integer(operator, left.expr, right.expr, dtype, guard), dtype)
    if isinstance(dtype, pl.Decimal):
        return _decimal(operator, left, right, dtype, guard)
    return Value(_float(operator, left.expr, right.expr), dtype)


def negate(value: Value, guard: Guard) -> Value:
    """`-value`; a literal stays a literal."""
    if value.is_integer_literal or value.is_fraction_literal:
        assert value.constant is not None
        return Value(-value.expr, value.dtype, -value.constant)  # type: ignore[operator]
    if isinstance(value.constant, IntervalLiteral):
        return _interval(IntervalLiteral(-value.constant.months, -value.constant.microseconds))
    if value.is_interval:
        return Value(-value.expr, value.dtype)
    return arithmetic("-", Value(pl.lit(0, dtype=INT64), INT64, 0), value, guard)


def interval_literal(months: int, microseconds: int) -> Value:
    return _interval(IntervalLiteral(months, microseconds))


def checked(expr: pl.Expr, dtype: pl.DataType, compute: Callable[[pl.Expr], pl.Expr], guard: Guard) -> pl.Expr:
    """`compute` on an integer expression in a type it cannot overflow, then narrowed or raised."""
    return compute(guard(expr).cast(_wider(dtype))).cast(dtype)


def _wider(dtype: pl.DataType) -> pl.DataType:
    return pl.Int128() if dtype == INT64 else pl.Int64()


def _integer(operator: Operator, left: pl.Expr, right: pl.Expr, dtype: pl.DataType, guard: Guard) -> pl.Expr:
    if operator == "%":
        return _remainder(left, pl.when(right != 0).then(right))
    wide = _wider(dtype)
    left, right = guard(left).cast(wide), right.cast(wide)
    if operator == "+":
        result = left + right
    elif operator == "-":
        result = left - right
    elif operator == "*":
        result = left * right
    else:
        floored = left // right  # null where `right` is zero
        inexact_negative = (floored * right != left) & ((left < 0) != (right < 0))
        result = floored + inexact_negative.cast(wide)
    return result.cast(dtype)


def _remainder(left: pl.Expr, right: pl.Expr) -> pl.Expr:
    """polars' remainder has the sign of the divisor, SQL's that of the dividend."""
    remainder = left % right
    return pl.when((remainder != 0) & ((left < 0) != (right < 0))).then(remainder - right).otherwise(remainder)


def _float(operator: Operator, left: pl.Expr, right: pl.Expr) -> pl.Expr:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    if operator == "/":
        return left / right
    return _remainder(left, right)


def _decimal(operator: Operator, left: Value, right: Value, dtype: pl.Decimal, guard: Guard) -> Value:
    if operator in ("+", "-"):
        widest = decimal_type(dtype.scale, "decimal")
        a, b = guard(left.expr).cast(widest), right.expr.cast(widest)
        return Value(a + b if operator == "+" else a - b, widest)
    scale = max(_DIVISION_SCALE_MIN, dtype.scale) if operator == "/" else dtype.scale
    widest = decimal_type(scale, "decimal")
    a, b = guard(left.expr).cast(widest), right.expr.cast(widest)
    b = pl.when(b != 0).then(b)  # polars raises on a zero
    # rounded half away from zero at the result's scale
    return Value((a / b) if operator == "/" else _remainder(a, b), widest)


def _is_decimal_product(*values: Value) -> bool:
    """A literal with a fraction is a decimal next to a decimal; a float column makes both floats."""
    has_float = any(value.is_float and not value.is_fraction_literal for value in values)
    return not has_float and any(value.is_decimal for value in values)


def _decimal_product(left: Value, right: Value, guard: Guard) -> Value:
    """polars keeps the larger scale and rounds the product; the exact one has the sum of both scales."""
    where = f"{type_name(left.dtype)} * {type_name(right.dtype)}"
    dtype = decimal_type(scale_of(left) + scale_of(right), where)
    return Value(guard(convert(left, dtype).expr) * convert(right, dtype).expr, dtype)


def _is_temporal(value: Value) -> bool:
    return value.is_timestamp or value.is_interval or value.dtype == DATE


def _temporal(operator: Operator, left: Value, right: Value, guard: Guard) -> Value:
    if operator == "+" and left.is_interval and not right.is_interval:
        left, right = right, left
    if operator in ("+", "-") and right.is_interval:
        if left.is_interval:
            return _interval_sum(operator, left, right)
        if left.is_timestamp or left.dtype == DATE:
            return _shift(Value(guard(left.expr), left.dtype), right if operator == "+" else negate(right, guard))
    if operator == "-" and left.dtype == DATE and right.dtype == DATE:
        return Value((left.expr - right.expr).dt.total_days().cast(INT64), INT64)
    if operator == "-" and (left.is_timestamp or right.is_timestamp):
        (left, right), _ = unify((left, right), "timestamp - timestamp")
        return Value((left.expr - right.expr).cast(INTERVAL), INTERVAL)
    hint = "; write interval '5' minute" if any(value.is_number for value in (left, right)) else ""
    raise ExpressionError(f"{type_name(left.dtype)} {operator} {type_name(right.dtype)} is not defined{hint}")


def _shift(moment: Value, by: Value) -> Value:
    """A timestamp or date moved by an interval; a date stays a date under whole days."""
    span = by.constant
    if not isinstance(span, IntervalLiteral):
        return Value(bounded(moment.expr.cast(TIMESTAMP) + by.expr, TIMESTAMP), TIMESTAMP)
    resolution_us = _DAY_US if moment.dtype == DATE else 1000 if moment.dtype == TIMESTAMP_MS else 1
    if span.microseconds % resolution_us:
        moment = Value(moment.expr.cast(TIMESTAMP), TIMESTAMP)
    expr = moment.expr
    if span.months:
        expr = expr.dt.offset_by(f"{span.months}mo")  # the 31st becomes the last day of a shorter month
    if span.microseconds:
        unit: Literal["ms", "us"] = "ms" if moment.dtype == TIMESTAMP_MS else "us"
        expr = expr + pl.lit(timedelta(microseconds=span.microseconds), dtype=pl.Duration(unit))
    return Value(bounded(expr.cast(moment.dtype), moment.dtype), moment.dtype)


def _interval_sum(operator: Operator, left: Value, right: Value) -> Value:
    a, b = left.constant, right.constant
    if isinstance(a, IntervalLiteral) and isinstance(b, IntervalLiteral):
        sign = 1 if operator == "+" else -1
        return _interval(IntervalLiteral(a.months + sign * b.months, a.microseconds + sign * b.microseconds))
    return Value(left.expr + right.expr if operator == "+" else left.expr - right.expr, INTERVAL)


def _interval(span: IntervalLiteral) -> Value:
    if span.months and span.microseconds:
        raise ExpressionError("an interval of months and of a fixed time cannot be one; add them one after the other")
    if abs(span.months) > 12 * YEARS_MAX or abs(span.microseconds) > 366 * YEARS_MAX * _DAY_US:
        raise ExpressionError(f"an interval is at most {YEARS_MAX} years long")
    length = timedelta(microseconds=span.microseconds) if not span.months else None
    return Value(pl.lit(length, dtype=INTERVAL), INTERVAL, span)


def _hint(left: Value, right: Value) -> str:
    texts = [value.dtype == STRING for value in (left, right)]
    if all(texts):
        return "; text is joined with ||"
    return "; write cast(… as float64)" if any(texts) and (left.is_number or right.is_number) else ""


def as_float(value: Value) -> pl.Expr:
    return value.expr if value.dtype == FLOAT64 else value.expr.cast(FLOAT64)
