"""Function calls, casts, and the calls that have a syntax of their own."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final

from sqlglot import exp

from operators.expression.arithmetic import interval_literal
from operators.expression.casting import cast, target_type
from operators.expression.error import ExpressionError, near_name
from operators.expression.functions import FUNCTIONS, REFUSED, call_function
from operators.expression.functions.time import extract
from operators.expression.nodes.conditional import CONDITIONAL_FUNCTIONS
from operators.expression.nodes.handler import Handler
from operators.expression.value import INT64, Value, literal

if TYPE_CHECKING:
    from operators.expression.translator import Translator

AGGREGATES: Final = frozenset(
    (
        "count",
        "sum",
        "min",
        "max",
        "avg",
        "stddev",
        "stddev_samp",
        "stddev_pop",
        "variance",
        "var_samp",
        "var_pop",
        "first_value",
        "last_value",
        "median",
        "quantile_cont",
        "approx_count_distinct",
        "array_agg",
    )
)
_INTERVAL_US: Final = {
    "microsecond": 1,
    "millisecond": 1_000,
    "second": 1_000_000,
    "minute": 60_000_000,
    "hour": 3_600_000_000,
    "day": 86_400_000_000,
    "week": 604_800_000_000,
}
_INTERVAL_MONTHS: Final = {"month": 1, "quarter": 3, "year": 12}


def is_aggregate(node: exp.Expression) -> bool:
    """Whether it is a call of an aggregate, with or without `filter (where …)`."""
    call = node.this if isinstance(node, exp.Filter) else node
    return isinstance(call, exp.Anonymous) and str(call.this).lower() in AGGREGATES


def is_unknown_call(node: exp.Expression) -> bool:
    """Whether it calls something that nobody knows: it may be meant as a function or as an aggregate."""
    if not isinstance(node, exp.Anonymous) or is_aggregate(node):
        return False
    return str(node.this).lower() not in (*FUNCTIONS, *CONDITIONAL_FUNCTIONS, *REFUSED)


def _cast(translator: Translator, node: exp.Expression) -> Value:
    dtype = target_type(node.args["to"])
    value = translator.visit(node.this)
    guarded = Value(translator.guard(value.expr), value.dtype, value.constant)
    return cast(guarded, dtype, strict=not isinstance(node, exp.TryCast))


def _interval(translator: Translator, node: exp.Expression) -> Value:
    unit_node = node.args.get("unit")
    unit = unit_node.name.lower().removesuffix("s") if isinstance(unit_node, exp.Var) else ""
    try:
        amount = Decimal(node.this.name)
    except (InvalidOperation, AttributeError):
        raise ExpressionError("an interval is written interval '5' minute") from None
    if unit in _INTERVAL_MONTHS and amount == int(amount):
        return interval_literal(int(amount) * _INTERVAL_MONTHS[unit], 0)
    if unit in _INTERVAL_US and amount * _INTERVAL_US[unit] == int(amount * _INTERVAL_US[unit]):
        return interval_literal(0, int(amount * _INTERVAL_US[unit]))
    raise ExpressionError("an interval is written interval '5' minute")


def _extract(translator: Translator, node: exp.Expression) -> Value:
    return extract(node.this.name, translator.visit(node.expression))


def _position(translator: Translator, node: exp.Expression) -> Value:
    text, wanted = translator.visit(node.this), translator.visit(node.args["substr"])
    return call_function("strpos", [text, wanted], translator.guard)


def _substring(translator: Translator, node: exp.Expression) -> Value:
    start = node.args.get("start")
    length = node.args.get("length")
    args = [translator.visit(node.this), translator.visit(start) if start is not None else literal(1, INT64)]
    if length is not None:
        args.append(translator.visit(length))
    return call_function("substring", args, translator.guard)


def _trim(translator: Translator, node: exp.Expression) -> Value:
    name = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(str(node.args.get("position") or "").upper(), "trim")
    args = [translator.visit(node.this)]
    if (characters := node.args.get("expression")) is not None:
        args.append(translator.visit(characters))
    return call_function(name, args, translator.guard)


def _call(translator: Translator, node: exp.Expression) -> Value:
    name = str(node.this).lower()
    if name in REFUSED:
        raise ExpressionError(f"{name}(…) is not available: {REFUSED[name]}")
    if name in AGGREGATES:
        return translator.aggregate(node, name)
    if conditional := CONDITIONAL_FUNCTIONS.get(name):
        return conditional(translator, node)
    if name not in FUNCTIONS:
        near = near_name(name, (*FUNCTIONS, *CONDITIONAL_FUNCTIONS, *AGGREGATES))
        raise ExpressionError(f"unknown function {name!r}", suggestion=near)
    return call_function(name, [translator.visit(arg) for arg in node.expressions], translator.guard)


def _filter(translator: Translator, node: exp.Expression) -> Value:
    if not is_aggregate(node):
        raise ExpressionError("filter (where …) belongs to an aggregate")
    return translator.aggregate(node, str(node.this.this).lower())


def _clock(translator: Translator, node: exp.Expression) -> Value:
    name = node.sql().lower().removesuffix("()")
    raise ExpressionError(f"{name} is not available: {REFUSED.get(name, REFUSED['now'])}")


CALLS: Final[dict[type[exp.Expression], Handler]] = {
    exp.Cast: _cast,
    exp.TryCast: _cast,
    exp.Interval: _interval,
    exp.Extract: _extract,
    exp.StrPosition: _position,
    exp.Substring: _substring,
    exp.Trim: _trim,
    exp.Anonymous: _call,
    exp.Filter: _filter,
    exp.CurrentDate: _clock,
    exp.CurrentTime: _clock,
    exp.CurrentTimestamp: _clock,
}
