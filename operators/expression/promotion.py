"""Two values meet: the one type both become, without changing what either says.

A literal takes the type of what it meets where it fits (`int32 + 1` stays int32); a column is only
ever widened. Text and numbers never meet by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Final

import polars as pl

from operators.expression.error import ExpressionError
from operators.expression.value import (
    DATE,
    DECIMAL_PRECISION_MAX,
    FLOAT32,
    FLOAT64,
    INT64,
    INTEGERS,
    INTERVAL,
    NULL,
    STRING,
    TIMESTAMP,
    TIMESTAMP_MS,
    Value,
    literal,
    type_name,
)

_FLOAT32_EXACT: Final = 2**24  # every whole number up to it is a float32


def unify(values: Sequence[Value], where: str) -> tuple[list[Value], pl.DataType]:
    """The values converted to their common type. Raises ExpressionError naming `where`."""
    dtype = _common_type(values, where)
    return [convert(value, dtype) for value in values], dtype


def convert(value: Value, dtype: pl.DataType) -> Value:
    """The value as `dtype`, which `unify` found to hold it."""
    if value.dtype == dtype:
        return value
    if value.constant is not None and isinstance(dtype, (pl.Datetime, pl.Date)):
        return literal(_as_temporal(value.constant, dtype), dtype)
    if value.constant is not None and (value.is_integer_literal or value.is_fraction_literal):
        return _number_as(value.constant, dtype)
    return Value(value.expr.cast(dtype), dtype)


def scale_of(value: Value) -> int:
    """Digits after the point of an integer, a decimal or a literal with a fraction."""
    if isinstance(value.constant, Decimal):
        return fraction_digits(value.constant)
    return value.dtype.scale if isinstance(value.dtype, pl.Decimal) else 0


def fraction_digits(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)


def decimal_type(scale: int, where: str) -> pl.Decimal:
    """The widest decimal with `scale` digits after the point."""
    if scale > DECIMAL_PRECISION_MAX:
        raise ExpressionError(
            f"{where}: the result needs {scale} digits after the point, at most {DECIMAL_PRECISION_MAX} exist; "
            "cast one side to float64 or to a decimal of smaller scale"
        )
    return pl.Decimal(DECIMAL_PRECISION_MAX, scale)


def parse_timestamp(text: str) -> datetime:
    """ISO-8601, UTC unless it carries an offset. Raises ExpressionError."""
    try:
        parsed = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ExpressionError(f"{text!r} is not a timestamp: write 2026-01-31T12:00:00Z") from None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def parse_date(text: str) -> date:
    """`2026-01-31`. Raises ExpressionError."""
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise ExpressionError(f"{text!r} is not a date: write 2026-01-31") from None


def _common_type(values: Sequence[Value], where: str) -> pl.DataType:
    present = [value for value in values if not value.is_null]
    if not present:
        return NULL
    kinds = {value.dtype for value in present}
    if len(kinds) == 1 and not any(value.is_fraction_literal for value in present):
        return present[0].dtype
    if all(value.is_number for value in present):
        return _common_number(present, where)
    if temporal := _common_temporal(present):
        return temporal
    if all(value.is_interval for value in present):
        return INTERVAL
    names = list(dict.fromkeys(type_name(value.dtype) for value in present))
    hint = ""
    if any(value.is_number for value in present) and any(value.dtype == STRING for value in present):
        hint = "; write cast(… as float64) or cast(… as string)"
    raise ExpressionError(f"{where}: {' and '.join(names)} do not go together{hint}")


def _common_number(values: Sequence[Value], where: str) -> pl.DataType:
    columns = [value for value in values if value.constant is None]
    literals = [value for value in values if value.constant is not None]
    if not columns:
        return FLOAT64 if any(value.is_fraction_literal for value in literals) else INT64
    if any(value.is_float for value in columns):
        return _common_float(columns, literals)
    if any(value.is_decimal for value in columns):
        return decimal_type(max(scale_of(value) for value in values), where)
    if any(value.is_fraction_literal for value in literals):
        return FLOAT64
    return max((_narrowest(value) for value in values), key=INTEGERS.index)


def _common_float(columns: Sequence[Value], literals: Sequence[Value]) -> pl.DataType:
    narrow = all(value.dtype == FLOAT32 for value in columns) and all(
        isinstance(value.constant, int) and abs(value.constant) <= _FLOAT32_EXACT for value in literals
    )
    return FLOAT32 if narrow else FLOAT64


def _narrowest(value: Value) -> pl.DataType:
    if not isinstance(value.constant, int):
        return value.dtype
    for bits, dtype in zip((8, 16, 32), INTEGERS, strict=False):
        if -(2 ** (bits - 1)) <= value.constant < 2 ** (bits - 1):
            return dtype
    return INT64


def _common_temporal(values: Sequence[Value]) -> pl.DataType | None:
    """Timestamps, dates and text literals that are to be read as one of them."""
    columns = [value for value in values if not isinstance(value.constant, str)]
    if not columns or not all(value.is_timestamp or value.dtype == DATE for value in columns):
        return None
    if not all(value.dtype == STRING for value in values if isinstance(value.constant, str)):
        return None
    if any(value.is_timestamp for value in columns):
        only_ms = all(
            value.dtype in (TIMESTAMP_MS, DATE) if value.constant is None else _is_whole_ms(value.constant)
            for value in values
        )
        return TIMESTAMP_MS if only_ms else TIMESTAMP
    texts = [value.constant for value in values if isinstance(value.constant, str)]
    return DATE if all(len(text.strip()) == len("2026-01-31") for text in texts) else TIMESTAMP


def _is_whole_ms(constant: object) -> bool:
    moment = _as_temporal(constant, TIMESTAMP)
    return isinstance(moment, datetime) and moment.microsecond % 1000 == 0


def _as_temporal(constant: object, dtype: pl.DataType) -> date | datetime:
    if isinstance(constant, str):
        return parse_date(constant) if dtype == DATE else parse_timestamp(constant)
    if isinstance(constant, date) and not isinstance(constant, datetime) and dtype != DATE:
        return datetime(constant.year, constant.month, constant.day, tzinfo=UTC)
    assert isinstance(constant, date)
    return constant


def _number_as(constant: object, dtype: pl.DataType) -> Value:
    """A number literal written directly in the type it meets; no longer free to take another."""
    assert isinstance(constant, (int, Decimal))
    if isinstance(dtype, pl.Decimal):
        return Value(pl.lit(Decimal(constant), dtype=dtype), dtype)
    number = float(constant) if dtype in (FLOAT32, FLOAT64) else constant
    return Value(pl.lit(number, dtype=dtype), dtype)
