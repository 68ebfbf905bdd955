"""Every timestamp and date an expression makes lies in the years 1 to 9999, as in SQL.

Formats can write no others, polars aborts on some of them and wraps beyond.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Final

import polars as pl

from operators.expression.value import DATE, TIMESTAMP_MS

YEARS_MAX: Final = 9999
_EPOCH: Final = date(1970, 1, 1).toordinal()
_DAYS: Final = (date.min.toordinal() - _EPOCH, date.max.toordinal() - _EPOCH)
_SECONDS: Final = tuple(
    int(datetime(moment.year, moment.month, moment.day, tzinfo=UTC).timestamp()) for moment in (date.min, date.max)
)


def bounded(moment: pl.Expr, dtype: pl.DataType, *, strict: bool = True) -> pl.Expr:
    """`moment` (a date or timestamp of type `dtype`); out of bounds it raises when run, or is null if not strict."""
    physical = moment.to_physical()
    inside = physical.is_between(*_limits(dtype))
    if not strict:
        return pl.when(inside).then(moment)
    # a strict conversion is the only way for an expression to raise; its message shows the text
    failure = pl.when(~inside).then(pl.lit("outside the years 1 to 9999")).cast(pl.Int64)
    return pl.when(inside).then(physical.cast(pl.Int64)).otherwise(failure).cast(_physical(dtype)).cast(dtype)


def _limits(dtype: pl.DataType) -> tuple[int, int]:
    if dtype == DATE:
        return _DAYS
    unit = 1_000 if dtype == TIMESTAMP_MS else 1_000_000
    return _SECONDS[0] * unit, (_SECONDS[1] + 86_400) * unit - 1


def _physical(dtype: pl.DataType) -> pl.DataType:
    return pl.Int32() if dtype == DATE else pl.Int64()
