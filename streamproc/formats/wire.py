"""Between a field on the wire and its column: strict both ways, null only where the wire had null.

On the wire `timestamp`, `date`, `bytes` and `decimal` are texts, the other timestamps are integers. The
texts are parsed by Arrow's casts, which take ISO-8601 and exact decimals and nothing looser.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

import polars as pl
import pyarrow as pa

from operators.types import FieldType
from streamproc.formats.nested import map_items, map_members
from streamproc.formats.protocol import BadRecord, RefusedRows

_MS_MIN: Final = -62_135_596_800_000  # 0001-01-01T00:00:00Z
_MS_MAX: Final = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z
_EPOCH_UNITS: Final = {  # declared type → (least, greatest, factor to the column's unit, the unit)
    "timestamp_s": (_MS_MIN // 1000, _MS_MAX // 1000, 1000, "ms"),
    "timestamp_ms": (_MS_MIN, _MS_MAX, 1, "ms"),
    "timestamp_us": (_MS_MIN * 1000, _MS_MAX * 1000 + 999, 1, "us"),
}
_TEXTS: Final = frozenset({"timestamp", "date", "bytes", "decimal"})
_ZONE: Final = r"[T ].*(?:Z|[+-]\d\d(?::?\d\d)?)$"
_PLAIN_WIRE: Final[dict[str, pl.DataType]] = {
    "boolean": pl.Boolean(),
    "int8": pl.Int64(),
    "int16": pl.Int64(),
    "int32": pl.Int64(),
    "int64": pl.Int64(),
    "float32": pl.Float64(),
    "float64": pl.Float64(),
    "string": pl.String(),
}


class UnfitNested(ValueError):
    """A value inside a list or struct does not fit its type; which row is not known."""


def wire_dtype(field: FieldType, text: pl.DataType | None = None) -> pl.DataType:
    """The polars type to read this field as; `text` replaces String inside lists and structs."""
    if field.name == "list":
        assert field.item is not None
        return pl.List(_inner(field.item, text))
    if field.name == "struct":
        return pl.Struct([pl.Field(name, _inner(inner, text)) for name, inner in field.fields])
    if field.name in _EPOCH_UNITS:
        return pl.Int64()
    return pl.String() if field.name in _TEXTS else _PLAIN_WIRE[field.name]


def _inner(field: FieldType, text: pl.DataType | None) -> pl.DataType:
    dtype = wire_dtype(field, text)
    return text if text is not None and dtype == pl.String() else dtype


def to_column(series: pl.Series, field: FieldType) -> pl.Series:
    """A wire series as the declared column; null where a value does not fit (compare null counts).

    Raises `UnfitNested` when the value that does not fit is inside a list or struct.
    """
    if series.dtype == field.dtype:
        return series
    if field.name == "list":
        item = field.item
        assert item is not None
        return map_items(series, lambda values: _whole(values, item))
    if field.name == "struct":
        inner = dict(field.fields)
        return map_members(series, lambda name, member: _whole(member, inner[name]))
    if field.name in _EPOCH_UNITS:
        return _from_epoch(series, field.name)
    return _PARSERS.get(field.name, _cast)(series, field)


def to_frame(wire: Iterable[pl.Series], fields: Mapping[str, FieldType], required: Collection[str]) -> pl.DataFrame:
    """Wire series as the declared columns. `RefusedRows` names the rows with a value that does not fit
    its column, or without a required one; `UnfitNested` says there is one inside a list or struct."""
    columns: list[pl.Series] = []
    bad: dict[int, str] = {}
    for series in wire:
        name, field = series.name, fields[series.name]
        column = to_column(series, field)
        if column.null_count() != series.null_count():
            for index in (column.is_null() & series.is_not_null()).arg_true().to_list():
                bad.setdefault(index, f"{name}: {_shown(series[index])} does not fit {field}")
        if name in required and series.null_count():
            for index in series.is_null().arg_true().to_list():
                bad.setdefault(index, f"{name} is missing: the event time is read from it")
        columns.append(column)
    if bad:
        raise RefusedRows([BadRecord(index, message) for index, message in sorted(bad.items())])
    return pl.DataFrame(columns)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _whole(series: pl.Series, field: FieldType) -> pl.Series:
    column = to_column(series, field)
    if column.null_count() != series.null_count():
        raise UnfitNested(f"a value does not fit {field}")
    return column


def _from_epoch(series: pl.Series, name: str) -> pl.Series:
    least, greatest, factor, unit = _EPOCH_UNITS[name]
    numbers = series.cast(pl.Int64, strict=False)
    low, high = numbers.min(), numbers.max()
    if low is not None and (low < least or high > greatest):  # type: ignore[operator]
        numbers = numbers.set(~numbers.is_between(least, greatest), None)
    if factor != 1:
        numbers = numbers * factor
    return numbers.cast(pl.Datetime(unit, "UTC"))  # type: ignore[arg-type]


def _cast(series: pl.Series, field: FieldType) -> pl.Series:
    column = series.cast(field.dtype, strict=False)
    if field.name != "float32" or series.dtype != pl.Float64:
        return column
    overflown = column.is_infinite() & series.is_finite()
    return column.set(overflown, None) if overflown.any() else column


def _bytes(series: pl.Series, field: FieldType) -> pl.Series:
    return series.str.decode("base64", strict=False)


def _decimal(series: pl.Series, field: FieldType) -> pl.Series:
    return cast_texts(series, pa.decimal128(field.precision, field.scale)).cast(field.dtype)


def _date(series: pl.Series, field: FieldType) -> pl.Series:
    return cast_texts(series, pa.date32())


def _timestamp(series: pl.Series, field: FieldType) -> pl.Series:
    """ISO-8601 text: date and time with `T` or a space; UTC where no offset is given; at most µs kept."""
    arrow = series.rechunk().to_arrow()
    for zone in ("UTC", None):  # all with an offset, or all without: the two usual cases
        try:
            parsed = pl.Series(series.name, arrow.cast(pa.timestamp("us", zone)))
        except pa.ArrowInvalid:
            continue
        return parsed if zone else parsed.dt.replace_time_zone("UTC")
    text = pl.col(series.name)
    normal = text.str.replace(r"(\.\d{6})\d+", "${1}")
    normal = (
        pl.when(text.str.contains(_ZONE))
        .then(normal)
        .otherwise(normal + pl.when(text.str.len_bytes() == 10).then(pl.lit("T00Z")).otherwise(pl.lit("Z")))
    )
    return cast_texts(series.to_frame().select(normal.alias(series.name)).to_series(), pa.timestamp("us", "UTC"))


_PARSERS: Final[dict[str, Callable[[pl.Series, FieldType], pl.Series]]] = {
    "bytes": _bytes,
    "decimal": _decimal,
    "date": _date,
    "timestamp": _timestamp,
}


def cast_texts(series: pl.Series, target: pa.DataType) -> pl.Series:
    """Arrow's strict cast; null where a text cannot be read. Halves the batch to find those."""
    arrow = series.rechunk().to_arrow()

    def cast(start: int, length: int) -> list[pa.Array]:
        piece = arrow.slice(start, length)
        try:
            return [piece.cast(target)]
        except pa.ArrowInvalid:
            if length == 1:
                return [pa.nulls(1, target)]
            half = length // 2
            return cast(start, half) + cast(start + half, length - half)

    return pl.Series(series.name, pa.chunked_array(cast(0, len(arrow)), target))
