"""Functions of timestamps and dates; everything is UTC. Parts and epochs are int64, rounded down."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import polars as pl

from operators.expression.bounds import bounded
from operators.expression.casting import text_to_timestamp
from operators.expression.error import ExpressionError, near_name
from operators.expression.functions.registry import Call, function
from operators.expression.value import INT64, STRING, TIMESTAMP, TIMESTAMP_MS, Value, type_name

_TRUNCATE: Final = {
    "millisecond": "1ms",
    "second": "1s",
    "minute": "1m",
    "hour": "1h",
    "day": "1d",
    "week": "1w",  # begins on Monday
    "month": "1mo",
    "quarter": "1q",
    "year": "1y",
}
_PARTS: Final[dict[str, Callable[[pl.Expr], pl.Expr]]] = {
    "year": lambda ts: ts.dt.year(),
    "isoyear": lambda ts: ts.dt.iso_year(),
    "quarter": lambda ts: ts.dt.quarter(),
    "month": lambda ts: ts.dt.month(),
    "week": lambda ts: ts.dt.week(),
    "day": lambda ts: ts.dt.day(),
    "dow": lambda ts: ts.dt.weekday() % 7 + 1,  # Sunday is 1, as Flink counts
    "isodow": lambda ts: ts.dt.weekday(),  # Monday is 1
    "doy": lambda ts: ts.dt.ordinal_day(),
    "hour": lambda ts: ts.dt.hour(),
    "minute": lambda ts: ts.dt.minute(),
    "second": lambda ts: ts.dt.second(),
    "millisecond": lambda ts: ts.dt.millisecond(),
    "microsecond": lambda ts: ts.dt.microsecond(),
    "epoch": lambda ts: ts.dt.timestamp("us") // 1_000_000,
}
_PLURALS: Final = {unit + "s": unit for unit in (*_PARTS, *_TRUNCATE)}
_JAVA_PATTERN: Final = (
    ("yyyy", "%Y"),
    ("yy", "%y"),
    ("MMMM", "%B"),
    ("MMM", "%b"),
    ("MM", "%m"),
    ("M", "%-m"),
    ("dd", "%d"),
    ("d", "%-d"),
    ("DDD", "%j"),
    ("EEEE", "%A"),
    ("EEE", "%a"),
    ("HH", "%H"),
    ("H", "%-H"),
    ("hh", "%I"),
    ("h", "%-I"),
    ("mm", "%M"),
    ("m", "%-M"),
    ("ss", "%S"),
    ("s", "%-S"),
    ("SSSSSS", "%6f"),
    ("SSS", "%3f"),
    ("a", "%p"),
)


def extract(unit: str, moment: Value) -> Value:
    """`extract(unit from moment)`; of an interval only the epoch."""
    part = _unit(unit, _PARTS)
    if moment.is_interval:
        if part != "epoch":
            raise ExpressionError("only the epoch (seconds) can be extracted from an interval")
        return Value(moment.expr.dt.total_microseconds() // 1_000_000, INT64)
    if moment.dtype == pl.Date():
        moment = Value(moment.expr.cast(TIMESTAMP), TIMESTAMP)
    if not moment.is_timestamp:
        raise ExpressionError(f"extract takes a timestamp, a date or an interval, not {type_name(moment.dtype)}")
    return Value(_PARTS[part](moment.expr).cast(INT64), INT64)


@function("'text', timestamp", "date_part", "datepart")
def _date_part(call: Call) -> Value:
    return extract(call.text(0), call.args[1])


@function("'text', timestamp", "date_trunc")
def _date_trunc(call: Call) -> Value:
    return Value(call[1].dt.truncate(_TRUNCATE[_unit(call.text(0), _TRUNCATE)]), call.args[1].dtype)


@function("timestamp, 'text'", "strftime")
def _strftime(call: Call) -> Value:
    return _format(call[0], call.text(1))


@function("timestamp, 'text'", "date_format")
def _date_format(call: Call) -> Value:
    """The pattern as in Flink: `yyyy-MM-dd HH:mm:ss`."""
    return _format(call[0], _strftime_pattern(call.text(1)))


@function("any", "to_timestamp")
def _to_timestamp(call: Call) -> Value:
    """Seconds since the epoch (a float may hold a fraction, to the microsecond), or ISO-8601 text."""
    value = call.args[0]
    if value.dtype == STRING:
        return Value(text_to_timestamp(call.guard(value.expr), TIMESTAMP, strict=True), TIMESTAMP)
    if value.is_integer:
        micros = (call.guard(value.expr).cast(pl.Int128) * 1_000_000).cast(INT64)
        return Value(bounded(micros.cast(TIMESTAMP), TIMESTAMP), TIMESTAMP)
    if value.is_number:
        micros = (call.guard(value.expr).cast(pl.Float64) * 1e6).round().cast(INT64)
        return Value(bounded(micros.cast(TIMESTAMP), TIMESTAMP), TIMESTAMP)
    raise ExpressionError(f"to_timestamp takes seconds since the epoch or text, not {type_name(value.dtype)}")


@function("text, 'text'", "parse_timestamp")
def _parse_timestamp(call: Call) -> Value:
    """Text in a pattern like `dd.MM.yyyy HH:mm`; null where it is none."""
    pattern = _strftime_pattern(call.text(1))
    try:
        pl.Series([""]).str.to_datetime(pattern, strict=False)
    except pl.exceptions.PolarsError:
        raise ExpressionError(f"{call.text(1)!r} does not tell a whole moment") from None
    return Value(call[0].str.to_datetime(pattern, time_unit="ms", strict=False, time_zone="UTC"), TIMESTAMP_MS)


@function("any", "epoch_ms")
def _epoch_ms(call: Call) -> Value:
    """Milliseconds since the epoch of a timestamp; given an integer, the other way round."""
    return _epoch(call, "ms", TIMESTAMP_MS)


@function("any", "epoch_us")
def _epoch_us(call: Call) -> Value:
    return _epoch(call, "us", TIMESTAMP)


@function("timestamp", "epoch")
def _epoch_s(call: Call) -> Value:
    return extract("epoch", call.args[0])


def _epoch(call: Call, unit: str, dtype: pl.DataType) -> Value:
    value = call.args[0]
    if value.is_integer:
        return Value(bounded(call.guard(value.expr).cast(INT64).cast(dtype), dtype), dtype)
    moment = value.expr.cast(TIMESTAMP) if value.dtype == pl.Date() else value.expr
    if not (value.is_timestamp or value.dtype == pl.Date()):
        raise ExpressionError(f"{call.name} takes a timestamp or an integer, not {type_name(value.dtype)}")
    micros = moment.dt.timestamp("us")
    return Value(moment.cast(dtype).cast(INT64) if unit == "us" else micros // 1000, INT64)


def _register_parts() -> None:
    """`year(ts)` and so on."""
    for name, unit in (
        *((unit, unit) for unit in ("year", "quarter", "month", "week", "day", "hour", "minute", "second")),
        ("dayofmonth", "day"),
        ("dayofyear", "doy"),
        ("isodow", "isodow"),
    ):
        function("timestamp", name)(lambda call, unit=unit: extract(unit, call.args[0]))  # type: ignore[misc]


_register_parts()


def _unit(name: str, units: dict[str, object] | dict[str, str] | dict[str, Callable[[pl.Expr], pl.Expr]]) -> str:
    lower = name.strip().lower()
    unit = _PLURALS.get(lower, lower)
    if unit not in units:
        raise ExpressionError(f"unknown unit of time {name!r}", suggestion=near_name(name, units))
    return unit


def _format(moment: pl.Expr, pattern: str) -> Value:
    try:
        pl.Series([datetime(2026, 1, 1, tzinfo=UTC)]).dt.strftime(pattern)
    except pl.exceptions.PolarsError:
        raise ExpressionError(f"{pattern!r} is not a format of strftime") from None
    return Value(moment.dt.strftime(pattern), STRING)


def _strftime_pattern(java: str) -> str:
    result, rest = "", java
    while rest:
        if rest[0] == "'":
            quoted, closed, rest = rest[1:].partition("'")
            if not closed:
                raise ExpressionError(f"date_format: a quote in {java!r} is not closed")
            result += (quoted or "'").replace("%", "%%")
            continue
        found = next(((letters, code) for letters, code in _JAVA_PATTERN if rest.startswith(letters)), None)
        if found is None and rest[0].isalpha():
            raise ExpressionError(f"date_format: {rest[0]!r} in {java!r} is not supported; strftime knows more")
        letters, code = found or (rest[0], rest[0].replace("%", "%%"))
        result, rest = result + code, rest[len(letters) :]
    return result
