"""Applies a function to everything inside a list or struct column at once, keeping nulls and lengths."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl
import pyarrow as pa


def map_items(series: pl.Series, convert: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """A list column with all its items passed through `convert`, which keeps their number and order."""
    lengths = series.list.len().fill_null(0).cast(pl.Int64).to_numpy()
    offsets = np.concatenate([np.zeros(1, np.int64), lengths.cumsum(dtype=np.int64)])
    absent = np.append(series.is_null().to_numpy(), False)
    items = convert(pl.Series(series.name, series.rechunk().to_arrow().flatten(), dtype=series.dtype.inner))  # type: ignore[attr-defined]
    rebuilt = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64(), mask=absent), items.rechunk().to_arrow())
    return pl.Series(series.name, rebuilt, dtype=pl.List(items.dtype))


def map_members(series: pl.Series, convert: Callable[[str, pl.Series], pl.Series]) -> pl.Series:
    """A struct column with each member, given its name, passed through `convert`."""
    names = [field.name for field in series.dtype.fields]  # type: ignore[attr-defined]
    rebuilt = pl.DataFrame([convert(name, series.struct.field(name)).alias(name) for name in names])
    built = rebuilt.to_struct(series.name)
    if series.null_count() == 0:
        return built
    absent = pl.Series(series.name, [None], dtype=built.dtype).new_from_index(0, len(series))
    return built.zip_with(series.is_not_null(), absent)
