"""`group_by` with less to do: columns that are the same in every row, and integer columns packed into one.

A batch mostly lies in one or two window slices, so grouping by (slice, key) is mostly grouping by key.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Final

import polars as pl

_PACK_ROWS_MIN: Final = 32_768  # below this the two extra passes cost more than they save
_PACKED: Final = "__packed"
_ALL: Final = "__all"


def group(frame: pl.DataFrame, by: Sequence[str], aggregations: Sequence[pl.Expr]) -> pl.DataFrame:
    """One row per distinct `by` (nulls are a value): `by`, then the aggregations. Any order of rows.

    Without `by` the whole frame is one group; an empty frame has none.
    """
    if not by:
        everything = frame.with_columns(pl.lit(0, dtype=pl.Int8).alias(_ALL))
        return everything.group_by(_ALL).agg(*aggregations).drop(_ALL)
    ranges = {name: limits for name in by if (limits := _range(frame.get_column(name))) is not None}
    constant = {name: low for name, (low, high) in ranges.items() if low == high}
    if len(constant) == len(by):
        del constant[by[0]]
    varying = [name for name in by if name not in constant]
    packs = len(varying) > 1 and frame.height >= _PACK_ROWS_MIN and all(name in ranges for name in varying)
    if packs and _fits([ranges[name] for name in varying]):
        grouped = _group_packed(frame, {name: ranges[name] for name in varying}, aggregations)
    else:
        grouped = frame.group_by(varying).agg(*aggregations)
    if not constant:
        return grouped
    restored = [pl.lit(value, dtype=frame.schema[name]).alias(name) for name, value in constant.items()]
    return grouped.with_columns(restored).select(*by, pl.exclude(by))


def _range(values: pl.Series) -> tuple[int, int] | None:
    """Smallest and largest of an integer column without nulls."""
    if not values.dtype.is_integer() or not len(values) or values.null_count():
        return None
    low, high = values.min(), values.max()
    assert isinstance(low, int)
    assert isinstance(high, int)
    return low, high


def _fits(ranges: Sequence[tuple[int, int]]) -> bool:
    return prod(high - low + 1 for low, high in ranges) < 2**62


def _group_packed(
    frame: pl.DataFrame, ranges: dict[str, tuple[int, int]], aggregations: Sequence[pl.Expr]
) -> pl.DataFrame:
    """Group by one int64 whose digits, in bases of the columns' widths, are the columns."""
    packed = pl.zeros(frame.height, dtype=pl.Int64, eager=True)
    for name, (low, high) in ranges.items():
        packed = packed * (high - low + 1) + (frame.get_column(name).cast(pl.Int64) - low)
    grouped = frame.with_columns(packed.alias(_PACKED)).group_by(_PACKED).agg(*aggregations)
    rest = grouped.get_column(_PACKED)
    columns: list[pl.Series] = []
    for name, (low, high) in reversed(ranges.items()):
        width = high - low + 1
        columns.append((rest % width + low).cast(frame.schema[name]).alias(name))
        rest = rest // width
    return pl.DataFrame(columns[::-1]).hstack(grouped.drop(_PACKED).get_columns())
