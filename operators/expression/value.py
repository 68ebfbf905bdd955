"""A compiled part of an expression: a polars expression that is known to give exactly one type."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Final

import polars as pl

from operators.types import name_of

INTEGERS: Final[tuple[pl.DataType, ...]] = (pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64())
NULL: Final = pl.Null()
BOOLEAN: Final = pl.Boolean()
INT64: Final = pl.Int64()
FLOAT32: Final = pl.Float32()
FLOAT64: Final = pl.Float64()
STRING: Final = pl.String()
BINARY: Final = pl.Binary()
DATE: Final = pl.Date()
TIMESTAMP: Final = pl.Datetime("us", "UTC")
TIMESTAMP_MS: Final = pl.Datetime("ms", "UTC")
INTERVAL: Final = pl.Duration("us")
DECIMAL_PRECISION_MAX: Final = 38
UNORDERED: Final = (pl.List, pl.Struct)


@dataclass(frozen=True, slots=True)
class IntervalLiteral:
    """`interval '…' unit`: months have no fixed length, so they are kept apart from microseconds."""

    months: int
    microseconds: int


Constant = bool | int | Decimal | str | date | datetime | IntervalLiteral


@dataclass(frozen=True, slots=True)
class Value:
    """`constant` is set for a literal as written, which may still take the type of what it meets."""

    expr: pl.Expr = field(compare=False)
    dtype: pl.DataType
    constant: Constant | None = None

    @property
    def is_integer(self) -> bool:
        return self.dtype in INTEGERS

    @property
    def is_float(self) -> bool:
        return self.dtype in (FLOAT32, FLOAT64)

    @property
    def is_decimal(self) -> bool:
        return isinstance(self.dtype, pl.Decimal)

    @property
    def is_number(self) -> bool:
        return self.is_integer or self.is_float or self.is_decimal

    @property
    def is_timestamp(self) -> bool:
        return isinstance(self.dtype, pl.Datetime)

    @property
    def is_interval(self) -> bool:
        return isinstance(self.dtype, pl.Duration)

    @property
    def is_null(self) -> bool:
        return self.dtype == NULL

    @property
    def is_integer_literal(self) -> bool:
        return isinstance(self.constant, int) and not isinstance(self.constant, bool)

    @property
    def is_fraction_literal(self) -> bool:
        return isinstance(self.constant, Decimal)


def literal(constant: Constant | None, dtype: pl.DataType) -> Value:
    """A constant of a type; None is SQL's null."""
    assert not isinstance(constant, IntervalLiteral)
    return Value(pl.lit(constant, dtype=dtype), dtype, constant)


def type_name(dtype: pl.DataType) -> str:
    """The type in the contract's words, and the two that only exist inside an expression."""
    if dtype == NULL:
        return "null"
    if isinstance(dtype, pl.Duration):
        return "interval"
    return name_of(dtype)
