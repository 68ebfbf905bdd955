"""Columns that come with a type of their own (Parquet, Avro, Protobuf) as declared ones: a type may differ where
values keep their meaning (a wider integer, another time unit, local time taken as UTC, ISO-8601 and decimal texts).
"""

from __future__ import annotations

from typing import Final

import polars as pl

from operators.types import FieldType
from streamproc.formats.nested import map_items
from streamproc.formats.wire import wire_dtype

_INTEGERS: Final = frozenset({"int8", "int16", "int32", "int64", "timestamp_s", "timestamp_ms", "timestamp_us"})
_TEXTS: Final = frozenset({"string", "timestamp", "date", "decimal"})


def fits(stored: pl.DataType, field: FieldType, *, lacking: bool = False) -> bool:
    """Whether values of `stored` can be values of `field`. `lacking`: a struct may lack members, which are null."""
    if field.name == "list":
        assert field.item is not None
        return isinstance(stored, pl.List) and fits(stored.inner, field.item, lacking=lacking)  # type: ignore[arg-type]
    if field.name == "struct":
        members = {member.name: member.dtype for member in getattr(stored, "fields", ())}
        return isinstance(stored, pl.Struct) and all(
            fits(members[name], inner, lacking=lacking) if name in members else lacking for name, inner in field.fields
        )
    if field.dtype.is_temporal() and type(stored) is type(field.dtype):
        return True
    if isinstance(stored, pl.String):
        return field.name in _TEXTS
    if field.name in _INTEGERS:
        return stored.is_integer()
    if field.name in ("float32", "float64"):
        return stored.is_numeric() and not stored.is_decimal()
    if field.name == "decimal":
        return stored.is_integer() or stored.is_decimal()
    if field.name == "string":
        return isinstance(stored, pl.Categorical | pl.Enum)
    return stored == field.dtype


def conform(series: pl.Series, field: FieldType) -> pl.Series:
    """A series that `fits`, in a type that `wire.to_frame` makes the declared one; the same nulls."""
    if series.dtype == field.dtype:
        return series
    if field.name == "list":
        item = field.item
        assert item is not None
        return map_items(series, lambda values: conform(values, item))
    if field.name == "struct":
        return _conform_struct(series, field)
    if isinstance(series.dtype, pl.Datetime):
        utc = series.dt.replace_time_zone("UTC") if series.dtype.time_zone is None else series
        return utc.dt.convert_time_zone("UTC").cast(field.dtype)
    if field.name == "decimal" and series.dtype.is_integer():
        return series.cast(pl.String)
    return series


def _conform_struct(series: pl.Series, field: FieldType) -> pl.Series:
    there = {member.name for member in series.dtype.fields}  # type: ignore[attr-defined]
    members = [
        conform(series.struct.field(name), inner).alias(name)
        if name in there
        else pl.repeat(None, len(series), dtype=wire_dtype(inner), eager=True).alias(name)
        for name, inner in field.fields
    ]
    built = pl.DataFrame(members).to_struct(series.name)
    if series.null_count() == 0:
        return built
    return built.zip_with(series.is_not_null(), pl.repeat(None, len(series), dtype=built.dtype, eager=True))
