"""Numeric functions. Out of a function's domain (`sqrt(-1)`, `ln(0)`) is NaN or infinite, as IEEE says."""

from __future__ import annotations

import math
from collections.abc import Callable

import polars as pl

from operators.expression.arithmetic import arithmetic, as_float, checked
from operators.expression.error import ExpressionError
from operators.expression.functions.registry import Call, function
from operators.expression.value import DECIMAL_PRECISION_MAX, FLOAT64, Value


@function("number", "abs")
def _abs(call: Call) -> Value:
    value = call.args[0]
    if value.is_integer:
        return Value(checked(value.expr, value.dtype, lambda wide: wide.abs(), call.guard), value.dtype)
    return Value(value.expr.abs(), value.dtype)


@function("number", "ceil", "ceiling")
def _ceil(call: Call) -> Value:
    return _whole(call.args[0], lambda expr: expr.ceil())


@function("number", "floor")
def _floor(call: Call) -> Value:
    return _whole(call.args[0], lambda expr: expr.floor())


@function("number, ['int']", "round")
def _round(call: Call) -> Value:
    """Half away from zero, as in SQL (polars and Python round half to even)."""
    value, digits = call.args[0], call.integer(1, 0)
    if digits < 0:
        raise ExpressionError("round: the number of digits cannot be negative")
    if value.is_integer:
        return Value(value.expr, value.dtype)
    if isinstance(value.dtype, pl.Decimal) and digits >= value.dtype.scale:
        return Value(value.expr, value.dtype)
    dtype = _one_digit_more(value.dtype)
    return Value(value.expr.cast(dtype).round(digits, mode="half_away_from_zero").cast(dtype), dtype)


@function("number", "sign")
def _sign(call: Call) -> Value:
    value = call.args[0]
    return Value(value.expr.sign().cast(value.dtype), value.dtype)


@function("number", "sqrt")
def _sqrt(call: Call) -> Value:
    return Value(as_float(call.args[0]).sqrt(), FLOAT64)


@function("number, number", "power", "pow")
def _power(call: Call) -> Value:
    return Value(as_float(call.args[0]).pow(as_float(call.args[1])), FLOAT64)


@function("number", "exp")
def _exp(call: Call) -> Value:
    return Value(as_float(call.args[0]).exp(), FLOAT64)


@function("number", "ln")
def _ln(call: Call) -> Value:
    return Value(as_float(call.args[0]).log(), FLOAT64)


@function("number", "log10")
def _log10(call: Call) -> Value:
    return _log(call, 10.0)


@function("number", "log2")
def _log2(call: Call) -> Value:
    return _log(call, 2.0)


def _register_angles() -> None:
    """`sin(x)` and so on, in radians."""
    for name in (
        "sin",
        "cos",
        "tan",
        "cot",
        "arcsin",
        "arccos",
        "arctan",
        "sinh",
        "cosh",
        "tanh",
        "degrees",
        "radians",
    ):
        function("number", name.replace("arc", "a"))(
            lambda call, name=name: Value(getattr(as_float(call.args[0]), name)(), FLOAT64)  # type: ignore[misc]
        )


_register_angles()


@function("", "pi")
def _pi(call: Call) -> Value:
    return Value(pl.lit(math.pi), FLOAT64)


@function("number, number", "mod")
def _mod(call: Call) -> Value:
    return arithmetic("%", call.args[0], call.args[1], call.guard)


def _whole(value: Value, cut: Callable[[pl.Expr], pl.Expr]) -> Value:
    if value.is_integer:
        return Value(value.expr, value.dtype)
    dtype = _one_digit_more(value.dtype)
    return Value(cut(value.expr.cast(dtype)).cast(dtype), dtype)


def _one_digit_more(dtype: pl.DataType) -> pl.DataType:
    """9.95 rounds to 10.0: a decimal may need one digit more."""
    if isinstance(dtype, pl.Decimal):
        return pl.Decimal(min(dtype.precision + 1, DECIMAL_PRECISION_MAX), dtype.scale)
    return dtype


def _log(call: Call, base: float) -> Value:
    """Exact for whole powers of the base, which a quotient of logarithms is not (`log10(1000)`)."""
    x = as_float(call.args[0])
    quotient = x.log(base)
    nearest = quotient.round()
    return Value(pl.when(pl.lit(base).pow(nearest) == x).then(nearest).otherwise(quotient), FLOAT64)
