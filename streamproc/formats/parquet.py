"""Parquet tables: columns are found by name, and a type may differ where values keep their meaning
(a wider integer, another time unit, local time taken as UTC)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl
import pyarrow as pa

from operators.element import Schema
from operators.types import FieldType, name_of
from streamproc.formats.protocol import BadRecord, FormatError, RefusedRows
from streamproc.formats.wire import to_frame

_INTEGERS: Final = frozenset({"int8", "int16", "int32", "int64", "timestamp_s", "timestamp_ms", "timestamp_us"})


class ParquetDecoder:
    """Turns tables read from Parquet into the declared columns."""

    def __init__(self, fields: Mapping[str, FieldType], required: Sequence[str] = ()) -> None:
        self._fields = dict(fields)
        self._required = frozenset(required)

    @property
    def columns(self) -> list[str]:
        """The columns to read from a file."""
        return list(self._fields)

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """Columns of a decoded frame."""
        return {name: field.dtype for name, field in self._fields.items()}

    def check(self, schema: pa.Schema) -> None:
        """Raise `FormatError` naming the first column that a file's schema lacks or has in another type."""
        found = pl.DataFrame(schema.empty_table()).schema
        for name, field in self._fields.items():
            if name not in found:
                raise FormatError(f"column {name} is missing; the file has {', '.join(found)}")
            if not _fits(found[name], field):
                raise FormatError(f"column {name} is {name_of(found[name])}, declared {field}")

    def decode(self, table: pa.Table) -> tuple[pl.DataFrame, list[BadRecord]]:
        """The rows that fit, and the others by index (an integer out of range, an event time that is null)."""
        stored = [_plain(series, self._fields[series.name]) for series in pl.DataFrame(table.select(self.columns))]
        try:
            return to_frame(stored, self._fields, self._required), []
        except RefusedRows as refused:
            keep = pl.Series([True]).new_from_index(0, table.num_rows).scatter([bad.at for bad in refused.bad], False)
            return to_frame([series.filter(keep) for series in stored], self._fields, self._required), refused.bad


def _fits(stored: pl.DataType, field: FieldType) -> bool:
    if field.name == "list":
        return isinstance(stored, pl.List) and field.item is not None and _fits(stored.inner, field.item)  # type: ignore[arg-type]
    if field.name == "struct":
        members = {member.name: member.dtype for member in getattr(stored, "fields", ())}
        return bool(members) and all(n in members and _fits(members[n], f) for n, f in field.fields)
    if field.dtype.is_temporal() and type(stored) is type(field.dtype):
        return True
    if field.name in _INTEGERS:
        return stored.is_integer()
    if field.name in ("float32", "float64"):
        return stored.is_numeric() and not stored.is_decimal()
    if field.name == "decimal":
        return stored.is_integer() or stored.is_decimal()
    if field.name == "string":
        return isinstance(stored, pl.String | pl.Categorical | pl.Enum)
    return stored == field.dtype


def _plain(series: pl.Series, field: FieldType) -> pl.Series:
    """The stored series in a type from which the declared one follows by a cast."""
    if isinstance(series.dtype, pl.Datetime):
        utc = series.dt.replace_time_zone("UTC") if series.dtype.time_zone is None else series
        return utc.dt.convert_time_zone("UTC").cast(field.dtype)
    if field.name in ("list", "struct"):
        return series.cast(field.dtype)
    if field.name == "decimal" and series.dtype.is_integer():
        return series.cast(pl.String)
    return series


class ParquetEncoder:
    """Rows as an Arrow table in schema order."""

    def __init__(self, schema: Schema) -> None:
        self._columns = list(schema)
        self.schema: pa.Schema = pl.DataFrame(schema=schema).to_arrow(compat_level=_COMPATIBLE).schema

    def encode(self, frame: pl.DataFrame) -> pa.Table:
        """A table of `schema`; columns beyond it (hidden ones) are left out."""
        return frame.select(self._columns).to_arrow(compat_level=_COMPATIBLE).cast(self.schema)


_COMPATIBLE: Final = pl.CompatLevel.oldest()
