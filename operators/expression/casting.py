"""`cast`: the explicit conversions, and no others; a value that cannot be converted raises at run time.

For `try_cast` it is null instead. Numbers are cut toward zero on their way to an integer, as in Flink;
everything that does not fit the target raises.
"""

from __future__ import annotations

from typing import Final

import polars as pl
from sqlglot import exp

from operators.expression.bounds import bounded
from operators.expression.error import ExpressionError, near_name
from operators.expression.promotion import parse_date, parse_timestamp
from operators.expression.syntax import offset_of
from operators.expression.value import (
    BINARY,
    BOOLEAN,
    DATE,
    DECIMAL_PRECISION_MAX,
    FLOAT32,
    FLOAT64,
    STRING,
    TIMESTAMP,
    TIMESTAMP_MS,
    Value,
    literal,
    type_name,
)
from operators.types import TYPE_NAMES, UnknownType, parse_type

_SQL_TYPES: Final[dict[str, pl.DataType]] = {
    "tinyint": pl.Int8(),
    "smallint": pl.Int16(),
    "int": pl.Int32(),
    "bigint": pl.Int64(),
    "float": FLOAT32,
    "double": FLOAT64,
    "text": STRING,
    "varchar": STRING,
    "char": STRING,
    "nvarchar": STRING,
    "boolean": BOOLEAN,
    "binary": BINARY,
    "varbinary": BINARY,
    "date": DATE,
    "timestamp": TIMESTAMP,
    "timestamptz": TIMESTAMP,
    "timestampltz": TIMESTAMP,
    "timestampntz": TIMESTAMP,
    "datetime": TIMESTAMP,
}
_TRUE: Final = ("true", "t", "yes", "y", "1")
_FALSE: Final = ("false", "f", "no", "n", "0")


def target_type(node: exp.DataType) -> pl.DataType:
    """The type named in a cast: a name of the contract or a usual SQL one. Raises ExpressionError."""
    kind = node.args.get("kind")
    name = str(kind if kind is not None else node.this.value).lower()
    sizes = [int(size.name) for size in node.expressions if size.name.isdigit()]
    if name == "decimal":
        return _decimal(sizes)
    if name.startswith("timestamp") and name in _SQL_TYPES and sizes:
        if sizes[0] > 6:
            raise ExpressionError(f"timestamp({sizes[0]}): timestamps have at most 6 digits after the seconds")
        return TIMESTAMP_MS if sizes[0] <= 3 else TIMESTAMP
    if sizes or node.expressions:
        raise ExpressionError(f"{name}(…): a length is not supported; write cast(… as string)")
    if name in _SQL_TYPES:
        return _SQL_TYPES[name]
    try:
        return parse_type(name).dtype
    except UnknownType:
        raise ExpressionError(
            f"unknown type {name!r}",
            offset=offset_of(node),
            suggestion=near_name(name, (*_SQL_TYPES, *TYPE_NAMES)),
        ) from None


def cast(value: Value, dtype: pl.DataType, *, strict: bool = True) -> Value:
    """The value as `dtype`; a bad value raises a polars error when run, or becomes null if not strict."""
    if value.dtype == dtype:
        return Value(value.expr, dtype)
    if isinstance(value.constant, str) and strict and (dtype == DATE or isinstance(dtype, pl.Datetime)):
        return literal(parse_date(value.constant) if dtype == DATE else parse_timestamp(value.constant), dtype)
    expr = _conversion(value, dtype, strict)
    if expr is None:
        raise ExpressionError(f"cannot cast {type_name(value.dtype)} to {type_name(dtype)}{_hint(value, dtype)}")
    return Value(expr, dtype)


def text_to_timestamp(text: pl.Expr, dtype: pl.DataType, *, strict: bool) -> pl.Expr:
    """ISO-8601 with `T` or a space, date alone too, UTC unless it carries an offset."""
    assert isinstance(dtype, pl.Datetime)
    normal = (
        text.str.strip_chars()
        .str.replace(r"^(\d{4}-\d{2}-\d{2})$", "${1}T00:00:00")
        .str.replace(r"^(\d{4}-\d{2}-\d{2})[ t]", "${1}T")
        .str.replace(r"[Zz]$", "+00:00")
        .str.replace(r"(T\d{2}:\d{2})(\+\d{2}:\d{2}|-\d{2}:\d{2})?$", "${1}:00${2}")
        .str.replace(r"(T\d{2}:\d{2}:\d{2}(?:\.\d+)?)$", "${1}+00:00")
    )
    parsed = normal.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", strict=strict)
    return bounded(parsed.cast(dtype), dtype, strict=strict)


def to_text(value: Value) -> pl.Expr:
    """The value as text; timestamps as ISO-8601 with `Z`."""
    if isinstance(value.dtype, pl.Datetime):
        digits = 3 if value.dtype == TIMESTAMP_MS else 6
        return value.expr.dt.strftime(f"%Y-%m-%dT%H:%M:%S%.{digits}fZ")
    if value.dtype == DATE:
        return value.expr.dt.strftime("%Y-%m-%d")
    return value.expr.cast(STRING)


def _decimal(sizes: list[int]) -> pl.DataType:
    if not sizes:
        raise ExpressionError("decimal needs its precision and scale: write decimal(10,2)")
    precision, scale = sizes[0], sizes[1] if len(sizes) > 1 else 0
    if not (1 <= precision <= DECIMAL_PRECISION_MAX and scale <= precision):
        raise ExpressionError(f"decimal({precision},{scale}): precision is 1 to 38, scale at most the precision")
    return pl.Decimal(precision, scale)


def _conversion(value: Value, dtype: pl.DataType, strict: bool) -> pl.Expr | None:
    """The conversion's expression, or None where there is none between the two types."""
    to = Value(value.expr, dtype)
    plain = value.expr.cast(dtype, strict=strict)
    if value.is_null or (value.is_number and to.is_number):
        return plain
    if dtype == STRING and (value.is_number or value.is_timestamp or value.dtype in (BOOLEAN, DATE, BINARY)):
        return plain if value.dtype == BINARY else to_text(value)
    if value.dtype == STRING:
        return _from_text(value.expr, to, plain, strict)
    if (value.dtype == BOOLEAN and to.is_integer) or (value.is_integer and dtype == BOOLEAN):
        return plain
    if (value.is_timestamp or value.dtype == DATE) and (to.is_timestamp or dtype == DATE):
        return plain
    return None


def _from_text(text: pl.Expr, to: Value, plain: pl.Expr, strict: bool) -> pl.Expr | None:
    if to.is_number or to.dtype == BINARY:
        return plain
    if to.dtype == DATE:
        return bounded(text.str.to_date("%Y-%m-%d", strict=strict), DATE, strict=strict)
    if to.is_timestamp:
        return text_to_timestamp(text, to.dtype, strict=strict)
    if to.dtype == BOOLEAN:
        lower = text.str.to_lowercase()
        number = pl.when(lower.is_in(_TRUE)).then(pl.lit("1")).when(lower.is_in(_FALSE)).then(pl.lit("0"))
        # any other text becomes what is no number either, so that the strict conversion fails and names it
        return number.otherwise(pl.lit("not a boolean: ") + text).cast(pl.Int8, strict=strict).cast(BOOLEAN)
    return None


def _hint(value: Value, dtype: pl.DataType) -> str:
    if value.is_number and isinstance(dtype, pl.Datetime):
        return ": write to_timestamp(seconds) or epoch_ms(milliseconds)"
    if value.is_timestamp and dtype not in (DATE, STRING):
        return ": write epoch_ms(…) or extract(epoch from …)"
    return ""
